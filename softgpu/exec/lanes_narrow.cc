// Conversions from and to pairs of floats of eight bits and less.

#include "softgpu/exec/narrow_floats.h"

namespace softgpu::SOFTGPU_ISA {
namespace {

using u8 = uint8_t;
using u16 = uint16_t;
using u32 = uint32_t;

LANE_FN float positive(float v) { return v < 0.0f || bits_as<u32>(v) == 0x80000000 ? 0.0f : v; }

LANE_FN u16 pair(u8 high, u8 low) { return static_cast<u16>(high << 8 | low); }

template <u8 (*F)(float)>
LANE_FN u16 from_floats(float a, float b) {
  return pair(F(a), F(b));
}
template <u8 (*F)(float)>
LANE_FN u16 relu_floats(float a, float b) {
  return pair(F(positive(a)), F(positive(b)));
}
template <u8 (*F)(float)>
LANE_FN u16 from_halves(u32 v) {
  return pair(F(from_half(static_cast<u16>(v >> 16))), F(from_half(static_cast<u16>(v))));
}
template <u8 (*F)(float)>
LANE_FN u16 relu_halves(u32 v) {
  return pair(F(positive(from_half(static_cast<u16>(v >> 16)))), F(positive(from_half(static_cast<u16>(v)))));
}
template <u8 (*F)(float)>
LANE_FN u16 from_bf16s(u32 v) {
  return pair(F(bits_as<float>(v & 0xffff0000)), F(bits_as<float>(v << 16)));
}
template <u8 (*F)(float)>
LANE_FN u16 relu_bf16s(u32 v) {
  return pair(F(positive(bits_as<float>(v & 0xffff0000))), F(positive(bits_as<float>(v << 16))));
}
// Four bits each: the pair is one byte.
template <u16 (*F)(float, float)>
LANE_FN u16 joined(float a, float b) {
  const u16 v = F(a, b);
  return static_cast<u16>(v >> 4 | (v & 15));
}
template <u16 (*F)(u32)>
LANE_FN u16 joined(u32 a) {
  const u16 v = F(a);
  return static_cast<u16>(v >> 4 | (v & 15));
}

template <float (*F)(u32)>
LANE_FN u32 halves(u16 v) {
  return static_cast<u32>(to_half(F(static_cast<u8>(v >> 8)))) << 16 | to_half(F(static_cast<u8>(v)));
}
template <float (*F)(u32)>
LANE_FN u32 relu_to_halves(u16 v) {
  return static_cast<u32>(to_half(positive(F(static_cast<u8>(v >> 8))))) << 16 |
         to_half(positive(F(static_cast<u8>(v))));
}
template <u32 (*F)(u16)>
LANE_FN u32 parted(u16 v) {
  return F(static_cast<u16>((v & 0xf0) << 4 | (v & 15)));
}
LANE_FN u32 bf16s_from_ue8m0(u16 v) {
  return static_cast<u32>(bf16_from_ue8m0(static_cast<u8>(v >> 8))) << 16 | bf16_from_ue8m0(static_cast<u8>(v));
}

// Single precision with ten bits of fraction.
LANE_FN float finite_tf32(float v) {
  const u32 bits = bits_as<u32>(v);
  return v == v && (bits & 0x7fffffff) >= 0x7f800000 ? bits_as<float>((bits & 0x80000000) | 0x7f7fe000) : v;
}
LANE_FN float tf32_away(float v) {
  return v != v || (bits_as<u32>(v) & 0x7f800000) == 0x7f800000
             ? canon(v)
             : bits_as<float>((bits_as<u32>(v) + 0x1000) & 0xffffe000);
}
LANE_FN float tf32_even(float v) {
  const u32 bits = bits_as<u32>(v);
  if ((bits & 0x7f800000) == 0x7f800000) return canon(v);
  return bits_as<float>((bits + 0xfff + (bits >> 13 & 1)) & 0xffffe000);
}
LANE_FN float tf32_zero(float v) { return v != v ? canon(v) : bits_as<float>(bits_as<u32>(v) & 0xffffe000); }
template <float (*F)(float)>
LANE_FN float relu(float v) {
  return F(positive(v));
}
template <float (*F)(float)>
LANE_FN float finite(float v) {
  return finite_tf32(F(v));
}

// Directed rounding: away from zero by one where truncation lost something on that side.
template <u16 (*Zero)(float), float (*Back)(u16)>
LANE_FN u16 rounded_up(float v) {
  const u16 z = Zero(v);
  return static_cast<u16>(z + (v > 0.0f && Back(z) < v ? 1 : 0));
}
template <u16 (*Zero)(float), float (*Back)(u16)>
LANE_FN u16 rounded_down(float v) {
  const u16 z = Zero(v);
  return static_cast<u16>(z + (v < 0.0f && Back(z) > v ? 1 : 0));
}

#define R(name, ...) \
  { name, Lanes<&__VA_ARGS__>::run }
#define BYTES(name, to, from)                                                                      \
  R("cvt." name "x2.f32", from_floats<to>), R("cvt.relu." name "x2.f32", relu_floats<to>),         \
      R("cvt." name "x2.f16x2", from_halves<to>), R("cvt.relu." name "x2.f16x2", relu_halves<to>), \
      R("cvt." name "x2.bf16x2", from_bf16s<to>), R("cvt.relu." name "x2.bf16x2", relu_bf16s<to>), \
      R("cvt.f16x2." name "x2", halves<from>), R("cvt.relu.f16x2." name "x2", relu_to_halves<from>)
#define SCALES(mode, up, finite)                                   \
  R("cvt." mode "ue8m0x2.f32", from_floats<to_ue8m0<up, finite>>), \
      R("cvt." mode "ue8m0x2.bf16x2", from_bf16s<to_ue8m0<up, finite>>)
#define TF32(mode, F)                                                           \
  R("cvt." mode "tf32.f32", F), R("cvt." mode "satfinite.tf32.f32", finite<F>), \
      R("cvt." mode "relu.tf32.f32", relu<F>), R("cvt." mode "satfinite.relu.tf32.f32", finite<relu<F>>)

constexpr HandlerRow kRows[] = {
    BYTES("e4m3", to_e4m3, from_e4m3),
    BYTES("e5m2", to_e5m2, from_e5m2),
    BYTES("e3m2", to_e3m2, from_e3m2),
    BYTES("e2m3", to_e2m3, from_e2m3),
    R("cvt.e2m1x2.f32", joined<from_floats<to_e2m1>>),
    R("cvt.relu.e2m1x2.f32", joined<relu_floats<to_e2m1>>),
    R("cvt.e2m1x2.f16x2", joined<from_halves<to_e2m1>>),
    R("cvt.relu.e2m1x2.f16x2", joined<relu_halves<to_e2m1>>),
    R("cvt.e2m1x2.bf16x2", joined<from_bf16s<to_e2m1>>),
    R("cvt.relu.e2m1x2.bf16x2", joined<relu_bf16s<to_e2m1>>),
    R("cvt.f16x2.e2m1x2", parted<halves<from_e2m1>>),
    R("cvt.relu.f16x2.e2m1x2", parted<relu_to_halves<from_e2m1>>),
    SCALES("rz.", false, false),
    SCALES("rp.", true, false),
    SCALES("rz.satfinite.", false, true),
    SCALES("rp.satfinite.", true, true),
    R("cvt.bf16x2.ue8m0x2", bf16s_from_ue8m0),
    TF32("rna.", tf32_away),
    TF32("rn.", tf32_even),
    TF32("rz.", tf32_zero),
    R("cvt.rp.f16.f32", rounded_up<to_half_zero, from_half>),
    R("cvt.rm.f16.f32", rounded_down<to_half_zero, from_half>),
    R("cvt.rp.bf16.f32", rounded_up<to_bf16_zero, from_bf16>),
    R("cvt.rm.bf16.f32", rounded_down<to_bf16_zero, from_bf16>),
};

}  // namespace

HandlerRows narrow_rows() { return {kRows, sizeof(kRows) / sizeof(kRows[0])}; }

}  // namespace softgpu::SOFTGPU_ISA
