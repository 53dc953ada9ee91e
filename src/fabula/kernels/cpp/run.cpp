// Executes a program: every thread walks the same instructions and meets the others only where data demand it.
#include <algorithm>

#include "codes.h"
#include "program.h"

namespace fabula {
namespace {

Attention attention_of(const Instruction& in) {
  return {in.integers[0], in.integers[1], in.integers[2], in.integers[3], in.integers[4], in.integers[5],
          in.integers[6], in.integers[7], in.numbers[0], in.numbers[1], (const PositionBias*)in.pointers[0]};
}

}  // namespace

// One thread's walk through the program.
struct Run {
  Program& p;
  Pool& pool;
  const Kernels& k;
  const Step& step;
  const int thread, threads;
  std::vector<const void*> pointers;
  std::vector<const float*> queries;
  std::vector<int> cuts;

  bool is_small(int scored) const { return threads > 1 && (scored ? step.scored_count : step.positions) <= kSmall; }
  int count_of(int scored) const { return scored ? step.scored_count : step.positions; }

  uint8_t* at(int value, int row) const {
    const Value& v = p.values_[size_t(value)];
    if (v.output >= 0) return (uint8_t*)step.outputs[v.output] + row * v.stride;
    bool own = v.replicated && is_small(v.scored);
    uint8_t* arena = own ? p.private_[size_t(thread)].data() : p.shared_.data();
    return arena + v.offset * (own ? kSmall : p.capacity_) + row * v.stride + v.column;
  }
  int gather(int row, bool gathered) const { return gathered ? step.scored[row] : row; }

  float* scratch(size_t floats) {
    std::vector<float>& s = p.scratch_[size_t(thread)];
    if (s.size() < floats) s.resize(floats);
    return s.data();
  }

  void walk() {
    const std::vector<uint8_t>& meet = p.barriers_[size_t(is_small(0) + 2 * is_small(1))];
    for (size_t i = 0; i < p.instructions_.size(); i++) {
      const Instruction& in = p.instructions_[i];
      if (meet[i]) pool.barrier();
      if (in.operation == kMatmul) matmul(i, in);
      else if (in.operation == kGatedMatmul) gated_matmul(i, in);
      else if (in.operation == kStore) write_all(in.a, in.b, attention_of(in));
      else if (in.operation >= kAttend) attend(in, p.tiles_[i]);
      else rows(in);
    }
  }

  void rows(const Instruction& in) {
    int n = count_of(in.scored), begin = 0, end = n;
    bool own = is_small(in.scored) && p.values_[size_t(in.out)].replicated;
    if (!own) begin = int(int64_t(n) * thread / threads), end = int(int64_t(n) * (thread + 1) / threads);
    for (int row = begin; row < end; row++) one_row(in, row);
  }

  void embed(const Instruction& in, int id, float* out) {
    int width = p.values_[size_t(in.out)].width, format = in.integers[0];
    const uint8_t* source = (const uint8_t*)in.pointers[0] + id * (int64_t(in.integers[1]) << 32 | uint32_t(in.integers[2]));
    dequantize(format, source, width, out);
    if (in.numbers[0] != 1.0f) k.scale_row(out, out, width, in.numbers[0]);
  }

  void one_row(const Instruction& in, int row) {
    int token = in.scored ? step.scored[row] : row;
    int width = in.a >= 0 ? p.values_[size_t(in.a)].width : 0;
    const float* a = in.a >= 0 ? (const float*)at(in.a, gather(row, in.gathered & 1)) : nullptr;
    const float* b = in.b >= 0 ? (const float*)at(in.b, gather(row, in.gathered & 2)) : nullptr;
    float* out = (float*)at(in.out, row);
    switch (in.operation) {
      case kEmbed:
        if (step.vectors) std::memcpy(out, step.vectors + int64_t(token) * p.values_[size_t(in.out)].width, size_t(p.values_[size_t(in.out)].width) * 4);
        else embed(in, step.tokens[token], out);
        return;
      case kEmbedPositions: return embed(in, p.position_of_[size_t(token)], out);
      case kRmsNorm: return k.rms_norm(a, (const float*)in.pointers[0], out, width, in.integers[0], in.numbers[0]);
      case kLayerNorm: return k.layer_norm(a, (const float*)in.pointers[0], (const float*)in.pointers[1], out, width, in.numbers[0]);
      case kQuantize: return k.quantize(a, (int8_t*)out, width, in.numbers[0]);
      case kAdd: return k.add_rows(a, b, out, width);
      case kRope: {
        const Rope& rope = p.ropes_[size_t(in.integers[0])];
        int half = int(rope.inverse_frequencies.size());
        const float* angles = rope.table.data() + int64_t(p.position_of_[size_t(token)]) * 2 * half;
        return k.rope_row(a, angles, out, width, in.integers[1], half);
      }
      case kActivate: return k.activate_row(a, out, width, in.integers[0]);
      case kGate: return k.gate_row(a, b, out, width, in.integers[0]);
      case kSoftcap: return k.softcap_row(a, out, width, in.numbers[0]);
      case kScale: return k.scale_row(a, out, width, in.numbers[0]);
      default: std::memcpy(out, a, size_t(width) * 4);
    }
  }

  // The units of a matmul: each thread first takes its own share in order, then what others have not begun.
  template <class Work> void share(size_t instruction, const std::vector<int>& cuts, Work&& work) {
    Program::Cursor* cursors = &p.cursor(instruction, 0, threads);
    for (int i = 0; i < threads; i++) {
      int owner = (thread + i) % threads, begin = cuts[size_t(owner)], end = cuts[size_t(owner) + 1];
      for (int unit; (unit = begin + cursors[owner].taken.fetch_add(1, std::memory_order_relaxed)) < end;) work(unit);
    }
  }

  void collect(int value, bool gathered, int count) {
    pointers.resize(size_t(count));
    for (int i = 0; i < count; i++) pointers[size_t(i)] = at(value, gather(i, gathered));
  }

  static int panels_of(const Matrix& w) { return (w.rows + kPanel - 1) / kPanel; }

  // Panels that are computed together: about 12 KiB of weights.
  static int panels_at_once(const Matrix& w) { return int(std::clamp<int64_t>(12288 / w.panel_bytes, 1, 8)); }

  static int units_of(const Segment& s) { return (panels_of(*s.matrix) + panels_at_once(*s.matrix) - 1) / panels_at_once(*s.matrix); }

  static int64_t unit_bytes(const Segment& s) { return s.matrix->panel_bytes * panels_at_once(*s.matrix); }

  // Where each thread's share of a matmul's units begins: shares of equal bytes.
  void cut(const Instruction& in) {
    cuts.assign(size_t(threads) + 1, 0);
    if (in.operation == kGatedMatmul) {
      int groups = in.segment[0].matrix->rows / kGroup;
      for (int t = 0; t <= threads; t++) cuts[size_t(t)] = groups * t / threads;
      return;
    }
    int64_t total = 0;
    for (int s = 0; s < in.segments; s++) total += units_of(in.segment[s]) * unit_bytes(in.segment[s]);
    int64_t before = 0;
    int units = 0, t = 1;
    for (int s = 0; s < in.segments; s++) {
      int64_t bytes = unit_bytes(in.segment[s]), here = units_of(in.segment[s]);
      for (; t < threads && total * t / threads <= before + here * bytes; t++)
        cuts[size_t(t)] = units + int((total * t / threads - before + bytes / 2) / bytes);
      before += here * bytes;
      units += int(here);
    }
    for (; t <= threads; t++) cuts[size_t(t)] = units;
  }

  // The segment of a unit, and the unit's place in it.
  static const Segment& segment_of(const Instruction& in, int& unit) {
    int s = 0;
    for (; unit >= units_of(in.segment[s]); s++) unit -= units_of(in.segment[s]);
    return in.segment[s];
  }

  // Asks for the first lines of this thread's share of the next matmul, while it waits for the others.
  void look_ahead(size_t instruction) {
    constexpr int64_t kBytes = 8192;
    for (size_t i = instruction + 1; i < p.instructions_.size(); i++) {
      const Instruction& in = p.instructions_[i];
      if (in.segments == 0) continue;
      cut(in);
      int unit = cuts[size_t(thread)];
      if (unit >= cuts[size_t(thread) + 1]) return;
      if (in.operation == kGatedMatmul) {
        for (int s = 0; s < 2; s++) fetch(in.segment[s].matrix->data + unit * (kGroup / kPanel) * in.segment[s].matrix->panel_bytes, kBytes / 2);
        return;
      }
      const Segment& s = segment_of(in, unit);
      fetch(s.matrix->data + unit * unit_bytes(s), kBytes);
      return;
    }
  }

  static void fetch(const uint8_t* data, int64_t bytes) {
    for (int64_t at = 0; at < bytes; at += 64) __builtin_prefetch(data + at, 0, 2);
  }

  void matmul(size_t i, const Instruction& in) {
    int n = count_of(in.scored);
    if (n == 0) return;
    collect(in.a, in.gathered & 1, n);
    cut(in);
    share(i, cuts, [&](int unit) {
      const Segment& s = segment_of(in, unit);
      int at_once = panels_at_once(*s.matrix), panel = unit * at_once;
      panels_of_segment(s, panel, std::min(at_once, panels_of(*s.matrix) - panel), n);
    });
    if (n <= kSmall) look_ahead(i);
  }

  void panels_of_segment(const Segment& s, int panel, int panels, int n) {
    constexpr int kTokens = 48;
    const Matrix& w = *s.matrix;
    int width = panels * kPanel, real = std::min(width, w.rows - panel * kPanel);
    float* products = scratch(size_t(kTokens) * 8 * kPanel);
    bool plain = !s.bias && s.residual < 0 && real == width;  // nothing to add: products are the output
    for (int first = 0; first < n; first += kTokens) {
      int tokens = std::min(kTokens, n - first);
      if (plain) {
        k.matmul(w, panel, panels, pointers.data() + first, tokens, (float*)at(s.out, first) + panel * kPanel, p.values_[size_t(s.out)].stride / 4);
        continue;
      }
      k.matmul(w, panel, panels, pointers.data() + first, tokens, products, width);
      for (int t = 0; t < tokens; t++) {
        const float* bias = s.bias ? s.bias + panel * kPanel : nullptr;
        const float* residual = s.residual < 0 ? nullptr : (const float*)at(s.residual, gather(first + t, s.residual_gathered)) + panel * kPanel;
        k.finish(products + t * width, bias, residual, (float*)at(s.out, first + t) + panel * kPanel, real);
      }
    }
  }

  // activation(gate) * up, quantized group by group: the two weights have the same number of rows, a multiple of kGroup.
  // Who ends the last group sees whole rows, and which of their groups are outliers.
  void gated_matmul(size_t i, const Instruction& in) {
    constexpr int kTokens = 48, kPanels = kGroup / kPanel;
    int n = count_of(in.scored);
    if (n == 0) return;
    collect(in.a, in.gathered & 1, n);
    const Matrix &gate = *in.segment[0].matrix, &up = *in.segment[1].matrix;
    int groups = gate.rows / kGroup;
    QuantizedRow row(gate.rows);
    float* gates = scratch(size_t(kTokens) * kGroup * 2);
    float* ups = gates + kTokens * kGroup;
    cut(in);
    share(i, cuts, [&](int g) {
      for (int first = 0; first < n; first += kTokens) {
        int tokens = std::min(kTokens, n - first);
        k.matmul(gate, g * kPanels, kPanels, pointers.data() + first, tokens, gates, kGroup);
        k.matmul(up, g * kPanels, kPanels, pointers.data() + first, tokens, ups, kGroup);
        for (int t = 0; t < tokens; t++) {
          uint8_t* out = at(in.out, first + t);
          GroupScale* scales = row.scales(out);
          k.gate_and_quantize(gates + t * kGroup, ups + t * kGroup, in.integers[0], (int8_t*)out + g * kGroup, scales + g, row.outliers(out) + g);
          if (g == groups - 1 && row.groups > groups) {
            std::memset(out + gate.rows, 0, kGroup);
            scales[g + 1] = GroupScale{};
          }
        }
      }
      if (p.cursor(i, 0, threads).done.fetch_add(1, std::memory_order_acq_rel) < groups - 1) return;
      for (int row = 0; row < n; row++) k.keep_outliers((int8_t*)at(in.out, row), gate.rows, in.numbers[0]);
    });
    if (n <= kSmall) look_ahead(i);
  }

  void write(int key, int value, const Attention& a, int token, int head, int heads) {
    int position = p.position_of_[size_t(token)], row = p.row_of_[size_t(token)];
    int32_t block = step.tables[int64_t(row) * step.table_width + position / kBlock];
    k.write_cache(a, (const float*)at(key, token), (const float*)at(value, token), position % kBlock, head, heads, step.cache + block * step.block_bytes);
  }

  // This thread's share of a step's keys and values.
  void write_all(int key, int value, const Attention& a) {
    int64_t n = step.positions;
    for (int t = int(n * thread / threads); t < int(n * (thread + 1) / threads); t++) write(key, value, a, t, 0, a.kv_heads);
  }

  // How many positions of a row every query of it sees; 0: those up to its own.
  int seen_by(const Instruction& in, int row) const {
    if (in.operation == kAttendMemory) return step.memory_lengths[row];
    return in.operation == kAttendBoth ? step.first[row] + step.starts[row + 1] - step.starts[row] : 0;
  }

  // Where the keys lie that a row's queries see.
  void look_at(const Instruction& in, int row, AttendTask& task) const {
    bool memory = in.operation == kAttendMemory;
    task.seen = seen_by(in, row);
    task.columns = step.columns && in.operation == kAttendBoth ? step.columns + step.starts[row] : nullptr;
    task.table = memory ? p.in_order_.data() : step.tables + int64_t(row) * step.table_width;
    task.cache = memory ? step.memories[row] : step.cache;
    task.block_bytes = memory ? step.memory_block_bytes : step.block_bytes;
  }

  void attend(const Instruction& in, const std::vector<Tile>& tiles) {
    Attention a = attention_of(in);
    int group = a.heads / a.kv_heads, splits = (group + kAttendRows - 1) / kAttendRows, each = (group + splits - 1) / splits;
    int units = int(tiles.size()) * a.kv_heads * splits, padded = (a.head_dim + kPanel - 1) / kPanel * kPanel;
    const std::vector<int32_t>& positions = in.scored ? p.scored_position_ : p.position_of_;
    auto end_of = [&](const Tile& t, int query) {  // of the positions that a tile's query sees
      int seen = seen_by(in, t.row);
      return seen > 0 ? seen : positions[size_t(t.first + query)] + 1;
    };
    int longest = 1;
    for (const Tile& t : tiles) longest = std::max(longest, end_of(t, t.count - 1));
    int ranges = (longest - 1) / kRange + 1;
    bool split = ranges > 1 && units < 4 * threads;
    bool writes = in.operation != kAttendMemory;
    bool alone = writes && !split && step.positions == step.rows && splits == 1 && units > 0 && int(tiles.size()) == step.rows;
    if (writes && !alone) {
      write_all(in.b, in.c, a);
      if (threads > 1) pool.barrier();
    }
    int64_t partial_floats = int64_t(kAttendRows) * (2 + padded);
    auto partial_at = [&](float* from) { return Partial{from, from + kAttendRows, from + 2 * kAttendRows}; };
    auto describe = [&](int unit, AttendTask& task, Tile& tile, int& head) {
      tile = tiles[size_t(unit / (a.kv_heads * splits))];
      int part = unit % splits;
      task.kv_head = unit / splits % a.kv_heads;
      task.heads = std::min(each, group - part * each);
      task.head = head = task.kv_head * group + part * each;
      queries.resize(size_t(tile.count));
      for (int q = 0; q < tile.count; q++) queries[size_t(q)] = (const float*)at(in.a, gather(tile.first + q, in.gathered & 1)) + head * a.head_dim;
      task.queries = queries.data();
      task.positions = positions.data() + tile.first;
      task.tokens = tile.count;
      look_at(in, tile.row, task);
    };
    auto first_range = [&](const AttendTask& task) {
      return a.window > 0 ? std::max(0, task.positions[0] - a.window + 1) / kRange : 0;
    };
    auto last_range = [&](const AttendTask& task) { return ((task.seen > 0 ? task.seen : task.positions[task.tokens - 1] + 1) - 1) / kRange; };
    auto finish = [&](const AttendTask& task, const Tile& tile, int head, const Partial& done) {
      for (int m = 0; m < tile.count * task.heads; m++)
        k.divide(done, m, (float*)at(in.out, tile.first + m / task.heads) + (head + m % task.heads) * a.head_dim, a.head_dim);
    };
    size_t restored = a.bits < 16 ? size_t(kRange + kBlock) * size_t(padded) : 0;  // a range's values and a block's keys
    float* work = scratch(size_t(kAttendRows) * (kRange + size_t(padded)) + restored + 2 * size_t(partial_floats));
    float* own = work + size_t(kAttendRows) * (kRange + size_t(padded)) + restored;
    AttendTask task;
    Tile tile;
    int head;
    if (!split) {
      int64_t total = 0, before = 0;
      for (const Tile& t : tiles) total += int64_t(t.count) * (end_of(t, 0) + 63);
      total *= a.kv_heads * splits;
      for (int unit = 0; unit < units; unit++) {
        const Tile& t = tiles[size_t(unit / (a.kv_heads * splits))];
        int64_t cost = int64_t(t.count) * (end_of(t, 0) + 63), middle = before + cost / 2;
        before += cost;
        if (middle * threads / total != thread) continue;
        describe(unit, task, tile, head);
        if (alone) write(in.b, in.c, a, in.scored ? step.scored[tile.first] : tile.first, task.kv_head, 1);
        Partial sum = partial_at(own), next = partial_at(own + partial_floats);
        int range = first_range(task), last = last_range(task), rows = task.tokens * task.heads;
        k.attend_range(a, task, range, work, sum);
        for (range++; range <= last; range++) {
          k.attend_range(a, task, range, work, next);
          k.fold(sum, next, rows, padded);
        }
        finish(task, tile, head, sum);
      }
      return;
    }
    if (thread == 0 && int64_t(p.partials_.size()) < int64_t(units) * ranges * partial_floats) p.partials_.resize(size_t(units * ranges * partial_floats));
    if (threads > 1) pool.barrier();
    for (int job = thread; job < units * ranges; job += threads) {
      int unit = job / ranges, range = job % ranges;
      describe(unit, task, tile, head);
      if (range < first_range(task) || range > last_range(task)) continue;
      k.attend_range(a, task, range, work, partial_at(p.partials_.data() + job * partial_floats));
    }
    if (threads > 1) pool.barrier();
    for (int unit = thread; unit < units; unit += threads) {
      describe(unit, task, tile, head);
      int range = first_range(task), last = last_range(task);
      Partial sum = partial_at(p.partials_.data() + (int64_t(unit) * ranges + range) * partial_floats);
      for (range++; range <= last; range++)
        k.fold(sum, partial_at(p.partials_.data() + (int64_t(unit) * ranges + range) * partial_floats), task.tokens * task.heads, padded);
      finish(task, tile, head, sum);
    }
  }
};

Status Program::run(Pool& pool, const Kernels& kernels, const Step& step) {
  std::unique_lock<std::mutex> lock = pool.lock();
  if (Status status = check(step); status != kDone) return status;
  if (!prepare(step, pool.size())) return kOutOfMemory;
  struct Shared {
    Program* program;
    Pool* pool;
    const Kernels* kernels;
    const Step* step;
  } shared{this, &pool, &kernels, &step};
  pool.run(
      [](void* data, int thread) {
        Shared& s = *(Shared*)data;
        Run{*s.program, *s.pool, *s.kernels, *s.step, thread, s.pool->size(), {}, {}, {}}.walk();
      },
      &shared);
  return kDone;
}

}  // namespace fabula
