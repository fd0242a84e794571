#include "server/array_box.h"

#include <algorithm>

namespace tide {

std::vector<ArrayBox> boxes_of(uint32_t number, const ArrayEntry& entry) {
  std::vector<ArrayBox> boxes;
  const uint64_t widest = kArrayBoxBytesMax / entry.element_bytes * entry.element_bytes;
  for (uint32_t level = 0; level < entry.levels.size(); ++level) {
    const LevelExtent n = level_extent(entry.what, level);
    const uint64_t row = n.width * entry.element_bytes;
    const uint64_t rows_max = std::max<uint64_t>(kArrayBoxBytesMax / row, 1);
    for (uint64_t z = 0; z < n.depth; ++z) {
      for (uint64_t y = 0; y < n.height; y += rows_max) {
        for (uint64_t x = 0; x < row; x += widest) {
          boxes.push_back({number, level, uint32_t(x), uint32_t(y), uint32_t(z), uint32_t(std::min(widest, row - x)),
                           uint32_t(std::min(rows_max, n.height - y)), 0});
        }
      }
    }
  }
  return boxes;
}

CUDA_MEMCPY3D copy_of(const ArrayEntry& entry, const ArrayBox& box, std::byte* host, bool out) {
  CUDA_MEMCPY3D copy = {};
  copy.srcMemoryType = out ? CU_MEMORYTYPE_ARRAY : CU_MEMORYTYPE_HOST;
  copy.dstMemoryType = out ? CU_MEMORYTYPE_HOST : CU_MEMORYTYPE_ARRAY;
  copy.srcArray = copy.dstArray = entry.levels[box.level];
  copy.srcHost = copy.dstHost = host;
  copy.srcPitch = copy.dstPitch = box.width;
  copy.srcHeight = copy.dstHeight = box.rows;
  (out ? copy.srcXInBytes : copy.dstXInBytes) = box.x;
  (out ? copy.srcY : copy.dstY) = box.y;
  (out ? copy.srcZ : copy.dstZ) = box.z;
  copy.WidthInBytes = box.width;
  copy.Height = box.rows;
  copy.Depth = 1;
  return copy;
}

}  // namespace tide
