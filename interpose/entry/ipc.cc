// Memory and events of other processes of the job.

#include "commands.h"
#include "interpose/crossing.h"
#include "interpose/entry/entry.h"
#include "interpose/graphs.h"
#include "interpose/sharing.h"

using namespace tide;

#pragma GCC visibility push(default)
extern "C" {

CUresult cuIpcGetMemHandle(CUipcMemHandle* packed, CUdeviceptr address) {
  Entered e;
  TIDE_TRY(enter(&e));
  Vgpu* vgpu = e.process->vgpu_of(address);
  HostBlock block;
  if (packed == nullptr || vgpu == nullptr || !vgpu->is_open() || e.process->host.find(address, &block) ||
      e.process->pools.of(address) != nullptr) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  SharedHandle handle;
  TIDE_TRY(vgpu->memory->share(address, SharedKind::kMemory, &handle));
  pack(handle, packed);
  return CUDA_SUCCESS;
}

CUresult cuIpcOpenMemHandle_v2(CUdeviceptr* address, CUipcMemHandle packed, unsigned int flags) {
  Entered e;
  Vgpu* vgpu = nullptr;
  TIDE_TRY(enter(&e));
  if (address == nullptr || (flags & ~unsigned{CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS}) != 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  const SharedHandle handle = unpack(packed);
  TIDE_TRY(find_owner(*e.process, handle, SharedKind::kMemory, &vgpu));
  if (handle.same_owner(own_handle(*vgpu, SharedKind::kMemory, 0))) return CUDA_ERROR_INVALID_CONTEXT;  // it has it
  if (vgpu != e.vgpu) return CUDA_ERROR_PEER_ACCESS_UNSUPPORTED;  // kernels of one vGPU do not reach another's
  uint64_t at = 0;
  TIDE_TRY(vgpu->memory->open(handle, e.context->number.load(), &at));
  *address = at;
  return CUDA_SUCCESS;
}

CUresult cuIpcCloseMemHandle(CUdeviceptr address) {
  Entered e;
  TIDE_TRY(enter(&e));
  TIDE_TRY(graph::unsafe_call());
  Vgpu* vgpu = e.process->vgpu_of(address);
  if (vgpu == nullptr || !vgpu->is_open()) return CUDA_ERROR_INVALID_VALUE;
  return vgpu->memory->close(address, SharedKind::kMemory);
}

CUresult cuIpcGetEventHandle(CUipcEventHandle* packed, CUevent event_handle) {
  Entered e;
  TIDE_TRY(enter(&e));
  Event* event = e.process->events.find(event_handle);
  if (event == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (packed == nullptr || !between_processes(*event)) return CUDA_ERROR_INVALID_VALUE;
  TIDE_TRY(share_event(*event));
  pack(own_handle(*event->vgpu, SharedKind::kEvent, event->name.load()), packed);
  return CUDA_SUCCESS;
}

CUresult cuIpcOpenEventHandle(CUevent* opened, CUipcEventHandle packed) {
  Entered e;
  Vgpu* vgpu = nullptr;
  TIDE_TRY(enter(&e));
  if (opened == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const SharedHandle handle = unpack(packed);
  TIDE_TRY(find_owner(*e.process, handle, SharedKind::kEvent, &vgpu));
  Event* event = nullptr;
  TIDE_TRY(open_event(*e.process, vgpu == e.vgpu ? *e.context : *vgpu->primary, handle, &event));
  *opened = handle_of<CUevent>(*event);
  return CUDA_SUCCESS;
}

}  // extern "C"
#pragma GCC visibility pop
