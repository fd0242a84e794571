// Entry points: managed memory. Host and device share its bytes, so that prefetching and advice change only what is
// answered about them.

#include <algorithm>
#include <cstring>
#include <vector>

#include "softgpu/driver/driver.h"
#include "softgpu/driver/work.h"

using namespace softgpu;  // an entry point is C; everything it uses is ours

namespace {

struct Part {
  std::shared_ptr<Advice> advice;
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

// And as they answer it.
int device_of(const CUmemLocation& place) {
  switch (place.type) {
    case CU_MEM_LOCATION_TYPE_DEVICE:
      return place.id;
    case CU_MEM_LOCATION_TYPE_HOST:
    case CU_MEM_LOCATION_TYPE_HOST_NUMA:
    case CU_MEM_LOCATION_TYPE_HOST_NUMA_CURRENT:
      return CU_DEVICE_CPU;
    default:
      return CU_DEVICE_INVALID;
  }
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

void set_accessed_by(PageAdvice* page, const CUmemLocation& place, bool on) {
  if (place.type != CU_MEM_LOCATION_TYPE_DEVICE) {
    page->accessed_by_host = on;
  } else if (on) {
    page->accessed_by |= only(place.id);
  } else {
    page->accessed_by &= ~only(place.id);
  }
}

CUresult advise(CUdeviceptr address, size_t bytes, CUmem_advise advice, const CUmemLocation& place) {
  return guarded([&]() -> CUresult {
    Part part;
    CUresult result = find_part(address, bytes, &part);
    if (result != CUDA_SUCCESS) return result;
    const bool placed = advice == CU_MEM_ADVISE_SET_PREFERRED_LOCATION || advice == CU_MEM_ADVISE_SET_ACCESSED_BY ||
                        advice == CU_MEM_ADVISE_UNSET_ACCESSED_BY;
    if (advice < CU_MEM_ADVISE_SET_READ_MOSTLY || advice > CU_MEM_ADVISE_UNSET_ACCESSED_BY) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    if (placed && (result = check_place(place)) != CUDA_SUCCESS) return result;
    part.advice->change(part.offset, bytes, [&](PageAdvice& page) {
      switch (advice) {
        case CU_MEM_ADVISE_SET_READ_MOSTLY:
        case CU_MEM_ADVISE_UNSET_READ_MOSTLY:
          page.read_mostly = advice == CU_MEM_ADVISE_SET_READ_MOSTLY;
          break;
        case CU_MEM_ADVISE_SET_PREFERRED_LOCATION:
          page.preferred = place;
          break;
        case CU_MEM_ADVISE_UNSET_PREFERRED_LOCATION:
          page.preferred = kNowhere;
          break;
        default:
          set_accessed_by(&page, place, advice == CU_MEM_ADVISE_SET_ACCESSED_BY);
      }
    });
    return CUDA_SUCCESS;
  });
}

CUresult prefetch(CUdeviceptr address, size_t bytes, const CUmemLocation& place, unsigned flags, CUstream handle) {
  return on_stream(handle, [&](Context& context, const std::shared_ptr<Stream>& stream) -> CUresult {
    Part part;
    CUresult result = flags != 0 ? CUDA_ERROR_INVALID_VALUE : find_part(address, bytes, &part);
    if (result == CUDA_SUCCESS) result = check_place(place);
    if (result != CUDA_SUCCESS) return result;
    // It is known as soon as it is asked for; the stream has nothing to move.
    part.advice->change(part.offset, bytes, [&](PageAdvice& page) { page.prefetched = place; });
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

// Places that all pages agree on.
CUmemLocation common(const std::vector<PageAdvice>& pages, CUmemLocation PageAdvice::*which) {
  const CUmemLocation first = pages.front().*which;
  for (const PageAdvice& page : pages) {
    if (!same_place(page.*which, first)) return kNowhere;
  }
  return first;
}

// Devices that every page has, in order, then CU_DEVICE_INVALID.
CUresult give_accessed_by(const std::vector<PageAdvice>& pages, void* data, size_t data_bytes) {
  if (data_bytes == 0 || data_bytes % sizeof(int) != 0) return CUDA_ERROR_INVALID_VALUE;
  DeviceSet everywhere = kAllDevices;
  bool host = true;
  for (const PageAdvice& page : pages) {
    everywhere &= page.accessed_by;
    host = host && page.accessed_by_host;
  }
  std::vector<int> devices;
  if (host) devices.push_back(CU_DEVICE_CPU);
  for (int device = 0; device < kDevicesMax; ++device) {
    if ((everywhere & only(device)) != 0) devices.push_back(device);
  }
  devices.resize(data_bytes / sizeof(int), CU_DEVICE_INVALID);
  std::memcpy(data, devices.data(), data_bytes);
  return CUDA_SUCCESS;
}

CUresult give_number(void* data, size_t data_bytes, int value) {
  if (data_bytes != sizeof(value)) return CUDA_ERROR_INVALID_VALUE;
  std::memcpy(data, &value, sizeof(value));
  return CUDA_SUCCESS;
}

CUresult get_attribute(void* data, size_t data_bytes, CUmem_range_attribute attribute,
                       const std::vector<PageAdvice>& pages) {
  if (data == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const CUmemLocation preferred = common(pages, &PageAdvice::preferred);
  const CUmemLocation prefetched = common(pages, &PageAdvice::prefetched);
  switch (attribute) {
    case CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY:
      return give_number(data, data_bytes,
                         std::all_of(pages.begin(), pages.end(), [](const PageAdvice& p) { return p.read_mostly; }));
    case CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION:
      return give_number(data, data_bytes, device_of(preferred));
    case CU_MEM_RANGE_ATTRIBUTE_ACCESSED_BY:
      return give_accessed_by(pages, data, data_bytes);
    case CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION:
      return give_number(data, data_bytes, device_of(prefetched));
    case CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION_TYPE:
      return give_number(data, data_bytes, preferred.type);
    case CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION_ID:
      return give_number(data, data_bytes, preferred.id);
    case CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION_TYPE:
      return give_number(data, data_bytes, prefetched.type);
    case CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION_ID:
      return give_number(data, data_bytes, prefetched.id);
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
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
    return get_attribute(data, data_bytes, attribute, part.advice->within(part.offset, bytes));
  });
}

extern "C" CUresult cuMemRangeGetAttributes(void** data, size_t* data_bytes, CUmem_range_attribute* attributes,
                                            size_t count, CUdeviceptr address, size_t bytes) {
  return guarded([&]() -> CUresult {
    if (data == nullptr || data_bytes == nullptr || attributes == nullptr || count == 0) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    Part part;
    CUresult result = find_part(address, bytes, &part);
    if (result != CUDA_SUCCESS) return result;
    const auto pages = part.advice->within(part.offset, bytes);
    for (size_t i = 0; i < count && result == CUDA_SUCCESS; ++i) {
      result = get_attribute(data[i], data_bytes[i], attributes[i], pages);
    }
    return result;
  });
}
