// Decodes the packed formats, block by block.
#include "codes.h"

namespace fabula {
namespace {

float half_at(const uint8_t* p) {
  uint16_t h;
  std::memcpy(&h, p, 2);
  return half_to_float(h);
}

void one_scale(Codes& g, float scale, float min) {
  g.scale[0] = g.scale[1] = scale;
  g.min[0] = g.min[1] = min;
}

void nibbles(const uint8_t* p, uint8_t* code) {
  for (int i = 0; i < 16; i++) {
    code[i] = p[i] & 15;
    code[i + 16] = p[i] >> 4;
  }
}

void fifth_bits(const uint8_t* p, uint8_t* code) {
  uint32_t high;
  std::memcpy(&high, p, 4);
  for (int i = 0; i < 32; i++) code[i] |= uint8_t((high >> i) & 1) << 4;
}

// The 6-bit scale and min of group j of the 12 bytes that Q4_K and Q5_K share.
void six_bits(const uint8_t* s, int j, int* scale, int* min) {
  if (j < 4) {
    *scale = s[j] & 63;
    *min = s[j + 4] & 63;
  } else {
    *scale = (s[j + 4] & 15) | ((s[j - 4] >> 6) << 4);
    *min = (s[j + 4] >> 4) | ((s[j] >> 6) << 4);
  }
}

void decode_q2(const uint8_t* b, Codes* groups) {
  float d = half_at(b + 80), least = half_at(b + 82);
  for (int g = 0; g < 8; g++) {
    for (int i = 0; i < 32; i++) groups[g].code[i] = (b[16 + 32 * (g / 4) + i] >> (2 * (g % 4))) & 3;
    for (int h = 0; h < 2; h++) {
      groups[g].scale[h] = d * float(b[2 * g + h] & 15);
      groups[g].min[h] = -(least * float(b[2 * g + h] >> 4));
    }
  }
}

void decode_q3(const uint8_t* b, Codes* groups) {
  const uint8_t *high = b, *low = b + 32, *s = b + 96;
  float d = half_at(b + 108);
  for (int g = 0; g < 8; g++) {
    for (int i = 0; i < 32; i++) {
      int bits = (low[32 * (g / 4) + i] >> (2 * (g % 4))) & 3;
      groups[g].code[i] = uint8_t(bits + ((high[i] >> g) & 1 ? 32 : 28));
    }
    for (int h = 0; h < 2; h++) {
      int i = 2 * g + h;
      int scale = (i < 8 ? s[i] & 15 : s[i - 8] >> 4) | (((s[8 + i % 4] >> (2 * (i / 4))) & 3) << 4);
      groups[g].scale[h] = d * float(scale - 32);
      groups[g].min[h] = 0.0f;
    }
  }
}

void decode_q4_q5(const uint8_t* b, bool five, Codes* groups) {
  float d = half_at(b), least = half_at(b + 2);
  const uint8_t *high = b + 16, *low = b + (five ? 48 : 16);
  for (int g = 0; g < 8; g++) {
    int scale, min;
    six_bits(b + 4, g, &scale, &min);
    one_scale(groups[g], d * float(scale), -(least * float(min)));
    for (int i = 0; i < 32; i++) groups[g].code[i] = (low[32 * (g / 2) + i] >> (4 * (g % 2))) & 15;
    if (five)
      for (int i = 0; i < 32; i++) groups[g].code[i] |= uint8_t((high[i] >> g) & 1) << 4;
  }
}

void decode_q6(const uint8_t* b, Codes* groups) {
  float d = half_at(b + 208);
  const int8_t* s = (const int8_t*)b + 192;
  for (int g = 0; g < 8; g++) {
    const uint8_t* low = b + 64 * (g / 4) + 32 * (g % 2);
    const uint8_t* high = b + 128 + 32 * (g / 4);
    int low_shift = g % 4 >= 2 ? 4 : 0, high_shift = 2 * (g % 4);
    for (int i = 0; i < 32; i++)
      groups[g].code[i] = uint8_t(((low[i] >> low_shift) & 15) | (((high[i] >> high_shift) & 3) << 4));
    for (int h = 0; h < 2; h++) {
      groups[g].scale[h] = d * float(s[2 * g + h]);
      groups[g].min[h] = 0.0f;
    }
  }
}

}  // namespace

void decode(int format, const uint8_t* b, Codes* groups) {
  switch (format) {
    case Q4_0: one_scale(*groups, half_at(b), 0.0f); return nibbles(b + 2, groups->code);
    case Q4_1: one_scale(*groups, half_at(b), half_at(b + 2)); return nibbles(b + 4, groups->code);
    case Q5_0: one_scale(*groups, half_at(b), 0.0f); nibbles(b + 6, groups->code); return fifth_bits(b + 2, groups->code);
    case Q5_1: one_scale(*groups, half_at(b), half_at(b + 2)); nibbles(b + 8, groups->code); return fifth_bits(b + 4, groups->code);
    case Q8_0:
      one_scale(*groups, half_at(b), 0.0f);
      for (int i = 0; i < 32; i++) groups->code[i] = b[2 + i] ^ 0x80;
      return;
    case Q2_K: return decode_q2(b, groups);
    case Q3_K: return decode_q3(b, groups);
    case Q4_K: return decode_q4_q5(b, false, groups);
    case Q5_K: return decode_q4_q5(b, true, groups);
    case Q6_K: return decode_q6(b, groups);
  }
}

void dequantize(int format, const uint8_t* source, int64_t count, float* out) {
  FormatShape shape = shape_of(format);
  if (shape.weights == 1) {
    if (format == F32) std::memcpy(out, source, size_t(count) * 4);
    for (int64_t i = 0; i < count && format != F32; i++) {
      uint16_t h;
      std::memcpy(&h, source + 2 * i, 2);
      out[i] = format == F16 ? half_to_float(h) : brain_to_float(h);
    }
    return;
  }
  Codes groups[8];
  int offset = code_offset(format);
  for (int64_t at = 0; at < count; at += shape.weights, source += shape.bytes) {
    decode(format, source, groups);
    for (int g = 0; g < shape.weights / kGroup; g++)
      for (int i = 0; i < kGroup; i++)
        *out++ = groups[g].scale[i / 16] * float(int(groups[g].code[i]) - offset) + groups[g].min[i / 16];
  }
}

}  // namespace fabula
