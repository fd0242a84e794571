// Page-locked host memory. Kernels cannot reach it (attribute CAN_MAP_HOST_MEMORY is 0).

#include "api/graph/capture.h"
#include "base/log.h"
#include "interpose/entry/entry.h"

using namespace tide;

namespace {

constexpr unsigned kAllocFlags = CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP | CU_MEMHOSTALLOC_WRITECOMBINED;
constexpr unsigned kRegisterFlags =
    CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP | CU_MEMHOSTREGISTER_READ_ONLY;
constinit std::atomic<bool> mapped_logged{false};

void say_unmapped(unsigned flags) {
  if ((flags & CU_MEMHOSTALLOC_DEVICEMAP) == 0 || mapped_logged.exchange(true)) return;
  log(LogLevel::kInfo, "host memory mapped for kernels was asked for; it is page-locked only, kernels cannot reach it");
}

// Work that reads or writes a block must be over before it goes.
CUresult wait_for_all(Process& p) {
  for (Vgpu* vgpu : p.devices) {
    if (vgpu->is_open()) TIDE_TRY(vgpu->sync_all());
  }
  return CUDA_SUCCESS;
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

CUresult cuMemHostAlloc(void** pointer, size_t bytes, unsigned int flags) {
  Entered e;
  TIDE_TRY(enter(&e));
  if (pointer == nullptr || bytes == 0 || (flags & ~kAllocFlags) != 0) return CUDA_ERROR_INVALID_VALUE;
  TIDE_TRY(graph::unsafe_call());
  say_unmapped(flags);
  void* made = e.process->host.allocate(bytes, flags, e.context->handle, e.process->next_id++);
  if (made == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  *pointer = made;
  return CUDA_SUCCESS;
}

CUresult cuMemAllocHost_v2(void** pointer, size_t bytes) { return cuMemHostAlloc(pointer, bytes, 0); }

CUresult cuMemFreeHost(void* pointer) {
  Process* p = process();
  if (p == nullptr) return CUDA_ERROR_NOT_INITIALIZED;
  if (pointer == nullptr) return CUDA_SUCCESS;
  const CUresult r = wait_for_all(*p);
  if (!p->host.release(pointer)) return CUDA_ERROR_INVALID_VALUE;
  return r;
}

CUresult cuMemHostRegister_v2(void* pointer, size_t bytes, unsigned int flags) {
  Entered e;
  TIDE_TRY(enter(&e));
  if (pointer == nullptr || bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  if ((flags & CU_MEMHOSTREGISTER_IOMEMORY) != 0) return CUDA_ERROR_NOT_SUPPORTED;
  if ((flags & ~kRegisterFlags) != 0) return CUDA_ERROR_INVALID_VALUE;
  say_unmapped(flags);
  const bool added = e.process->host.add(pointer, bytes, flags, e.context->handle, e.process->next_id++);
  return added ? CUDA_SUCCESS : CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED;
}

CUresult cuMemHostUnregister(void* pointer) {
  Process* p = process();
  if (p == nullptr) return CUDA_ERROR_NOT_INITIALIZED;
  if (pointer == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const CUresult r = wait_for_all(*p);
  if (!p->host.remove(pointer)) return CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED;
  return r;
}

CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr* device, void* pointer, unsigned int flags) {
  Entered e;
  TIDE_TRY(enter(&e));
  HostBlock block;
  if (device == nullptr || flags != 0 || !e.process->host.find(pointer, &block)) return CUDA_ERROR_INVALID_VALUE;
  static constinit std::atomic<bool> logged{false};
  if (!logged.exchange(true))
    log(LogLevel::kWarning, "cuMemHostGetDevicePointer: kernels cannot reach host memory yet");
  return CUDA_ERROR_NOT_SUPPORTED;
}

CUresult cuMemHostGetFlags(unsigned int* flags, void* pointer) {
  Process* p = process();
  if (p == nullptr) return CUDA_ERROR_NOT_INITIALIZED;
  HostBlock block;
  if (flags == nullptr || !p->host.find(pointer, &block) || block.registered) return CUDA_ERROR_INVALID_VALUE;
  *flags = block.flags;
  return CUDA_SUCCESS;
}

}  // extern "C"
#pragma GCC visibility pop
