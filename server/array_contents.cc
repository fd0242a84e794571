#include "server/array_contents.h"

#include <vector>

#include "server/array_box.h"

namespace tide {
namespace {

CUresult copy_box(Session& session, const ArrayEntry& entry, const ArrayBox& box, std::byte* host, bool out) {
  session.contexts().use(entry.context);
  const CUDA_MEMCPY3D copy = copy_of(entry, box, host, out);
  return session.driver().cuMemcpy3D_v2(&copy);
}

Outcome failed(Session& session, CUresult result) {
  return Outcome::fail("copying the vGPU's arrays failed: " + error_text(session.driver(), result));
}

// A box that a stranger sent; the driver refuses what lies outside of the array.
bool possible(const ArrayBox& box, const ArrayEntry* entry) {
  return entry != nullptr && box.level < entry->levels.size() && box.width != 0 && box.rows != 0 &&
         box.bytes() <= kArrayBoxBytesMax;
}

}  // namespace

Outcome send_arrays(Session& session, ByteStream& stream, const std::function<void()>& pump, uint64_t* bytes) {
  std::vector<std::byte> buffer(kArrayBoxBytesMax);
  for (const auto& [number, entry] : session.arrays().all()) {
    for (const ArrayBox& box : boxes_of(number, entry)) {
      const CUresult result = copy_box(session, entry, box, buffer.data(), true);
      if (result != CUDA_SUCCESS) return failed(session, result);
      if (Outcome outcome = stream.send(&box, sizeof(box)); !outcome.ok()) return outcome;
      if (Outcome outcome = stream.send(buffer.data(), box.bytes()); !outcome.ok()) return outcome;
      *bytes += box.bytes();
      pump();
    }
  }
  const ArrayBox end;
  return stream.send(&end, sizeof(end));
}

Outcome receive_arrays(Session& session, ByteStream& stream) {
  std::vector<std::byte> buffer(kArrayBoxBytesMax);
  while (true) {
    ArrayBox box;
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
