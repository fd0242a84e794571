// What a device answers that lacks a capability; its attributes say so beforehand. And what every device answers alike.

#include <mutex>
#include <set>

#include "api/composed/composed.h"

namespace {

// INVALID_DEVICE, or what `attribute` says of the device.
CUresult read_attribute(CUdevice_attribute attribute, CUdevice device, int* value) {
  return cuDeviceGetAttribute(value, attribute, device);
}

CUresult no_atomics(unsigned* capabilities, const CUatomicOperation* operations, unsigned count) {
  if (capabilities == nullptr || operations == nullptr || count == 0) return CUDA_ERROR_INVALID_VALUE;
  for (unsigned i = 0; i < count; i++) {
    if (operations[i] < 0 || operations[i] >= CU_ATOMIC_OPERATION_MAX) return CUDA_ERROR_INVALID_VALUE;
    capabilities[i] = 0;
  }
  return CUDA_SUCCESS;
}

// Numbers of notifications asked for; none is ever sent, since no device here takes memory back.
std::mutex& notifications_mutex() {
  static auto* mutex = new std::mutex;  // outlives calls from atexit
  return *mutex;
}
std::set<CUasyncCallbackHandle>& notifications() {
  static auto* all = new std::set<CUasyncCallbackHandle>;
  return *all;
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

// CU_DEVICE_ATTRIBUTE_MULTICAST_SUPPORTED is 0.
CUresult cuMulticastCreate(CUmemGenericAllocationHandle* handle, const CUmulticastObjectProp* properties) {
  return handle == nullptr || properties == nullptr ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_NOT_SUPPORTED;
}
CUresult cuMulticastAddDevice(CUmemGenericAllocationHandle, CUdevice) { return CUDA_ERROR_INVALID_VALUE; }
CUresult cuMulticastBindMem(CUmemGenericAllocationHandle, size_t, CUmemGenericAllocationHandle, size_t, size_t,
                            unsigned long long) {
  return CUDA_ERROR_INVALID_VALUE;
}
CUresult cuMulticastBindAddr(CUmemGenericAllocationHandle, size_t, CUdeviceptr, size_t, unsigned long long) {
  return CUDA_ERROR_INVALID_VALUE;
}
CUresult cuMulticastUnbind(CUmemGenericAllocationHandle, CUdevice, size_t, size_t) { return CUDA_ERROR_INVALID_VALUE; }
CUresult cuMulticastGetGranularity(size_t* bytes, const CUmulticastObjectProp* properties,
                                   CUmulticastGranularity_flags) {
  return bytes == nullptr || properties == nullptr ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_NOT_SUPPORTED;
}

// CU_DEVICE_ATTRIBUTE_SPARSE_CUDA_ARRAY_SUPPORTED is 0.
CUresult cuMemMapArrayAsync(CUarrayMapInfo* maps, unsigned int count, CUstream) {
  return maps == nullptr || count == 0 ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_NOT_SUPPORTED;
}

// CU_DEVICE_ATTRIBUTE_MEM_DECOMPRESS_ALGORITHM_MASK is 0.
CUresult cuMemBatchDecompressAsync(CUmemDecompressParams* operations, size_t count, unsigned int flags, size_t* error,
                                   CUstream) {
  if (operations == nullptr || count == 0 || flags != 0) return CUDA_ERROR_INVALID_VALUE;
  if (error != nullptr) *error = 0;
  return CUDA_ERROR_NOT_SUPPORTED;
}

// CU_DEVICE_ATTRIBUTE_COOPERATIVE_MULTI_DEVICE_LAUNCH is 0.
CUresult cuLaunchCooperativeKernelMultiDevice(CUDA_LAUNCH_PARAMS* launches, unsigned int count, unsigned int) {
  return launches == nullptr || count == 0 ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_NOT_SUPPORTED;
}

// No atomic of a kernel is one for the host or for another device as well.
CUresult cuDeviceGetHostAtomicCapabilities(unsigned int* capabilities, const CUatomicOperation* operations,
                                           unsigned int count, CUdevice device) {
  int native = 0;
  const CUresult result = read_attribute(CU_DEVICE_ATTRIBUTE_HOST_NATIVE_ATOMIC_SUPPORTED, device, &native);
  return result != CUDA_SUCCESS ? result : no_atomics(capabilities, operations, count);
}
CUresult cuDeviceGetP2PAtomicCapabilities(unsigned int* capabilities, const CUatomicOperation* operations,
                                          unsigned int count, CUdevice from, CUdevice to) {
  int native = 0;
  const CUresult result = cuDeviceGetP2PAttribute(&native, CU_DEVICE_P2P_ATTRIBUTE_NATIVE_ATOMIC_SUPPORTED, from, to);
  return result != CUDA_SUCCESS ? result : no_atomics(capabilities, operations, count);
}

CUresult cuDeviceGetTexture1DLinearMaxWidth(size_t* width, CUarray_format format, unsigned channels, CUdevice device) {
  const bool known = format >= CU_AD_FORMAT_UNSIGNED_INT8 && format <= CU_AD_FORMAT_FLOAT;
  if (width == nullptr || !known || (channels != 1 && channels != 2 && channels != 4)) return CUDA_ERROR_INVALID_VALUE;
  int most = 0;
  const CUresult result = read_attribute(CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE1D_LINEAR_WIDTH, device, &most);
  if (result == CUDA_SUCCESS) *width = static_cast<size_t>(most);
  return result;
}

CUresult cuDeviceRegisterAsyncNotification(CUdevice device, CUasyncCallback callback, void*,
                                           CUasyncCallbackHandle* handle) {
  static uintptr_t last = 0;  // guarded by notifications_mutex()
  if (callback == nullptr || handle == nullptr) return CUDA_ERROR_INVALID_VALUE;
  int warp = 0;
  const CUresult result = read_attribute(CU_DEVICE_ATTRIBUTE_WARP_SIZE, device, &warp);
  if (result != CUDA_SUCCESS) return result;
  const std::lock_guard lock(notifications_mutex());
  *handle = reinterpret_cast<CUasyncCallbackHandle>(++last);
  notifications().insert(*handle);
  return CUDA_SUCCESS;
}
CUresult cuDeviceUnregisterAsyncNotification(CUdevice device, CUasyncCallbackHandle handle) {
  int warp = 0;
  const CUresult result = read_attribute(CU_DEVICE_ATTRIBUTE_WARP_SIZE, device, &warp);
  if (result != CUDA_SUCCESS) return result;
  const std::lock_guard lock(notifications_mutex());
  return notifications().erase(handle) == 1 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

}  // extern "C"
#pragma GCC visibility pop
