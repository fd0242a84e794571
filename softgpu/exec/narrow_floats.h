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

LANE_FN float from_e4m3(uint8_t v) {
  return (v & 0x7f) == 0x7f ? bits_as<float>(uint32_t{0x7fffffff}) : from_narrow<4, 3>(v);
}
LANE_FN float from_e5m2(uint8_t v) { return from_half(static_cast<uint16_t>(v << 8)); }
LANE_FN float from_e3m2(uint8_t v) { return from_narrow<3, 2>(v & 63); }
LANE_FN float from_e2m3(uint8_t v) { return from_narrow<2, 3>(v & 63); }
LANE_FN float from_e2m1(uint8_t v) { return from_narrow<2, 1>(v & 15); }
LANE_FN float from_e2m1_in_byte(uint8_t v) { return from_e2m1(v >> 2 & 15); }

}  // namespace softgpu::SOFTGPU_ISA
