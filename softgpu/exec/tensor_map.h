#pragma once

// What cuTensorMapEncodeTiled makes and kernels read: a tensor in device memory and the box of it that one copy moves.
// The 128 bytes are ours; only the size and the alignment are the driver's.

#include <cstdint>

namespace softgpu {

enum class Swizzle : uint8_t { kNone, k32, k64, k128 };

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
};
static_assert(sizeof(TensorMap) == 128);

}  // namespace softgpu
