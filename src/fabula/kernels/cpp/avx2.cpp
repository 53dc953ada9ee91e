// The kernels for avx2.
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "kernels.h"

namespace fabula {
namespace avx2 {
#include "lanes_avx2.h"
#include "kernels_of.h"
}  // namespace avx2

const Kernels avx2_kernels = avx2::table;
}  // namespace fabula
