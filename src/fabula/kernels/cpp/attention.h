// Attention over the blocks of a paged cache. In a block a head's keys lie as [2][head_dim][16 positions] and its
// values as [head_dim / 16][32 positions][16], so that the micro-kernel of matmul.h does both products.

static inline int padded_head(const Attention& a) { return (a.head_dim + kPanel - 1) / kPanel * kPanel; }

template <class Type> static inline void put_one(typename Type::Stored* p, float x);
template <> inline void put_one<Single>(float* p, float x) { *p = x; }
template <> inline void put_one<Half>(uint16_t* p, float x) { *p = float_to_half(x); }

template <class Type>
static void write_heads(const Attention& a, const float* key, const float* value, int offset, int head, int heads, uint8_t* block) {
  using Stored = typename Type::Stored;
  int dim = a.head_dim, padded = padded_head(a);
  for (int h = head; h < head + heads; h++) {
    Stored* k = (Stored*)(block + a.key_offset) + (int64_t(h) * 2 + offset / kPanel) * dim * kPanel + offset % kPanel;
    Stored* v = (Stored*)(block + a.value_offset) + int64_t(h) * padded * kBlock + offset * kPanel;
    Stored keys[W];
    for (int d = 0; d < dim; d += W) {
      F x = part(key + h * dim, d, dim);
      if constexpr (sizeof(Stored) == 2) store_half((uint16_t*)keys, x);
      else store((float*)keys, x);
      for (int i = 0; i < W && d + i < dim; i++) k[(d + i) * kPanel] = keys[i];
    }
    for (int d = 0; d < padded; d += W) {
      F x = d < dim ? part(value + h * dim, d, dim) : splat(0.0f);
      Stored* to = v + int64_t(d / kPanel) * kBlock * kPanel + d % kPanel;
      if constexpr (sizeof(Stored) == 2) store_half((uint16_t*)to, x);
      else store((float*)to, x);
    }
  }
}

// Writes `heads` heads from `head` on of one token's keys and values at `offset` of its block.
static void write_cache(const Attention& a, const float* key, const float* value, int offset, int head, int heads, uint8_t* block) {
  if (a.bits < 16) write_coded(a, key, value, offset, head, heads, block);
  else if (a.bits == 32) write_heads<Single>(a, key, value, offset, head, heads, block);
  else write_heads<Half>(a, key, value, offset, head, heads, block);
}

// Where a task's head has its keys and values of the block at a position.
template <class Type> struct Floats {
  using Read = Type;
  using Stored = typename Type::Stored;
  const Attention& a;
  const AttendTask& task;

  const uint8_t* block(int at) const { return task.cache + int64_t(task.table[at / kBlock]) * task.block_bytes; }
  const Stored* keys(int at) const { return (const Stored*)(block(at) + a.key_offset) + int64_t(task.kv_head) * a.head_dim * kBlock; }
  const Stored* values(int at) const { return (const Stored*)(block(at) + a.value_offset) + int64_t(task.kv_head) * padded_head(a) * kBlock; }
  void read_values(int, int) const {}
  void turned(float*) const {}
};

// The same of codes, which become floats at `scratch`: a block's keys, and the values of the range at `start`.
struct Codes {
  using Read = Single;
  const Attention& a;
  const AttendTask& task;
  float* scratch;
  int start;

  const uint8_t* block(int at) const { return task.cache + int64_t(task.table[at / kBlock]) * task.block_bytes; }
  float* values(int at) const { return scratch + a.head_dim * kBlock + int64_t((at - start) / kBlock) * padded_head(a) * kBlock; }
  const float* keys(int at) const {
    restore_keys(a, block(at), task.kv_head, scratch);
    return scratch;
  }
  void read_values(int from, int to) const {
    for (int at = from / kBlock * kBlock; at < to; at += kBlock) restore_values(a, block(at), task.kv_head, values(at));
  }
  void turned(float* x) const { turn(x, a.head_dim); }
};

// Scores of M queries against the 32 keys of a block.
template <class Type, int M>
static void score_block(const float* const* q, const typename Type::Stored* keys, int dim, float* scores) {
  F sums[M][2 * V];
  for (int m = 0; m < M; m++)
    for (int p = 0; p < 2 * V; p++) sums[m][p] = splat(0.0f);
  multiply_add<Type, M, 2>(sums, q, keys, int64_t(dim) * kPanel, dim);
  for (int m = 0; m < M; m++)
    for (int p = 0; p < 2 * V; p++) store(scores + m * kRange + p * W, sums[m][p]);
}

// features[m][16 d .. 16 d + 15] of M queries: probabilities times values, over positions [from, to) of the range at `start`.
template <class Source, int M>
static void weigh_values(const Source& source, int start, int from, int to, int d, const float* p, float* out, int stride) {
  F sums[M][V];
  for (int m = 0; m < M; m++)
    for (int v = 0; v < V; v++) sums[m][v] = splat(0.0f);
  for (int at = from; at < to;) {
    int end = (at / kBlock + 1) * kBlock < to ? (at / kBlock + 1) * kBlock : to;
    const auto* values = source.values(at) + int64_t(d) * kBlock * kPanel + (at % kBlock) * kPanel;
    const float* rows[M];
    for (int m = 0; m < M; m++) rows[m] = p + m * kRange + at - start;
    multiply_add<typename Source::Read, M, 1>(sums, rows, values, 0, end - at);
    at = end;
  }
  for (int m = 0; m < M; m++)
    for (int v = 0; v < V; v++) store(out + m * stride + d * kPanel + v * W, sums[m][v]);
}

// Scores of one query to exponentials less their maximum; what it does not see becomes 0. Lanes are positions of [first, last).
static void soften(float* scores, int begin, int end, int first, int last, float softcap, float* maximum_out, float* sum_out) {
  F top = splat(-3.0e38f), low = splat(-3.0e38f);
  float index[W];
  for (int i = 0; i < W; i++) index[i] = float(i);
  F lane = load(index);
  for (int i = begin; i < end; i += W) {
    F s = load(scores + i);
    if (softcap > 0.0f) s = mul(splat(softcap), hyperbolic_tangent(div(s, splat(softcap))));
    if (i < first || i + W > last) {
      s = choose(less(lane, splat(float(first - i))), low, s);
      s = choose(less(lane, splat(float(last - i))), s, low);
    }
    store(scores + i, s);
    top = maximum(top, s);
  }
  float high = largest(top);
  F total = splat(0.0f);
  for (int i = begin; i < end; i += W) {
    F e = exponential(sub(load(scores + i), splat(high)));
    if (i < first || i + W > last) {
      e = choose(less(lane, splat(float(first - i))), splat(0.0f), e);
      e = choose(less(lane, splat(float(last - i))), e, splat(0.0f));
    }
    store(scores + i, e);
    total = add(total, e);
  }
  *maximum_out = high;
  *sum_out = sum(total);
}

template <class Source>
static void attend_to(const Source& source, const Attention& a, const AttendTask& task, int range, float* scratch, const Partial& out) {
  using Type = typename Source::Read;
  int group = task.heads, rows = task.tokens * group, dim = a.head_dim, padded = padded_head(a), start = range * kRange;
  float* scores = scratch;                        // [rows, kRange]
  float* scaled = scratch + kAttendRows * kRange;  // [rows, head_dim]
  const float* q[kAttendRows];
  int first[kAttendRows], last[kAttendRows], from = start + kRange, to = start;
  for (int m = 0; m < rows; m++) {
    int position = task.positions[m / group];
    first[m] = a.window > 0 && position - a.window + 1 > start ? position - a.window + 1 : start;
    int end = task.seen > 0 ? task.seen : position + 1;
    last[m] = end < start + kRange ? end : start + kRange;
    if (first[m] < last[m]) {
      from = first[m] < from ? first[m] : from;
      to = last[m] > to ? last[m] : to;
    }
    q[m] = scaled + m * dim;
    scale_row(task.queries[m / group] + (m % group) * dim, scaled + m * dim, dim, a.scale);
    source.turned(scaled + m * dim);
  }
  if (from >= to) {
    for (int m = 0; m < rows; m++) out.maxima[m] = -3.0e38f, out.sums[m] = 0.0f;
    return;
  }
  for (int at = from / kBlock * kBlock; at < to; at += kBlock) {
    const auto* keys = source.keys(at);
    for (int m = 0; m < rows; m += 6) {
      float* to_scores = scores + m * kRange + at - start;
      switch (rows - m < 6 ? rows - m : 6) {
        case 1: score_block<Type, 1>(q + m, keys, dim, to_scores); break;
        case 2: score_block<Type, 2>(q + m, keys, dim, to_scores); break;
        case 3: score_block<Type, 3>(q + m, keys, dim, to_scores); break;
        case 4: score_block<Type, 4>(q + m, keys, dim, to_scores); break;
        case 5: score_block<Type, 5>(q + m, keys, dim, to_scores); break;
        default: score_block<Type, 6>(q + m, keys, dim, to_scores); break;
      }
    }
  }
  int begin = (from / kBlock * kBlock) - start, end = ((to + kBlock - 1) / kBlock * kBlock) - start;
  for (int m = 0; m < rows; m++) {
    if (first[m] >= last[m]) {
      for (int i = begin; i < end; i++) scores[m * kRange + i] = 0.0f;
      out.maxima[m] = -3.0e38f, out.sums[m] = 0.0f;
      continue;
    }
    int position = task.positions[m / group], head = task.head + m % group;
    if (a.bias && task.columns) add_bias_at(*a.bias, head, task.columns + start, task.columns[position], scores + m * kRange, last[m] - start);
    else if (a.bias) add_bias(*a.bias, head, start - position, scores + m * kRange, begin, end);
    soften(scores + m * kRange, begin, end, first[m] - start, last[m] - start, a.softcap, out.maxima + m, out.sums + m);
  }
  source.read_values(from, to);
  for (int d = 0; d < padded / kPanel; d++) {
    for (int m = 0; m < rows; m += 12) {
      const float* p = scores + m * kRange;
      float* to_features = out.features + m * padded;
#define FABULA_CASE(n) case n: weigh_values<Source, n>(source, start, from, to, d, p, to_features, padded); break;
      switch (rows - m < 12 ? rows - m : 12) {
        FABULA_CASE(1) FABULA_CASE(2) FABULA_CASE(3) FABULA_CASE(4) FABULA_CASE(5) FABULA_CASE(6)
        FABULA_CASE(7) FABULA_CASE(8) FABULA_CASE(9) FABULA_CASE(10) FABULA_CASE(11) FABULA_CASE(12)
      }
#undef FABULA_CASE
    }
  }
  for (int m = 0; m < rows; m++) source.turned(out.features + m * padded);
}

// The softmax's part of the positions [range * kRange, (range + 1) * kRange), for each query that sees some of them.
static void attend_range(const Attention& a, const AttendTask& task, int range, float* scratch, const Partial& out) {
  float* restored = scratch + kAttendRows * (kRange + padded_head(a));
  if (a.bits < 16) attend_to(Codes{a, task, restored, range * kRange}, a, task, range, scratch, out);
  else if (a.bits == 32) attend_to(Floats<Single>{a, task}, a, task, range, scratch, out);
  else attend_to(Floats<Half>{a, task}, a, task, range, scratch, out);
}

// into = into + next, for ranges in rising order; an empty side leaves the other as it is.
static void fold(const Partial& into, const Partial& next, int rows, int width) {
  for (int m = 0; m < rows; m++) {
    if (next.sums[m] == 0.0f) continue;
    bool empty = into.sums[m] == 0.0f;
    float high = empty || next.maxima[m] > into.maxima[m] ? next.maxima[m] : into.maxima[m];
    float pair[2 * W] = {};
    pair[0] = empty ? 0.0f : into.maxima[m] - high;
    pair[1] = next.maxima[m] - high;
    store(pair, exponential(load(pair)));
    float old = empty ? 0.0f : pair[0];
    into.maxima[m] = high;
    into.sums[m] = (empty ? 0.0f : into.sums[m] * old) + next.sums[m] * pair[1];
    float* x = into.features + m * width;
    const float* y = next.features + m * width;
    for (int i = 0; i < width; i += W) {
      F kept = empty ? splat(0.0f) : mul(load(x + i), splat(old));
      store(x + i, fma(load(y + i), splat(pair[1]), kept));
    }
  }
}

// out = features / sums, for one query of `dim` features.
static void divide(const Partial& done, int m, float* out, int dim) {
  int padded = (dim + kPanel - 1) / kPanel * kPanel;
  scale_row(done.features + m * padded, out, dim, 1.0f / done.sums[m]);
}
