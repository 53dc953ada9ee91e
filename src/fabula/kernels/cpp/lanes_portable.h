// Four lanes in plain C++, for machines without the others' instructions.
constexpr int W = 4;
struct F { float v[W]; };
struct I { int32_t v[W]; };
struct B { uint8_t v[4 * W]; };
struct Mask { bool v[W]; };

#define FABULA_LANES(type, expression) type r; for (int i = 0; i < W; i++) r.v[i] = (expression); return r
static inline F load(const float* p) { FABULA_LANES(F, p[i]); }
static inline void store(float* p, F x) { for (int i = 0; i < W; i++) p[i] = x.v[i]; }
static inline F load_part(const float* p, int n) { FABULA_LANES(F, i < n ? p[i] : 0.0f); }
static inline void store_part(float* p, F x, int n) { for (int i = 0; i < W && i < n; i++) p[i] = x.v[i]; }
static inline F splat(float x) { FABULA_LANES(F, x); }
static inline F add(F a, F b) { FABULA_LANES(F, a.v[i] + b.v[i]); }
static inline F sub(F a, F b) { FABULA_LANES(F, a.v[i] - b.v[i]); }
static inline F mul(F a, F b) { FABULA_LANES(F, a.v[i] * b.v[i]); }
static inline F div(F a, F b) { FABULA_LANES(F, a.v[i] / b.v[i]); }
#if defined(__FMA__) || defined(__aarch64__)
static inline F fma(F a, F b, F c) { FABULA_LANES(F, __builtin_fmaf(a.v[i], b.v[i], c.v[i])); }
#else
static inline F fma(F a, F b, F c) { FABULA_LANES(F, a.v[i] * b.v[i] + c.v[i]); }
#endif
static inline F maximum(F a, F b) { FABULA_LANES(F, a.v[i] > b.v[i] ? a.v[i] : b.v[i]); }
static inline F minimum(F a, F b) { FABULA_LANES(F, a.v[i] < b.v[i] ? a.v[i] : b.v[i]); }
static inline F absolute(F a) { FABULA_LANES(F, std::fabs(a.v[i])); }
static inline F square_root(F a) { FABULA_LANES(F, std::sqrt(a.v[i])); }
// Adding and taking away 1.5 * 2^23 rounds to even, for all that is used here (magnitudes below 2^22).
static inline F nearest(F a) { FABULA_LANES(F, (a.v[i] + 12582912.0f) - 12582912.0f); }
static inline F power_of_two(F whole) {
  F r;
  for (int i = 0; i < W; i++) {
    int32_t exponent = int32_t(whole.v[i]) + 127;
    uint32_t bits = uint32_t(exponent < 0 ? 0 : exponent) << 23;
    __builtin_memcpy(&r.v[i], &bits, 4);
  }
  return r;
}
static inline Mask less(F a, F b) { FABULA_LANES(Mask, a.v[i] < b.v[i]); }
static inline F choose(Mask m, F yes, F no) { FABULA_LANES(F, m.v[i] ? yes.v[i] : no.v[i]); }
static inline F load_half(const uint16_t* p) { FABULA_LANES(F, half_to_float(p[i])); }
static inline void store_half(uint16_t* p, F x) { for (int i = 0; i < W; i++) p[i] = float_to_half(x.v[i]); }
static inline F load_brain(const uint16_t* p) { FABULA_LANES(F, brain_to_float(p[i])); }
static inline float sum(F a) { return (a.v[0] + a.v[2]) + (a.v[1] + a.v[3]); }
static inline float largest(F a) {
  float x = a.v[0];
  for (int i = 1; i < W; i++) x = a.v[i] > x ? a.v[i] : x;
  return x;
}

static inline I splat_int(int32_t x) { FABULA_LANES(I, x); }
template <int N> static inline I shift_left(I a) { FABULA_LANES(I, a.v[i] * (1 << N)); }
static inline F to_float(I a) { FABULA_LANES(F, float(a.v[i])); }
static inline I load_int(const int32_t* p) { FABULA_LANES(I, p[i]); }
static inline I add(I a, I b) { FABULA_LANES(I, int32_t(uint32_t(a.v[i]) + uint32_t(b.v[i]))); }
static inline I exclusive_or(I a, I b) { FABULA_LANES(I, a.v[i] ^ b.v[i]); }
static inline I both(I a, I b) { FABULA_LANES(I, a.v[i] & b.v[i]); }
template <int N> static inline I shift_right(I a) { FABULA_LANES(I, int32_t(uint32_t(a.v[i]) >> N)); }
template <int N> static inline I rotate(I a) { FABULA_LANES(I, int32_t(uint32_t(a.v[i]) << N | uint32_t(a.v[i]) >> (32 - N))); }
static inline I bits_of(F a) { I r; __builtin_memcpy(r.v, a.v, sizeof r.v); return r; }
static inline F float_of_bits(I a) { F r; __builtin_memcpy(r.v, a.v, sizeof r.v); return r; }
static inline void store_bytes(int8_t* p, F whole) { for (int i = 0; i < W; i++) p[i] = int8_t(int32_t(whole.v[i])); }
static inline B load_bytes(const uint8_t* p) { B r; __builtin_memcpy(r.v, p, sizeof r.v); return r; }
#undef FABULA_LANES
#define FABULA_BYTES(expression) B r; for (int i = 0; i < 4 * W; i++) r.v[i] = uint8_t(expression); return r
static inline B low_nibble(B a) { FABULA_BYTES(a.v[i] & 0x0f); }
static inline B high_nibble(B a) { FABULA_BYTES(a.v[i] >> 4); }
template <int N, int bits> static inline B with_high_bits(B low, B planes) {
  FABULA_BYTES(low.v[i] | ((N >= 0 ? planes.v[i] << (N > 0 ? N : 0) : planes.v[i] >> (N < 0 ? -N : 0)) & bits));
}
#undef FABULA_BYTES
// Each lane's start plus the dot products of its four unsigned bytes in each of `count` vectors with q's signed bytes.
// Eight products of 5-bit codes, or four of 6-bit codes, fit in 16 bits; those of 8-bit codes are widened one by one.
template <int bits, int count> static inline I dot(I start, const B* codes, const int8_t* q) {
  using Wide = typename std::conditional<bits == 8, int32_t, int16_t>::type;
  Wide sums[4 * W] = {};
  for (int g = 0; g < count; g++) {
    Wide factors[4 * W];
    for (int i = 0; i < 4 * W; i++) factors[i] = q[4 * g + i % 4];
    for (int i = 0; i < 4 * W; i++) sums[i] = Wide(sums[i] + Wide(codes[g].v[i]) * factors[i]);
  }
  for (int i = 0; i < W; i++) start.v[i] += int32_t(sums[4 * i]) + sums[4 * i + 1] + sums[4 * i + 2] + sums[4 * i + 3];
  return start;
}
