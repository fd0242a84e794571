#pragma once

// What cuTensorMapEncode* makes and kernels read: a tensor in device memory and the box of it that one copy moves.
// The 128 bytes are ours; only the size and the alignment are the driver's.

#include <cstdint>
#include <string_view>

namespace softgpu {

enum class Swizzle : uint8_t { kNone, k32, k64, k128 };

// Types of elements, in the driver's order.
enum class TensorElement : uint8_t {
  kU8,
  kU16,
  kU32,
  kS32,
  kU64,
  kS64,
  kF16,
  kF32,
  kF64,
  kBf16,
  kF32Ftz,
  kTf32,
  kTf32Ftz,
};

constexpr uint8_t bytes_of(TensorElement type) {
  constexpr uint8_t kBytes[] = {1, 2, 4, 4, 8, 8, 2, 4, 8, 2, 4, 4, 4};
  return kBytes[static_cast<uint8_t>(type)];
}

// The type's name in reductions.
constexpr std::string_view reduced_as(TensorElement type) {
  constexpr std::string_view kNames[] = {"",    "",    "u32",  "s32", "u64", "s64", "f16",
                                         "f32", "f64", "bf16", "f32", "f32", "f32"};
  return kNames[static_cast<uint8_t>(type)];
}

// What `tensormap.replace` can change.
enum class TensorMapField : uint8_t {
  kAddress,
  kRank,
  kBox,
  kLength,
  kStride,
  kStep,
  kType,
  kInterleave,
  kSwizzle,
  kAtomicity,
  kFill,
};

struct alignas(64) TensorMap {
  static constexpr uint64_t kMagic = 0x70616d726f736e74;  // "tnsormap"
  uint64_t magic = kMagic;
  uint64_t address = 0;
  uint64_t strides[4] = {};  // bytes, of the dimensions behind the first
  uint32_t last[5] = {};     // length of each dimension, less one
  uint16_t box[5] = {};      // elements
  uint8_t steps[5] = {};     // only every so many are taken
  uint8_t rank = 0;
  uint8_t element_bytes = 0;
  Swizzle swizzle = Swizzle::kNone;
  uint16_t outside = 0;  // the bits, repeated, of elements outside the tensor
  TensorElement type = TensorElement::kU8;
  // Image to column: pixels go through the tensor from the lower corner on, `box[0]` channels of each.
  bool image_to_column = false;
  int16_t lower[3] = {}, upper[3] = {};  // of the dimensions between the first and the last
  uint16_t pixels = 0;
};
static_assert(sizeof(TensorMap) == 128);

}  // namespace softgpu
