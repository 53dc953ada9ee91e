// Products with weights: M tokens times one panel of 16 rows. What one token gets depends on nothing but itself:
// every tile adds the same terms in the same order.

// One micro-kernel serves dense weights, queries times keys and probabilities times values:
// sums[m][p] += a[m][k] * b[p][k] for `count` values of k; b's rows of 16 floats lie end to end.
struct Single {
  using Stored = float;
  static inline F get(const float* p) { return load(p); }
};
struct Half {
  using Stored = uint16_t;
  static inline F get(const uint16_t* p) { return load_half(p); }
};
struct Brain {
  using Stored = uint16_t;
  static inline F get(const uint16_t* p) { return load_brain(p); }
};

constexpr int V = kPanel / W;  // vectors a panel is wide

template <class Type, int M, int P>
static inline void multiply_add(F (&sums)[M][P * V], const float* const* a, const typename Type::Stored* b, int64_t b_stride, int count) {
  for (int k = 0; k < count; k++) {
    F right[P * V];
    for (int p = 0; p < P; p++)
      for (int v = 0; v < V; v++) right[p * V + v] = Type::get(b + p * b_stride + k * kPanel + v * W);
    for (int m = 0; m < M; m++) {
      F left = splat(a[m][k]);
      for (int p = 0; p < P * V; p++) sums[m][p] = fma(left, right[p], sums[m][p]);
    }
  }
}

// out[m * out_stride + 16 * p + lane] for P panels from `panel` on.
template <class Type, int M, int P>
static void dense_tile(const Matrix& w, int panel, const void* const* x, float* out, int out_stride) {
  F sums[M][P * V];
  for (int m = 0; m < M; m++)
    for (int p = 0; p < P * V; p++) sums[m][p] = splat(0.0f);
  const uint8_t* data = w.data + panel * w.panel_bytes;
  multiply_add<Type, M, P>(sums, (const float* const*)x, (const typename Type::Stored*)data,
                           w.panel_bytes / int64_t(sizeof(typename Type::Stored)), w.columns);
  for (int m = 0; m < M; m++)
    for (int p = 0; p < P * V; p++) store(out + m * out_stride + p * W, sums[m][p]);
}

constexpr int kDenseTokens = 6;
constexpr int kDensePanels = W == 16 ? 2 : 1;

template <class Type>
static void dense(const Matrix& w, int panel, int panels, const void* const* x, int tokens, float* out, int out_stride) {
  for (int end = panel + panels; panel < end;) {
    int left = end - panel;
    if (tokens == 1 && left >= 4) {
      dense_tile<Type, 1, 4>(w, panel, x, out, out_stride);
      panel += 4, out += 4 * kPanel;
      continue;
    }
    int step = left >= kDensePanels ? kDensePanels : 1;
    for (int m = 0; m < tokens; m += kDenseTokens) {
      float* to = out + m * out_stride;
      int count = tokens - m < kDenseTokens ? tokens - m : kDenseTokens;
#define FABULA_CASE(n)                                                          \
  case n:                                                                       \
    if (step == 1) dense_tile<Type, n, 1>(w, panel, x + m, to, out_stride);     \
    else dense_tile<Type, n, kDensePanels>(w, panel, x + m, to, out_stride);    \
    break;
      switch (count) { FABULA_CASE(1) FABULA_CASE(2) FABULA_CASE(3) FABULA_CASE(4) FABULA_CASE(5) FABULA_CASE(6) }
#undef FABULA_CASE
    }
    panel += step, out += step * kPanel;
  }
}

// A chunk holds 64 features of 16 rows: scales (a half a row and group), mins, low nibbles (or bytes), high bits.
template <int layout> struct Packed {
  static constexpr bool has_min = layout == kCode4Min || layout == kCode5Min;
  static constexpr int bits = layout == kCode8 ? 8 : layout == kCode6 ? 6 : layout == kCode5 || layout == kCode5Min ? 5 : 4;
  static constexpr int scales = layout == kCode6 ? 4 : 2;
  static constexpr int min_at = scales * 32;
  static constexpr int low_at = min_at + (has_min ? 64 : 0);
  static constexpr int group_bytes = bits == 8 ? 512 : 256;
  static constexpr int high_at = low_at + 2 * group_bytes;
  static constexpr int high_bytes = bits == 5 ? 64 : bits == 6 ? 128 : 0;
  static constexpr int bytes = high_at + 2 * high_bytes;
  static constexpr int offset_shift = bits - 1;  // codes are stored with 2^offset_shift added
  static constexpr bool has_offset = !has_min && !(bits == 8 && kCentersBytes);  // and so they are multiplied
};

// The codes of a group: codes[g] holds features 4g .. 4g+3 of W rows.
template <int layout> static inline void unpack(const uint8_t* chunk, int group, int v, B (&codes)[8]) {
  using P = Packed<layout>;
  const uint8_t* low = chunk + P::low_at + group * P::group_bytes + v * 4 * W;
  if constexpr (P::bits == 8) {
    for (int g = 0; g < 8; g++) codes[g] = load_bytes(low + 64 * g);
  } else {
    for (int j = 0; j < 4; j++) {
      B both = load_bytes(low + 64 * j);
      codes[j] = low_nibble(both);
      codes[j + 4] = high_nibble(both);
    }
  }
  const uint8_t* high = chunk + P::high_at + group * P::high_bytes + v * 4 * W;
  if constexpr (P::bits == 5) {
    B planes = load_bytes(high);
    codes[0] = with_high_bits<4, 16>(codes[0], planes);
    codes[1] = with_high_bits<3, 16>(codes[1], planes);
    codes[2] = with_high_bits<2, 16>(codes[2], planes);
    codes[3] = with_high_bits<1, 16>(codes[3], planes);
    codes[4] = with_high_bits<0, 16>(codes[4], planes);
    codes[5] = with_high_bits<-1, 16>(codes[5], planes);
    codes[6] = with_high_bits<-2, 16>(codes[6], planes);
    codes[7] = with_high_bits<-3, 16>(codes[7], planes);
  }
  if constexpr (P::bits == 6) {
    for (int h = 0; h < 2; h++) {
      B planes = load_bytes(high + 64 * h);
      codes[4 * h + 0] = with_high_bits<4, 48>(codes[4 * h + 0], planes);
      codes[4 * h + 1] = with_high_bits<2, 48>(codes[4 * h + 1], planes);
      codes[4 * h + 2] = with_high_bits<0, 48>(codes[4 * h + 2], planes);
      codes[4 * h + 3] = with_high_bits<-2, 48>(codes[4 * h + 3], planes);
    }
  }
}

template <int layout, int M>
static inline void packed_group(const uint8_t* chunk, int group, int v, const int8_t* const* q, const GroupScale* const* scales,
                                int64_t at, F (&sums)[M]) {
  using P = Packed<layout>;
  B codes[8];
  unpack<layout>(chunk, group, v, codes);
  const uint16_t* halves = (const uint16_t*)chunk + v * W;
  if constexpr (P::scales == 4) {  // a scale per 16 features
    F low = load_half(halves + 2 * group * kPanel), high = load_half(halves + (2 * group + 1) * kPanel);
    for (int m = 0; m < M; m++) {
      const GroupScale& s = scales[m][at];
      const int8_t* x = q[m] + at * kGroup;
      I first = shift_left<P::offset_shift>(splat_int(s.minus_low)), second = shift_left<P::offset_shift>(splat_int(s.minus_high));
      first = dot<6, 4>(first, codes, x);
      second = dot<6, 4>(second, codes + 4, x + 16);
      F both = fma(to_float(first), low, mul(to_float(second), high));
      sums[m] = fma(both, splat(s.scale), sums[m]);
    }
  } else {
    F scale = load_half(halves + group * kPanel);
    F min = splat(0.0f);
    if constexpr (P::has_min) min = load_half(halves + P::min_at / 2 + group * kPanel);
    I totals[M];
    for (int m = 0; m < M; m++) {
      totals[m] = splat_int(0);
      if constexpr (P::has_offset) totals[m] = shift_left<P::offset_shift>(splat_int(scales[m][at].minus));
    }
    dots<P::bits, 8>(totals, codes, q, at * kGroup);
    for (int m = 0; m < M; m++) {
      const GroupScale& s = scales[m][at];
      sums[m] = fma(to_float(totals[m]), mul(scale, splat(s.scale)), sums[m]);
      if constexpr (P::has_min) sums[m] = fma(min, splat(s.sum), sums[m]);
    }
  }
}

// The share of the second codes of `count` groups, which are the same groups in all M tokens.
template <int layout, int M>
static inline void add_outliers(const uint8_t* panel, int v, const Outlier* const* outliers, int count, F (&sums)[M]) {
  const int8_t* codes[M];
  const GroupScale* scales[M];
  for (int i = 0; i < count; i++) {
    for (int m = 0; m < M; m++) codes[m] = outliers[m][i].codes, scales[m] = &outliers[m][i].scale;
    int group = outliers[0][i].group;
    packed_group<layout, M>(panel + int64_t(group / 2) * Packed<layout>::bytes, group % 2, v, codes, scales, 0, sums);
  }
}

// The first tile of a panel fetches what comes behind it from memory.
template <int layout, int M>
static void packed_tile(const Matrix& w, const uint8_t* data, bool is_first, const void* const* x, float* out, int out_stride) {
  int chunks = (w.columns + kChunk - 1) / kChunk;
  QuantizedRow row(w.columns);
  const int8_t* q[M];
  const GroupScale* scales[M];
  const Outlier* outliers[M];
  int counts[M], every = (w.columns + kGroup - 1) / kGroup;
  bool whole = true;
  for (int m = 0; m < M; m++) {
    q[m] = (const int8_t*)x[m];
    scales[m] = row.scales(q[m]);
    outliers[m] = row.outliers(q[m]);
    counts[m] = *row.outlier_count(q[m]);
    whole = whole && counts[m] == every;
  }
  for (int v = 0; v < V; v++) {
    F sums[M];
    for (int m = 0; m < M; m++) sums[m] = splat(0.0f);
    const uint8_t* chunk = data;
    for (int c = 0; c < chunks; c++, chunk += Packed<layout>::bytes) {
      if (is_first)
        for (int line = 0; line < Packed<layout>::bytes; line += 64) __builtin_prefetch(chunk + kAhead + line);
      packed_group<layout, M>(chunk, 0, v, q, scales, 2 * c, sums);
      packed_group<layout, M>(chunk, 1, v, q, scales, 2 * c + 1, sums);
    }
    if (whole) add_outliers<layout, M>(data, v, outliers, every, sums);
    for (int m = 0; m < M; m++) {
      F total[1] = {sums[m]};
      if (!whole) add_outliers<layout, 1>(data, v, &outliers[m], counts[m], total);
      store(out + m * out_stride + v * W, mul(total[0], splat(w.multiplier)));
    }
  }
}

constexpr int kPackedTokens = W == 16 ? 8 : 4;  // so that codes and sums stay in registers

template <int layout>
static void packed(const Matrix& w, int panel, int panels, const void* const* x, int tokens, float* out, int out_stride) {
  for (int end = panel + panels; panel < end; panel++, out += kPanel) {
    const uint8_t* data = w.data + panel * w.panel_bytes;
    for (int m = 0; m < tokens; m += kPackedTokens) {
      float* to = out + m * out_stride;
#define FABULA_CASE(n) case n: packed_tile<layout, n>(w, data, m == 0, x + m, to, out_stride); break;
      switch (tokens - m < kPackedTokens ? tokens - m : kPackedTokens) {
        FABULA_CASE(1) FABULA_CASE(2) FABULA_CASE(3) FABULA_CASE(4)
#if FABULA_LANES_16
        FABULA_CASE(5) FABULA_CASE(6) FABULA_CASE(7) FABULA_CASE(8)
#endif
      }
#undef FABULA_CASE
    }
  }
}

// out[t * out_stride + r] = row r of the panels, times token t's x: floats for dense weights, quantized rows for packed ones.
static void matmul(const Matrix& w, int panel, int panels, const void* const* x, int tokens, float* out, int out_stride) {
  switch (w.layout) {
    case kCode4: return packed<kCode4>(w, panel, panels, x, tokens, out, out_stride);
    case kCode4Min: return packed<kCode4Min>(w, panel, panels, x, tokens, out, out_stride);
    case kCode5: return packed<kCode5>(w, panel, panels, x, tokens, out, out_stride);
    case kCode5Min: return packed<kCode5Min>(w, panel, panels, x, tokens, out, out_stride);
    case kCode6: return packed<kCode6>(w, panel, panels, x, tokens, out, out_stride);
    case kCode8: return packed<kCode8>(w, panel, panels, x, tokens, out, out_stride);
    case kFloat16: return dense<Half>(w, panel, panels, x, tokens, out, out_stride);
    case kBrain16: return dense<Brain>(w, panel, panels, x, tokens, out, out_stride);
    default: return dense<Single>(w, panel, panels, x, tokens, out, out_stride);
  }
}

// What a matmul adds when it is done: out = scratch + bias + residual, for `width` outputs of one token.
static void finish(const float* scratch, const float* bias, const float* residual, float* out, int width) {
  for (int i = 0; i < width; i += W) {
    F x = part(scratch, i, width);
    if (bias) x = add(x, part(bias, i, width));
    if (residual) x = add(x, part(residual, i, width));
    put(out, x, i, width);
  }
}

// activation(gate) * up of kGroup features, quantized; whether it is an outlier is seen when the row is whole.
static void gate_and_quantize(const float* gate, const float* up, int kind, int8_t* codes, GroupScale* scale, Outlier* rest) {
  float product[kGroup];
  for (int i = 0; i < kGroup; i += W) store(product + i, mul(activate(load(gate + i), kind), load(up + i)));
  quantize_rest(product, quantize_group(product, codes, scale), rest->codes);
  rest->squares = sum_of_squares(product, kGroup);
}
