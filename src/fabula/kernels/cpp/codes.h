// Every packed format of GGUF as groups of 32 codes with their scales and mins.
#pragma once
#include "abi.h"
#include "halves.h"

namespace fabula {

// value i = scale[i / 16] * (code[i] - offset) + min[i / 16], the offset being the layout's
struct Codes {
  uint8_t code[kGroup];
  float scale[2];
  float min[2];
};

struct FormatShape {
  int weights;  // a block
  int bytes;    // a block
  Layout layout;
};

static inline FormatShape shape_of(int format) {
  switch (format) {
    case Q4_0: return {32, 18, kCode4};
    case Q4_1: return {32, 20, kCode4Min};
    case Q5_0: return {32, 22, kCode5};
    case Q5_1: return {32, 24, kCode5Min};
    case Q8_0: return {32, 34, kCode8};
    case Q2_K: return {256, 84, kCode8};
    case Q3_K: return {256, 110, kCode6};
    case Q4_K: return {256, 144, kCode4Min};
    case Q5_K: return {256, 176, kCode5Min};
    case Q6_K: return {256, 210, kCode6};
    case F16: return {1, 2, kFloat16};
    case BF16: return {1, 2, kBrain16};
    default: return {1, 4, kFloat32};
  }
}

static inline int code_offset(int format) {
  switch (format) {
    case Q4_0: return 8;
    case Q5_0: return 16;
    case Q8_0: return 128;
    case Q3_K: case Q6_K: return 32;
    default: return 0;
  }
}

// One block of a packed format: one group of the 32-weight formats, eight of the K formats.
void decode(int format, const uint8_t* block, Codes* groups);
// `count` weights, a whole number of blocks, as floats: exactly what the gguf package gives.
void dequantize(int format, const uint8_t* source, int64_t count, float* out);

}  // namespace fabula
