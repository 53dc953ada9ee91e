// Kernels over one row of activations: norms, quantization, rope and element-wise functions.

static inline F part(const float* p, int i, int n) { return i + W <= n ? load(p + i) : load_part(p + i, n - i); }
static inline void put(float* p, F x, int i, int n) {
  if (i + W <= n) store(p + i, x);
  else store_part(p + i, x, n - i);
}

static float sum_of_squares(const float* x, int n) {
  F a = splat(0.0f), b = splat(0.0f);
  int i = 0;
  for (; i + 2 * W <= n; i += 2 * W) {
    F u = load(x + i), v = load(x + i + W);
    a = fma(u, u, a);
    b = fma(v, v, b);
  }
  for (; i < n; i += W) {
    F u = part(x, i, n);
    a = fma(u, u, a);
  }
  return sum(add(a, b));
}

// Each run of `group` features over its root mean square, times weight.
static void rms_norm(const float* x, const float* weight, float* out, int width, int group, float eps) {
  for (int start = 0; start < width; start += group) {
    float factor = 1.0f / __builtin_sqrtf(sum_of_squares(x + start, group) / float(group) + eps);
    for (int i = 0; i < group; i += W)
      put(out + start, mul(mul(part(x + start, i, group), splat(factor)), part(weight, i, group)), i, group);
  }
}

static void layer_norm(const float* x, const float* weight, const float* bias, float* out, int width, float eps) {
  F total = splat(0.0f);
  for (int i = 0; i < width; i += W) total = add(total, part(x, i, width));
  F mean = splat(sum(total) / float(width)), squares = splat(0.0f);
  for (int i = 0; i < width; i += W) {
    F centred = sub(part(x, i, width), mean);
    put(out, centred, i, width);
  }
  for (int i = 0; i < width; i += W) {
    F centred = part(out, i, width);
    squares = fma(centred, centred, squares);
  }
  F factor = splat(1.0f / __builtin_sqrtf(sum(squares) / float(width) + eps));
  for (int i = 0; i < width; i += W)
    put(out, fma(mul(part(out, i, width), factor), part(weight, i, width), part(bias, i, width)), i, width);
}

// What a matmul wants to know of a group's codes, beside themselves.
static inline void describe_codes(const int8_t* codes, float step, GroupScale* scale) {
  int32_t low = sum_of_16(codes), high = sum_of_16(codes + 16);
  *scale = {step, step * float(low + high), -(low + high), -low, -high};
}

static inline float inverse_step(float high) { return high > 0.0f ? 127.0f / high : 0.0f; }

// 32 floats to 32 bytes with one scale: the nearest of -127 .. 127 times largest / 127. Returns the largest.
static inline float quantize_group(const float* x, int8_t* codes, GroupScale* scale) {
  F top = splat(0.0f);
  for (int i = 0; i < kGroup; i += W) top = maximum(top, absolute(load(x + i)));
  float high = largest(top);
  F inverse = splat(inverse_step(high));
  for (int i = 0; i < kGroup; i += W) store_bytes(codes + i, nearest(mul(load(x + i), inverse)));
  describe_codes(codes, high / 127.0f, scale);
  return high;
}

// The second codes of a group whose largest is `high`: what the first ones leave, in steps of high / 127 / 254.
static inline void quantize_rest(const float* x, float high, int8_t* codes) {
  F inverse = splat(inverse_step(high)), finer = splat(254.0f);
  for (int i = 0; i < kGroup; i += W) {
    F scaled = mul(load(x + i), inverse);
    store_bytes(codes + i, nearest(mul(sub(scaled, nearest(scaled)), finer)));
  }
}

// What a matmul wants to know of the second codes of a group.
static inline void describe_outlier(const GroupScale& scale, int group, Outlier* out) {
  describe_codes(out->codes, scale.scale / 254.0f, &out->scale);
  out->group = group;
}

// Whether a group's largest value is above `far` times the row's root mean square.
static inline bool stands_out(float scale, float squares, int width, float far) {
  return scale * scale > squares / float(width) * (far * far) / (127.0f * 127.0f);
}

// A row of `width` floats to its codes, padded with zeros to kChunk; behind them the groups' scales and the outliers.
static void quantize(const float* x, int8_t* out, int width, float far) {
  QuantizedRow row(width);
  GroupScale* scales = row.scales(out);
  Outlier* outliers = row.outliers(out);
  float squares = sum_of_squares(x, width);
  int count = 0;
  for (int i = 0; i < row.padded; i += kGroup) {
    float last[kGroup] = {};
    const float* from = x + i;
    if (i + kGroup > width) {
      for (int j = 0; j < width - i; j++) last[j] = x[i + j];
      from = last;
    }
    GroupScale& scale = scales[i / kGroup];
    float high = quantize_group(from, out + i, &scale);
    if (!stands_out(scale.scale, squares, width, far)) continue;
    quantize_rest(from, high, outliers[count].codes);
    describe_outlier(scale, i / kGroup, &outliers[count++]);
  }
  *row.outlier_count(out) = count;
}

// A row whose groups, a whole number of them, all have second codes: those of the outliers stay.
static void keep_outliers(int8_t* out, int width, float far) {
  QuantizedRow row(width);
  const GroupScale* scales = row.scales(out);
  Outlier* outliers = row.outliers(out);
  float squares = 0.0f;
  int count = 0;
  for (int g = 0; g < width / kGroup; g++) squares += outliers[g].squares;
  for (int g = 0; g < width / kGroup; g++) {
    if (!stands_out(scales[g].scale, squares, width, far)) continue;
    std::memmove(outliers[count].codes, outliers[g].codes, kGroup);
    describe_outlier(scales[g], g, &outliers[count++]);
  }
  *row.outlier_count(out) = count;
}

static void add_rows(const float* x, const float* y, float* out, int n) {
  for (int i = 0; i < n; i += W) put(out, add(part(x, i, n), part(y, i, n)), i, n);
}

static void activate_row(const float* x, float* out, int n, int kind) {
  for (int i = 0; i < n; i += W) put(out, activate(part(x, i, n), kind), i, n);
}

static void gate_row(const float* gate, const float* up, float* out, int n, int kind) {
  for (int i = 0; i < n; i += W) put(out, mul(activate(part(gate, i, n), kind), part(up, i, n)), i, n);
}

static void softcap_row(const float* x, float* out, int n, float cap) {
  for (int i = 0; i < n; i += W)
    put(out, mul(splat(cap), hyperbolic_tangent(div(part(x, i, n), splat(cap)))), i, n);
}

static void scale_row(const float* x, float* out, int n, float factor) {
  for (int i = 0; i < n; i += W) put(out, mul(part(x, i, n), splat(factor)), i, n);
}

// Every head of a row turned by the angles whose cosines, then sines, lie at `angles`; feature i pairs with i + half.
static void rope_row(const float* x, const float* angles, float* out, int width, int head_dim, int half) {
  for (int start = 0; start < width; start += head_dim) {
    const float* p = x + start;
    float* q = out + start;
    for (int i = 0; i < half; i += W) {
      F c = part(angles, i, half), s = part(angles + half, i, half);
      F first = part(p, i, half), second = part(p + half, i, half);
      put(q, sub(mul(first, c), mul(second, s)), i, half);
      put(q + half, fma(second, c, mul(first, s)), i, half);
    }
    for (int i = 2 * half; i < head_dim; i++) q[i] = p[i];
  }
}
