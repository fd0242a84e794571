// Entry points: virtual memory management. The worker places all memory of a vGPU with these.

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "softgpu/driver/access.h"
#include "softgpu/driver/driver.h"
#include "softgpu/driver/simulation.h"

using namespace softgpu;  // an entry point is C; everything it uses is ours

namespace {

bool whole_chunks(uint64_t value) { return value % kChunkBytes == 0; }

bool valid_span(uint64_t address, uint64_t bytes) {
  return bytes != 0 && whole_chunks(address) && whole_chunks(bytes) && address - kWindowBase < kWindowBytes &&
         bytes <= kWindowBytes - (address - kWindowBase);
}

Physical* key(CUmemGenericAllocationHandle handle) { return reinterpret_cast<Physical*>(handle); }

CUmemGenericAllocationHandle publish(std::shared_ptr<Physical> made) {
  Physical* const handle = driver().physicals.next();
  driver().physicals.add(handle, std::move(made));
  return reinterpret_cast<CUmemGenericAllocationHandle>(handle);
}

CUresult check_properties(const CUmemAllocationProp* properties) {
  if (properties == nullptr || properties->type != CU_MEM_ALLOCATION_TYPE_PINNED) return CUDA_ERROR_INVALID_VALUE;
  if (properties->location.type != CU_MEM_LOCATION_TYPE_DEVICE) return CUDA_ERROR_NOT_SUPPORTED;
  return find_device(properties->location.id) == nullptr ? CUDA_ERROR_INVALID_DEVICE : CUDA_SUCCESS;
}

}  // namespace

extern "C" CUresult cuMemGetAllocationGranularity(size_t* bytes, const CUmemAllocationProp* properties,
                                                  CUmemAllocationGranularity_flags option) {
  return guarded([&]() -> CUresult {
    if (bytes == nullptr || option > CU_MEM_ALLOC_GRANULARITY_RECOMMENDED) return CUDA_ERROR_INVALID_VALUE;
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
    const auto sharing = properties->requestedHandleTypes;
    if (sharing != CU_MEM_HANDLE_TYPE_NONE && sharing != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR) {
      return CUDA_ERROR_NOT_SUPPORTED;
    }
    if (simulation().allocation_fails(*find_device(properties->location.id))) return CUDA_ERROR_OUT_OF_MEMORY;
    auto backing = Backing::make(*find_device(properties->location.id), bytes);
    if (backing == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
    *handle = publish(std::make_shared<Physical>(Physical{std::move(backing), *properties}));
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuMemRelease(CUmemGenericAllocationHandle handle) {
  return guarded([&]() -> CUresult {  // mappings keep the memory
    return driver().physicals.remove(key(handle)) == nullptr ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
  });
}

extern "C" CUresult cuMemMap(CUdeviceptr address, size_t bytes, size_t offset, CUmemGenericAllocationHandle handle,
                             unsigned long long flags) {
  return guarded([&]() -> CUresult {
    if (!valid_span(address, bytes) || !whole_chunks(offset) || flags != 0) return CUDA_ERROR_INVALID_VALUE;
    const auto physical = driver().physicals.find(key(handle));
    if (physical == nullptr) return CUDA_ERROR_INVALID_VALUE;
    const uint64_t all = physical->backing->bytes;
    if (offset > all || bytes > all - offset) return CUDA_ERROR_INVALID_VALUE;
    return driver().memory.map(address, bytes, offset, physical);
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
    if (!valid_span(address, bytes)) return CUDA_ERROR_INVALID_VALUE;
    DeviceSet grant = 0, take = 0;
    const CUresult result = read_access(descriptions, count, &grant, &take);
    return result != CUDA_SUCCESS ? result : driver().memory.set_access(address, bytes, grant, take);
  });
}

extern "C" CUresult cuMemGetAccess(unsigned long long* flags, const CUmemLocation* location, CUdeviceptr address) {
  return guarded([&]() -> CUresult {
    if (flags == nullptr || location == nullptr) return CUDA_ERROR_INVALID_VALUE;
    const auto range = driver().memory.find(address);
    if (!range || range->kind != RangeKind::kMapped) return CUDA_ERROR_INVALID_VALUE;
    if (location->type != CU_MEM_LOCATION_TYPE_DEVICE) return CUDA_ERROR_NOT_SUPPORTED;
    if (find_device(location->id) == nullptr) return CUDA_ERROR_INVALID_DEVICE;
    const bool may = (range->access & only(location->id)) != 0;
    *flags = may ? CU_MEM_ACCESS_FLAGS_PROT_READWRITE : CU_MEM_ACCESS_FLAGS_PROT_NONE;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuMemGetAllocationPropertiesFromHandle(CUmemAllocationProp* properties,
                                                           CUmemGenericAllocationHandle handle) {
  return guarded([&]() -> CUresult {
    const auto physical = driver().physicals.find(key(handle));
    if (properties == nullptr || physical == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *properties = physical->properties;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuMemRetainAllocationHandle(CUmemGenericAllocationHandle* handle, void* address) {
  return guarded([&]() -> CUresult {
    const auto range = driver().memory.find(reinterpret_cast<uint64_t>(address));
    if (handle == nullptr || !range || range->kind != RangeKind::kMapped) return CUDA_ERROR_INVALID_VALUE;
    *handle = publish(range->physical);
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuMemExportToShareableHandle(void* shared, CUmemGenericAllocationHandle handle,
                                                 CUmemAllocationHandleType type, unsigned long long flags) {
  return guarded([&]() -> CUresult {
    const auto physical = driver().physicals.find(key(handle));
    if (shared == nullptr || physical == nullptr || flags != 0) return CUDA_ERROR_INVALID_VALUE;
    if (type != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR) return CUDA_ERROR_NOT_SUPPORTED;
    if (physical->properties.requestedHandleTypes != type) return CUDA_ERROR_INVALID_VALUE;
    // What is written while the memory moves into a file would be lost.
    if (!physical->backing->is_shared()) synchronize_all();
    const int fd = fcntl(physical->backing->share(), F_DUPFD_CLOEXEC, 3);
    if (fd < 0) return CUDA_ERROR_OUT_OF_MEMORY;
    *static_cast<int*>(shared) = fd;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuMemImportFromShareableHandle(CUmemGenericAllocationHandle* handle, void* shared,
                                                   CUmemAllocationHandleType type) {
  return guarded([&]() -> CUresult {
    if (handle == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (type != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR) return CUDA_ERROR_NOT_SUPPORTED;
    const int fd = fcntl(static_cast<int>(reinterpret_cast<intptr_t>(shared)), F_DUPFD_CLOEXEC, 3);
    struct stat about = {};
    int device = 0;
    if (fd < 0) return CUDA_ERROR_INVALID_VALUE;
    if (fstat(fd, &about) != 0 || !Backing::device_of(fd, &device) || about.st_size <= 0 ||
        !whole_chunks(static_cast<uint64_t>(about.st_size))) {
      close(fd);
      return CUDA_ERROR_INVALID_VALUE;
    }
    auto backing =
        Backing::import(*driver().devices[static_cast<size_t>(device)], fd, static_cast<uint64_t>(about.st_size));
    if (backing == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
    CUmemAllocationProp properties = {};
    properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.requestedHandleTypes = type;
    properties.location = {CU_MEM_LOCATION_TYPE_DEVICE, {device}};
    *handle = publish(std::make_shared<Physical>(Physical{std::move(backing), properties}));
    return CUDA_SUCCESS;
  });
}
