// Device memory.

#include "api/graph/memory.h"

#include "interpose/entry/entry.h"
#include "interpose/entry/managed.h"
#include "interpose/graphs.h"

using namespace tide;

namespace {

constexpr uint64_t kPitchAlign = 512;

CUresult find_allocation(CUdeviceptr address, Vgpu** vgpu, Allocation* allocation) {
  Process* p = process();
  if (p == nullptr) return CUDA_ERROR_NOT_INITIALIZED;
  *vgpu = p->vgpu_of(address);
  if (*vgpu == nullptr || !(*vgpu)->is_open() || !(*vgpu)->memory->find(address, allocation))
    return CUDA_ERROR_INVALID_VALUE;
  return CUDA_SUCCESS;
}

CUresult free_managed(Process& p, uint64_t address) {
  HostBlock block;
  if (!p.host.find(address, &block) || block.kind != HostKind::kManaged || block.host != address)
    return CUDA_ERROR_INVALID_VALUE;
  const CUresult result = sync_open_vgpus(p);
  forget_advice(block.id);
  return p.host.release(address, HostKind::kManaged) ? result : CUDA_ERROR_INVALID_VALUE;
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

CUresult cuMemGetInfo_v2(size_t* free, size_t* total) {
  Entered e;
  TIDE_TRY(enter(&e));
  if (free != nullptr) *free = e.vgpu->memory->available();
  if (total != nullptr) *total = e.vgpu->memory->total();
  return CUDA_SUCCESS;
}

CUresult cuMemAlloc_v2(CUdeviceptr* address, size_t bytes) {
  Entered e;
  TIDE_TRY(enter(&e));
  if (address == nullptr) return CUDA_ERROR_INVALID_VALUE;
  TIDE_TRY(graph::unsafe_call());
  uint64_t got = 0;
  TIDE_TRY(e.vgpu->memory->allocate(*e.context, bytes, &got));
  *address = got;
  return CUDA_SUCCESS;
}

CUresult cuMemAllocPitch_v2(CUdeviceptr* address, size_t* pitch, size_t width, size_t height, unsigned int element) {
  if (pitch == nullptr || width == 0 || height == 0) return CUDA_ERROR_INVALID_VALUE;
  if (element != 4 && element != 8 && element != 16) return CUDA_ERROR_INVALID_VALUE;
  const size_t row = (width + kPitchAlign - 1) / kPitchAlign * kPitchAlign;
  if (row < width || height > SIZE_MAX / row) return CUDA_ERROR_INVALID_VALUE;
  TIDE_TRY(cuMemAlloc_v2(address, row * height));
  *pitch = row;
  return CUDA_SUCCESS;
}

CUresult cuMemFree_v2(CUdeviceptr address) {
  Entered e;
  TIDE_TRY(enter(&e));
  if (address == 0) return CUDA_SUCCESS;
  TIDE_TRY(graph::unsafe_call());
  if (graph::is_memory(address)) return graph::unuse_memory(address) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
  Vgpu* vgpu = e.process->vgpu_of(address);
  if (vgpu == nullptr) return free_managed(*e.process, address);
  if (!vgpu->is_open()) return CUDA_ERROR_INVALID_VALUE;
  if (vgpu->memory->is_open(address, SharedKind::kPooled)) {
    TIDE_TRY(vgpu->memory->close(address, SharedKind::kPooled));
  } else {
    TIDE_TRY(vgpu->memory->release(address));
  }
  e.process->pools.forget(address);
  return e.process->host.after_wait(*vgpu, CUDA_SUCCESS);
}

CUresult cuMemGetAddressRange_v2(CUdeviceptr* base, size_t* bytes, CUdeviceptr address) {
  if (HostBlock block; process() != nullptr && process()->host.find(address, &block)) {
    if (base != nullptr) *base = block.host;
    if (bytes != nullptr) *bytes = block.bytes;
    return CUDA_SUCCESS;
  }
  Vgpu* vgpu = nullptr;
  Allocation allocation;
  const CUresult r = find_allocation(address, &vgpu, &allocation);
  if (r != CUDA_SUCCESS) return r == CUDA_ERROR_INVALID_VALUE ? CUDA_ERROR_NOT_FOUND : r;
  if (base != nullptr) *base = allocation.base;
  if (bytes != nullptr) *bytes = allocation.bytes;
  return CUDA_SUCCESS;
}

}  // extern "C"
#pragma GCC visibility pop
