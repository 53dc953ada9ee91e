// Eight lanes: AVX2 with FMA and F16C.
constexpr int W = 8;
using F = __m256;
using I = __m256i;
using B = __m256i;  // 4 * W bytes
using Mask = __m256;

static inline F load(const float* p) { return _mm256_loadu_ps(p); }
static inline void store(float* p, F x) { _mm256_storeu_ps(p, x); }
static inline __m256i first_lanes(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
static inline F load_part(const float* p, int n) { return _mm256_maskload_ps(p, first_lanes(n)); }
static inline void store_part(float* p, F x, int n) { _mm256_maskstore_ps(p, first_lanes(n), x); }
static inline F splat(float x) { return _mm256_set1_ps(x); }
static inline F add(F a, F b) { return _mm256_add_ps(a, b); }
static inline F sub(F a, F b) { return _mm256_sub_ps(a, b); }
static inline F mul(F a, F b) { return _mm256_mul_ps(a, b); }
static inline F div(F a, F b) { return _mm256_div_ps(a, b); }
static inline F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
static inline F maximum(F a, F b) { return _mm256_max_ps(a, b); }
static inline F minimum(F a, F b) { return _mm256_min_ps(a, b); }
static inline F absolute(F a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
static inline F square_root(F a) { return _mm256_sqrt_ps(a); }
static inline F nearest(F a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
static inline F power_of_two(F whole) {
  __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(whole), _mm256_set1_epi32(127));
  exponent = _mm256_max_epi32(exponent, _mm256_setzero_si256());
  return _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23));
}
static inline Mask less(F a, F b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
static inline F choose(Mask m, F yes, F no) { return _mm256_blendv_ps(no, yes, m); }
static inline F load_half(const uint16_t* p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p)); }
static inline void store_half(uint16_t* p, F x) {
  _mm_storeu_si128((__m128i*)p, _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
static inline F load_brain(const uint16_t* p) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p)), 16));
}
static inline float sum(F a) {
  __m128 x = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  x = _mm_add_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}
static inline float largest(F a) {
  __m128 x = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  x = _mm_max_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}

static inline I splat_int(int32_t x) { return _mm256_set1_epi32(x); }
template <int N> static inline I shift_left(I a) { return _mm256_slli_epi32(a, N); }
static inline F to_float(I a) { return _mm256_cvtepi32_ps(a); }
static inline I load_int(const int32_t* p) { return _mm256_loadu_si256((const __m256i*)p); }
static inline I add(I a, I b) { return _mm256_add_epi32(a, b); }
static inline I exclusive_or(I a, I b) { return _mm256_xor_si256(a, b); }
static inline I both(I a, I b) { return _mm256_and_si256(a, b); }
template <int N> static inline I shift_right(I a) { return _mm256_srli_epi32(a, N); }
template <int N> static inline I rotate(I a) { return _mm256_or_si256(_mm256_slli_epi32(a, N), _mm256_srli_epi32(a, 32 - N)); }
static inline I bits_of(F a) { return _mm256_castps_si256(a); }
static inline F float_of_bits(I a) { return _mm256_castsi256_ps(a); }
static inline void store_bytes(int8_t* p, F whole) {
  __m256i x = _mm256_cvtps_epi32(whole);
  __m128i y = _mm_packs_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
  _mm_storel_epi64((__m128i*)p, _mm_packs_epi16(y, y));
}
static inline int32_t sum_of_16(const int8_t* p) {
  __m128i offset = _mm_xor_si128(_mm_loadu_si128((const __m128i*)p), _mm_set1_epi8(-128));
  __m128i halves = _mm_sad_epu8(offset, _mm_setzero_si128());
  return _mm_cvtsi128_si32(halves) + _mm_extract_epi32(halves, 2) - 16 * 128;
}
static inline I load_byte_ints(const uint8_t* p) { return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)p)); }
static inline B load_bytes(const uint8_t* p) { return _mm256_loadu_si256((const __m256i*)p); }
static inline B low_nibble(B a) { return _mm256_and_si256(a, _mm256_set1_epi8(0x0f)); }
static inline B high_nibble(B a) { return _mm256_and_si256(_mm256_srli_epi16(a, 4), _mm256_set1_epi8(0x0f)); }
template <int N, int bits> static inline B with_high_bits(B low, B planes) {
  B moved = N >= 0 ? _mm256_slli_epi16(planes, N > 0 ? N : 0) : _mm256_srli_epi16(planes, N < 0 ? -N : 0);
  return _mm256_or_si256(low, _mm256_and_si256(moved, _mm256_set1_epi8(bits)));
}
static inline __m256i broadcast_four(const int8_t* q) {
  int32_t four;
  __builtin_memcpy(&four, q, 4);
  return _mm256_set1_epi32(four);
}

// 8-bit codes are taken less 128, which halves them: the sum of two magnitudes times q with its sign fits in 16 bits.
constexpr bool kCentersBytes = true;
template <int count, int M> static inline void centered_dots(I (&totals)[M], const B* codes, const int8_t* const* q, int64_t at) {
  for (int g = 0; g < count; g++) {
    __m256i code = _mm256_xor_si256(codes[g], _mm256_set1_epi8(-128)), magnitude = _mm256_abs_epi8(code);
#pragma GCC unroll 4
    for (int m = 0; m < M; m++) {
      __m256i pairs = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(broadcast_four(q[m] + at + 4 * g), code));
      totals[m] = _mm256_add_epi32(totals[m], _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }
  }
}

// Each lane's start plus the dot products of its four unsigned bytes in each of `count` vectors with q's signed bytes.
// A sum of two products has at most bits + 8 bits: as many as fit are added before they are widened.
template <int bits, int count> static inline I dot(I start, const B* codes, const int8_t* q) {
  static_assert(bits < 8, "products of 8-bit codes do not fit");
  constexpr int fit = bits == 4 ? 8 : bits == 5 ? 4 : 2;
  for (int first = 0; first < count; first += fit) {
    __m256i pairs = _mm256_maddubs_epi16(codes[first], broadcast_four(q + 4 * first));
    for (int g = first + 1; g < first + fit && g < count; g++)
      pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(codes[g], broadcast_four(q + 4 * g)));
    start = _mm256_add_epi32(start, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }
  return start;
}
// That for M rows of q.
template <int bits, int count, int M> static inline void dots(I (&totals)[M], const B* codes, const int8_t* const* q, int64_t at) {
  if constexpr (bits == 8) {
    centered_dots<count>(totals, codes, q, at);
  } else {
    for (int m = 0; m < M; m++) totals[m] = dot<bits, count>(totals[m], codes, q[m] + at);
  }
}
