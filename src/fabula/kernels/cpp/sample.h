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

static inline float gumbel(const uint32_t (&key)[2], uint32_t position, uint32_t token) {
  uint32_t x = position, y = token;
  threefry(key, x, y);
  float uniform = (float(x >> 9) + 0.5f) * 1.1920928955078125e-7f;
  return -std::log(-std::log(uniform));
}

struct Candidate {
  float score;
  int32_t token;
};

// Scratch of one thread.
struct Choice {
  std::vector<float> scores, maxima, sorted;
  std::vector<Candidate> open;
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
  double held = 0.0;
  for (const Candidate& c : open) held += double(std::exp(c.score - high) / divisor);
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

// The token, or -1 where the scores hold something that is not a finite number.
static int32_t choose_token(const float* logits, int count, const SampleRow& row, Choice& work) {
  work.maxima.resize(size_t((count + kGroupScores - 1) / kGroupScores));
  const float* scores = penalized(logits, count, row, work);
  if (!group_maxima(scores, count, work.maxima.data())) return -1;
  if (row.temperature == 0.0f) return first_maximum(scores, count, work.maxima);
  float high = *std::max_element(work.maxima.begin(), work.maxima.end()) / row.temperature;
  bool by_mass = row.tail >= 0.0f, by_rank = row.top_k > 0 && row.top_k < count;
  float bound = by_rank ? kth_largest(scores, count, row.top_k, work) / row.temperature : -3.4e38f;
  double total = 0.0;  // the mass of all that are above the rank's bound
  float ignored = high + kLeastNoise - kMostNoise;  // what lies below cannot win
  work.open.clear();
  for (size_t g = 0; g < work.maxima.size(); g++) {
    float group_high = work.maxima[g] / row.temperature;
    if (group_high < bound || (!by_mass && group_high < ignored)) continue;
    int start = int(g) * kGroupScores, end = std::min(count, start + kGroupScores);
    for (int i = start; i < end; i++) {
      float score = scores[i] / row.temperature;
      if (score < bound) continue;
      if (by_mass) total += double(std::exp(score - high));
      if (by_mass || score >= ignored) work.open.push_back({score, i});
    }
  }
  if (by_mass) cut_tail(work.open, row.tail, high, total);
  float least_raised = row.min_p > 0.0f ? row.min_p : 0.0f;
  uint32_t key[2] = {row.seed_low, row.seed_high}, words[2] = {row.stream, row.purpose};
  threefry(key, words[0], words[1]);
  Candidate best{-3.4e38f, -1};
  for (const Candidate& c : work.open) {
    if (c.score + kMostNoise < best.score) continue;
    if (least_raised > 0.0f && std::exp(c.score - high) < least_raised) continue;
    float noisy = c.score + gumbel(words, row.position, uint32_t(c.token));
    if (best.token < 0 || noisy > best.score || (noisy == best.score && c.token < best.token)) best = {noisy, c.token};
  }
  return best.token;
}

// Tokens of rows [begin, end) of logits [rows, count].
static void sample(const float* logits, int count, const SampleRow* rows, int begin, int end, int32_t* tokens) {
  Choice work;
  for (int r = begin; r < end; r++) tokens[r] = choose_token(logits + int64_t(r) * count, count, rows[r], work);
}
