// Devices: all answered from what came at connect.

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "interpose/entry/entry.h"

using namespace tide;

#pragma GCC visibility push(default)
extern "C" {

CUresult cuDeviceGet(CUdevice* device, int ordinal) {
  Vgpu* vgpu = nullptr;
  TIDE_TRY(find_device(ordinal, &vgpu));
  if (device == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *device = ordinal;
  return CUDA_SUCCESS;
}

CUresult cuDeviceGetCount(int* count) {
  Process* p = process();
  if (p == nullptr) return CUDA_ERROR_NOT_INITIALIZED;
  if (count == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *count = int(p->devices.size());
  return CUDA_SUCCESS;
}

CUresult cuDeviceGetName(char* name, int length, CUdevice device) {
  Vgpu* vgpu = nullptr;
  TIDE_TRY(find_device(device, &vgpu));
  if (name == nullptr || length <= 0) return CUDA_ERROR_INVALID_VALUE;
  snprintf(name, size_t(length), "%s", vgpu->info.name);
  return CUDA_SUCCESS;
}

CUresult cuDeviceGetUuid_v2(CUuuid* uuid, CUdevice device) {
  Vgpu* vgpu = nullptr;
  TIDE_TRY(find_device(device, &vgpu));
  if (uuid == nullptr) return CUDA_ERROR_INVALID_VALUE;
  memcpy(uuid->bytes, vgpu->info.uuid, sizeof vgpu->info.uuid);
  return CUDA_SUCCESS;
}

CUresult cuDeviceGetUuid(CUuuid* uuid, CUdevice device) { return cuDeviceGetUuid_v2(uuid, device); }

CUresult cuDeviceTotalMem_v2(size_t* bytes, CUdevice device) {
  Vgpu* vgpu = nullptr;
  TIDE_TRY(find_device(device, &vgpu));
  if (bytes == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *bytes = vgpu->quota;
  return CUDA_SUCCESS;
}

CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice device) {
  Vgpu* vgpu = nullptr;
  TIDE_TRY(find_device(device, &vgpu));
  if (value == nullptr || attribute <= 0 || attribute >= CU_DEVICE_ATTRIBUTE_MAX) return CUDA_ERROR_INVALID_VALUE;
  static_assert(CU_DEVICE_ATTRIBUTE_MAX <= kAttributeLimit);
  // One that an older driver below does not know is 0: the runtime gives up when a query fails.
  *value = vgpu->info.attributes[attribute];
  return CUDA_SUCCESS;
}

CUresult cuDeviceGetExecAffinitySupport(int* supported, CUexecAffinityType, CUdevice device) {
  Vgpu* vgpu = nullptr;
  TIDE_TRY(find_device(device, &vgpu));
  if (supported == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *supported = 0;
  return CUDA_SUCCESS;
}

CUresult cuDeviceComputeCapability(int* major, int* minor, CUdevice device) {
  Vgpu* vgpu = nullptr;
  TIDE_TRY(find_device(device, &vgpu));
  if (major == nullptr || minor == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *major = vgpu->info.attributes[CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR];
  *minor = vgpu->info.attributes[CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR];
  return CUDA_SUCCESS;
}

CUresult cuDeviceGetProperties(CUdevprop* properties, CUdevice device) {
  Vgpu* vgpu = nullptr;
  TIDE_TRY(find_device(device, &vgpu));
  if (properties == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const int* a = vgpu->info.attributes;
  *properties = {.maxThreadsPerBlock = a[CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK],
                 .maxThreadsDim = {a[CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X], a[CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Y],
                                   a[CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Z]},
                 .maxGridSize = {a[CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X], a[CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y],
                                 a[CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z]},
                 .sharedMemPerBlock = a[CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK],
                 .totalConstantMemory = a[CU_DEVICE_ATTRIBUTE_TOTAL_CONSTANT_MEMORY],
                 .SIMDWidth = a[CU_DEVICE_ATTRIBUTE_WARP_SIZE],
                 .memPitch = a[CU_DEVICE_ATTRIBUTE_MAX_PITCH],
                 .regsPerBlock = a[CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK],
                 .clockRate = a[CU_DEVICE_ATTRIBUTE_CLOCK_RATE],
                 .textureAlign = a[CU_DEVICE_ATTRIBUTE_TEXTURE_ALIGNMENT]};
  return CUDA_SUCCESS;
}

CUresult cuDeviceGetPCIBusId(char* id, int length, CUdevice device) {
  Vgpu* vgpu = nullptr;
  TIDE_TRY(find_device(device, &vgpu));
  const int* a = vgpu->info.attributes;
  char text[32];
  const int n = snprintf(text, sizeof text, "%04X:%02X:%02X.0", unsigned(a[CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID]),
                         unsigned(a[CU_DEVICE_ATTRIBUTE_PCI_BUS_ID]), unsigned(a[CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID]));
  if (id == nullptr || length <= n) return CUDA_ERROR_INVALID_VALUE;
  memcpy(id, text, size_t(n) + 1);
  return CUDA_SUCCESS;
}

CUresult cuDeviceGetByPCIBusId(CUdevice* device, const char* id) {
  Process* p = process();
  if (p == nullptr) return CUDA_ERROR_NOT_INITIALIZED;
  if (device == nullptr || id == nullptr) return CUDA_ERROR_INVALID_VALUE;
  unsigned domain = 0, bus = 0, slot = 0;
  if (sscanf(id, "%x:%x:%x", &domain, &bus, &slot) != 3) {
    domain = 0;
    if (sscanf(id, "%x:%x", &bus, &slot) != 2) return CUDA_ERROR_INVALID_VALUE;
  }
  for (const Vgpu* vgpu : p->devices) {
    const int* a = vgpu->info.attributes;
    if (unsigned(a[CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID]) != domain ||
        unsigned(a[CU_DEVICE_ATTRIBUTE_PCI_BUS_ID]) != bus || unsigned(a[CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID]) != slot) {
      continue;
    }
    *device = vgpu->ordinal;
    return CUDA_SUCCESS;
  }
  return CUDA_ERROR_INVALID_DEVICE;
}

}  // extern "C"
#pragma GCC visibility pop
