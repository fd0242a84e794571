#pragma once

// What the files in here share. Every function that is exported is defined in one of them, between a visibility push
// and pop, or generated (client_stubs.cc, client_refusals.cc).

#ifndef __CUDA_API_VERSION_INTERNAL
#define __CUDA_API_VERSION_INTERNAL  // all versions of all symbols, so that definitions are checked against cuda.h
#endif
#include <cuda.h>
#include <cudaProfiler.h>

#include "interpose/process.h"

namespace tide {

// The vGPU of a device ordinal; also NOT_INITIALIZED and INVALID_DEVICE.
inline CUresult find_device(CUdevice ordinal, Vgpu** vgpu) {
  Process* p = process();
  if (p == nullptr) return CUDA_ERROR_NOT_INITIALIZED;
  *vgpu = p->device(ordinal);
  return *vgpu != nullptr ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

// Work that reads or writes host memory must be over before it goes.
inline CUresult sync_open_vgpus(Process& p) {
  CUresult first = CUDA_SUCCESS;  // all of them are waited for, whatever one says
  for (Vgpu* vgpu : p.devices) {
    const CUresult result = vgpu->is_open() ? vgpu->sync_all() : CUDA_SUCCESS;
    if (first == CUDA_SUCCESS) first = result;
  }
  return first;
}

template <class Handle>
Handle handle_of(const Handled& object) {
  return reinterpret_cast<Handle>(object.handle);
}

}  // namespace tide

#define TIDE_TRY(expression)                                                                  \
  do {                                                                                        \
    if (CUresult tide_result = (expression); tide_result != CUDA_SUCCESS) return tide_result; \
  } while (false)
