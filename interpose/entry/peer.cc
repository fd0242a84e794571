// Peers: copies between vGPUs work, kernels do not reach another vGPU's memory.

#include "interpose/entry/entry.h"

using namespace tide;

#pragma GCC visibility push(default)
extern "C" {

CUresult cuDeviceCanAccessPeer(int* can, CUdevice device, CUdevice peer) {
  Vgpu* vgpu = nullptr;
  TIDE_TRY(find_device(device, &vgpu));
  TIDE_TRY(find_device(peer, &vgpu));
  if (can == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *can = 0;
  return CUDA_SUCCESS;
}

CUresult cuDeviceGetP2PAttribute(int* value, CUdevice_P2PAttribute attribute, CUdevice device, CUdevice peer) {
  Vgpu* vgpu = nullptr;
  TIDE_TRY(find_device(device, &vgpu));
  TIDE_TRY(find_device(peer, &vgpu));
  if (value == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (device == peer) return CUDA_ERROR_INVALID_DEVICE;
  if (attribute < CU_DEVICE_P2P_ATTRIBUTE_PERFORMANCE_RANK ||
      attribute > CU_DEVICE_P2P_ATTRIBUTE_ONLY_PARTIAL_NATIVE_ATOMIC_SUPPORTED) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  *value = 0;
  return CUDA_SUCCESS;
}

CUresult cuCtxEnablePeerAccess(CUcontext peer, unsigned int flags) {
  Entered e;
  TIDE_TRY(enter_quietly(&e));
  if (flags != 0) return CUDA_ERROR_INVALID_VALUE;
  if (e.process->contexts.find(peer) == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  return CUDA_ERROR_PEER_ACCESS_UNSUPPORTED;
}

CUresult cuCtxDisablePeerAccess(CUcontext peer) {
  Entered e;
  TIDE_TRY(enter_quietly(&e));
  if (e.process->contexts.find(peer) == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  return CUDA_ERROR_PEER_ACCESS_NOT_ENABLED;
}

}  // extern "C"
#pragma GCC visibility pop
