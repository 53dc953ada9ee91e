// The table of kernels that each instruction set fills in, and the small types they share.
#pragma once
#include <type_traits>

#include "abi.h"
#include "halves.h"

namespace fabula {

// What follows a quantized row's codes, one a group of 32.
struct GroupScale {
  float scale;         // times a code: the value
  float sum;           // scale times the sum of the codes
  int32_t minus;       // minus the sum of the codes
  int32_t minus_low;   // minus the sum of the first 16
  int32_t minus_high;  // minus the sum of the last 16
};

// A group whose largest value stands above its row, by what an instruction calls far, gets a second code for what
// rounding took: 15 bits in all.
struct Outlier {
  GroupScale scale;  // of the second codes
  int32_t group;
  float squares;  // the sum of the group's squares
  int32_t reserved;
  int8_t codes[kGroup];
};

static_assert(sizeof(GroupScale) == 20 && sizeof(Outlier) == 64, "kernels/program.py makes room for rows of these");

// Where the parts of a quantized row of `columns` features lie: codes, scales, and the outliers' number and list.
struct QuantizedRow {
  int padded, groups;
  explicit QuantizedRow(int columns) : padded((columns + kChunk - 1) / kChunk * kChunk), groups(padded / kGroup) {}
  template <class Byte> auto* scales(Byte* row) const { return (copy_const<Byte, GroupScale>*)(row + padded); }
  template <class Byte> auto* outlier_count(Byte* row) const { return (copy_const<Byte, int32_t>*)(scales(row) + groups); }
  template <class Byte> auto* outliers(Byte* row) const { return (copy_const<Byte, Outlier>*)(outlier_count(row) + 16); }

 private:
  template <class From, class To> using copy_const = std::conditional_t<std::is_const_v<From>, const To, To>;
};

// A layer's attention: sizes, and where it lies in a cache block.
struct Attention {
  int heads, kv_heads, head_dim, window;  // window 0: all
  int bits, group;  // of a number in the cache: 32 or 16 for floats, 8 or 4 for codes, of which so many share a scale
  int64_t key_offset, value_offset;                       // bytes into a block
  float scale, softcap;                                   // softcap 0: none
  const PositionBias* bias;                               // null: distances add nothing
};

// Some queries of one row, and some of the heads that share one head of keys.
struct AttendTask {
  const float* const* queries;  // [tokens]: each query token's features, at the first of the heads
  const int32_t* positions;     // [tokens]: rising
  int tokens, heads, kv_head, head;  // `head` is the first
  int seen;                     // positions that each query sees; 0: those up to its own
  const int32_t* columns;       // [positions]: what distances are counted in; null: positions
  const int32_t* table;         // the row's blocks
  const uint8_t* cache;
  int64_t block_bytes;
};

// The softmax of one range of positions, not yet divided: [tokens * heads] maxima and sums, and head_dim features each.
struct Partial {
  float* maxima;
  float* sums;
  float* features;  // [tokens * heads, head_dim padded to 16]
};

struct Kernels {
  void (*rms_norm)(const float*, const float*, float*, int, int, float);
  void (*layer_norm)(const float*, const float*, const float*, float*, int, float);
  void (*quantize)(const float*, int8_t*, int, float);
  void (*add_rows)(const float*, const float*, float*, int);
  void (*activate_row)(const float*, float*, int, int);
  void (*gate_row)(const float*, const float*, float*, int, int);
  void (*softcap_row)(const float*, float*, int, float);
  void (*scale_row)(const float*, float*, int, float);
  void (*rope_row)(const float*, const float*, float*, int, int, int);
  void (*matmul)(const Matrix&, int, int, const void* const*, int, float*, int);
  void (*finish)(const float*, const float*, const float*, float*, int);
  void (*gate_and_quantize)(const float*, const float*, int, int8_t*, GroupScale*, Outlier*);
  void (*keep_outliers)(int8_t*, int, float);
  void (*write_cache)(const Attention&, const float*, const float*, int, int, int, uint8_t*);
  void (*attend_range)(const Attention&, const AttendTask&, int, float*, const Partial&);
  void (*fold)(const Partial&, const Partial&, int, int);
  void (*divide)(const Partial&, int, float*, int);
  void (*sample)(const float*, int, const SampleRow*, int, int, int32_t*);
  void (*uniforms)(uint32_t, uint32_t, uint32_t, const int32_t*, int, float*);
};

extern const Kernels portable_kernels;
#if defined(__x86_64__)
extern const Kernels avx2_kernels;
extern const Kernels avx512_kernels;
#endif

constexpr int kAhead = 2048;       // bytes that a streaming matmul prefetches ahead
constexpr int kAttendRows = 24;    // queries times heads that one attention task may hold

}  // namespace fabula
