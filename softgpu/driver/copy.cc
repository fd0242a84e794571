#include "softgpu/driver/copy.h"

#include <atomic>
#include <vector>

#include "api/box.h"
#include "softgpu/driver/driver.h"
#include "softgpu/driver/simulation.h"
#include "softgpu/driver/work.h"

namespace softgpu {
namespace {

constexpr uint64_t kInlineBytesMax = 64 << 10;   // shorter copies are not worth two changes of thread
constexpr uint64_t kLowestAddress = 64 << 10;    // no program has anything below: vm.mmap_min_addr
constexpr uint64_t kStagedBytesMax = 64u << 20;  // above it the caller waits instead of copying twice

enum class Side { kUnknown, kDevice, kPinned, kPageable };

bool in_window(uint64_t address) { return address - kWindowBase < kWindowBytes; }

uint64_t span(uint64_t pitch, uint64_t width, uint64_t height) { return tide::span_of(pitch, width, 1, height); }

uint64_t span(uint64_t slice, uint64_t depth, uint64_t pitch, const CopyRect& rect) {
  return tide::span_of(slice, span(pitch, rect.width, rect.height), 1, depth);
}

Side side_of(uint64_t address, uint64_t bytes) {
  const Memory& memory = driver().memory;
  if (in_window(address)) return memory.covered(address, bytes) ? Side::kDevice : Side::kUnknown;
  const auto range = memory.find(address);
  if (!range) return address < kLowestAddress ? Side::kUnknown : Side::kPageable;
  return memory.covered(address, bytes) ? Side::kPinned : Side::kPageable;
}

Memory::Copied copy_rows(const CopyRect& rect) {
  Memory& memory = driver().memory;
  const uint64_t moved = rect.width * rect.height * rect.depth;
  if (!simulation().begin_copy(moved, in_window(rect.destination), in_window(rect.source))) {
    return Memory::Copied::kYes;
  }
  // Rows without gaps are one.
  const bool whole = rect.width == rect.destination_pitch && rect.width == rect.source_pitch;
  const uint64_t rows = whole ? 1 : rect.height;
  const uint64_t bytes = whole ? rect.width * rect.height : rect.width;
  for (uint64_t slice = 0; slice < rect.depth; ++slice) {
    for (uint64_t row = 0; row < rows; ++row) {
      const uint64_t to = rect.destination + slice * rect.destination_slice + row * rect.destination_pitch;
      const uint64_t from = rect.source + slice * rect.source_slice + row * rect.source_pitch;
      const Memory::Copied copied = memory.copy(to, from, bytes);
      if (copied != Memory::Copied::kYes) return copied;
    }
  }
  return Memory::Copied::kYes;
}

CUresult run_copy(const CopyRect& rect) {
  return copy_rows(rect) == Memory::Copied::kYes ? CUDA_SUCCESS : CUDA_ERROR_ILLEGAL_ADDRESS;
}

// For callers that wait: a pointer of theirs to no memory fails the call and nothing else.
CUresult copy_now(Context& context, const std::shared_ptr<Stream>& stream, const CopyRect& rect) {
  const auto outcome = std::make_shared<std::atomic<CUresult>>(CUDA_SUCCESS);
  const CUresult result = enqueue_now(
      context, stream,
      [rect, outcome] {
        const Memory::Copied copied = copy_rows(rect);
        if (copied == Memory::Copied::kNoHost) *outcome = CUDA_ERROR_INVALID_VALUE;
        return copied == Memory::Copied::kNoDevice ? CUDA_ERROR_ILLEGAL_ADDRESS : CUDA_SUCCESS;
      },
      rect.width * rect.height * rect.depth <= kInlineBytesMax);
  return result != CUDA_SUCCESS ? result : outcome->load();
}

CUmemorytype type_of(Side side) { return side == Side::kDevice ? CU_MEMORYTYPE_DEVICE : CU_MEMORYTYPE_HOST; }

// As a node of a graph shows it.
CUDA_MEMCPY3D describe(const CopyRect& rect, Side to, Side from) {
  CUDA_MEMCPY3D what = {};
  what.srcMemoryType = type_of(from);
  what.dstMemoryType = type_of(to);
  what.srcDevice = from == Side::kDevice ? rect.source : 0;
  what.srcHost = from == Side::kDevice ? nullptr : reinterpret_cast<const void*>(rect.source);
  what.dstDevice = to == Side::kDevice ? rect.destination : 0;
  what.dstHost = to == Side::kDevice ? nullptr : reinterpret_cast<void*>(rect.destination);
  what.srcPitch = rect.source_pitch;
  what.dstPitch = rect.destination_pitch;
  what.srcHeight = rect.depth > 1 ? rect.source_slice / rect.source_pitch : rect.height;
  what.dstHeight = rect.depth > 1 ? rect.destination_slice / rect.destination_pitch : rect.height;
  what.WidthInBytes = rect.width;
  what.Height = rect.height;
  what.Depth = rect.depth;
  return what;
}

// The rows of pageable memory, packed; null when there is none.
std::shared_ptr<std::vector<std::byte>> stage(const CopyRect& rect) {
  auto staged = std::make_shared<std::vector<std::byte>>(rect.width * rect.height * rect.depth);
  std::byte* to = staged->data();
  for (uint64_t slice = 0; slice < rect.depth; ++slice) {
    for (uint64_t row = 0; row < rect.height; ++row, to += rect.width) {
      const uint64_t from = rect.source + slice * rect.source_slice + row * rect.source_pitch;
      if (driver().memory.copy(reinterpret_cast<uint64_t>(to), from, rect.width) != Memory::Copied::kYes)
        return nullptr;
    }
  }
  return staged;
}

// One side of a description.
struct Place {
  CUmemorytype type;
  uint64_t address;  // of host or device memory
  CUarray array;
  uint64_t x, y, z, lod;
  uint64_t pitch, height;
};

CUresult resolve_array(const Place& place, const CUDA_MEMCPY3D& what, uint64_t* address, uint64_t* pitch,
                       uint64_t* slice) {
  const auto array = driver().arrays.find(place.array);
  if (array == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  const TextureLevel& level = array->level;
  const uint64_t element = array->format.bytes();
  if (place.x % element != 0 || what.WidthInBytes % element != 0) return CUDA_ERROR_INVALID_VALUE;
  const auto inside = [](uint64_t start, uint64_t count, uint64_t size) {
    return start <= size && count <= size - start;
  };
  if (!inside(place.x, what.WidthInBytes, array->row_bytes()) || !inside(place.y, what.Height, level.height) ||
      !inside(place.z, what.Depth, level.depth)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  *pitch = level.pitch;
  *slice = level.slice;
  *address = level.address + place.z * level.slice + place.y * level.pitch + place.x;
  return CUDA_SUCCESS;
}

// A pitch or height of 0 means rows and slices without gaps.
CUresult resolve_place(const Place& place, const CUDA_MEMCPY3D& what, uint64_t* address, uint64_t* pitch,
                       uint64_t* slice) {
  if (place.lod != 0) return CUDA_ERROR_INVALID_VALUE;
  if (place.type == CU_MEMORYTYPE_ARRAY) return resolve_array(place, what, address, pitch, slice);
  if (place.address == 0) return CUDA_ERROR_INVALID_VALUE;
  *pitch = place.pitch != 0 ? place.pitch : what.WidthInBytes + place.x;
  const uint64_t height = place.height != 0 ? place.height : what.Height + place.y;
  if (place.x + what.WidthInBytes > *pitch) return CUDA_ERROR_INVALID_VALUE;
  if (what.Depth > 1 && place.y + what.Height > height) return CUDA_ERROR_INVALID_VALUE;
  if (*pitch > kWindowBytes || height > kWindowBytes / *pitch) return CUDA_ERROR_INVALID_VALUE;
  *slice = *pitch * height;
  *address = place.address + place.z * *slice + place.y * *pitch + place.x;
  return CUDA_SUCCESS;
}

uint64_t number(const void* pointer) { return reinterpret_cast<uint64_t>(pointer); }

bool known(CUmemorytype type) {
  return type == CU_MEMORYTYPE_HOST || type == CU_MEMORYTYPE_DEVICE || type == CU_MEMORYTYPE_ARRAY ||
         type == CU_MEMORYTYPE_UNIFIED;
}

}  // namespace

CUresult resolve_copy(const CUDA_MEMCPY3D& what, CopyRect* rect) {
  if (!known(what.srcMemoryType) || !known(what.dstMemoryType)) return CUDA_ERROR_INVALID_VALUE;
  if (what.WidthInBytes == 0 || what.Height == 0 || what.Depth == 0) {
    rect->width = 0;
    return CUDA_SUCCESS;
  }
  if (what.WidthInBytes > kWindowBytes || what.srcXInBytes > kWindowBytes || what.dstXInBytes > kWindowBytes) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  const bool from_host = what.srcMemoryType == CU_MEMORYTYPE_HOST, to_host = what.dstMemoryType == CU_MEMORYTYPE_HOST;
  const Place from{what.srcMemoryType, from_host ? number(what.srcHost) : what.srcDevice,
                   what.srcArray,      what.srcXInBytes,
                   what.srcY,          what.srcZ,
                   what.srcLOD,        what.srcPitch,
                   what.srcHeight};
  const Place to{what.dstMemoryType, to_host ? number(what.dstHost) : what.dstDevice,
                 what.dstArray,      what.dstXInBytes,
                 what.dstY,          what.dstZ,
                 what.dstLOD,        what.dstPitch,
                 what.dstHeight};
  rect->width = what.WidthInBytes;
  rect->height = what.Height;
  rect->depth = what.Depth;
  const CUresult result = resolve_place(from, what, &rect->source, &rect->source_pitch, &rect->source_slice);
  return result != CUDA_SUCCESS
             ? result
             : resolve_place(to, what, &rect->destination, &rect->destination_pitch, &rect->destination_slice);
}

CUresult copy_rect(Context& context, const std::shared_ptr<Stream>& stream, const CopyRect& rect, Wait wait,
                   const CUDA_MEMCPY3D* shown) {
  if (rect.width == 0 || rect.height == 0 || rect.depth == 0) return CUDA_SUCCESS;
  if (rect.height > 1 && (rect.width > rect.destination_pitch || rect.width > rect.source_pitch)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  const Side to = side_of(rect.destination, span(rect.destination_slice, rect.depth, rect.destination_pitch, rect));
  const Side from = side_of(rect.source, span(rect.source_slice, rect.depth, rect.source_pitch, rect));
  if (to == Side::kUnknown || from == Side::kUnknown) return CUDA_ERROR_INVALID_VALUE;
  const uint64_t bytes = rect.width * rect.height * rect.depth;
  const bool host = to != Side::kDevice || from != Side::kDevice;
  const bool wait_for_it =
      (wait == Wait::kForHost && host) || to == Side::kPageable || (from == Side::kPageable && bytes > kStagedBytesMax);
  const CUDA_MEMCPY3D what = shown != nullptr ? *shown : describe(rect, to, from);
  const auto direct = std::make_shared<CopyWork>(what, [rect] { return run_copy(rect); });
  if (wait == Wait::kForHost && host) return copy_now(context, stream, rect);
  if (stream->capturing()) return enqueue(context, stream, direct);  // it reads and writes when the graph is launched
  if (wait_for_it) return copy_now(context, stream, rect);
  if (from != Side::kPageable) return enqueue(context, stream, direct);
  auto staged = stage(rect);
  if (staged == nullptr) return CUDA_ERROR_INVALID_VALUE;
  CopyRect packed = rect;
  packed.source = reinterpret_cast<uint64_t>(staged->data());
  packed.source_pitch = rect.width;
  packed.source_slice = rect.width * rect.height;
  const auto execute = [packed, staged = std::move(staged)] { return run_copy(packed); };
  return enqueue(context, stream, std::make_shared<CopyWork>(what, execute));
}

CUresult make_fill_work(const FillRect& rect, WorkRef* work) {
  if (rect.width > kWindowBytes || rect.address % rect.element_bytes != 0) return CUDA_ERROR_INVALID_VALUE;
  const uint64_t row_bytes = rect.width * rect.element_bytes;
  if (rect.height > 1 && (row_bytes > rect.pitch || rect.pitch % rect.element_bytes != 0))
    return CUDA_ERROR_INVALID_VALUE;
  const Side side = side_of(rect.address, span(rect.pitch, row_bytes, rect.height));
  if (side != Side::kDevice && side != Side::kPinned) return CUDA_ERROR_INVALID_VALUE;
  *work = std::make_shared<FillWork>(rect);
  return CUDA_SUCCESS;
}

CUresult fill_rect(Context& context, const std::shared_ptr<Stream>& stream, const FillRect& rect) {
  if (rect.width == 0 || rect.height == 0) return CUDA_SUCCESS;
  WorkRef work;
  const CUresult result = make_fill_work(rect, &work);
  return result != CUDA_SUCCESS ? result : enqueue(context, stream, std::move(work));
}

CUresult make_copy_work(const CUDA_MEMCPY3D& what, WorkRef* work) {
  CopyRect rect;
  const CUresult result = resolve_copy(what, &rect);
  if (result != CUDA_SUCCESS) return result;
  if (rect.width == 0) {  // nothing to copy is no error
    *work = std::make_shared<CopyWork>(what, [] { return CUDA_SUCCESS; });
    return CUDA_SUCCESS;
  }
  if (rect.height > 1 && (rect.width > rect.destination_pitch || rect.width > rect.source_pitch)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  const Side to = side_of(rect.destination, span(rect.destination_slice, rect.depth, rect.destination_pitch, rect));
  const Side from = side_of(rect.source, span(rect.source_slice, rect.depth, rect.source_pitch, rect));
  if (to == Side::kUnknown || from == Side::kUnknown) return CUDA_ERROR_INVALID_VALUE;
  // Arrays live as long as work that was made of them.
  *work =
      std::make_shared<CopyWork>(what, [rect, to_array = driver().arrays.find(what.dstArray),
                                        from_array = driver().arrays.find(what.srcArray)] { return run_copy(rect); });
  return CUDA_SUCCESS;
}

}  // namespace softgpu
