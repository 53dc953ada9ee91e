// Prepares a program: where threads must meet, and what a step's positions and rows are.
#include "program.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <new>
#if defined(__linux__) || defined(__APPLE__)
#include <sys/mman.h>
#endif

namespace fabula {

bool Arena::reserve(int64_t bytes) {
  if (bytes <= size_) return true;
  release();
  constexpr int64_t page = 2 << 20;
  int64_t rounded = bytes >= page ? (bytes + page - 1) / page * page : (bytes + 4095) / 4096 * 4096;
  void* p = nullptr;
#if defined(_WIN32)
  p = _aligned_malloc(size_t(rounded), 4096);
#else
  if (posix_memalign(&p, bytes >= page ? size_t(page) : 4096, size_t(rounded)) != 0) p = nullptr;
#endif
  if (!p) return false;
#if defined(__linux__)
  if (bytes >= page) madvise(p, size_t(rounded), MADV_HUGEPAGE);
#endif
  data_ = (uint8_t*)p;
  size_ = rounded;
  return true;
}

void Arena::release() {
#if defined(_WIN32)
  _aligned_free(data_);
#else
  std::free(data_);
#endif
  data_ = nullptr;
  size_ = 0;
}

void Rope::cover(int count) {
  if (count <= positions) return;
  int half = int(inverse_frequencies.size()), wanted = std::max(512, std::max(count, 2 * positions));
  table.resize(size_t(wanted) * 2 * size_t(half));
  for (int p = positions; p < wanted; p++)
    for (int i = 0; i < half; i++) {
      double angle = double(p) * inverse_frequencies[size_t(i)];
      table[(size_t(p) * 2) * size_t(half) + size_t(i)] = float(std::cos(angle) * double(factor));
      table[(size_t(p) * 2 + 1) * size_t(half) + size_t(i)] = float(std::sin(angle) * double(factor));
    }
  positions = wanted;
}

Program::Program(const Instruction* instructions, int instruction_count, const Value* values, int value_count, const RopeTable* ropes,
                 int rope_count, int64_t bytes_per_token)
    : instructions_(instructions, instructions + instruction_count), values_(values, values + value_count), bytes_per_token_(bytes_per_token) {
  for (int i = 0; i < rope_count; i++)
    ropes_.push_back({std::vector<double>(ropes[i].inverse_frequencies, ropes[i].inverse_frequencies + ropes[i].half), ropes[i].factor, {}, 0});
  matmul_number_.assign(1, 0);
  for (const Instruction& in : instructions_) matmul_number_.push_back(matmul_number_.back() + (in.segments > 0));
}

namespace {

bool by_rows(const Instruction& in) { return in.operation < kMatmul; }

// What an instruction touches: memory that other threads may touch too, and how its threads divide it.
struct Access {
  int64_t begin, end;  // bytes a token in the arena; outputs lie below 0
  bool writes;
  int slices;  // rows are cut among threads in the way of domain `slices`; -1: any thread may touch any row
};

bool conflict(const Access& a, const Access& b) {
  if (!(a.writes || b.writes) || a.end <= b.begin || b.end <= a.begin) return false;
  bool same_slices = a.slices >= 0 && a.slices == b.slices && a.begin == b.begin && a.end == b.end;
  return !same_slices;
}

}  // namespace

// Where threads must meet, for steps that are small or not: before an instruction that touches what another thread
// wrote, or writes what another thread reads, since the last meeting.
void Program::plan(int small_positions, int small_scored, int threads) {
  std::vector<uint8_t>& meet = barriers_[size_t(small_positions + 2 * small_scored)];
  meet.assign(instructions_.size(), 0);
  if (threads == 1) return;
  std::vector<Access> open, now;
  for (size_t i = 0; i < instructions_.size(); i++) {
    const Instruction& in = instructions_[i];
    now.clear();
    auto touch = [&](int value, bool writes, bool gathered) {
      if (value < 0) return;
      const Value& v = values_[size_t(value)];
      bool small = v.scored ? small_scored : small_positions;
      if (v.replicated && small) return;  // each thread has its own
      int64_t begin = v.output >= 0 ? -1 - v.output : v.offset, end = v.output >= 0 ? begin + 1 : v.offset + v.stride;
      bool sliced = by_rows(in) && !gathered && v.scored == in.scored && !(in.scored ? small_scored : small_positions);
      now.push_back({begin, end, writes, sliced ? in.scored : -1});
    };
    touch(in.a, false, in.gathered & 1);
    touch(in.b, false, in.gathered & 2);
    touch(in.c, false, in.gathered & 4);
    for (int s = 0; s < in.segments; s++) {
      touch(in.segment[s].residual, false, in.segment[s].residual_gathered);
      touch(in.segment[s].out, true, false);
    }
    touch(in.out, true, false);
    for (const Access& a : now)
      for (const Access& b : open) meet[i] |= conflict(a, b);
    if (meet[i]) open.clear();
    open.insert(open.end(), now.begin(), now.end());
  }
}

namespace {

bool attends(const Instruction& in) { return in.operation >= kAttend && in.operation != kStore; }

int tile_tokens(const Instruction& in) { return std::max(1, kAttendRows / (in.integers[0] / in.integers[1])); }

}  // namespace

// Whether everything that a step points to is there. The embedding's number of rows is its instruction's fourth integer.
Status Program::check(const Step& step) const {
  for (const Instruction& in : instructions_) {
    if (in.operation == kEmbed && !step.vectors)
      for (int t = 0; t < step.positions; t++)
        if (step.tokens[t] < 0 || step.tokens[t] >= in.integers[3]) return kNoSuchToken;
    if (in.operation == kEmbedPositions)
      for (int r = 0; r < step.rows; r++)
        if (step.first[r] + step.starts[r + 1] - step.starts[r] > in.integers[3]) return kNoSuchToken;
    if (in.operation == kAttendMemory && !step.memories) return kNoSuchBlock;
  }
  for (int r = 0; r < step.rows; r++) {
    int used = (step.first[r] + step.starts[r + 1] - step.starts[r] + kBlock - 1) / kBlock;
    if (step.first[r] < 0 || used > step.table_width) return kNoSuchBlock;
    for (int b = 0; b < used; b++) {
      int32_t block = step.tables[int64_t(r) * step.table_width + b];
      if (block < 0 || block >= step.blocks) return kNoSuchBlock;
    }
  }
  return kDone;
}

bool Program::prepare(const Step& step, int threads) {
  size_t positions = size_t(step.positions), scored = size_t(step.scored_count);
  row_of_.resize(positions), position_of_.resize(positions);
  int furthest = 0;
  for (int r = 0; r < step.rows; r++)
    for (int t = step.starts[r]; t < step.starts[r + 1]; t++) {
      row_of_[size_t(t)] = r;
      position_of_[size_t(t)] = step.first[r] + t - step.starts[r];
      furthest = std::max(furthest, position_of_[size_t(t)]);
    }
  scored_row_.resize(scored), scored_position_.resize(scored);
  for (size_t s = 0; s < scored; s++) {
    scored_row_[s] = row_of_[size_t(step.scored[s])];
    scored_position_[s] = position_of_[size_t(step.scored[s])];
  }
  for (Rope& rope : ropes_) rope.cover(furthest + 1);
  for (int r = 0; step.memories && r < step.rows; r++)
    while (int(in_order_.size()) * kBlock < step.memory_lengths[r]) in_order_.push_back(int32_t(in_order_.size()));
  if (step.positions > capacity_) {
    int64_t capacity = (step.positions + 15) / 16 * 16;
    if (!shared_.reserve(capacity * bytes_per_token_)) return false;
    capacity_ = shared_.size() / std::max<int64_t>(bytes_per_token_, 1) / 16 * 16;
  }
  if (planned_threads_ != threads) {
    private_ = std::vector<Arena>(size_t(threads));
    for (Arena& arena : private_)
      if (!arena.reserve(kSmall * bytes_per_token_)) return false;
    scratch_.assign(size_t(threads), {});
    cursors_ = std::vector<Cursor>(size_t(matmul_number_.back()) * size_t(threads));
    barriers_.assign(4, {});
    for (int v = 0; v < 4; v++) plan(v & 1, v >> 1, threads);
    planned_threads_ = threads;
  }
  for (Cursor& cursor : cursors_) {
    cursor.taken.store(0, std::memory_order_relaxed);
    cursor.done.store(0, std::memory_order_relaxed);
  }
  tiles_.resize(instructions_.size());
  const std::vector<Tile>* last = nullptr;
  int last_tokens = 0, last_scored = -1;
  for (size_t i = 0; i < instructions_.size(); i++) {
    const Instruction& in = instructions_[i];
    if (!attends(in)) continue;
    int tokens = tile_tokens(in);
    if (last && last_tokens == tokens && last_scored == in.scored) {
      tiles_[i] = *last;
      continue;
    }
    const std::vector<int32_t>& rows = in.scored ? scored_row_ : row_of_;
    tiles_[i].clear();
    for (int q = 0, count = int(rows.size()); q < count; q++) {
      bool same = !tiles_[i].empty() && tiles_[i].back().row == rows[size_t(q)] && tiles_[i].back().count < tokens;
      if (same) tiles_[i].back().count++;
      else tiles_[i].push_back({rows[size_t(q)], q, 1});
    }
    last = &tiles_[i], last_tokens = tokens, last_scored = in.scored;
  }
  return true;
}

}  // namespace fabula
