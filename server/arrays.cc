#include "server/arrays.h"

#include <algorithm>
#include <bit>

#include "api/box.h"
#include "base/log.h"
#include "server/array_box.h"

namespace tide {
namespace {

constexpr size_t kArraysMax = 1 << 20;  // bounds what a hostile client can hold
constexpr unsigned kSlices = CUDA_ARRAY3D_LAYERED | CUDA_ARRAY3D_CUBEMAP;

bool solid(const CUDA_ARRAY3D_DESCRIPTOR& what) { return what.Depth != 0 && (what.Flags & kSlices) == 0; }

// 0 where no memory is that large.
uint64_t bytes_of(const ArrayEntry& entry, uint32_t levels) {
  uint64_t all = 0;
  for (uint32_t level = 0; level < std::max(levels, 1u); ++level) {
    const LevelExtent n = level_extent(entry.what, level);
    uint64_t bytes = entry.element_bytes;
    if (__builtin_mul_overflow(bytes, n.width, &bytes) || __builtin_mul_overflow(bytes, n.height, &bytes) ||
        __builtin_mul_overflow(bytes, n.depth, &bytes) || __builtin_add_overflow(all, bytes, &all)) {
      return 0;
    }
  }
  return all;
}

}  // namespace

LevelExtent level_extent(const CUDA_ARRAY3D_DESCRIPTOR& what, uint32_t level) {
  const auto halved = [&](uint64_t n) { return std::max<uint64_t>(n >> std::min(level, 63u), 1); };
  return {halved(what.Width), halved(what.Height),
          solid(what) ? halved(what.Depth) : std::max<uint64_t>(what.Depth, 1)};
}

CUresult Arrays::make(ArrayEntry* entry, uint32_t levels) {
  const Driver& driver = library_.calls;
  if (levels == 0) {
    CUarray array = nullptr;
    if (driver.cuArray3DCreate_v2 == nullptr) return CUDA_ERROR_NOT_SUPPORTED;
    const CUresult result = driver.cuArray3DCreate_v2(&array, &entry->what);
    if (result == CUDA_SUCCESS) entry->levels.push_back(array);
    return result;
  }
  if (driver.cuMipmappedArrayCreate == nullptr) return CUDA_ERROR_NOT_SUPPORTED;
  CUresult result = driver.cuMipmappedArrayCreate(&entry->mipmap, &entry->what, levels);
  for (uint32_t i = 0; i < levels && result == CUDA_SUCCESS; ++i) {
    CUarray array = nullptr;
    result = driver.cuMipmappedArrayGetLevel(&array, entry->mipmap, i);
    entry->levels.push_back(array);
  }
  return result;
}

// On a stream of its own, which waits for nothing that the program does.
CUresult Arrays::clear(const ArrayEntry& entry) {
  const Driver& driver = library_.calls;
  CUstream stream = nullptr;
  if (driver.cuMemcpy3DAsync_v2 == nullptr) return CUDA_ERROR_NOT_SUPPORTED;
  CUresult result = driver.cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING);
  if (result != CUDA_SUCCESS) return result;
  std::vector<std::byte> zeros(std::min(entry.bytes, kArrayBoxBytesMax));
  for (const ArrayBox& box : boxes_of(0, entry)) {
    const CUDA_MEMCPY3D copy = copy_of(entry, box, zeros.data(), false);
    if (result == CUDA_SUCCESS) result = driver.cuMemcpy3DAsync_v2(&copy, stream);
  }
  if (result == CUDA_SUCCESS) result = driver.cuStreamSynchronize(stream);
  driver.cuStreamDestroy_v2(stream);
  return result;
}

CUresult Arrays::create(uint32_t number, uint32_t context, const CUDA_ARRAY3D_DESCRIPTOR& what, uint32_t levels) {
  if (number == 0 || arrays_.contains(number) || arrays_.size() >= kArraysMax) return CUDA_ERROR_INVALID_VALUE;
  if (levels > uint32_t(std::bit_width(std::max({what.Width, what.Height, what.Depth, size_t{1}})))) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  ArrayEntry entry;
  entry.context = context;
  entry.what = what;
  entry.element_bytes = uint32_t(element_bytes(what.Format, what.NumChannels));
  if (entry.element_bytes == 0) return CUDA_ERROR_NOT_SUPPORTED;  // its contents could not be moved
  entry.bytes = bytes_of(entry, levels);
  if (entry.bytes == 0 || !memory_.charge(entry.bytes)) return CUDA_ERROR_OUT_OF_MEMORY;
  CUresult result = make(&entry, levels);
  if (result == CUDA_SUCCESS && !library_.memory_is_new) result = clear(entry);
  if (result != CUDA_SUCCESS) {
    if (entry.mipmap != nullptr) {
      library_.calls.cuMipmappedArrayDestroy(entry.mipmap);
    } else if (!entry.levels.empty()) {
      library_.calls.cuArrayDestroy(entry.levels[0]);
    }
    memory_.discharge(entry.bytes);
    return result;
  }
  arrays_[number] = std::move(entry);
  return CUDA_SUCCESS;
}

CUresult Arrays::destroy(uint32_t number) {
  const auto found = arrays_.find(number);
  if (found == arrays_.end()) return CUDA_ERROR_INVALID_HANDLE;
  const ArrayEntry entry = std::move(found->second);
  arrays_.erase(found);
  memory_.discharge(entry.bytes);
  contexts_.use(entry.context);
  return entry.mipmap != nullptr ? library_.calls.cuMipmappedArrayDestroy(entry.mipmap)
                                 : library_.calls.cuArrayDestroy(entry.levels[0]);
}

void Arrays::forget_context(uint32_t context) {
  std::vector<uint64_t> keys;
  for (const auto& [key, texture] : textures_) {
    if (texture.context == context) keys.push_back(key);
  }
  for (const uint64_t key : keys) destroy_texture(key >> 63 != 0, key << 1 >> 1);
  std::vector<uint32_t> numbers;
  for (const auto& [number, entry] : arrays_) {
    if (entry.context == context) numbers.push_back(number);
  }
  for (const uint32_t number : numbers) destroy(number);
}

const ArrayEntry* Arrays::find(uint32_t number) const {
  const auto found = arrays_.find(number);
  return found == arrays_.end() ? nullptr : &found->second;
}

CUarray Arrays::array(uint64_t reference) const {
  const ArrayEntry* entry = find(uint32_t(reference));
  const uint64_t level = reference >> 32;
  return entry == nullptr || level >= entry->levels.size() ? nullptr : entry->levels[level];
}

CUresult Arrays::create_texture(uint32_t context, bool surface, uint64_t wanted, uint32_t array,
                                const CUDA_RESOURCE_DESC& resource, const CUDA_TEXTURE_DESC& what,
                                const CUDA_RESOURCE_VIEW_DESC* view, uint64_t* handle) {
  const Driver& driver = library_.calls;
  if (driver.cuTexObjectCreate == nullptr || driver.cuSurfObjectCreate == nullptr) return CUDA_ERROR_NOT_SUPPORTED;
  if (textures_.size() >= kArraysMax) return CUDA_ERROR_OUT_OF_MEMORY;
  if (wanted != 0 && library_.set_object_handle != nullptr) library_.set_object_handle(wanted);
  unsigned long long got = 0;
  const CUresult result =
      surface ? driver.cuSurfObjectCreate(&got, &resource) : driver.cuTexObjectCreate(&got, &resource, &what, view);
  if (result != CUDA_SUCCESS) return result;
  if ((wanted != 0 && got != wanted) || got >> 63 != 0) {
    log(LogLevel::kError, "the driver gives %s object %llu another handle, %llu", surface ? "surface" : "texture",
        static_cast<unsigned long long>(wanted), got);
    surface ? driver.cuSurfObjectDestroy(got) : driver.cuTexObjectDestroy(got);
    return CUDA_ERROR_NOT_SUPPORTED;
  }
  textures_[texture_key(surface, got)] = {context, array};
  *handle = got;
  return CUDA_SUCCESS;
}

CUresult Arrays::destroy_texture(bool surface, uint64_t handle) {
  const auto found = textures_.find(texture_key(surface, handle));
  // One whose array went before it did not come along in a move.
  if (found == textures_.end()) return CUDA_SUCCESS;
  contexts_.use(found->second.context);
  textures_.erase(found);
  return surface ? library_.calls.cuSurfObjectDestroy(handle) : library_.calls.cuTexObjectDestroy(handle);
}

std::vector<uint64_t> Arrays::textures_of(uint32_t array) const {
  std::vector<uint64_t> keys;
  for (const auto& [key, texture] : textures_) {
    if (texture.array == array) keys.push_back(key);
  }
  return keys;
}

}  // namespace tide
