#pragma once

// Scalar floating-point helpers of the lane files: flushing, canonical NaNs, half precision. Included only by files
// that are compiled once per instruction set, see lanes.h.

#include "softgpu/exec/lanes.h"

namespace softgpu::SOFTGPU_ISA {

LANE_FN float flush(float v) {
  const uint32_t bits = bits_as<uint32_t>(v);
  return bits_as<float>((bits & 0x7f800000) == 0 ? bits & 0x80000000 : bits);
}

// Single precision has one NaN as a result.
LANE_FN float canon(float v) { return v != v ? bits_as<float>(uint32_t{0x7fffffff}) : v; }

LANE_FN float saturate(float v) { return v > 0.0f ? (v < 1.0f ? v : 1.0f) : 0.0f; }
LANE_FN double saturate(double v) { return v > 0.0 ? (v < 1.0 ? v : 1.0) : 0.0; }

LANE_FN float from_bf16(uint16_t v) { return bits_as<float>(static_cast<uint32_t>(v) << 16); }

LANE_FN uint16_t to_bf16(float v) {
  const uint32_t bits = bits_as<uint32_t>(v);
  const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  return static_cast<uint16_t>(v != v ? 0x7fff : rounded);
}

LANE_FN uint16_t to_bf16_zero(float v) { return static_cast<uint16_t>(v != v ? 0x7fff : bits_as<uint32_t>(v) >> 16); }

LANE_FN float from_half(uint16_t v) {
  const uint32_t sign = static_cast<uint32_t>(v & 0x8000) << 16;
  const uint32_t rest = v & 0x7fff;
  // Normal numbers move to the wider exponent; 2^-24 times the fraction is exact for subnormal ones.
  const uint32_t normal = (rest << 13) + 0x38000000 + (rest >= 0x7c00 ? 0x38000000 : 0);
  const float tiny = static_cast<float>(static_cast<int32_t>(rest)) * 0x1p-24f;
  return bits_as<float>(sign | (rest < 0x400 ? bits_as<uint32_t>(tiny) : normal));
}

// To nearest even.
LANE_FN uint16_t to_half(float v) {
  const uint32_t bits = bits_as<uint32_t>(v);
  const uint32_t sign = bits >> 16 & 0x8000;
  const uint32_t rest = bits & 0x7fffffff;
  const uint32_t normal = (rest - 0x38000000 + 0xfff + (rest >> 13 & 1)) >> 13;
  // Adding 0.5 lets the addition round at the last place of a subnormal half.
  const float magnitude = bits_as<float>(rest < 0x38800000 ? rest : uint32_t{0});
  const uint32_t tiny = bits_as<uint32_t>(magnitude + 0.5f) - 0x3f000000;
  uint32_t out = rest < 0x38800000 ? tiny : normal;
  out = rest >= 0x47800000 ? 0x7c00 : out;
  out = out > 0x7c00 ? 0x7c00 : out;
  return static_cast<uint16_t>(rest > 0x7f800000 ? 0x7fff : (sign | out));
}

LANE_FN uint16_t to_half_zero(float v) {
  const uint32_t bits = bits_as<uint32_t>(v);
  const uint32_t sign = bits >> 16 & 0x8000;
  const uint32_t rest = bits & 0x7fffffff;
  uint32_t out = 0;
  if (rest >= 0x38800000) {
    out = (rest - 0x38000000) >> 13;
    if (out > 0x7bff) out = 0x7bff;
    if (rest == 0x7f800000) out = 0x7c00;
  } else {
    out = static_cast<uint32_t>(bits_as<float>(rest) * 0x1p24f);
  }
  return static_cast<uint16_t>(rest > 0x7f800000 ? 0x7fff : (sign | out));
}

// Double to float such that a second rounding to fewer bits is right: an inexact result is made odd.
LANE_FN float to_odd(double v) {
  const float f = static_cast<float>(v);
  const double back = static_cast<double>(f);
  const uint32_t bits = bits_as<uint32_t>(f);
  if (v != v || back == v || (bits & 1) != 0) return f;
  const bool away = (back < 0 ? -back : back) > (v < 0 ? -v : v);
  return bits_as<float>(away ? bits - 1 : bits + 1);
}

LANE_FN uint16_t to_half(double v) { return to_half(to_odd(v)); }
LANE_FN uint16_t to_bf16(double v) { return to_bf16(to_odd(v)); }

}  // namespace softgpu::SOFTGPU_ISA
