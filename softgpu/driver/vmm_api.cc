// Entry points: virtual memory management. The worker places all memory of a vGPU with these.

#include "softgpu/driver/driver.h"

using namespace softgpu;  // an entry point is C; everything it uses is ours

namespace {

bool whole_chunks(uint64_t value) { return value % kChunkBytes == 0; }

bool valid_span(uint64_t address, uint64_t bytes) {
  return bytes != 0 && whole_chunks(address) && whole_chunks(bytes) && address - kWindowBase < kWindowBytes &&
         bytes <= kWindowBytes - (address - kWindowBase);
}

Backing* key(CUmemGenericAllocationHandle handle) { return reinterpret_cast<Backing*>(handle); }

CUresult check_properties(const CUmemAllocationProp* properties) {
  if (properties == nullptr || properties->type != CU_MEM_ALLOCATION_TYPE_PINNED) return CUDA_ERROR_INVALID_VALUE;
  if (properties->location.type != CU_MEM_LOCATION_TYPE_DEVICE) return CUDA_ERROR_NOT_SUPPORTED;
  return find_device(properties->location.id) == nullptr ? CUDA_ERROR_INVALID_DEVICE : CUDA_SUCCESS;
}

}  // namespace

extern "C" CUresult cuMemGetAllocationGranularity(size_t* bytes, const CUmemAllocationProp* properties,
                                                  CUmemAllocationGranularity_flags) {
  return guarded([&]() -> CUresult {
    if (bytes == nullptr) return CUDA_ERROR_INVALID_VALUE;
    const CUresult result = check_properties(properties);
    if (result == CUDA_SUCCESS) *bytes = kChunkBytes;
    return result;
  });
}

extern "C" CUresult cuMemAddressReserve(CUdeviceptr* address, size_t bytes, size_t alignment, CUdeviceptr wanted,
                                        unsigned long long flags) {
  return guarded([&]() -> CUresult {
    if (address == nullptr || bytes == 0 || !whole_chunks(bytes) || flags != 0) return CUDA_ERROR_INVALID_VALUE;
    if ((alignment & (alignment - 1)) != 0 || !whole_chunks(wanted)) return CUDA_ERROR_INVALID_VALUE;
    uint64_t place = 0;
    const CUresult result = driver().memory.reserve(wanted, bytes, alignment, &place);
    if (result == CUDA_SUCCESS) *address = place;
    return result;
  });
}

extern "C" CUresult cuMemAddressFree(CUdeviceptr address, size_t bytes) {
  return guarded([&] { return driver().memory.unreserve(address, bytes); });
}

extern "C" CUresult cuMemCreate(CUmemGenericAllocationHandle* handle, size_t bytes,
                                const CUmemAllocationProp* properties, unsigned long long flags) {
  return guarded([&]() -> CUresult {
    if (handle == nullptr || bytes == 0 || !whole_chunks(bytes) || flags != 0) return CUDA_ERROR_INVALID_VALUE;
    const CUresult result = check_properties(properties);
    if (result != CUDA_SUCCESS) return result;
    if (properties->requestedHandleTypes != CU_MEM_HANDLE_TYPE_NONE) return CUDA_ERROR_NOT_SUPPORTED;
    auto backing = Backing::make(*find_device(properties->location.id), bytes);
    if (backing == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
    Backing* const made = driver().backings.next();
    driver().backings.add(made, std::move(backing));
    *handle = reinterpret_cast<CUmemGenericAllocationHandle>(made);
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuMemRelease(CUmemGenericAllocationHandle handle) {
  return guarded([&]() -> CUresult {  // mappings keep the memory
    return driver().backings.remove(key(handle)) == nullptr ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
  });
}

extern "C" CUresult cuMemMap(CUdeviceptr address, size_t bytes, size_t offset, CUmemGenericAllocationHandle handle,
                             unsigned long long flags) {
  return guarded([&]() -> CUresult {
    if (!valid_span(address, bytes) || offset != 0 || flags != 0) return CUDA_ERROR_INVALID_VALUE;
    const auto backing = driver().backings.find(key(handle));
    if (backing == nullptr || bytes > backing->bytes) return CUDA_ERROR_INVALID_VALUE;
    return driver().memory.map(address, bytes, backing);
  });
}

extern "C" CUresult cuMemUnmap(CUdeviceptr address, size_t bytes) {
  return guarded([&]() -> CUresult {
    return valid_span(address, bytes) ? driver().memory.unmap(address, bytes) : CUDA_ERROR_INVALID_VALUE;
  });
}

extern "C" CUresult cuMemSetAccess(CUdeviceptr address, size_t bytes, const CUmemAccessDesc* descriptions,
                                   size_t count) {
  return guarded([&]() -> CUresult {
    if (!valid_span(address, bytes) || descriptions == nullptr || count == 0) return CUDA_ERROR_INVALID_VALUE;
    // All devices share one address space: who may read may write, and every device may what one may.
    bool accessible = false;
    for (size_t i = 0; i < count; ++i) {
      const CUmemAccessDesc& description = descriptions[i];
      if (description.location.type != CU_MEM_LOCATION_TYPE_DEVICE) return CUDA_ERROR_NOT_SUPPORTED;
      if (find_device(description.location.id) == nullptr) return CUDA_ERROR_INVALID_DEVICE;
      accessible = accessible || description.flags != CU_MEM_ACCESS_FLAGS_PROT_NONE;
    }
    return driver().memory.set_access(address, bytes, accessible);
  });
}

extern "C" CUresult cuMemGetAccess(unsigned long long* flags, const CUmemLocation* location, CUdeviceptr address) {
  return guarded([&]() -> CUresult {
    if (flags == nullptr || location == nullptr) return CUDA_ERROR_INVALID_VALUE;
    const auto range = driver().memory.find(address);
    if (!range || range->kind != RangeKind::kMapped) return CUDA_ERROR_INVALID_VALUE;
    *flags = range->accessible ? CU_MEM_ACCESS_FLAGS_PROT_READWRITE : CU_MEM_ACCESS_FLAGS_PROT_NONE;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuMemGetAllocationPropertiesFromHandle(CUmemAllocationProp* properties,
                                                           CUmemGenericAllocationHandle handle) {
  return guarded([&]() -> CUresult {
    const auto backing = driver().backings.find(key(handle));
    if (properties == nullptr || backing == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *properties = {};
    properties->type = CU_MEM_ALLOCATION_TYPE_PINNED;
    properties->location = {CU_MEM_LOCATION_TYPE_DEVICE, {backing->device.index}};
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuMemRetainAllocationHandle(CUmemGenericAllocationHandle* handle, void* address) {
  return guarded([&]() -> CUresult {
    const auto range = driver().memory.find(reinterpret_cast<uint64_t>(address));
    if (handle == nullptr || !range || range->kind != RangeKind::kMapped) return CUDA_ERROR_INVALID_VALUE;
    Backing* const made = driver().backings.next();
    driver().backings.add(made, range->backing);
    *handle = reinterpret_cast<CUmemGenericAllocationHandle>(made);
    return CUDA_SUCCESS;
  });
}
