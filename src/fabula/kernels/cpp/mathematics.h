// Exponential and what is made of it, lane by lane (relative error near 2e-7; Cephes' splitting of ln 2).

static inline F exponential(F x) {
  x = maximum(minimum(x, splat(88.0f)), splat(-87.3f));
  F n = nearest(mul(x, splat(1.44269504088896341f)));
  F r = fma(n, splat(-0.693359375f), x);
  r = fma(n, splat(2.12194440e-4f), r);
  F p = splat(1.9875691500e-4f);
  p = fma(p, r, splat(1.3981999507e-3f));
  p = fma(p, r, splat(8.3334519073e-3f));
  p = fma(p, r, splat(4.1665795894e-2f));
  p = fma(p, r, splat(1.6666665459e-1f));
  p = fma(p, r, splat(5.0000001201e-1f));
  p = fma(p, mul(r, r), add(r, splat(1.0f)));
  return mul(p, power_of_two(n));
}

// Of normal positive numbers; absolute error near 1e-6 (Cephes' polynomial).
static inline F logarithm(F x) {
  I bits = bits_of(x);
  F exponent = sub(to_float(shift_right<23>(bits)), splat(126.0f));
  F m = float_of_bits(add(both(bits, splat_int(0x007fffff)), splat_int(0x3f000000)));  // [0.5, 1)
  Mask low = less(m, splat(0.70710678f));
  exponent = choose(low, sub(exponent, splat(1.0f)), exponent);
  m = sub(choose(low, add(m, m), m), splat(1.0f));
  F p = splat(7.0376836292e-2f);
  p = fma(p, m, splat(-1.1514610310e-1f));
  p = fma(p, m, splat(1.1676998740e-1f));
  p = fma(p, m, splat(-1.2420140846e-1f));
  p = fma(p, m, splat(1.4249322787e-1f));
  p = fma(p, m, splat(-1.6668057665e-1f));
  p = fma(p, m, splat(2.0000714765e-1f));
  p = fma(p, m, splat(-2.4999993993e-1f));
  p = fma(p, m, splat(3.3333331174e-1f));
  F square = mul(m, m);
  F y = fma(square, splat(-0.5f), mul(mul(p, square), m));
  return fma(exponent, splat(0.69314718056f), add(m, y));
}

static inline F hyperbolic_tangent(F x) {  // near 0 by its series, where 1 - 2 / (e^2x + 1) would cancel
  F square = mul(x, x);
  F series = fma(square, splat(-0.0539682540f), splat(0.1333333333f));
  series = fma(series, square, splat(-0.3333333333f));
  series = fma(mul(series, square), x, x);
  F e = exponential(mul(x, splat(2.0f)));
  F ratio = sub(splat(1.0f), div(splat(2.0f), add(e, splat(1.0f))));
  return choose(less(square, splat(0.01f)), series, ratio);
}

// Abramowitz and Stegun 7.1.26: absolute error below 1.5e-7.
static inline F error_function(F x) {
  F a = absolute(x);
  F t = div(splat(1.0f), fma(a, splat(0.3275911f), splat(1.0f)));
  F p = fma(t, splat(1.061405429f), splat(-1.453152027f));
  p = fma(p, t, splat(1.421413741f));
  p = fma(p, t, splat(-0.284496736f));
  p = fma(p, t, splat(0.254829592f));
  F y = sub(splat(1.0f), mul(mul(p, t), exponential(sub(splat(0.0f), mul(a, a)))));
  return choose(less(x, splat(0.0f)), sub(splat(0.0f), y), y);
}

static inline F activate(F x, int kind) {
  switch (kind) {
    case kSilu: return div(x, add(splat(1.0f), exponential(sub(splat(0.0f), x))));
    case kGelu: return mul(mul(x, splat(0.5f)), add(splat(1.0f), error_function(mul(x, splat(0.70710678118654752f)))));
    case kGeluTanh: {
      F inner = mul(splat(0.79788456080286536f), fma(mul(mul(x, x), x), splat(0.044715f), x));
      return mul(mul(x, splat(0.5f)), add(splat(1.0f), hyperbolic_tangent(inner)));
    }
    default: return maximum(x, splat(0.0f));
  }
}
