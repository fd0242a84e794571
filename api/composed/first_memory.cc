// The first version's memory: allocation, addresses, fills.

#include "api/composed/composed.h"

using namespace tide::composed;  // an entry point is C; everything it uses is ours

#pragma GCC visibility push(default)
extern "C" {

CUresult cuDeviceTotalMem(unsigned int* bytes, CUdevice device) {
  size_t all = 0;
  const CUresult result = cuDeviceTotalMem_v2(bytes == nullptr ? nullptr : &all, device);
  if (result == CUDA_SUCCESS) *bytes = clamped(all);
  return result;
}

CUresult cuMemGetInfo(unsigned int* free, unsigned int* total) {
  size_t free_bytes = 0, total_bytes = 0;
  const CUresult result = cuMemGetInfo_v2(&free_bytes, &total_bytes);
  if (result != CUDA_SUCCESS) return result;
  if (free != nullptr) *free = clamped(free_bytes);
  if (total != nullptr) *total = clamped(total_bytes);
  return result;
}

CUresult cuMemAlloc(CUdeviceptr_v1* address, unsigned int bytes) {
  CUdeviceptr wide = 0;
  const CUresult result = cuMemAlloc_v2(address == nullptr ? nullptr : &wide, bytes);
  if (result != CUDA_SUCCESS) return result;
  if (fits(wide)) {
    *address = static_cast<CUdeviceptr_v1>(wide);
    return CUDA_SUCCESS;
  }
  cuMemFree_v2(wide);
  return CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult cuMemAllocPitch(CUdeviceptr_v1* address, unsigned int* pitch, unsigned int width, unsigned int height,
                         unsigned int element) {
  CUdeviceptr wide = 0;
  size_t wide_pitch = 0;
  const CUresult result = cuMemAllocPitch_v2(address == nullptr ? nullptr : &wide,
                                             pitch == nullptr ? nullptr : &wide_pitch, width, height, element);
  if (result != CUDA_SUCCESS) return result;
  if (fits(wide) && fits(wide_pitch)) {
    *address = static_cast<CUdeviceptr_v1>(wide);
    *pitch = static_cast<unsigned>(wide_pitch);
    return CUDA_SUCCESS;
  }
  cuMemFree_v2(wide);
  return CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult cuMemFree(CUdeviceptr_v1 address) { return cuMemFree_v2(address); }

CUresult cuMemGetAddressRange(CUdeviceptr_v1* base, unsigned int* bytes, CUdeviceptr_v1 address) {
  CUdeviceptr wide = 0;
  size_t wide_bytes = 0;
  const CUresult result = cuMemGetAddressRange_v2(&wide, &wide_bytes, address);
  if (result != CUDA_SUCCESS) return result;
  if (base != nullptr) *base = static_cast<CUdeviceptr_v1>(wide);
  if (bytes != nullptr) *bytes = clamped(wide_bytes);
  return CUDA_SUCCESS;
}

CUresult cuMemAllocHost(void** address, unsigned int bytes) { return cuMemAllocHost_v2(address, bytes); }

CUresult cuMemHostGetDevicePointer(CUdeviceptr_v1* address, void* host, unsigned int flags) {
  CUdeviceptr wide = 0;
  const CUresult result = cuMemHostGetDevicePointer_v2(address == nullptr ? nullptr : &wide, host, flags);
  if (result != CUDA_SUCCESS) return result;
  if (!fits(wide)) return CUDA_ERROR_INVALID_VALUE;
  *address = static_cast<CUdeviceptr_v1>(wide);
  return CUDA_SUCCESS;
}

CUresult cuMemHostRegister(void* address, size_t bytes, unsigned int flags) {
  return cuMemHostRegister_v2(address, bytes, flags);
}

CUresult cuModuleGetGlobal(CUdeviceptr_v1* address, unsigned int* bytes, CUmodule module, const char* name) {
  CUdeviceptr wide = 0;
  size_t wide_bytes = 0;
  const CUresult result = cuModuleGetGlobal_v2(&wide, &wide_bytes, module, name);
  if (result != CUDA_SUCCESS) return result;
  if (address != nullptr && !fits(wide)) return CUDA_ERROR_INVALID_VALUE;
  if (address != nullptr) *address = static_cast<CUdeviceptr_v1>(wide);
  if (bytes != nullptr) *bytes = clamped(wide_bytes);
  return CUDA_SUCCESS;
}

CUresult cuMemsetD8(CUdeviceptr_v1 to, unsigned char value, unsigned int count) {
  return cuMemsetD8_v2(to, value, count);
}
CUresult cuMemsetD16(CUdeviceptr_v1 to, unsigned short value, unsigned int count) {
  return cuMemsetD16_v2(to, value, count);
}
CUresult cuMemsetD32(CUdeviceptr_v1 to, unsigned int value, unsigned int count) {
  return cuMemsetD32_v2(to, value, count);
}
CUresult cuMemsetD2D8(CUdeviceptr_v1 to, unsigned int pitch, unsigned char value, unsigned int width,
                      unsigned int height) {
  return cuMemsetD2D8_v2(to, pitch, value, width, height);
}
CUresult cuMemsetD2D16(CUdeviceptr_v1 to, unsigned int pitch, unsigned short value, unsigned int width,
                       unsigned int height) {
  return cuMemsetD2D16_v2(to, pitch, value, width, height);
}
CUresult cuMemsetD2D32(CUdeviceptr_v1 to, unsigned int pitch, unsigned int value, unsigned int width,
                       unsigned int height) {
  return cuMemsetD2D32_v2(to, pitch, value, width, height);
}

}  // extern "C"
#pragma GCC visibility pop
