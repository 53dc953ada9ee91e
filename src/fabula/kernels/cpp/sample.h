// Chooses the next token of a row: penalty, temperature, top-k, top-p, min-p, then the best score plus keyed noise.
// Steps and roundings follow processors/ and arrays/random.py, of which this is the fast path.

constexpr int kGroupScores = 64;          // scores whose maximum is looked at together
constexpr float kMostNoise = 16.64f;      // -log(-log(u)) for the largest u there is
constexpr float kLeastNoise = -2.82f;     // and for the smallest

static inline uint32_t rotated(uint32_t x, int count) { return (x << count) | (x >> (32 - count)); }

// Threefry-2x32 with 20 rounds (Salmon et al. 2011).
static inline void threefry(const uint32_t (&key)[2], uint32_t& x, uint32_t& y) {
  static constexpr int kRotations[2][4] = {{13, 15, 26, 6}, {17, 29, 16, 24}};
  const uint32_t keys[3] = {key[0], key[1], key[0] ^ key[1] ^ 0x1BD11BDAu};
  x += keys[0], y += keys[1];
  for (uint32_t group = 1; group < 6; group++) {
    for (int r = 0; r < 4; r++) {
      x += y;
      y = rotated(y, kRotations[(group + 1) % 2][r]) ^ x;
    }
    x += keys[group % 3];
    y += keys[(group + 1) % 3] + group;
  }
}

static inline float uniform(const uint32_t (&key)[2], uint32_t position, uint32_t token) {
  uint32_t x = position, y = token;
  threefry(key, x, y);
  return (float(x >> 9) + 0.5f) * 1.1920928955078125e-7f;
}

static inline float gumbel(const uint32_t (&key)[2], uint32_t position, uint32_t token) {
  return -std::log(-std::log(uniform(key, position, token)));
}

// The same bits of W tokens, as numbers in (0, 1).
static inline F uniform_lanes(const uint32_t (&key)[2], uint32_t position, I tokens) {
  const I keys[3] = {splat_int(int32_t(key[0])), splat_int(int32_t(key[1])), splat_int(int32_t(key[0] ^ key[1] ^ 0x1BD11BDAu))};
  I x = add(splat_int(int32_t(position)), keys[0]), y = add(tokens, keys[1]);
#define FABULA_ROUND(n) x = add(x, y), y = exclusive_or(rotate<n>(y), x);
#define FABULA_KEYS(group) x = add(x, keys[group % 3]), y = add(add(y, keys[(group + 1) % 3]), splat_int(group));
  FABULA_ROUND(13) FABULA_ROUND(15) FABULA_ROUND(26) FABULA_ROUND(6) FABULA_KEYS(1)
  FABULA_ROUND(17) FABULA_ROUND(29) FABULA_ROUND(16) FABULA_ROUND(24) FABULA_KEYS(2)
  FABULA_ROUND(13) FABULA_ROUND(15) FABULA_ROUND(26) FABULA_ROUND(6) FABULA_KEYS(3)
  FABULA_ROUND(17) FABULA_ROUND(29) FABULA_ROUND(16) FABULA_ROUND(24) FABULA_KEYS(4)
  FABULA_ROUND(13) FABULA_ROUND(15) FABULA_ROUND(26) FABULA_ROUND(6) FABULA_KEYS(5)
#undef FABULA_ROUND
#undef FABULA_KEYS
  return mul(add(to_float(shift_right<9>(x)), splat(0.5f)), splat(1.1920928955078125e-7f));
}

// The noise that they mean, to about 1e-5.
static inline F gumbel_lanes(const uint32_t (&key)[2], uint32_t position, I tokens) {
  F uniform = uniform_lanes(key, position, tokens);
  F inner = sub(splat(0.0f), logarithm(uniform));
  // near 1 the logarithm cancels: there -log(u) is 1 - u and a little
  F left = sub(splat(1.0f), uniform);
  inner = choose(less(left, splat(1e-3f)), fma(mul(left, left), splat(0.5f), left), inner);
  return sub(splat(0.0f), logarithm(inner));
}

// The numbers in (0, 1) that the noise of a row's tokens is made of.
static void uniforms(uint32_t low, uint32_t high, uint32_t position, const int32_t* tokens, int count, float* out) {
  uint32_t key[2] = {low, high};
  int i = 0;
  for (; i + W <= count; i += W) store(out + i, uniform_lanes(key, position, load_int(tokens + i)));
  for (; i < count; i++) out[i] = uniform(key, position, uint32_t(tokens[i]));
}

struct Candidate {
  float score;
  int32_t token;
};

// Scratch of one thread.
struct Choice {
  std::vector<float> scores, maxima, sorted;
  std::vector<Candidate> open;
  std::vector<float> drawn;     // the scores of those that may be drawn, and their tokens
  std::vector<int32_t> tokens;
};

// Each group's largest score; false where a score is NaN or infinite.
static bool group_maxima(const float* scores, int count, float* maxima) {
  F check = splat(0.0f);
  for (int start = 0, g = 0; start < count; start += kGroupScores, g++) {
    int end = start + kGroupScores < count ? start + kGroupScores : count;
    F top = splat(-3.4e38f);
    int i = start;
    for (; i + W <= end; i += W) {
      F x = load(scores + i);
      check = fma(x, splat(0.0f), check);
      top = maximum(top, x);
    }
    float high = largest(top);
    for (; i < end; i++) {
      check = fma(splat(scores[i]), splat(0.0f), check);
      high = scores[i] > high ? scores[i] : high;
    }
    maxima[g] = high;
  }
  return sum(check) == 0.0f;
}

static const float* penalized(const float* logits, int count, const SampleRow& row, Choice& work) {
  if (row.repetition_penalty == 1.0f || row.token_count == 0) return logits;
  work.scores.assign(logits, logits + count);
  for (int i = 0; i < row.token_count; i++) {
    int32_t t = row.tokens[i];
    if (t < 0 || t >= count) continue;
    work.scores[size_t(t)] = logits[t] < 0.0f ? logits[t] * row.repetition_penalty : logits[t] / row.repetition_penalty;
  }
  return work.scores.data();
}

static int32_t first_maximum(const float* scores, int count, const std::vector<float>& maxima) {
  size_t best = 0;
  for (size_t g = 1; g < maxima.size(); g++)
    if (maxima[g] > maxima[best]) best = g;
  int32_t i = int32_t(best) * kGroupScores;
  while (i + 1 < count && scores[i] != maxima[best]) i++;
  return i;
}

// The k-th largest score: at least k groups have a maximum that reaches the lower bound.
static float kth_largest(const float* scores, int count, int k, Choice& work) {
  work.sorted = work.maxima;
  float bound = -3.4e38f;
  if (size_t(k) <= work.sorted.size()) {
    std::nth_element(work.sorted.begin(), work.sorted.begin() + (k - 1), work.sorted.end(), std::greater<float>());
    bound = work.sorted[size_t(k - 1)];
  }
  work.sorted.clear();
  for (size_t g = 0; g < work.maxima.size(); g++) {
    if (work.maxima[g] < bound) continue;
    int end = std::min(count, int(g + 1) * kGroupScores);
    for (int i = int(g) * kGroupScores; i < end; i++)
      if (scores[i] >= bound) work.sorted.push_back(scores[i]);
  }
  std::nth_element(work.sorted.begin(), work.sorted.begin() + (k - 1), work.sorted.end(), std::greater<float>());
  return work.sorted[size_t(k - 1)];
}

// Keeps the likeliest candidates without the tail of that mass; `high` is the largest score. Order becomes falling.
static void cut_tail(std::vector<Candidate>& open, float tail, float high, double total) {
  auto likelier = [](const Candidate& a, const Candidate& b) { return a.score > b.score || (a.score == b.score && a.token < b.token); };
  float divisor = float(total);
  double held = total / double(divisor);  // what a candidate and all that are less likely hold, those left out included
  size_t sorted = 0, kept = 0;
  for (size_t part = 64; kept == sorted && sorted < open.size(); part *= 4) {
    size_t end = std::min(open.size(), part);
    if (end < open.size()) std::nth_element(open.begin() + long(sorted), open.begin() + long(end), open.end(), likelier);
    std::sort(open.begin() + long(sorted), open.begin() + long(end), likelier);
    sorted = end;
    for (; kept < sorted && (float(held) > tail || kept == 0); kept++) held -= double(std::exp(open[kept].score - high) / divisor);
  }
  open.resize(std::max<size_t>(kept, 1));
}

// Sum of exp(score / temperature - high).
static double mass(const float* scores, int count, float temperature, float high) {
  double total = 0.0;
  for (int start = 0; start < count; start += kGroupScores) {
    int end = start + kGroupScores < count ? start + kGroupScores : count, i = start;
    F part_sum = splat(0.0f);
    for (; i + W <= end; i += W) part_sum = add(part_sum, exponential(sub(div(load(scores + i), splat(temperature)), splat(high))));
    total += double(sum(part_sum));
    for (; i < end; i++) total += double(std::exp(scores[i] / temperature - high));
  }
  return total;
}

// The candidates of a row: tokens at or above `bound` and, where a tail may go, not surely in it.
static void collect_open(const float* scores, int count, const SampleRow& row, float bound, float high, Choice& work) {
  bool by_mass = row.tail >= 0.0f;
  double total = 0.0;
  float open_from = bound;
  if (by_mass && bound < -3.0e38f) {  // K tokens that are no likelier than tail / K hold at most tail
    total = mass(scores, count, row.temperature, high);
    open_from = high + float(std::log(std::max(1e-30, double(row.tail) * total / double(count)))) - 1e-3f;
  }
  work.open.clear();
  for (size_t g = 0; g < work.maxima.size(); g++) {
    if (work.maxima[g] / row.temperature < open_from) continue;
    int start = int(g) * kGroupScores, end = std::min(count, start + kGroupScores);
    for (int i = start; i < end; i++) {
      float score = scores[i] / row.temperature;
      if (score >= open_from) work.open.push_back({score, i});
    }
  }
  if (!by_mass) return;
  if (total == 0.0)
    for (const Candidate& c : work.open) total += double(std::exp(c.score - high));
  cut_tail(work.open, row.tail, high, total);
}

// Copies what may be drawn to `drawn` and `tokens`; without a cut that is all that the noise can lift to the top.
static void collect_all(const float* scores, int count, float temperature, float high, Choice& work) {
  float ignored = high + kLeastNoise - kMostNoise;
  work.drawn.resize(size_t(count)), work.tokens.resize(size_t(count));
  size_t filled = 0;
  for (size_t g = 0; g < work.maxima.size(); g++) {
    if (work.maxima[g] / temperature < ignored) continue;
    int start = int(g) * kGroupScores, end = std::min(count, start + kGroupScores);
    for (int i = start; i < end; i++, filled++) {
      work.drawn[filled] = scores[i] / temperature;
      work.tokens[filled] = i;
    }
  }
  work.drawn.resize(filled), work.tokens.resize(filled);
}

// The least score whose exponential is still min_p times the largest.
static float least_score(float high, float min_p) {
  float score = high + std::log(min_p);
  while (std::exp(score - high) >= min_p) score = std::nextafter(score, -3.4e38f);
  while (std::exp(score - high) < min_p) score = std::nextafter(score, 3.4e38f);
  return score;
}

// The token of the highest score + noise. Lanes are looked at roughly first, and exactly where they may win.
static int32_t draw(const Choice& work, const SampleRow& row, float least_score) {
  constexpr float kRough = 1e-3f;
  uint32_t key[2] = {row.seed_low, row.seed_high}, words[2] = {row.stream, row.purpose};
  threefry(key, words[0], words[1]);
  Candidate best{-3.4e38f, -1};
  int count = int(work.drawn.size());
  auto look = [&](int i) {
    float noisy = work.drawn[size_t(i)] + gumbel(words, row.position, uint32_t(work.tokens[size_t(i)]));
    bool wins = best.token < 0 || noisy > best.score || (noisy == best.score && work.tokens[size_t(i)] < best.token);
    if (wins && work.drawn[size_t(i)] >= least_score) best = {noisy, work.tokens[size_t(i)]};
  };
  int i = 0;
  for (; i + W <= count; i += W) {
    float sums[W];
    F rough = add(load(work.drawn.data() + i), gumbel_lanes(words, row.position, load_int(work.tokens.data() + i)));
    if (largest(rough) < best.score - kRough) continue;
    store(sums, rough);
    for (int lane = 0; lane < W; lane++)
      if (!(sums[lane] < best.score - kRough)) look(i + lane);
  }
  for (; i < count; i++) look(i);
  return best.token;
}

// The token, or -1 where the scores hold something that is not a finite number.
static int32_t choose_token(const float* logits, int count, const SampleRow& row, Choice& work) {
  work.maxima.resize(size_t((count + kGroupScores - 1) / kGroupScores));
  const float* scores = penalized(logits, count, row, work);
  if (!group_maxima(scores, count, work.maxima.data())) return -1;
  if (row.temperature == 0.0f) return first_maximum(scores, count, work.maxima);
  float high = *std::max_element(work.maxima.begin(), work.maxima.end()) / row.temperature;
  bool by_rank = row.top_k > 0 && row.top_k < count;
  if (by_rank || row.tail >= 0.0f) {
    float bound = by_rank ? kth_largest(scores, count, row.top_k, work) / row.temperature : -3.4e38f;
    collect_open(scores, count, row, bound, high, work);
    work.drawn.clear(), work.tokens.clear();
    for (const Candidate& c : work.open) {
      work.drawn.push_back(c.score);
      work.tokens.push_back(c.token);
    }
  } else {
    collect_all(scores, count, row.temperature, high, work);
  }
  return draw(work, row, row.min_p > 0.0f ? least_score(high, row.min_p) : -3.4e38f);
}

// Tokens of rows [begin, end) of logits [rows, count].
static void sample(const float* logits, int count, const SampleRow* rows, int begin, int end, int32_t* tokens) {
  Choice work;
  for (int r = begin; r < end; r++) tokens[r] = choose_token(logits + int64_t(r) * count, count, rows[r], work);
}
