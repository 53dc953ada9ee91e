// Sixteen lanes: AVX-512 with VNNI.
constexpr int W = 16;
using F = __m512;
using I = __m512i;
using B = __m512i;  // 4 * W bytes
using Mask = __mmask16;

static inline F load(const float* p) { return _mm512_loadu_ps(p); }
static inline void store(float* p, F x) { _mm512_storeu_ps(p, x); }
static inline Mask first_lanes(int n) { return n >= W ? Mask(0xffff) : Mask((1u << n) - 1); }
static inline F load_part(const float* p, int n) { return _mm512_maskz_loadu_ps(first_lanes(n), p); }
static inline void store_part(float* p, F x, int n) { _mm512_mask_storeu_ps(p, first_lanes(n), x); }
static inline F splat(float x) { return _mm512_set1_ps(x); }
static inline F add(F a, F b) { return _mm512_add_ps(a, b); }
static inline F sub(F a, F b) { return _mm512_sub_ps(a, b); }
static inline F mul(F a, F b) { return _mm512_mul_ps(a, b); }
static inline F div(F a, F b) { return _mm512_div_ps(a, b); }
static inline F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
static inline F maximum(F a, F b) { return _mm512_max_ps(a, b); }
static inline F minimum(F a, F b) { return _mm512_min_ps(a, b); }
static inline F absolute(F a) { return _mm512_abs_ps(a); }
static inline F square_root(F a) { return _mm512_sqrt_ps(a); }
static inline F nearest(F a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
static inline F power_of_two(F whole) { return _mm512_scalef_ps(_mm512_set1_ps(1.0f), whole); }
static inline Mask less(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
static inline F choose(Mask m, F yes, F no) { return _mm512_mask_blend_ps(m, no, yes); }
static inline F load_half(const uint16_t* p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p)); }
static inline void store_half(uint16_t* p, F x) {
  _mm256_storeu_si256((__m256i*)p, _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
static inline F load_brain(const uint16_t* p) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16));
}
static inline float sum(F a) { return _mm512_reduce_add_ps(a); }
static inline float largest(F a) { return _mm512_reduce_max_ps(a); }

static inline I splat_int(int32_t x) { return _mm512_set1_epi32(x); }
template <int N> static inline I shift_left(I a) { return _mm512_slli_epi32(a, N); }
static inline F to_float(I a) { return _mm512_cvtepi32_ps(a); }
static inline I load_int(const int32_t* p) { return _mm512_loadu_si512(p); }
static inline I add(I a, I b) { return _mm512_add_epi32(a, b); }
static inline I exclusive_or(I a, I b) { return _mm512_xor_si512(a, b); }
static inline I both(I a, I b) { return _mm512_and_si512(a, b); }
template <int N> static inline I shift_right(I a) { return _mm512_srli_epi32(a, N); }
template <int N> static inline I rotate(I a) { return _mm512_rol_epi32(a, N); }
static inline I bits_of(F a) { return _mm512_castps_si512(a); }
static inline F float_of_bits(I a) { return _mm512_castsi512_ps(a); }
static inline void store_bytes(int8_t* p, F whole) { _mm_storeu_si128((__m128i*)p, _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(whole))); }
static inline int32_t sum_of_16(const int8_t* p) {
  __m128i offset = _mm_xor_si128(_mm_loadu_si128((const __m128i*)p), _mm_set1_epi8(-128));
  __m128i halves = _mm_sad_epu8(offset, _mm_setzero_si128());
  return _mm_cvtsi128_si32(halves) + _mm_extract_epi32(halves, 2) - 16 * 128;
}
static inline I load_byte_ints(const uint8_t* p) { return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)p)); }
static inline B load_bytes(const uint8_t* p) { return _mm512_loadu_si512(p); }
static inline B low_nibble(B a) { return _mm512_and_si512(a, _mm512_set1_epi8(0x0f)); }
static inline B high_nibble(B a) { return _mm512_and_si512(_mm512_srli_epi16(a, 4), _mm512_set1_epi8(0x0f)); }
// low | (planes shifted left by N, or right by -N, cut to `bits`)
template <int N, int bits> static inline B with_high_bits(B low, B planes) {
  B moved = N >= 0 ? _mm512_slli_epi16(planes, N > 0 ? N : 0) : _mm512_srli_epi16(planes, N < 0 ? -N : 0);
  return _mm512_ternarylogic_epi32(low, moved, _mm512_set1_epi8(bits), 0xf8);
}
constexpr bool kCentersBytes = false;  // whether dots take 8-bit codes less 128
// Each lane's start plus the dot products of its four unsigned bytes in each of `count` vectors with q's signed bytes.
template <int bits, int count> static inline I dot(I start, const B* codes, const int8_t* q) {
  for (int g = 0; g < count; g++) {
    int32_t four;
    __builtin_memcpy(&four, q + 4 * g, 4);
    start = _mm512_dpbusd_epi32(start, codes[g], _mm512_set1_epi32(four));
  }
  return start;
}
// That for M rows of q, whose sums grow side by side: each alone would wait for itself.
template <int bits, int count, int M> static inline void dots(I (&totals)[M], const B* codes, const int8_t* const* q, int64_t at) {
#pragma GCC unroll 8
  for (int g = 0; g < count; g++)
#pragma GCC unroll 8
    for (int m = 0; m < M; m++) {
      int32_t four;
      __builtin_memcpy(&four, q[m] + at + 4 * g, 4);
      totals[m] = _mm512_dpbusd_epi32(totals[m], codes[g], _mm512_set1_epi32(four));
    }
}
