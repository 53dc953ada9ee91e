// Four lanes by the vector extensions of GCC and Clang, for machines without the others' instructions.
constexpr int W = 4;
using F = float __attribute__((vector_size(16)));
using I = int32_t __attribute__((vector_size(16)));
using U = uint32_t __attribute__((vector_size(16)));
using B = uint8_t __attribute__((vector_size(16)));  // 4 * W bytes
using Mask = I;                                      // -1 or 0 a lane

template <class To, class From> static inline To same_bits(From x) {
  static_assert(sizeof(To) == sizeof(From));
  To r;
  __builtin_memcpy(&r, &x, sizeof r);
  return r;
}
static inline F splat(float x) { return F{x, x, x, x}; }
static inline I splat_int(int32_t x) { return I{x, x, x, x}; }
static inline F choose(Mask m, F yes, F no) { return same_bits<F>((same_bits<I>(yes) & m) | (same_bits<I>(no) & ~m)); }
static inline F load(const float* p) { F r; __builtin_memcpy(&r, p, sizeof r); return r; }
static inline void store(float* p, F x) { __builtin_memcpy(p, &x, sizeof x); }
static inline F load_part(const float* p, int n) {
  F r = splat(0.0f);
  for (int i = 0; i < W && i < n; i++) r[i] = p[i];
  return r;
}
static inline void store_part(float* p, F x, int n) { for (int i = 0; i < W && i < n; i++) p[i] = x[i]; }
static inline F add(F a, F b) { return a + b; }
static inline F sub(F a, F b) { return a - b; }
static inline F mul(F a, F b) { return a * b; }
static inline F div(F a, F b) { return a / b; }
#if defined(__FMA__) || defined(__aarch64__)
static inline F fma(F a, F b, F c) { for (int i = 0; i < W; i++) c[i] = __builtin_fmaf(a[i], b[i], c[i]); return c; }
#else
static inline F fma(F a, F b, F c) { return a * b + c; }
#endif
static inline F maximum(F a, F b) { return choose(a > b, a, b); }
static inline F minimum(F a, F b) { return choose(a < b, a, b); }
static inline F absolute(F a) { return same_bits<F>(same_bits<I>(a) & 0x7fffffff); }
// Adding and taking away 1.5 * 2^23 rounds to even, for all that is used here (magnitudes below 2^22).
static inline F nearest(F a) { return (a + 12582912.0f) - 12582912.0f; }
static inline F power_of_two(F whole) {
  I exponent = __builtin_convertvector(whole, I) + 127;
  return same_bits<F>((exponent & ~(exponent < 0)) << 23);
}
static inline Mask less(F a, F b) { return a < b; }
// A shifted half times 2^112 has the right exponent, subnormals included; infinities and NaNs get theirs.
static inline F load_half(const uint16_t* p) {
  U h = {p[0], p[1], p[2], p[3]};
  U magnitude = (h & 0x7fff) << 13;
  U bits = same_bits<U>(same_bits<F>(magnitude) * 5192296858534827628530496329220096.0f);
  bits |= same_bits<U>(magnitude >= (0x7c00u << 13)) & 0x7f800000u;
  return same_bits<F>(bits | ((h & 0x8000) << 16));
}
static inline void store_half(uint16_t* p, F x) { for (int i = 0; i < W; i++) p[i] = float_to_half(x[i]); }
static inline F load_brain(const uint16_t* p) { return same_bits<F>(U{p[0], p[1], p[2], p[3]} << 16); }
static inline float sum(F a) { return (a[0] + a[2]) + (a[1] + a[3]); }
static inline float largest(F a) {
  float x = a[0];
  for (int i = 1; i < W; i++) x = a[i] > x ? a[i] : x;
  return x;
}

static inline I load_int(const int32_t* p) { I r; __builtin_memcpy(&r, p, sizeof r); return r; }
static inline I add(I a, I b) { return same_bits<I>(same_bits<U>(a) + same_bits<U>(b)); }
static inline I exclusive_or(I a, I b) { return a ^ b; }
static inline I both(I a, I b) { return a & b; }
template <int N> static inline I shift_left(I a) { return same_bits<I>(same_bits<U>(a) << N); }
template <int N> static inline I shift_right(I a) { return same_bits<I>(same_bits<U>(a) >> N); }
template <int N> static inline I rotate(I a) { return shift_left<N>(a) | shift_right<32 - N>(a); }
static inline I bits_of(F a) { return same_bits<I>(a); }
static inline F float_of_bits(I a) { return same_bits<F>(a); }
static inline F to_float(I a) { return __builtin_convertvector(a, F); }
static inline void store_bytes(int8_t* p, F whole) { for (int i = 0; i < W; i++) p[i] = int8_t(int32_t(whole[i])); }

static inline int32_t sum_of_16(const int8_t* p) {
  int32_t total = 0;
  for (int i = 0; i < 16; i++) total += p[i];
  return total;
}
static inline I load_byte_ints(const uint8_t* p) { return I{p[0], p[1], p[2], p[3]}; }
static inline B load_bytes(const uint8_t* p) { B r; __builtin_memcpy(&r, p, sizeof r); return r; }
static inline B low_nibble(B a) { return a & 0x0f; }
static inline B high_nibble(B a) { return a >> 4; }
// low | (planes shifted left by N, or right by -N, cut to `bits`)
template <int N, int bits> static inline B with_high_bits(B low, B planes) {
  return low | ((N >= 0 ? planes << (N > 0 ? N : 0) : planes >> (N < 0 ? -N : 0)) & uint8_t(bits));
}
constexpr bool kCentersBytes = false;  // whether dots take 8-bit codes less 128
// Each lane's start plus the dot products of its four unsigned bytes in each of `count` vectors with q's signed bytes.
// Eight products of 5-bit codes, or four of 6-bit codes, fit in 16 bits; those of 8-bit codes are added up in 32.
template <int bits, int count> static inline I dot(I start, const B* codes, const int8_t* q) {
  using Short = int16_t __attribute__((vector_size(32)));
  using Bytes = int8_t __attribute__((vector_size(16)));
  using Long = int32_t __attribute__((vector_size(64)));
  Short sums = {};
  Long wide = {};
  for (int g = 0; g < count; g++) {
    int32_t four;
    __builtin_memcpy(&four, q + 4 * g, 4);
    Short products = __builtin_convertvector(codes[g], Short) * __builtin_convertvector(same_bits<Bytes>(splat_int(four)), Short);
    if (bits == 8) wide += __builtin_convertvector(products, Long);
    else sums += products;
  }
  int32_t lanes[W] = {};
  for (int i = 0; i < W; i++)
    for (int j = 0; j < 4; j++) lanes[i] += bits == 8 ? wide[4 * i + j] : int32_t(sums[4 * i + j]);
  return start + load_int(lanes);
}
// That for M rows of q.
template <int bits, int count, int M> static inline void dots(I (&totals)[M], const B* codes, const int8_t* const* q, int64_t at) {
  for (int m = 0; m < M; m++) totals[m] = dot<bits, count>(totals[m], codes, q[m] + at);
}
