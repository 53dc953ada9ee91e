// A model's forward pass as a list of instructions over named buffers.
#pragma once
#include <vector>

#include "kernels.h"
#include "pool.h"

namespace fabula {

constexpr int kSmall = 4;  // up to so many rows, each thread computes cheap row work for itself: a barrier costs more

// Bytes of memory that a huge page may back, all zero or indeterminate after `reserve`.
class Arena {
 public:
  Arena() = default;
  ~Arena() { release(); }
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  uint8_t* data() const { return data_; }
  int64_t size() const { return size_; }
  bool reserve(int64_t bytes);  // forgets the contents when it grows

 private:
  void release();
  uint8_t* data_ = nullptr;
  int64_t size_ = 0;
};

struct Rope {
  std::vector<double> inverse_frequencies;
  float factor;
  std::vector<float> table;  // [positions, 2, half]: cosines, sines
  int positions = 0;
  void cover(int count);
};

// Queries of one row that attend together: [first, first + count) of the queries, all of `row`.
struct Tile {
  int row, first, count;
};

class Program {
 public:
  Program(const Instruction* instructions, int instruction_count, const Value* values, int value_count, const RopeTable* ropes,
          int rope_count, int64_t bytes_per_token);
  Status run(Pool& pool, const Kernels& kernels, const Step& step);

 private:
  friend struct Run;
  void plan(int small_positions, int small_scored, int threads);
  Status check(const Step& step) const;
  bool prepare(const Step& step, int threads);

  std::vector<Instruction> instructions_;
  std::vector<Value> values_;
  std::vector<Rope> ropes_;
  int64_t bytes_per_token_;

  Arena shared_;
  int64_t capacity_ = 0;
  std::vector<Arena> private_;                 // one a thread, for kSmall rows
  std::vector<std::vector<uint8_t>> barriers_;  // [variant][instruction]: meet before it
  int planned_threads_ = 0;
  std::vector<int32_t> row_of_, position_of_;              // [T]
  std::vector<int32_t> scored_row_, scored_position_;      // [S]
  std::vector<std::vector<Tile>> tiles_;                   // one list an attention instruction
  std::vector<std::vector<float>> scratch_;                // one a thread
  std::vector<float> partials_;
  std::vector<int32_t> in_order_;  // 0, 1, ..: the table of a memory
  struct alignas(64) Cursor {
    std::atomic<int> taken{0};
    std::atomic<int> done{0};  // of the first thread's: units of all threads that have ended
  };
  Cursor& cursor(size_t instruction, int thread, int threads) {
    return cursors_[size_t(matmul_number_[instruction]) * size_t(threads) + size_t(thread)];
  }
  std::vector<int> matmul_number_;  // [instruction]: how many matmuls come before it
  std::vector<Cursor> cursors_;     // [matmul][threads]: how many units of each thread's share are taken
};

}  // namespace fabula
