// Managed memory: host memory that kernels reach (host_memory.h). Nothing migrates, so advice and prefetching are
// checked and change nothing.

#include <cstring>

#include "interpose/entry/entry.h"

using namespace tide;

namespace {

CUresult check_range(CUdeviceptr address, size_t bytes) {
  Process* p = process();
  if (p == nullptr) return CUDA_ERROR_NOT_INITIALIZED;
  HostBlock block;
  if (bytes == 0 || !p->host.find(address, &block) || !block.managed()) return CUDA_ERROR_INVALID_VALUE;
  return bytes <= block.bytes - block.offset_of(address) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult check_location(const CUmemLocation& location) {
  Vgpu* vgpu = nullptr;
  switch (location.type) {
    case CU_MEM_LOCATION_TYPE_DEVICE:
      return find_device(location.id, &vgpu);
    case CU_MEM_LOCATION_TYPE_HOST:
    case CU_MEM_LOCATION_TYPE_HOST_NUMA:
    case CU_MEM_LOCATION_TYPE_HOST_NUMA_CURRENT:
      return CUDA_SUCCESS;
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
}

CUresult advise(CUdeviceptr address, size_t bytes, CUmem_advise advice, const CUmemLocation& location) {
  TIDE_TRY(check_range(address, bytes));
  if (advice < CU_MEM_ADVISE_SET_READ_MOSTLY || advice > CU_MEM_ADVISE_UNSET_ACCESSED_BY)
    return CUDA_ERROR_INVALID_VALUE;
  const bool placed = advice == CU_MEM_ADVISE_SET_PREFERRED_LOCATION || advice == CU_MEM_ADVISE_SET_ACCESSED_BY ||
                      advice == CU_MEM_ADVISE_UNSET_ACCESSED_BY;
  return placed ? check_location(location) : CUDA_SUCCESS;
}

CUresult prefetch(CUdeviceptr address, size_t bytes, const CUmemLocation& location, unsigned flags, CUstream handle) {
  Entered e;
  Stream* stream = nullptr;
  TIDE_TRY(enter(&e));
  TIDE_TRY(find_stream(e, handle, &stream));
  if (flags != 0) return CUDA_ERROR_INVALID_VALUE;
  TIDE_TRY(check_range(address, bytes));
  return check_location(location);
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

CUresult cuMemAllocManaged(CUdeviceptr* address, size_t bytes, unsigned int flags) {
  Entered e;
  TIDE_TRY(enter(&e));
  if (address == nullptr || bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  if (flags != CU_MEM_ATTACH_GLOBAL && flags != CU_MEM_ATTACH_HOST) return CUDA_ERROR_INVALID_VALUE;
  uint64_t got = 0;
  TIDE_TRY(e.process->host.allocate(*e.context, bytes, flags, HostKind::kManaged, &got));
  *address = got;
  return CUDA_SUCCESS;
}

// Streams see what is pushed before their work and the host what is fetched after it, attached or not.
CUresult cuStreamAttachMemAsync(CUstream handle, CUdeviceptr address, size_t length, unsigned int flags) {
  Entered e;
  Stream* stream = nullptr;
  TIDE_TRY(enter(&e));
  TIDE_TRY(find_stream(e, handle, &stream));
  if (flags != CU_MEM_ATTACH_GLOBAL && flags != CU_MEM_ATTACH_HOST && flags != CU_MEM_ATTACH_SINGLE)
    return CUDA_ERROR_INVALID_VALUE;
  return check_range(address, length == 0 ? 1 : length);
}

CUresult cuMemAdvise_v2(CUdeviceptr address, size_t bytes, CUmem_advise advice, CUmemLocation location) {
  return advise(address, bytes, advice, location);
}

CUresult cuMemPrefetchAsync_v2(CUdeviceptr address, size_t bytes, CUmemLocation location, unsigned int flags,
                               CUstream stream) {
  return prefetch(address, bytes, location, flags, stream);
}

}  // extern "C"
#pragma GCC visibility pop
