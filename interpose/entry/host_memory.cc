// Page-locked host memory, which kernels reach as host_memory.h says.

#include "api/graph/capture.h"
#include "interpose/entry/entry.h"

using namespace tide;

namespace {

constexpr unsigned kAllocFlags = CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP | CU_MEMHOSTALLOC_WRITECOMBINED;
constexpr unsigned kRegisterFlags =
    CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP | CU_MEMHOSTREGISTER_READ_ONLY;

uint64_t word(const void* pointer) { return reinterpret_cast<uint64_t>(pointer); }

CUresult free_block(void* pointer, HostKind kind, CUresult not_there) {
  Process* p = process();
  HostBlock block;
  if (!p->host.find(word(pointer), &block) || block.host != word(pointer) || block.kind != kind) return not_there;
  const CUresult r = sync_open_vgpus(*p);
  for (Vgpu* vgpu : p->devices) {
    if (vgpu->is_open()) vgpu->channel().stop_reading();
  }
  return p->host.release(word(pointer), kind) ? r : not_there;
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

CUresult cuMemHostAlloc(void** pointer, size_t bytes, unsigned int flags) {
  Entered e;
  TIDE_TRY(enter(&e));
  if (pointer == nullptr || bytes == 0 || (flags & ~kAllocFlags) != 0) return CUDA_ERROR_INVALID_VALUE;
  TIDE_TRY(graph::unsafe_call());
  uint64_t got = 0;
  TIDE_TRY(e.process->host.allocate(*e.context, bytes, flags, HostKind::kPinned, &got));
  *pointer = reinterpret_cast<void*>(got);
  return CUDA_SUCCESS;
}

CUresult cuMemAllocHost_v2(void** pointer, size_t bytes) { return cuMemHostAlloc(pointer, bytes, 0); }

CUresult cuMemFreeHost(void* pointer) {
  if (process() == nullptr) return CUDA_ERROR_NOT_INITIALIZED;
  return pointer == nullptr ? CUDA_SUCCESS : free_block(pointer, HostKind::kPinned, CUDA_ERROR_INVALID_VALUE);
}

CUresult cuMemHostRegister_v2(void* pointer, size_t bytes, unsigned int flags) {
  Entered e;
  TIDE_TRY(enter(&e));
  if (pointer == nullptr || bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  if ((flags & CU_MEMHOSTREGISTER_IOMEMORY) != 0) return CUDA_ERROR_NOT_SUPPORTED;
  if ((flags & ~kRegisterFlags) != 0) return CUDA_ERROR_INVALID_VALUE;
  const bool added = e.process->host.add(*e.context, word(pointer), bytes, flags);
  return added ? CUDA_SUCCESS : CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED;
}

CUresult cuMemHostUnregister(void* pointer) {
  if (process() == nullptr) return CUDA_ERROR_NOT_INITIALIZED;
  if (pointer == nullptr) return CUDA_ERROR_INVALID_VALUE;
  return free_block(pointer, HostKind::kRegistered, CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED);
}

CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr* device, void* pointer, unsigned int flags) {
  Entered e;
  HostBlock block;
  TIDE_TRY(enter(&e));
  if (device == nullptr || flags != 0) return CUDA_ERROR_INVALID_VALUE;
  if (!e.process->host.find(word(pointer), &block) || block.managed()) return CUDA_ERROR_INVALID_VALUE;
  uint64_t address = 0;
  TIDE_TRY(e.process->host.attach(*e.context, word(pointer), &address));
  *device = address;
  return CUDA_SUCCESS;
}

CUresult cuMemHostGetFlags(unsigned int* flags, void* pointer) {
  Process* p = process();
  HostBlock block;
  if (p == nullptr) return CUDA_ERROR_NOT_INITIALIZED;
  if (flags == nullptr || !p->host.find(word(pointer), &block) || block.kind != HostKind::kPinned)
    return CUDA_ERROR_INVALID_VALUE;
  *flags = block.flags | CU_MEMHOSTALLOC_DEVICEMAP;  // implied by unified addressing
  return CUDA_SUCCESS;
}

}  // extern "C"
#pragma GCC visibility pop
