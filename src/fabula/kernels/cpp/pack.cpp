// Interleaves 16 rows of a weight, so that one vector holds the same features of all of them.
#include "pack.h"

#include <cmath>
#include <thread>
#include <vector>

namespace fabula {
namespace {

// The same numbers as matmul.h's Packed, as data.
struct ChunkShape {
  int bits, scales, min_at, low_at, group_bytes, high_at, high_bytes, bytes;
};

ChunkShape chunk_shape(int layout) {
  ChunkShape s{};
  bool has_min = layout == kCode4Min || layout == kCode5Min;
  s.bits = layout == kCode8 ? 8 : layout == kCode6 ? 6 : layout == kCode5 || layout == kCode5Min ? 5 : 4;
  s.scales = layout == kCode6 ? 4 : 2;
  s.min_at = s.scales * 32;
  s.low_at = s.min_at + (has_min ? 64 : 0);
  s.group_bytes = s.bits == 8 ? 512 : 256;
  s.high_at = s.low_at + 2 * s.group_bytes;
  s.high_bytes = s.bits == 5 ? 64 : s.bits == 6 ? 128 : 0;
  s.bytes = s.high_at + 2 * s.high_bytes;
  return s;
}

void put_half(uint8_t* p, float x) {
  uint16_t h = float_to_half(x);
  std::memcpy(p, &h, 2);
}

// One row's group of codes to its places in a chunk.
void place(const ChunkShape& s, uint8_t* chunk, int group, int row, const Codes& codes, float inverse) {
  const uint8_t* q = codes.code;
  if (s.scales == 4) {
    put_half(chunk + (2 * group) * 32 + 2 * row, codes.scale[0] * inverse);
    put_half(chunk + (2 * group + 1) * 32 + 2 * row, codes.scale[1] * inverse);
  } else {
    put_half(chunk + group * 32 + 2 * row, codes.scale[0] * inverse);
  }
  if (s.low_at > s.min_at) put_half(chunk + s.min_at + group * 32 + 2 * row, codes.min[0] * inverse);
  uint8_t* low = chunk + s.low_at + group * s.group_bytes + 4 * row;
  if (s.bits == 8) {
    for (int g = 0; g < 8; g++) std::memcpy(low + 64 * g, q + 4 * g, 4);
    return;
  }
  uint8_t both[16];
  for (int i = 0; i < 16; i++) both[i] = uint8_t((q[i] & 15) | (q[i + 16] << 4));
  for (int j = 0; j < 4; j++) std::memcpy(low + 64 * j, both + 4 * j, 4);
  uint8_t* high = chunk + s.high_at + group * s.high_bytes + 4 * row;
  if (s.bits == 5) {
    uint8_t planes[4] = {};
    for (int g = 0; g < 8; g++)
      for (int i = 0; i < 4; i++) planes[i] |= uint8_t((q[4 * g + i] >> 4) << g);
    std::memcpy(high, planes, 4);
  }
  if (s.bits == 6) {
    for (int h = 0; h < 2; h++) {
      uint8_t planes[4] = {};
      for (int f = 0; f < 4; f++)
        for (int i = 0; i < 4; i++) planes[i] |= uint8_t((q[16 * h + 4 * f + i] >> 4) << (2 * f));
      std::memcpy(high + 64 * h, planes, 4);
    }
  }
}

// 32 floats to 4-bit codes between their least and their largest.
void encode_4(const float* x, Codes& g) {
  float low = x[0], high = x[0];
  for (int i = 1; i < kGroup; i++) {
    low = x[i] < low ? x[i] : low;
    high = x[i] > high ? x[i] : high;
  }
  g.min[0] = g.min[1] = half_to_float(float_to_half(low));
  g.scale[0] = g.scale[1] = half_to_float(float_to_half((high - g.min[0]) / 15.0f));
  float inverse = g.scale[0] > 0.0f ? 1.0f / g.scale[0] : 0.0f;
  for (int i = 0; i < kGroup; i++) {
    float code = std::nearbyint((x[i] - g.min[0]) * inverse);
    g.code[i] = uint8_t(code < 0.0f ? 0.0f : code > 15.0f ? 15.0f : code);
  }
}

// 32 floats to 8-bit codes around zero.
void encode_8(const float* x, Codes& g) {
  float top = 0.0f;
  for (int i = 0; i < kGroup; i++) top = std::fabs(x[i]) > top ? std::fabs(x[i]) : top;
  float scale = half_to_float(float_to_half(top / 127.0f));
  float inverse = scale > 0.0f ? 1.0f / scale : 0.0f;
  g.scale[0] = g.scale[1] = scale;
  g.min[0] = g.min[1] = 0.0f;
  for (int i = 0; i < kGroup; i++) {
    float code = std::nearbyint(x[i] * inverse);
    g.code[i] = uint8_t(int(code < -127.0f ? -127.0f : code > 127.0f ? 127.0f : code) + 128);
  }
}

struct Source {
  int format, layout;
  const uint8_t* data;
  int rows, columns;
  int64_t row_bytes;
  uint8_t* out;
  float inverse;  // of the multiplier
};

// The formats of 32 weights keep their bytes: only the order of 4-byte words changes, and where the high bits lie.
struct WordFormat {
  int scale_bytes, high_at, low_at;  // in a block; scale_bytes covers the min
};

bool word_format(int format, WordFormat* out) {
  switch (format) {
    case Q4_0: *out = {2, 0, 2}; return true;
    case Q4_1: *out = {4, 0, 4}; return true;
    case Q5_0: *out = {2, 2, 6}; return true;
    case Q5_1: *out = {4, 4, 8}; return true;
    case Q8_0: *out = {2, 0, 2}; return true;
    default: return false;
  }
}

// Bit 4g + i of the fifth bits to bit g of byte i.
uint32_t planes_of(uint32_t high) {
  uint32_t planes = 0;
  for (int i = 0; i < 4; i++) {
    uint32_t x = (high >> i) & 0x11111111u;         // bits 0, 4, 8, ... are the groups'
    x = (x | x >> 3) & 0x03030303u;
    x = (x | x >> 6) & 0x000f000fu;
    planes |= ((x | x >> 12) & 0xffu) << (8 * i);
  }
  return planes;
}

void pack_words(const Source& s, const WordFormat& words, int panel) {
  ChunkShape shape = chunk_shape(s.layout);
  FormatShape from = shape_of(s.format);
  int groups = s.columns / kGroup, rows = s.rows - panel * kPanel < kPanel ? s.rows - panel * kPanel : kPanel;
  uint8_t* out = s.out + panel * panel_bytes(s.layout, s.columns);
  uint32_t flip = shape.bits == 8 ? 0x80808080u : 0;
  const uint8_t* in = s.data + int64_t(panel * kPanel) * s.row_bytes;
  for (int at = 0; at < groups; at++) {
    uint8_t *chunk = out + int64_t(at / 2) * shape.bytes, *low = chunk + shape.low_at + (at % 2) * shape.group_bytes;
    for (int row = 0; row < rows; row++) {
      const uint8_t* block = in + row * s.row_bytes + int64_t(at) * from.bytes;
      std::memcpy(chunk + (at % 2) * 32 + 2 * row, block, 2);
      if (words.scale_bytes == 4) std::memcpy(chunk + shape.min_at + (at % 2) * 32 + 2 * row, block + 2, 2);
      for (int w = 0; w < shape.group_bytes / 64; w++) {
        uint32_t word;
        std::memcpy(&word, block + words.low_at + 4 * w, 4);
        word ^= flip;
        std::memcpy(low + 64 * w + 4 * row, &word, 4);
      }
      if (shape.bits == 5) {
        uint32_t high;
        std::memcpy(&high, block + words.high_at, 4);
        high = planes_of(high);
        std::memcpy(chunk + shape.high_at + (at % 2) * 64 + 4 * row, &high, 4);
      }
    }
  }
}

void pack_codes(const Source& s, int panel) {
  ChunkShape shape = chunk_shape(s.layout);
  FormatShape from = shape_of(s.format);
  uint8_t* out = s.out + panel * panel_bytes(s.layout, s.columns);
  Codes groups[8];
  for (int row = 0; row < kPanel && panel * kPanel + row < s.rows; row++) {
    const uint8_t* in = s.data + int64_t(panel * kPanel + row) * s.row_bytes;
    for (int k = 0; k < s.columns; k += from.weights, in += from.bytes) {
      decode(s.format, in, groups);
      for (int g = 0; g < from.weights / kGroup; g++) {
        int at = k / kGroup + g;
        place(shape, out + int64_t(at / 2) * shape.bytes, at % 2, row, groups[g], s.inverse);
      }
    }
  }
}

void pack_encoded(const Source& s, int panel) {
  ChunkShape shape = chunk_shape(s.layout);
  uint8_t* out = s.out + panel * panel_bytes(s.layout, s.columns);
  int padded = (s.columns + kGroup - 1) / kGroup * kGroup;
  std::vector<float> floats(size_t(padded), 0.0f);
  Codes group;
  for (int row = 0; row < kPanel && panel * kPanel + row < s.rows; row++) {
    dequantize(s.format, s.data + int64_t(panel * kPanel + row) * s.row_bytes, s.columns, floats.data());
    for (int at = 0; at < padded / kGroup; at++) {
      if (s.layout == kCode8) encode_8(floats.data() + at * kGroup, group);
      else encode_4(floats.data() + at * kGroup, group);
      place(shape, out + int64_t(at / 2) * shape.bytes, at % 2, row, group, 1.0f);
    }
  }
}

void pack_dense(const Source& s, int panel) {
  uint8_t* out = s.out + panel * panel_bytes(s.layout, s.columns);
  std::vector<float> floats(size_t(s.columns));
  bool same = shape_of(s.format).layout == s.layout;
  for (int row = 0; row < kPanel && panel * kPanel + row < s.rows; row++) {
    const uint8_t* in = s.data + int64_t(panel * kPanel + row) * s.row_bytes;
    if (same && s.layout != kFloat32) {
      for (int k = 0; k < s.columns; k++) std::memcpy(out + (int64_t(k) * kPanel + row) * 2, in + 2 * k, 2);
      continue;
    }
    dequantize(s.format, in, s.columns, floats.data());
    for (int k = 0; k < s.columns; k++) {
      int64_t at = int64_t(k) * kPanel + row;
      uint16_t half = s.layout == kFloat16 ? float_to_half(floats[k]) : s.layout == kBrain16 ? float_to_brain(floats[k]) : 0;
      if (s.layout == kFloat32) std::memcpy(out + at * 4, &floats[k], 4);
      else std::memcpy(out + at * 2, &half, 2);
    }
  }
}

void pack_panel(const Source& s, int panel) {
  if (s.layout >= kFloat16) {
    if ((panel + 1) * kPanel > s.rows) std::memset(s.out + panel * panel_bytes(s.layout, s.columns), 0, size_t(panel_bytes(s.layout, s.columns)));
    return pack_dense(s, panel);
  }
  // What no row or group fills must be zero: a padded row, and the second half of a last chunk.
  int64_t size = panel_bytes(s.layout, s.columns);
  uint8_t* out = s.out + panel * size;
  int last = chunk_shape(s.layout).bytes;
  if ((panel + 1) * kPanel > s.rows) std::memset(out, 0, size_t(size));
  else if (s.columns % kChunk) std::memset(out + size - last, 0, size_t(last));
  WordFormat words;
  if (shape_of(s.format).layout == s.layout && word_format(s.format, &words)) return pack_words(s, words, panel);
  bool keeps_codes = shape_of(s.format).layout == s.layout && s.format != Q2_K;
  return keeps_codes ? pack_codes(s, panel) : pack_encoded(s, panel);
}

}  // namespace

int64_t panel_bytes(int layout, int columns) {
  if (layout >= kFloat16) return (int64_t(columns) * kPanel * (layout == kFloat32 ? 4 : 2) + 63) / 64 * 64;
  return int64_t((columns + kChunk - 1) / kChunk) * chunk_shape(layout).bytes;
}

// Products of two scales need not fit a half: a power of two brings the largest near 2^14.
float scale_multiplier(int format, int layout, const uint8_t* source, int rows, int columns, int64_t row_bytes) {
  int d = format == Q6_K ? 208 : format == Q3_K ? 108 : 0;
  if (format < Q3_K || format > Q6_K || layout >= kCode8) return 1.0f;
  FormatShape from = shape_of(format);
  float top = 0.0f;
  for (int64_t row = 0; row < rows; row++)
    for (int k = 0; k < columns / 256; k++) {
      const uint8_t* b = source + row * row_bytes + int64_t(k) * from.bytes;
      for (int i = 0; i < (d ? 1 : 2); i++) {
        uint16_t h;
        std::memcpy(&h, b + d + 2 * i, 2);
        float x = std::fabs(half_to_float(h));
        if (x > top && std::isfinite(x)) top = x;
      }
    }
  if (top == 0.0f) return 1.0f;
  int exponent;
  std::frexp(top * 128.0f, &exponent);  // scales have at most 7 bits
  return std::ldexp(1.0f, exponent - 15);
}

void pack(int format, int layout, const uint8_t* source, int rows, int columns, int64_t row_bytes, float multiplier, uint8_t* out, int threads) {
  Source s{format, layout, source, rows, columns, row_bytes, out, 1.0f / multiplier};
  int panels = (rows + kPanel - 1) / kPanel;
  if (int64_t(rows) * columns < 65536) threads = 1;
  auto work = [&](int thread) {
    for (int p = int(int64_t(panels) * thread / threads); p < int(int64_t(panels) * (thread + 1) / threads); p++) pack_panel(s, p);
  };
  std::vector<std::thread> others;
  for (int t = 1; t < threads; t++) others.emplace_back(work, t);
  work(0);
  for (auto& t : others) t.join();
}

}  // namespace fabula
