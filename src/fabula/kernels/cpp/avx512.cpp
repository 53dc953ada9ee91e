// The kernels for avx512.
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "kernels.h"

namespace fabula {
namespace avx512 {
#define FABULA_LANES_16 1
#include "lanes_avx512.h"
#include "kernels_of.h"
}  // namespace avx512

const Kernels avx512_kernels = avx512::table;
}  // namespace fabula
