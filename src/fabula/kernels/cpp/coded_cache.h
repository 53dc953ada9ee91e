// Keys and values as codes of 8 or 4 bits: base + step * code, where a group of a head's features at one position has a
// base and a step of its own, 16 bits each. A head's features are turned before, so that none stands out, by the
// orthogonal Hadamard matrix (Ashkboos et al. 2024, QuaRot). In a block all heads' codes lie as the floats of
// attention.h do; features 2 j and 2 j + 1 of a key, and panels 2 j and 2 j + 1 of a value, share the bytes of 4-bit
// codes. Behind them each head has [groups][step, base][32 positions].

constexpr int kFeatures = 512;  // of a head, at most

static inline int groups_of(const Attention& a) { return (a.head_dim + a.group - 1) / a.group; }

// A head's codes and scales in a block.
template <class Byte, class Scale> struct Coded {
  Byte* codes;
  Scale* scales;

  Coded(const Attention& a, Byte* part, int head, int width) {
    int64_t bytes = int64_t(width) * kBlock * a.bits / 8;
    codes = part + head * bytes;
    scales = (Scale*)(part + a.kv_heads * bytes) + int64_t(head) * groups_of(a) * 2 * kBlock;
  }
};

static inline int value_width(const Attention& a) {
  int unit = a.bits == 4 ? 2 * kPanel : kPanel;
  return (a.head_dim + unit - 1) / unit * unit;
}

// A head's features times the matrix, which is its own inverse.
static void turn(float* x, int dim) {
  int size = dim & -dim;
  float factor = float(1.0 / __builtin_sqrt(double(size)));
  for (float* y = x; y < x + dim; y += size) {
    for (int half = 1; half < size; half *= 2)
      for (int i = 0; i < size; i += 2 * half)
        for (int j = i; j < i + half; j++) {
          float left = y[j], right = y[j + half];
          y[j] = left + right;
          y[j + half] = left - right;
        }
    for (int i = 0; i < size; i++) y[i] *= factor;
  }
}

// A head's features at one position to codes, and to the steps and bases of its groups.
static void code_head(const Attention& a, const float* x, int offset, uint8_t* codes, uint16_t* scales) {
  float turned[kFeatures], most_code = float((1 << a.bits) - 1);
  for (int d = 0; d < a.head_dim; d++) turned[d] = x[d];
  turn(turned, a.head_dim);
  for (int start = 0, g = 0; start < a.head_dim; start += a.group, g++) {
    int end = start + a.group < a.head_dim ? start + a.group : a.head_dim;
    float least = turned[start], most = turned[start];
    for (int d = start; d < end; d++) {
      least = turned[d] < least ? turned[d] : least;
      most = turned[d] > most ? turned[d] : most;
    }
    uint16_t step = float_to_half((most - least) / most_code), base = float_to_half(least);
    scales[(g * 2 + 0) * kBlock + offset] = step;
    scales[(g * 2 + 1) * kBlock + offset] = base;
    float one = half_to_float(step), zero = half_to_float(base);
    one = one > 1e-7f ? one : 1e-7f;
    for (int d = start; d < end; d++) {
      float code = __builtin_rintf((turned[d] - zero) / one);
      codes[d] = uint8_t(code < 0.0f ? 0.0f : code > most_code ? most_code : code);
    }
  }
}

static inline void put_code(const Attention& a, uint8_t* byte, uint8_t code, bool second) {
  *byte = a.bits == 8 ? code : second ? uint8_t(*byte | code << 4) : code;
}

static void write_coded(const Attention& a, const float* key, const float* value, int offset, int head, int heads, uint8_t* block) {
  uint8_t codes[kFeatures];
  int share = 8 / a.bits, dim = a.head_dim;
  for (int h = head; h < head + heads; h++) {
    Coded<uint8_t, uint16_t> k(a, block + a.key_offset, h, dim), v(a, block + a.value_offset, h, value_width(a));
    code_head(a, key + h * dim, offset, codes, k.scales);
    uint8_t* lane = k.codes + offset / kPanel * (dim / share) * kPanel + offset % kPanel;
    for (int d = 0; d < dim; d++) put_code(a, lane + d / share * kPanel, codes[d], d % share);
    code_head(a, value + h * dim, offset, codes, v.scales);
    for (int d = 0; d < dim; d++)
      put_code(a, v.codes + (d / kPanel / share * kBlock + offset) * kPanel + d % kPanel, codes[d], d / kPanel % share);
  }
}

static inline F decoded(const Attention& a, const uint8_t* codes, bool second, F step, F base) {
  I code = load_byte_ints(codes);
  if (a.bits == 4) code = second ? shift_right<4>(code) : both(code, splat_int(15));
  return fma(to_float(code), step, base);
}

// A head's keys in a block as floats [2][head_dim][16 positions], still turned.
static void restore_keys(const Attention& a, const uint8_t* block, int head, float* out) {
  Coded<const uint8_t, const uint16_t> k(a, block + a.key_offset, head, a.head_dim);
  int share = 8 / a.bits, dim = a.head_dim;
  for (int half = 0; half < 2; half++)
    for (int i = 0; i < kPanel; i += W)
      for (int start = 0, g = 0; start < dim; start += a.group, g++) {
        const uint16_t* scales = k.scales + g * 2 * kBlock + half * kPanel + i;
        F step = load_half(scales), base = load_half(scales + kBlock);
        int end = start + a.group < dim ? start + a.group : dim;
        for (int d = start; d < end; d++)
          store(out + (half * dim + d) * kPanel + i, decoded(a, k.codes + (half * (dim / share) + d / share) * kPanel + i, d % share, step, base));
      }
}

// A head's values in a block as floats [head_dim / 16][32 positions][16], still turned.
static void restore_values(const Attention& a, const uint8_t* block, int head, float* out) {
  Coded<const uint8_t, const uint16_t> v(a, block + a.value_offset, head, value_width(a));
  int share = 8 / a.bits;
  float steps[kBlock], bases[kBlock];
  for (int panel = 0, before = -1; panel * kPanel < a.head_dim; panel++) {
    int g = panel * kPanel / a.group;
    for (int i = 0; i < kBlock && g != before; i += W) {
      store(steps + i, load_half(v.scales + g * 2 * kBlock + i));
      store(bases + i, load_half(v.scales + (g * 2 + 1) * kBlock + i));
    }
    before = g;
    for (int position = 0; position < kBlock; position++)
      for (int i = 0; i < kPanel; i += W)
        store(out + (panel * kBlock + position) * kPanel + i,
              decoded(a, v.codes + (panel / share * kBlock + position) * kPanel + i, panel % share, splat(steps[position]), splat(bases[position])));
  }
}
