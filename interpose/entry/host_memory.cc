// Page-locked host memory. Kernels reach what was made with DEVICEMAP or whose device pointer was asked for: a mirror
// (mirrors.h) with the current context's vGPU. Other page-locked memory costs nothing.

#include "api/graph/capture.h"
#include "base/log.h"
#include "interpose/entry/entry.h"

using namespace tide;

namespace {

constexpr unsigned kAllocFlags = CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP | CU_MEMHOSTALLOC_WRITECOMBINED;
constexpr unsigned kRegisterFlags =
    CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP | CU_MEMHOSTREGISTER_READ_ONLY;
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
  if ((flags & CU_MEMHOSTALLOC_DEVICEMAP) != 0) {
    uint64_t got = 0;
    TIDE_TRY(e.process->mirrors.allocate(*e.context, bytes, {.flags = flags}, &got));
    *pointer = reinterpret_cast<void*>(got);
    return CUDA_SUCCESS;
  }
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
  if (Mirror mirror; p->mirrors.find(reinterpret_cast<uint64_t>(pointer), &mirror)) {
    if (mirror.managed) return CUDA_ERROR_INVALID_VALUE;
    if (p->mirrors.release(reinterpret_cast<uint64_t>(pointer))) return r;
  }
  p->mirrors.detach(reinterpret_cast<uint64_t>(pointer));
  if (!p->host.release(pointer)) return CUDA_ERROR_INVALID_VALUE;
  return r;
}

CUresult cuMemHostRegister_v2(void* pointer, size_t bytes, unsigned int flags) {
  Entered e;
  TIDE_TRY(enter(&e));
  if (pointer == nullptr || bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  if ((flags & CU_MEMHOSTREGISTER_IOMEMORY) != 0) return CUDA_ERROR_NOT_SUPPORTED;
  if ((flags & ~kRegisterFlags) != 0) return CUDA_ERROR_INVALID_VALUE;
  const bool added = e.process->host.add(pointer, bytes, flags, e.context->handle, e.process->next_id++);
  return added ? CUDA_SUCCESS : CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED;
}

CUresult cuMemHostUnregister(void* pointer) {
  Process* p = process();
  if (p == nullptr) return CUDA_ERROR_NOT_INITIALIZED;
  if (pointer == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const CUresult r = wait_for_all(*p);
  p->mirrors.detach(reinterpret_cast<uint64_t>(pointer));
  if (!p->host.remove(pointer)) return CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED;
  return r;
}

CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr* device, void* pointer, unsigned int flags) {
  Entered e;
  TIDE_TRY(enter(&e));
  if (device == nullptr || flags != 0) return CUDA_ERROR_INVALID_VALUE;
  const auto address = reinterpret_cast<uint64_t>(pointer);
  Mirror mirror;
  if (e.process->mirrors.find(address, &mirror)) {
    if (mirror.managed) return CUDA_ERROR_INVALID_VALUE;
  } else {
    HostBlock block;
    if (!e.process->host.find(pointer, &block)) return CUDA_ERROR_INVALID_VALUE;
    mirror = {
        .host = block.base, .bytes = block.bytes, .context = e.context->handle, .id = block.id, .flags = block.flags};
  }
  uint64_t base = 0;
  TIDE_TRY(e.process->mirrors.attach(*e.context, mirror, &base));
  *device = base + (address - mirror.host);
  return CUDA_SUCCESS;
}

CUresult cuMemHostGetFlags(unsigned int* flags, void* pointer) {
  Process* p = process();
  if (p == nullptr) return CUDA_ERROR_NOT_INITIALIZED;
  HostBlock block;
  if (Mirror mirror; flags != nullptr && p->mirrors.find(reinterpret_cast<uint64_t>(pointer), &mirror) &&
                     p->vgpu_of(mirror.host) != nullptr && !mirror.managed) {
    *flags = mirror.flags;
    return CUDA_SUCCESS;
  }
  if (flags == nullptr || !p->host.find(pointer, &block) || block.registered) return CUDA_ERROR_INVALID_VALUE;
  *flags = block.flags;
  return CUDA_SUCCESS;
}

}  // extern "C"
#pragma GCC visibility pop
