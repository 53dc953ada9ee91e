// 16-bit floats to and from 32 bits, bit by bit.
#pragma once
#include <cstdint>
#include <cstring>

namespace fabula {

static inline float brain_to_float(uint16_t h) {
  uint32_t bits = uint32_t(h) << 16;
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}

// Exact for all halves: a shifted half times 2^112 has the right exponent, subnormals included.
static inline float half_to_float(uint16_t h) {
  uint32_t magnitude = uint32_t(h & 0x7fff) << 13;
  uint32_t bits = magnitude >= (uint32_t(0x7c00) << 13) ? magnitude | 0x7f800000u : magnitude;
  float x;
  std::memcpy(&x, &bits, 4);
  if (bits < 0x7f800000u) x *= 5192296858534827628530496329220096.0f;
  std::memcpy(&bits, &x, 4);
  bits |= uint32_t(h & 0x8000) << 16;
  std::memcpy(&x, &bits, 4);
  return x;
}

// Rounds to nearest even; what is too large becomes infinite.
static inline uint16_t float_to_half(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  uint32_t sign = (bits >> 16) & 0x8000, magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000u) return uint16_t(sign | 0x7e00);
  if (magnitude >= 0x477ff000u) return uint16_t(sign | 0x7c00);
  if (magnitude < 0x38800000u) {  // subnormal halves: the sum with 0.5 rounds at the right bit
    float m;
    std::memcpy(&m, &magnitude, 4);
    m += 0.5f;
    uint32_t sum;
    std::memcpy(&sum, &m, 4);
    return uint16_t(sign | (sum - 0x3f000000u));
  }
  uint32_t rounded = magnitude + 0xfff + ((magnitude >> 13) & 1);
  return uint16_t(sign | ((rounded - 0x38000000u) >> 13));
}

static inline uint16_t float_to_brain(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  if ((bits & 0x7fffffff) > 0x7f800000u) return uint16_t((bits >> 16) | 0x40);
  return uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

}  // namespace fabula
