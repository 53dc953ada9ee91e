// What distances add to attention's scores (Raffel et al. 2020, section 2.1): a number for each head and distance.

// To the scores [begin, end) of one query, of which the first would be of the key at `distance` from it. The ends of the
// table repeat its last numbers, so that lanes of which all are beyond one read there.
static void add_bias(const PositionBias& bias, int head, int distance, float* scores, int begin, int end) {
  int last = 2 * bias.far + kPanel;
  const float* values = bias.values + int64_t(head) * (last + kPanel + 1);
  for (int i = begin; i < end; i += W) {
    int at = distance + i + bias.far + kPanel;
    at = at < 0 ? 0 : at > last ? last : at;
    store(scores + i, add(load(scores + i), load(values + at)));
  }
}

// The same where keys are not one behind the other: at `columns`, of which the first is that of the score at 0.
static void add_bias_at(const PositionBias& bias, int head, const int32_t* columns, int column, float* scores, int count) {
  const float* values = bias.values + int64_t(head) * (2 * bias.far + 2 * kPanel + 1);
  for (int i = 0; i < count; i++) {
    int distance = columns[i] - column;
    distance = distance < -bias.far ? -bias.far : distance > bias.far ? bias.far : distance;
    scores[i] += values[distance + bias.far + kPanel];
  }
}
