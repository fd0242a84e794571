#pragma once

// Operands of texture and surface instructions, which have more than a MicroOp holds: its imm is an index of
// KernelCode::texture_ops or surface_ops. Registers are byte offsets as there; 0 where an instruction has none.

#include <array>
#include <cstdint>

namespace softgpu {

enum class Geometry : uint8_t { k1d, k2d, k3d, kCube };
enum class LodMode : uint8_t { kBase, kLevel, kGradient };
enum class TexelResult : uint8_t { k32, k16, k16x2 };  // a register holds 32 bits, a half, two halves

// A coordinate that is an array's layer, a face's number or a sample is never among these.
struct TextureOp {
  Geometry geometry = Geometry::k1d;
  LodMode lod_mode = LodMode::kBase;
  TexelResult result = TexelResult::k32;
  bool integer_coordinates = false;
  uint8_t results = 4;
  int8_t gather = -1;  // tld4: the component
  uint32_t handle = 0, sampler = 0, layer = 0, lod = 0, resident = 0;
  std::array<uint32_t, 3> at{}, dx{}, dy{};
  std::array<uint32_t, 4> dst{};
};

enum class TextureQuery : uint8_t {
  kWidth,
  kHeight,
  kDepth,
  kChannelType,
  kChannelOrder,
  kNormalizedCoordinates,
  kArraySize,
  kLevels,
  kSamples,
  kFilter,
  kAddress0,
  kAddress1,
  kAddress2,
  kForceUnnormalized,
  kMemoryLayout,
};

enum class SurfaceBounds : uint8_t { kTrap, kClamp, kZero };
enum class SurfaceReduction : uint8_t { kNone, kAdd, kMin, kMax, kAnd, kOr };

struct SurfaceOp {
  Geometry geometry = Geometry::k1d;
  SurfaceBounds bounds = SurfaceBounds::kTrap;
  SurfaceReduction reduction = SurfaceReduction::kNone;
  bool formatted = false;      // sust.p: x counts texels and the data is converted
  bool float_data = false;     // of sust.p
  bool signed_data = false;    // of sust.p and sured
  uint8_t elements = 1;        // registers of data
  uint8_t element_bytes = 4;   // in the surface
  uint8_t register_bytes = 4;  // in the registers
  uint32_t handle = 0, layer = 0;
  std::array<uint32_t, 3> at{};
  std::array<uint32_t, 4> data{};
};

}  // namespace softgpu
