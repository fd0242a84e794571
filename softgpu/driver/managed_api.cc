// Entry points: managed memory. Host and device share its bytes, so that prefetching and advice change only what is
// answered about them.

#include "softgpu/driver/driver.h"
#include "softgpu/driver/work.h"

using namespace softgpu;  // an entry point is C; everything it uses is ours

namespace {

struct Part {
  std::shared_ptr<tide::composed::Advice> advice;
  uint64_t offset = 0;
};

// All of it must lie in one managed allocation.
CUresult find_part(CUdeviceptr address, size_t bytes, Part* part) {
  const auto range = driver().memory.find(address);
  if (bytes == 0 || !range || range->advice == nullptr) return CUDA_ERROR_INVALID_VALUE;
  part->advice = range->advice;
  part->offset = address - range->address;
  return bytes <= range->bytes - part->offset ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult check_place(const CUmemLocation& place) {
  switch (place.type) {
    case CU_MEM_LOCATION_TYPE_DEVICE:
      return find_device(place.id) == nullptr ? CUDA_ERROR_INVALID_DEVICE : CUDA_SUCCESS;
    case CU_MEM_LOCATION_TYPE_HOST:
    case CU_MEM_LOCATION_TYPE_HOST_NUMA_CURRENT:
      return CUDA_SUCCESS;
    case CU_MEM_LOCATION_TYPE_HOST_NUMA:
      return place.id == 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
}

CUresult advise(CUdeviceptr address, size_t bytes, CUmem_advise advice, const CUmemLocation& place) {
  return guarded([&]() -> CUresult {
    Part part;
    CUresult result = find_part(address, bytes, &part);
    const bool placed = advice == CU_MEM_ADVISE_SET_PREFERRED_LOCATION || advice == CU_MEM_ADVISE_SET_ACCESSED_BY ||
                        advice == CU_MEM_ADVISE_UNSET_ACCESSED_BY;
    if (result == CUDA_SUCCESS && placed) result = check_place(place);
    return result != CUDA_SUCCESS ? result
                                  : tide::composed::advise(part.advice.get(), part.offset, bytes, advice, place);
  });
}

CUresult prefetch(CUdeviceptr address, size_t bytes, const CUmemLocation& place, unsigned flags, CUstream handle) {
  return on_stream(handle, [&](Context& context, const std::shared_ptr<Stream>& stream) -> CUresult {
    Part part;
    CUresult result = flags != 0 ? CUDA_ERROR_INVALID_VALUE : find_part(address, bytes, &part);
    if (result == CUDA_SUCCESS) result = check_place(place);
    if (result != CUDA_SUCCESS) return result;
    // It is known as soon as it is asked for; the stream has nothing to move.
    part.advice->change(part.offset, bytes, [&](tide::composed::PageAdvice& page) { page.prefetched = place; });
    return enqueue_uncaptured(context, stream, {[] { return CUDA_SUCCESS; }, {}, false});
  });
}

// Host and device share the bytes whatever is attached: there is only to be said what is wrong.
CUresult check_attachment(const Stream& stream, CUdeviceptr address, size_t bytes, unsigned flags) {
  const bool single = flags == CU_MEM_ATTACH_SINGLE;
  if (!single && flags != CU_MEM_ATTACH_GLOBAL && flags != CU_MEM_ATTACH_HOST) return CUDA_ERROR_INVALID_VALUE;
  if (single && stream.handle() == CU_STREAM_LEGACY) return CUDA_ERROR_INVALID_VALUE;  // stands for all of them
  const auto range = driver().memory.find(address);
  if (!range || range->advice == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const bool whole = bytes == 0 || (bytes == range->bytes && address == range->address);
  return whole ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

}  // namespace

extern "C" CUresult cuMemAllocManaged(CUdeviceptr* address, size_t bytes, unsigned int flags) {
  return in_context([&](Context& context) -> CUresult {
    if (address == nullptr || bytes == 0) return CUDA_ERROR_INVALID_VALUE;
    if (flags != CU_MEM_ATTACH_GLOBAL && flags != CU_MEM_ATTACH_HOST) return CUDA_ERROR_INVALID_VALUE;
    uint64_t place = 0;
    const CUresult result = driver().memory.allocate_managed(context, bytes, flags, &place);
    if (result == CUDA_SUCCESS) *address = place;
    return result;
  });
}

extern "C" CUresult cuMemAdvise_v2(CUdeviceptr address, size_t bytes, CUmem_advise advice, CUmemLocation place) {
  return advise(address, bytes, advice, place);
}

extern "C" CUresult cuMemPrefetchAsync_v2(CUdeviceptr address, size_t bytes, CUmemLocation place, unsigned int flags,
                                          CUstream stream) {
  return prefetch(address, bytes, place, flags, stream);
}

extern "C" CUresult cuStreamAttachMemAsync(CUstream handle, CUdeviceptr address, size_t bytes, unsigned int flags) {
  return on_stream(handle, [&](Context& context, const std::shared_ptr<Stream>& stream) -> CUresult {
    const CUresult result = check_attachment(*stream, address, bytes, flags);
    if (result != CUDA_SUCCESS) return result;
    return enqueue_uncaptured(context, stream, {[] { return CUDA_SUCCESS; }, {}, false});
  });
}

extern "C" CUresult cuMemRangeGetAttribute(void* data, size_t data_bytes, CUmem_range_attribute attribute,
                                           CUdeviceptr address, size_t bytes) {
  return guarded([&]() -> CUresult {
    Part part;
    const CUresult result = find_part(address, bytes, &part);
    if (result != CUDA_SUCCESS) return result;
    return tide::composed::read_attribute(part.advice->within(part.offset, bytes), attribute, data, data_bytes);
  });
}

extern "C" CUresult cuMemRangeGetAttributes(void** data, size_t* data_bytes, CUmem_range_attribute* attributes,
                                            size_t count, CUdeviceptr address, size_t bytes) {
  return guarded([&]() -> CUresult {
    Part part;
    const CUresult result = find_part(address, bytes, &part);
    if (result != CUDA_SUCCESS) return result;
    return tide::composed::read_attributes(part.advice->within(part.offset, bytes), attributes, count, data,
                                           data_bytes);
  });
}
