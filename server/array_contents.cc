#include "server/array_contents.h"

#include <algorithm>
#include <vector>

namespace tide {
namespace {

constexpr uint64_t kBoxBytesMax = kStagingPieceMax;

// Rows of one slice of one level, or a part of one row. Array 0: no more.
struct Box {
  uint32_t array = 0, level = 0;
  uint32_t x = 0, y = 0, z = 0;  // x in bytes
  uint32_t width = 0, rows = 0, reserved = 0;
  uint64_t bytes() const { return uint64_t{width} * rows; }
};

CUresult copy_box(Session& session, const ArrayEntry& entry, const Box& box, std::byte* host, bool out) {
  session.contexts().use(entry.context);
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
  return session.driver().cuMemcpy3D_v2(&copy);
}

std::vector<Box> boxes_of(uint32_t number, const ArrayEntry& entry) {
  std::vector<Box> boxes;
  const uint64_t widest = kBoxBytesMax / entry.element_bytes * entry.element_bytes;
  for (uint32_t level = 0; level < entry.levels.size(); ++level) {
    const LevelExtent n = level_extent(entry.what, level);
    const uint64_t row = n.width * entry.element_bytes;
    const uint64_t rows_max = std::max<uint64_t>(kBoxBytesMax / row, 1);
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

Outcome failed(Session& session, CUresult result) {
  return Outcome::fail("copying the vGPU's arrays failed: " + error_text(session.driver(), result));
}

// A box that a stranger sent; the driver refuses what lies outside of the array.
bool possible(const Box& box, const ArrayEntry* entry) {
  return entry != nullptr && box.level < entry->levels.size() && box.width != 0 && box.rows != 0 &&
         box.bytes() <= kBoxBytesMax;
}

}  // namespace

Outcome send_arrays(Session& session, ByteStream& stream, const std::function<void()>& pump, uint64_t* bytes) {
  std::vector<std::byte> buffer(kBoxBytesMax);
  for (const auto& [number, entry] : session.arrays().all()) {
    for (const Box& box : boxes_of(number, entry)) {
      const CUresult result = copy_box(session, entry, box, buffer.data(), true);
      if (result != CUDA_SUCCESS) return failed(session, result);
      if (Outcome outcome = stream.send(&box, sizeof(box)); !outcome.ok()) return outcome;
      if (Outcome outcome = stream.send(buffer.data(), box.bytes()); !outcome.ok()) return outcome;
      *bytes += box.bytes();
      pump();
    }
  }
  const Box end;
  return stream.send(&end, sizeof(end));
}

Outcome receive_arrays(Session& session, ByteStream& stream) {
  std::vector<std::byte> buffer(kBoxBytesMax);
  while (true) {
    Box box;
    if (Outcome outcome = stream.receive(&box, sizeof(box)); !outcome.ok()) return outcome;
    if (box.array == 0) return {};
    const ArrayEntry* entry = session.arrays().find(box.array);
    if (!possible(box, entry)) return Outcome::fail("the source sent an array that is not the vGPU's");
    if (Outcome outcome = stream.receive(buffer.data(), box.bytes()); !outcome.ok()) return outcome;
    const CUresult result = copy_box(session, *entry, box, buffer.data(), false);
    if (result != CUDA_SUCCESS) return failed(session, result);
  }
}

}  // namespace tide
