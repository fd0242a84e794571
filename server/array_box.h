#pragma once

// Pieces of arrays that go through host memory, small enough for one buffer: rows of one slice of one level.

#include <cstddef>
#include <cstdint>
#include <vector>

#include "server/arrays.h"
#include "server/staging.h"

namespace tide {

inline constexpr uint64_t kArrayBoxBytesMax = kStagingPieceMax;

// Also what a move sends ahead of the bytes. Array 0: no more.
struct ArrayBox {
  uint32_t array = 0, level = 0;
  uint32_t x = 0, y = 0, z = 0;                // x in bytes
  uint32_t width = 0, rows = 0, reserved = 0;  // width in bytes, of a whole row or of a part of one
  uint64_t bytes() const { return uint64_t{width} * rows; }
};

// All of an array, in order.
std::vector<ArrayBox> boxes_of(uint32_t number, const ArrayEntry& entry);
// The copy of a box from host memory into the array, or `out` of it.
CUDA_MEMCPY3D copy_of(const ArrayEntry& entry, const ArrayBox& box, std::byte* host, bool out);

}  // namespace tide
