// Entry points: stream-ordered memory and its pools.

#include <fcntl.h>
#include <sys/stat.h>

#include <array>
#include <cstring>

#include "api/graph/memory.h"
#include "api/pool_place.h"
#include "softgpu/driver/access.h"
#include "softgpu/driver/driver.h"
#include "softgpu/driver/graph_host.h"
#include "softgpu/driver/pool_table.h"
#include "softgpu/driver/shared_place.h"
#include "softgpu/driver/work.h"

namespace softgpu {
namespace {

std::mutex g_pools_mu;
std::array<std::shared_ptr<Pool>, kDevicesMax> g_default_pools;  // guarded by g_pools_mu
std::array<std::shared_ptr<Pool>, kDevicesMax> g_current_pools;  // guarded by g_pools_mu; null: the default one

std::shared_ptr<Pool> make_pool(Device& device, const CUmemPoolProps& properties) {
  const CUmemoryPool handle = driver().pools.next();
  auto pool = std::make_shared<Pool>(device, handle, properties);
  driver().pools.add(handle, pool);
  return pool;
}

}  // namespace

std::shared_ptr<Pool> default_pool(Device& device) {
  const std::lock_guard lock(g_pools_mu);
  std::shared_ptr<Pool>& pool = g_default_pools[static_cast<size_t>(device.index)];
  if (pool == nullptr) {
    CUmemPoolProps properties = {};
    properties.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.location = {CU_MEM_LOCATION_TYPE_DEVICE, {device.index}};
    pool = make_pool(device, properties);
    pool->is_default = true;
  }
  return pool;
}

std::shared_ptr<Pool> current_pool(Device& device) {
  {
    const std::lock_guard lock(g_pools_mu);
    if (const auto& pool = g_current_pools[static_cast<size_t>(device.index)]) return pool;
  }
  return default_pool(device);
}

bool trim_pools_of(Device& device) {
  const uint64_t before = device.used();
  driver().pools.for_each([&](Pool& pool) {
    if (&pool.device == &device) driver().memory.trim(pool, 0);
  });
  return device.used() < before;
}

}  // namespace softgpu

using namespace softgpu;  // an entry point is C; everything it uses is ours

namespace {

// What the stream is about to free may be enough.
CUresult allocate(const std::shared_ptr<Pool>& pool, size_t bytes, const std::shared_ptr<Stream>& stream,
                  CUdeviceptr* address) {
  if (address == nullptr || bytes == 0 || pool->imported) return CUDA_ERROR_INVALID_VALUE;
  uint64_t place = 0;
  CUresult result = driver().memory.allocate_from(pool, bytes, &place);
  if (result == CUDA_ERROR_OUT_OF_MEMORY) {
    stream->last().wait();
    trim_pools_of(pool->device);
    result = driver().memory.allocate_from(pool, bytes, &place);
  }
  if (result == CUDA_SUCCESS) *address = place;
  return result;
}

template <typename Body>
CUresult with_pool(CUmemoryPool handle, const void* output, Body body) {
  return guarded([&]() -> CUresult {
    const auto pool = driver().pools.find(handle);
    if (pool == nullptr || output == nullptr) return CUDA_ERROR_INVALID_VALUE;
    return body(pool);
  });
}

CUresult check_location(const CUmemLocation* location, CUmemAllocationType type, Device** device) {
  if (location == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const CUresult result = tide::check_pool_place(*location, type);
  if (result != CUDA_SUCCESS) return result;
  *device = find_device(location->id);
  return *device == nullptr ? CUDA_ERROR_INVALID_DEVICE : CUDA_SUCCESS;
}

CUresult set_current(Device& device, CUmemoryPool handle) {
  const auto pool = driver().pools.find(handle);
  if (pool == nullptr || &pool->device != &device || pool->imported) return CUDA_ERROR_INVALID_VALUE;
  const std::lock_guard lock(g_pools_mu);
  g_current_pools[static_cast<size_t>(device.index)] = pool->is_default ? nullptr : pool;
  return CUDA_SUCCESS;
}

uint64_t file_identity(int fd) {
  struct stat about = {};
  return fstat(fd, &about) == 0 ? about.st_ino : 0;
}

template <typename T>
CUresult set_from(const void* value, std::atomic<T>* to) {
  T got;
  std::memcpy(&got, value, sizeof(got));
  *to = got;
  return CUDA_SUCCESS;
}

template <typename T>
CUresult give(void* value, T from) {
  std::memcpy(value, &from, sizeof(from));
  return CUDA_SUCCESS;
}

}  // namespace

extern "C" CUresult cuMemAllocAsync(CUdeviceptr* address, size_t bytes, CUstream stream_handle) {
  return on_stream(stream_handle, [&](Context& context, const std::shared_ptr<Stream>& stream) -> CUresult {
    if (address == nullptr || bytes == 0) return CUDA_ERROR_INVALID_VALUE;
    if (stream->capturing()) return capture_alloc(*stream, address, bytes);
    return allocate(current_pool(context.device), bytes, stream, address);
  });
}

extern "C" CUresult cuMemAllocFromPoolAsync(CUdeviceptr* address, size_t bytes, CUmemoryPool pool_handle,
                                            CUstream stream_handle) {
  return on_stream(stream_handle, [&](Context&, const std::shared_ptr<Stream>& stream) -> CUresult {
    const auto pool = driver().pools.find(pool_handle);
    if (pool == nullptr || address == nullptr || bytes == 0) return CUDA_ERROR_INVALID_VALUE;
    if (stream->capturing()) return capture_alloc(*stream, address, bytes);
    return allocate(pool, bytes, stream, address);
  });
}

extern "C" CUresult cuMemFreeAsync(CUdeviceptr address, CUstream stream_handle) {
  return on_stream(stream_handle, [&](Context& context, const std::shared_ptr<Stream>& stream) -> CUresult {
    if (address == 0) return CUDA_SUCCESS;
    if (stream->capturing()) return capture_free(*stream, address);
    if (tide::graph::is_memory(address))
      return tide::graph::unuse_memory(address) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
    const auto range = driver().memory.find(address);
    const bool imported = range && range->kind == RangeKind::kImported && range->pool != nullptr;
    const bool whole =
        range && range->address == address && (range->kind == RangeKind::kDevice || range->kind == RangeKind::kPooled);
    if (!imported && !whole) return CUDA_ERROR_INVALID_VALUE;
    // A second free of the same address finds nothing, or something newer with another number.
    return enqueue_uncaptured(context, stream,
                              {[address, id = range->buffer_id] {
                                 const auto now = driver().memory.find(address);
                                 if (now && now->buffer_id == id) driver().memory.free_device(address);
                                 return CUDA_SUCCESS;
                               },
                               {},
                               false});
  });
}

extern "C" CUresult cuMemPoolCreate(CUmemoryPool* pool, const CUmemPoolProps* properties) {
  return guarded([&]() -> CUresult {
    if (pool == nullptr || properties == nullptr) return CUDA_ERROR_INVALID_VALUE;
    Device* device = nullptr;
    const CUresult result = check_location(&properties->location, properties->allocType, &device);
    if (result != CUDA_SUCCESS) return result;
    if (properties->handleTypes != CU_MEM_HANDLE_TYPE_NONE &&
        properties->handleTypes != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR) {
      return CUDA_ERROR_NOT_SUPPORTED;
    }
    const bool shareable = properties->handleTypes != CU_MEM_HANDLE_TYPE_NONE;
    const int token = shareable ? Backing::make_token(*device) : -1;
    if (shareable && token < 0) return CUDA_ERROR_OUT_OF_MEMORY;
    const auto made = make_pool(*device, *properties);
    made->token = token;
    made->identity = shareable ? file_identity(token) : 0;
    *pool = made->handle;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuMemPoolDestroy(CUmemoryPool handle) {
  return with_pool(handle, handle, [&](const std::shared_ptr<Pool>& pool) -> CUresult {
    if (pool->is_default) return CUDA_ERROR_INVALID_VALUE;
    driver().pools.remove(handle);
    {
      const std::lock_guard lock(g_pools_mu);
      std::shared_ptr<Pool>& current = g_current_pools[static_cast<size_t>(pool->device.index)];
      if (current == pool) current = nullptr;  // the default one takes its place
    }
    pool->destroyed = true;  // what is still in use goes back as it is freed
    driver().memory.trim(*pool, 0);
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuMemPoolTrimTo(CUmemoryPool handle, size_t keep) {
  return with_pool(handle, handle, [&](const std::shared_ptr<Pool>& pool) {
    driver().memory.trim(*pool, keep);
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuMemPoolSetAttribute(CUmemoryPool handle, CUmemPool_attribute attribute, void* value) {
  return with_pool(handle, value, [&](const std::shared_ptr<Pool>& pool) -> CUresult {
    switch (attribute) {
      case CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES:
        return set_from(value, &pool->reuse_event_dependencies);
      case CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC:
        return set_from(value, &pool->reuse_opportunistic);
      case CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES:
        return set_from(value, &pool->reuse_internal_dependencies);
      case CU_MEMPOOL_ATTR_RELEASE_THRESHOLD:
        return set_from(value, &pool->release_threshold);
      case CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH:
      case CU_MEMPOOL_ATTR_USED_MEM_HIGH: {
        uint64_t zero = 0;
        std::memcpy(&zero, value, sizeof(zero));
        if (zero != 0) return CUDA_ERROR_INVALID_VALUE;  // a high watermark can only be reset
        driver().memory.reset_high(*pool, attribute == CU_MEMPOOL_ATTR_USED_MEM_HIGH);
        return CUDA_SUCCESS;
      }
      default:
        return CUDA_ERROR_INVALID_VALUE;
    }
  });
}

extern "C" CUresult cuMemPoolGetAttribute(CUmemoryPool handle, CUmemPool_attribute attribute, void* value) {
  return with_pool(handle, value, [&](const std::shared_ptr<Pool>& pool) -> CUresult {
    const Memory::PoolUse use = driver().memory.use_of(*pool);
    switch (attribute) {
      case CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES:
        return give(value, pool->reuse_event_dependencies.load());
      case CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC:
        return give(value, pool->reuse_opportunistic.load());
      case CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES:
        return give(value, pool->reuse_internal_dependencies.load());
      case CU_MEMPOOL_ATTR_RELEASE_THRESHOLD:
        return give(value, pool->release_threshold.load());
      case CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT:
        return give(value, use.reserved);
      case CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH:
        return give(value, use.reserved_high);
      case CU_MEMPOOL_ATTR_USED_MEM_CURRENT:
        return give(value, use.used);
      case CU_MEMPOOL_ATTR_USED_MEM_HIGH:
        return give(value, use.used_high);
      default:
        return CUDA_ERROR_INVALID_VALUE;
    }
  });
}

extern "C" CUresult cuMemPoolSetAccess(CUmemoryPool handle, const CUmemAccessDesc* descriptions, size_t count) {
  return with_pool(handle, descriptions, [&](const std::shared_ptr<Pool>& pool) -> CUresult {
    DeviceSet grant = 0, take = 0;
    const CUresult result = read_access(descriptions, count, &grant, &take);
    if (result != CUDA_SUCCESS) return result;
    if ((take & only(pool->device.index)) != 0) return CUDA_ERROR_INVALID_DEVICE;  // never from its own device
    driver().memory.set_pool_access(*pool, grant, take);
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuMemPoolGetAccess(CUmemAccess_flags* flags, CUmemoryPool handle, CUmemLocation* location) {
  return with_pool(handle, flags, [&](const std::shared_ptr<Pool>& pool) -> CUresult {
    if (location == nullptr || location->type != CU_MEM_LOCATION_TYPE_DEVICE) return CUDA_ERROR_INVALID_VALUE;
    if (find_device(location->id) == nullptr) return CUDA_ERROR_INVALID_DEVICE;
    const bool may = (driver().memory.use_of(*pool).seen_by & only(location->id)) != 0;
    *flags = may ? CU_MEM_ACCESS_FLAGS_PROT_READWRITE : CU_MEM_ACCESS_FLAGS_PROT_NONE;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuDeviceGetDefaultMemPool(CUmemoryPool* pool, CUdevice device) {
  return guarded([&]() -> CUresult {
    if (pool == nullptr) return CUDA_ERROR_INVALID_VALUE;
    Device* found = find_device(device);
    if (found == nullptr) return CUDA_ERROR_INVALID_DEVICE;
    *pool = default_pool(*found)->handle;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuDeviceGetMemPool(CUmemoryPool* pool, CUdevice device) {
  return guarded([&]() -> CUresult {
    if (pool == nullptr) return CUDA_ERROR_INVALID_VALUE;
    Device* found = find_device(device);
    if (found == nullptr) return CUDA_ERROR_INVALID_DEVICE;
    *pool = current_pool(*found)->handle;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuDeviceSetMemPool(CUdevice device, CUmemoryPool pool) {
  return guarded([&]() -> CUresult {
    Device* found = find_device(device);
    return found == nullptr ? CUDA_ERROR_INVALID_DEVICE : set_current(*found, pool);
  });
}

extern "C" CUresult cuMemGetDefaultMemPool(CUmemoryPool* pool, CUmemLocation* location, CUmemAllocationType type) {
  return guarded([&]() -> CUresult {
    Device* device = nullptr;
    const CUresult result = check_location(location, type, &device);
    if (result != CUDA_SUCCESS) return result;
    return cuDeviceGetDefaultMemPool(pool, device->index);
  });
}

extern "C" CUresult cuMemGetMemPool(CUmemoryPool* pool, CUmemLocation* location, CUmemAllocationType type) {
  return guarded([&]() -> CUresult {
    Device* device = nullptr;
    const CUresult result = check_location(location, type, &device);
    if (result != CUDA_SUCCESS) return result;
    return cuDeviceGetMemPool(pool, device->index);
  });
}

extern "C" CUresult cuMemSetMemPool(CUmemLocation* location, CUmemAllocationType type, CUmemoryPool pool) {
  return guarded([&]() -> CUresult {
    Device* device = nullptr;
    const CUresult result = check_location(location, type, &device);
    return result != CUDA_SUCCESS ? result : set_current(*device, pool);
  });
}

// The descriptor stands for the pool: it only says that the receiver may have the pool, and of which device it is;
// memory comes pointer by pointer.
extern "C" CUresult cuMemPoolExportToShareableHandle(void* shared, CUmemoryPool handle, CUmemAllocationHandleType type,
                                                     unsigned long long flags) {
  return with_pool(handle, shared, [&](const std::shared_ptr<Pool>& pool) -> CUresult {
    if (flags != 0 || type != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR || pool->properties.handleTypes != type) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    const int fd = fcntl(pool->token, F_DUPFD_CLOEXEC, 3);
    if (fd < 0) return CUDA_ERROR_OUT_OF_MEMORY;
    *static_cast<int*>(shared) = fd;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuMemPoolImportFromShareableHandle(CUmemoryPool* pool, void* shared, CUmemAllocationHandleType type,
                                                       unsigned long long flags) {
  return guarded([&]() -> CUresult {
    if (pool == nullptr || flags != 0 || type != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    int device = 0;
    const auto fd = static_cast<int>(reinterpret_cast<intptr_t>(shared));
    if (!Backing::device_of(fd, &device)) return CUDA_ERROR_INVALID_VALUE;
    CUmemPoolProps properties = {};
    properties.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.handleTypes = type;
    properties.location = {CU_MEM_LOCATION_TYPE_DEVICE, {device}};
    const auto made = make_pool(*driver().devices[static_cast<size_t>(device)], properties);
    made->imported = true;
    made->identity = file_identity(fd);
    *pool = made->handle;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuMemPoolExportPointer(CUmemPoolPtrExportData* data, CUdeviceptr address) {
  return guarded([&]() -> CUresult {
    const auto range = driver().memory.find(address);
    if (data == nullptr || !range || range->kind != RangeKind::kPooled) return CUDA_ERROR_INVALID_VALUE;
    if (range->pool->properties.handleTypes == CU_MEM_HANDLE_TYPE_NONE) return CUDA_ERROR_INVALID_VALUE;
    SharedPlace place = {};
    const CUresult result = share_range(*range, &place);
    if (result != CUDA_SUCCESS) return result;
    place.kind = range->pool->identity;
    static_assert(sizeof(place) <= sizeof(*data));
    *data = {};
    std::memcpy(data, &place, sizeof(place));
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuMemPoolImportPointer(CUdeviceptr* address, CUmemoryPool handle, CUmemPoolPtrExportData* data) {
  return with_pool(handle, data, [&](const std::shared_ptr<Pool>& pool) -> CUresult {
    if (address == nullptr || !pool->imported) return CUDA_ERROR_INVALID_VALUE;
    SharedPlace place = {};
    std::memcpy(&place, data, sizeof(place));
    if (place.kind != pool->identity) return CUDA_ERROR_INVALID_VALUE;  // of another pool
    uint64_t at = 0;
    const CUresult result = open_shared(place, nullptr, pool, pool->device, &at);
    if (result == CUDA_SUCCESS) *address = at;
    return result;
  });
}
