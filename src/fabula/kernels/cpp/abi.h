// What crosses the C boundary: plain structures that kernels/library.py mirrors field by field.
#pragma once
#include <cstdint>

namespace fabula {

constexpr int kPanel = 16;       // rows of a weight that are interleaved
constexpr int kGroup = 32;       // features that share an activation scale
constexpr int kChunk = 64;       // features a packed weight is padded to
constexpr int kBlock = 32;       // positions of a cache block
constexpr int kRange = 512;      // positions whose softmax is one partial sum
constexpr int kSegments = 4;     // weights that one matmul instruction may hold
constexpr int kOutputs = 64;     // arrays that a step may hand out

// How a file stores a tensor: ggml's type numbers.
enum Format : int32_t {
  F32 = 0, F16 = 1, Q4_0 = 2, Q4_1 = 3, Q5_0 = 6, Q5_1 = 7, Q8_0 = 8,
  Q2_K = 10, Q3_K = 11, Q4_K = 12, Q5_K = 13, Q6_K = 14, BF16 = 30,
};

// How the kernels read a weight. A "min" is added to scale * code.
enum Layout : int32_t {
  kCode4 = 0,     // scale * (code - 8), a scale per 32
  kCode4Min = 1,  // scale * code + min, both per 32
  kCode5 = 2,     // scale * (code - 16), a scale per 32
  kCode5Min = 3,  // scale * code + min, both per 32
  kCode6 = 4,     // scale * (code - 32), a scale per 16
  kCode8 = 5,     // scale * (code - 128), a scale per 32
  kFloat16 = 6, kBrain16 = 7, kFloat32 = 8,
};

enum Operation : int32_t {
  kEmbed = 0, kEmbedPositions = 1, kRmsNorm = 2, kLayerNorm = 3, kQuantize = 4, kAdd = 5, kRope = 6,
  kActivate = 7, kGate = 8, kSoftcap = 9, kCopy = 10, kScale = 11, kMatmul = 12, kGatedMatmul = 13,
  kAttend = 14,        // each position to those of its row up to itself
  kAttendBoth = 15,    // to all of its row, in this step
  kAttendMemory = 16,  // to its row's memory, which nothing is written to
  kStore = 17,         // keys and values are written, and nobody attends
};

enum Activation : int32_t { kSilu = 0, kGelu = 1, kGeluTanh = 2, kRelu = 3 };

struct Matrix {
  const uint8_t* data;  // panels of kPanel rows, each `panel_bytes` long
  int64_t panel_bytes;
  int32_t layout;
  int32_t rows;         // outputs, not padded
  int32_t columns;      // inputs, not padded
  float multiplier;     // a power of two: the stored scales times this are the true ones
};

// A buffer of activations, or a slice of one's features: row i starts at offset * capacity + i * stride + column.
struct Value {
  int64_t offset;     // bytes a token that lie before it in the arena
  int64_t stride;     // bytes from one row to the next
  int64_t column;     // bytes from a row's start
  int32_t width;      // features
  int32_t scored;     // rows are the step's scored positions rather than all positions
  int32_t replicated; // small steps keep one copy a thread
  int32_t output;     // index into Step.outputs, or -1
};

struct Segment {
  const Matrix* matrix;
  const float* bias;   // [rows], or null
  int32_t out;         // value
  int32_t residual;    // value that is added, or -1
  int32_t residual_gathered;
  int32_t reserved;
};

struct Instruction {
  int32_t operation;
  int32_t scored;        // runs over scored positions
  int32_t a, b, c;       // input values, or -1
  int32_t out;           // output value, or -1
  int32_t gathered;      // bit i: input i holds all positions, and is read at the scored ones
  int32_t segments;
  int32_t integers[8];
  float numbers[4];
  const void* pointers[2];
  Segment segment[kSegments];
};

// What distances add to the scores of each head: an attention's first pointer, or null.
struct PositionBias {
  const float* values;   // [heads, 2 * far + 1 + 2 * kPanel]: of distances, key less query, -far - kPanel .. far + kPanel
  int32_t far;           // distances beyond it, either way, add what it does
  int32_t reserved;
};

struct RopeTable {
  const double* inverse_frequencies;
  int32_t half;          // pairs of features that turn
  float factor;
};

// What a step came to.
enum Status : int32_t { kDone = 0, kOutOfMemory = 1, kNoSuchIsa = 2, kNoSuchToken = 3, kNoSuchBlock = 4 };

struct Step {
  int32_t positions, rows, table_width, scored_count;  // T, R, B, S
  const int32_t* tokens;    // [T]
  const int32_t* starts;    // [R + 1]
  const int32_t* first;     // [R]
  const int32_t* tables;    // [R, B]
  const int32_t* scored;    // [S]
  const float* vectors;     // [T, D], or null
  uint8_t* cache;
  int64_t block_bytes;      // of all layers
  int64_t blocks;           // in the cache
  const uint8_t* const* memories;   // [R]: blocks, one behind the other, of what each row's encoder left; or null
  const int32_t* memory_lengths;    // [R]: positions
  int64_t memory_block_bytes;       // of all layers
  const int32_t* columns;           // [T]: what distances are counted in, of rows from their starts; or null: positions
  float* outputs[kOutputs];
};

// How one row chooses its token.
struct SampleRow {
  float temperature;         // 0: the first maximum
  float tail;                // top-p: the mass that may go; negative: off
  float min_p;               // 0: off
  float repetition_penalty;  // 1: off
  int32_t top_k;             // 0: off
  int32_t token_count;
  const int32_t* tokens;     // the row's, for the penalty
  uint32_t seed_low, seed_high, stream, position, purpose;
  int32_t reserved;
};

// How rows of one position each go on by themselves.
struct Burst {
  int32_t steps;        // the most
  int32_t end_count;    // of each row
  double seconds;       // after which no further step begins
  const int32_t* ends;  // [R, end_count]: the tokens that end a row
  int32_t* tokens;      // [steps, R]: what was chosen
  int32_t done;         // out: how many steps
};

}  // namespace fabula
