// Stream-ordered memory and its pools.

#include <unistd.h>

#include "api/graph/memory.h"
#include "api/pool_place.h"
#include "interpose/entry/entry.h"
#include "interpose/graphs.h"
#include "interpose/identity.h"

using namespace tide;

namespace {

CUresult allocate_from(const Entered& e, MemoryPool& pool, Stream& stream, size_t bytes, CUdeviceptr* address) {
  if (address == nullptr || bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  if (pool.imported) return CUDA_ERROR_INVALID_VALUE;
  if (pool.vgpu != stream.vgpu) return CUDA_ERROR_NOT_SUPPORTED;  // memory of another vGPU cannot be reached
  TIDE_TRY(e.process->pools.check(pool, bytes));
  uint64_t got = 0;
  TIDE_TRY(stream.vgpu->memory->allocate(*stream.context, bytes, &got));
  *address = got;
  return e.process->pools.note(pool, got, bytes);
}

CUresult check_location(const CUmemLocation* location, CUmemAllocationType type, Vgpu** vgpu) {
  if (location == nullptr) return CUDA_ERROR_INVALID_VALUE;
  TIDE_TRY(check_pool_place(*location, type));
  return find_device(location->id, vgpu);
}

CUresult find_pool(CUmemoryPool handle, MemoryPool** pool) {
  Process* p = process();
  if (p == nullptr) return CUDA_ERROR_NOT_INITIALIZED;
  *pool = p->pools.find(handle);
  return *pool == nullptr ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

// Distinct among the pools of a process that live at once, and for long after.
uint32_t pool_number(uint64_t handle) { return uint32_t(handle); }

CUresult give(MemoryPool* pool, CUmemoryPool* handle) {
  if (handle == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (pool == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  *handle = handle_of<CUmemoryPool>(*pool);
  return CUDA_SUCCESS;
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

CUresult cuMemAllocAsync(CUdeviceptr* address, size_t bytes, CUstream handle) {
  Entered e;
  Stream* stream = nullptr;
  TIDE_TRY(enter(&e));
  TIDE_TRY(use_stream(e, handle, &stream));
  if (address == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (capturing(*stream)) return capture_alloc(*stream, bytes, address);
  MemoryPool* pool = e.process->pools.current_of(*stream->vgpu);
  return pool == nullptr ? CUDA_ERROR_OUT_OF_MEMORY : allocate_from(e, *pool, *stream, bytes, address);
}

CUresult cuMemFreeAsync(CUdeviceptr address, CUstream handle) {
  Entered e;
  Stream* stream = nullptr;
  TIDE_TRY(enter(&e));
  TIDE_TRY(use_stream(e, handle, &stream));
  if (capturing(*stream)) return capture_free(*stream, address);
  if (graph::is_memory(address)) return graph::unuse_memory(address) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
  Vgpu* vgpu = e.process->vgpu_of(address);
  if (vgpu == nullptr || vgpu != stream->vgpu) return CUDA_ERROR_INVALID_VALUE;
  const uint64_t last = vgpu->channel().last_work(stream->slot);
  if (vgpu->memory->is_open(address, SharedKind::kPooled)) {
    TIDE_TRY(vgpu->memory->close_after(address, SharedKind::kPooled, stream->slot, last));
  } else {
    TIDE_TRY(vgpu->memory->release_after(address, stream->slot, last));
  }
  e.process->pools.forget(address);
  return CUDA_SUCCESS;
}

CUresult cuMemAllocFromPoolAsync(CUdeviceptr* address, size_t bytes, CUmemoryPool handle, CUstream stream_handle) {
  Entered e;
  Stream* stream = nullptr;
  MemoryPool* pool = nullptr;
  TIDE_TRY(enter(&e));
  TIDE_TRY(use_stream(e, stream_handle, &stream));
  TIDE_TRY(find_pool(handle, &pool));
  if (capturing(*stream)) return capture_alloc(*stream, bytes, address);
  return allocate_from(e, *pool, *stream, bytes, address);
}

CUresult cuMemPoolCreate(CUmemoryPool* handle, const CUmemPoolProps* properties) {
  Vgpu* vgpu = nullptr;
  if (handle == nullptr || properties == nullptr) return CUDA_ERROR_INVALID_VALUE;
  TIDE_TRY(check_location(&properties->location, properties->allocType, &vgpu));
  const bool shareable = properties->handleTypes != CU_MEM_HANDLE_TYPE_NONE;
  if (shareable &&
      (properties->handleTypes != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR || !shares_memory(vgpu->info))) {
    return CUDA_ERROR_NOT_SUPPORTED;
  }
  return give(process()->pools.create(*vgpu, *properties), handle);
}

CUresult cuMemPoolDestroy(CUmemoryPool handle) {
  MemoryPool* pool = nullptr;
  TIDE_TRY(find_pool(handle, &pool));
  return process()->pools.destroy(*pool) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuMemPoolTrimTo(CUmemoryPool handle, size_t keep) {
  MemoryPool* pool = nullptr;
  TIDE_TRY(find_pool(handle, &pool));
  process()->pools.trim(*pool, keep);
  return CUDA_SUCCESS;
}

CUresult cuMemPoolSetAttribute(CUmemoryPool handle, CUmemPool_attribute attribute, void* value) {
  MemoryPool* pool = nullptr;
  TIDE_TRY(find_pool(handle, &pool));
  return value == nullptr ? CUDA_ERROR_INVALID_VALUE : process()->pools.set(*pool, attribute, value);
}

CUresult cuMemPoolGetAttribute(CUmemoryPool handle, CUmemPool_attribute attribute, void* value) {
  MemoryPool* pool = nullptr;
  TIDE_TRY(find_pool(handle, &pool));
  return value == nullptr ? CUDA_ERROR_INVALID_VALUE : process()->pools.get(*pool, attribute, value);
}

// Access of the pool's own device is all there is, and cannot be taken away.
CUresult cuMemPoolSetAccess(CUmemoryPool handle, const CUmemAccessDesc* descriptions, size_t count) {
  MemoryPool* pool = nullptr;
  TIDE_TRY(find_pool(handle, &pool));
  if (descriptions == nullptr || count == 0) return CUDA_ERROR_INVALID_VALUE;
  for (size_t i = 0; i < count; ++i) {
    Vgpu* vgpu = nullptr;
    TIDE_TRY(check_location(&descriptions[i].location, CU_MEM_ALLOCATION_TYPE_PINNED, &vgpu));
    const bool own = vgpu == pool->vgpu, none = descriptions[i].flags == CU_MEM_ACCESS_FLAGS_PROT_NONE;
    if (own == none) return CUDA_ERROR_INVALID_DEVICE;
  }
  return CUDA_SUCCESS;
}

CUresult cuMemPoolGetAccess(CUmemAccess_flags* flags, CUmemoryPool handle, CUmemLocation* location) {
  MemoryPool* pool = nullptr;
  Vgpu* vgpu = nullptr;
  TIDE_TRY(find_pool(handle, &pool));
  if (flags == nullptr) return CUDA_ERROR_INVALID_VALUE;
  TIDE_TRY(check_location(location, CU_MEM_ALLOCATION_TYPE_PINNED, &vgpu));
  *flags = vgpu == pool->vgpu ? CU_MEM_ACCESS_FLAGS_PROT_READWRITE : CU_MEM_ACCESS_FLAGS_PROT_NONE;
  return CUDA_SUCCESS;
}

// The descriptor says that its holder may have the pool; memory comes pointer by pointer.
CUresult cuMemPoolExportToShareableHandle(void* shared, CUmemoryPool handle, CUmemAllocationHandleType type,
                                          unsigned long long flags) {
  MemoryPool* pool = nullptr;
  TIDE_TRY(find_pool(handle, &pool));
  if (shared == nullptr || flags != 0 || type != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR || pool->imported ||
      pool->properties.handleTypes != type) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  TIDE_TRY(activate(*pool->vgpu->primary));
  int given = -1, kept = -1;
  TIDE_TRY(make_shared_descriptor(own_handle(*pool->vgpu, SharedKind::kPool, pool->handle), &given, &kept));
  close(kept);  // the pool does not live by it
  *static_cast<int*>(shared) = given;
  return CUDA_SUCCESS;
}

CUresult cuMemPoolImportFromShareableHandle(CUmemoryPool* handle, void* shared, CUmemAllocationHandleType type,
                                            unsigned long long flags) {
  Process* p = process();
  if (p == nullptr) return CUDA_ERROR_NOT_INITIALIZED;
  if (handle == nullptr || flags != 0 || type != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  SharedHandle text;
  Vgpu* vgpu = nullptr;
  if (!read_shared_descriptor(int(reinterpret_cast<intptr_t>(shared)), &text)) return CUDA_ERROR_INVALID_VALUE;
  TIDE_TRY(find_owner(*p, text, SharedKind::kPool, &vgpu));
  CUmemPoolProps properties = {};
  properties.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.handleTypes = type;
  properties.location = {CU_MEM_LOCATION_TYPE_DEVICE, {vgpu->ordinal}};
  return give(p->pools.create(*vgpu, properties, &text), handle);
}

CUresult cuMemPoolExportPointer(CUmemPoolPtrExportData* data, CUdeviceptr address) {
  Process* p = process();
  if (p == nullptr) return CUDA_ERROR_NOT_INITIALIZED;
  const MemoryPool* pool = p->pools.of(address);
  if (data == nullptr || pool == nullptr || pool->imported || pool->properties.handleTypes == CU_MEM_HANDLE_TYPE_NONE) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  SharedHandle handle;
  TIDE_TRY(pool->vgpu->memory->share(address, SharedKind::kPooled, &handle));
  handle.pool = pool_number(pool->handle);
  pack(handle, data);
  return CUDA_SUCCESS;
}

CUresult cuMemPoolImportPointer(CUdeviceptr* address, CUmemoryPool pool_handle, CUmemPoolPtrExportData* data) {
  MemoryPool* pool = nullptr;
  Vgpu* vgpu = nullptr;
  TIDE_TRY(find_pool(pool_handle, &pool));
  if (address == nullptr || data == nullptr || !pool->imported) return CUDA_ERROR_INVALID_VALUE;
  const SharedHandle handle = unpack(*data);
  TIDE_TRY(find_owner(*process(), handle, SharedKind::kPooled, &vgpu));
  if (!handle.same_owner(pool->shared) || handle.pool != pool_number(pool->shared.name)) {
    return CUDA_ERROR_INVALID_VALUE;  // of another pool
  }
  if (handle.same_owner(own_handle(*vgpu, SharedKind::kPooled, 0))) return CUDA_ERROR_INVALID_CONTEXT;
  uint64_t at = 0;
  TIDE_TRY(vgpu->memory->open(handle, vgpu->primary->number.load(), &at));
  *address = at;
  return process()->pools.note(*pool, at, handle.bytes);
}

CUresult cuDeviceGetDefaultMemPool(CUmemoryPool* pool, CUdevice device) {
  Vgpu* vgpu = nullptr;
  TIDE_TRY(find_device(device, &vgpu));
  return give(process()->pools.default_of(*vgpu), pool);
}

CUresult cuDeviceGetMemPool(CUmemoryPool* pool, CUdevice device) {
  Vgpu* vgpu = nullptr;
  TIDE_TRY(find_device(device, &vgpu));
  return give(process()->pools.current_of(*vgpu), pool);
}

CUresult cuDeviceSetMemPool(CUdevice device, CUmemoryPool handle) {
  Vgpu* vgpu = nullptr;
  MemoryPool* pool = nullptr;
  TIDE_TRY(find_device(device, &vgpu));
  TIDE_TRY(find_pool(handle, &pool));
  if (pool->vgpu != vgpu || pool->imported) return CUDA_ERROR_INVALID_VALUE;
  process()->pools.set_current(*vgpu, *pool);
  return CUDA_SUCCESS;
}

CUresult cuMemGetDefaultMemPool(CUmemoryPool* pool, CUmemLocation* location, CUmemAllocationType type) {
  Vgpu* vgpu = nullptr;
  TIDE_TRY(check_location(location, type, &vgpu));
  return cuDeviceGetDefaultMemPool(pool, vgpu->ordinal);
}

CUresult cuMemGetMemPool(CUmemoryPool* pool, CUmemLocation* location, CUmemAllocationType type) {
  Vgpu* vgpu = nullptr;
  TIDE_TRY(check_location(location, type, &vgpu));
  return cuDeviceGetMemPool(pool, vgpu->ordinal);
}

CUresult cuMemSetMemPool(CUmemLocation* location, CUmemAllocationType type, CUmemoryPool pool) {
  Vgpu* vgpu = nullptr;
  TIDE_TRY(check_location(location, type, &vgpu));
  return cuDeviceSetMemPool(vgpu->ordinal, pool);
}

}  // extern "C"
#pragma GCC visibility pop
