// The kernels for portable.
#include <algorithm>
#include <cmath>
#include <functional>
#include <type_traits>
#include <vector>

#include "kernels.h"

namespace fabula {
namespace portable {
#include "lanes_portable.h"
#include "kernels_of.h"
}  // namespace portable

const Kernels portable_kernels = portable::table;
}  // namespace fabula
