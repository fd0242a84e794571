#pragma once

// Floats of eight bits and less. Included only by files that are compiled once per instruction set, see lanes.h.

#include "softgpu/exec/small_floats.h"

namespace softgpu::SOFTGPU_ISA {

// A float of E bits of exponent and M of fraction, without special values.
template <int E, int M>
LANE_FN float from_narrow(uint32_t v) {
  constexpr int kBias = (1 << (E - 1)) - 1;
  const uint32_t sign = (v >> (E + M) & 1) << 31, rest = v & ((1u << (E + M)) - 1);
  const float normal = bits_as<float>((rest << (23 - M)) + (static_cast<uint32_t>(127 - kBias) << 23));
  const float tiny =
      static_cast<float>(static_cast<int32_t>(rest)) * bits_as<float>(static_cast<uint32_t>(127 + 1 - kBias - M) << 23);
  return bits_as<float>(sign | bits_as<uint32_t>(rest < (1u << M) ? tiny : normal));
}

LANE_FN float from_e4m3(uint32_t v) {
  return (v & 0x7f) == 0x7f ? bits_as<float>(uint32_t{0x7fffffff}) : from_narrow<4, 3>(v);
}
LANE_FN float from_e5m2(uint32_t v) { return from_half(static_cast<uint16_t>(v << 8)); }
LANE_FN float from_e3m2(uint32_t v) { return from_narrow<3, 2>(v & 63); }
LANE_FN float from_e2m3(uint32_t v) { return from_narrow<2, 3>(v & 63); }
LANE_FN float from_e2m1(uint32_t v) { return from_narrow<2, 1>(v & 15); }
LANE_FN float from_e2m1_in_byte(uint32_t v) { return from_e2m1(v >> 2 & 15); }

// To nearest even; what is too large becomes the largest number, `nan` is the code of what is none.
template <int E, int M>
LANE_FN uint8_t to_narrow(float v, uint32_t largest, uint32_t nan) {
  constexpr uint32_t kBias = (1 << (E - 1)) - 1;
  const uint32_t bits = bits_as<uint32_t>(v);
  const uint32_t sign = bits >> 31 << (E + M), rest = bits & 0x7fffffff;
  constexpr uint32_t kSmallestNormal = (128 - kBias) << 23;
  const uint32_t normal = ((rest + ((1u << (22 - M)) - 1) + (rest >> (23 - M) & 1)) >> (23 - M)) - ((127 - kBias) << M);
  // A power of two whose last place is the last place of subnormal numbers lets the addition round there.
  const float magnitude = bits_as<float>(rest < kSmallestNormal ? rest : uint32_t{0});
  const float step = bits_as<float>((128 - kBias + 23 - M) << 23);
  const uint32_t tiny = bits_as<uint32_t>(magnitude + step) - bits_as<uint32_t>(step);
  uint32_t out = rest < kSmallestNormal ? tiny : normal;
  out = out > largest ? largest : out;
  return static_cast<uint8_t>(rest > 0x7f800000 ? nan : (sign | out));
}

LANE_FN uint8_t to_e4m3(float v) { return to_narrow<4, 3>(v, 0x7e, 0x7f); }
LANE_FN uint8_t to_e5m2(float v) { return to_narrow<5, 2>(v, 0x7b, 0x7f); }
LANE_FN uint8_t to_e3m2(float v) { return to_narrow<3, 2>(v, 0x1f, 0x1f); }
LANE_FN uint8_t to_e2m3(float v) { return to_narrow<2, 3>(v, 0x1f, 0x1f); }
LANE_FN uint8_t to_e2m1(float v) { return to_narrow<2, 1>(v, 0x7, 0x7); }

// A power of two, by its exponent alone; the sign is ignored.
template <bool kUp, bool kFinite>
LANE_FN uint8_t to_ue8m0(float v) {
  const uint32_t rest = bits_as<uint32_t>(v) & 0x7fffffff;
  uint32_t out = rest >> 23;
  const bool up = kUp && (rest & 0x7fffff) != 0 && rest > 0x00400000 && rest < 0x7f800000;
  out += up ? 1 : 0;
  out -= kFinite && rest <= 0x7f800000 && out == 0xff ? 1 : 0;
  return static_cast<uint8_t>(out);
}
LANE_FN uint16_t bf16_from_ue8m0(uint8_t v) {
  return static_cast<uint16_t>(v == 0xff ? 0x7fff : v == 0 ? 0x0040 : v << 7);
}

}  // namespace softgpu::SOFTGPU_ISA
