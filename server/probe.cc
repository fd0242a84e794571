#include "server/probe.h"

#include <cstring>

#include "server/driver_library.h"

namespace tide {
namespace {

Outcome probe_device(const DriverLibrary& library, int index, DeviceInfo* info) {
  const Driver& driver = library.calls;
  CUdevice device = 0;
  CUresult result = driver.cuDeviceGet(&device, index);
  if (result == CUDA_SUCCESS) result = driver.cuDeviceGetName(info->name, sizeof(info->name), device);
  size_t memory = 0;
  if (result == CUDA_SUCCESS) result = driver.cuDeviceTotalMem_v2(&memory, device);
  CUuuid uuid = {};
  if (result == CUDA_SUCCESS) {
    const auto get_uuid = driver.cuDeviceGetUuid_v2 != nullptr ? driver.cuDeviceGetUuid_v2 : driver.cuDeviceGetUuid;
    result = get_uuid(&uuid, device);
  }
  if (result != CUDA_SUCCESS) return Outcome::fail("cannot read a GPU's properties: " + error_text(driver, result));
  driver.cuDriverGetVersion(&info->driver_version);
  info->total_memory = memory;
  memcpy(info->uuid, &uuid, sizeof(info->uuid));
  info->software = library.software ? 1 : 0;
  for (int i = 1; i < int(kAttributeLimit); ++i) {
    int value = 0;
    if (driver.cuDeviceGetAttribute(&value, CUdevice_attribute(i), device) != CUDA_SUCCESS) continue;
    info->attributes[i] = value;
    info->attribute_known[i] = 1;
  }
  // Priorities are a context's.
  CUcontext context = nullptr;
  if (driver.cuDevicePrimaryCtxRetain(&context, device) != CUDA_SUCCESS) return {};
  driver.cuCtxSetCurrent(context);
  if (driver.cuCtxGetStreamPriorityRange != nullptr) {
    driver.cuCtxGetStreamPriorityRange(&info->least_stream_priority, &info->greatest_stream_priority);
  }
  driver.cuDevicePrimaryCtxRelease_v2(device);
  return {};
}

}  // namespace

Outcome probe_devices(std::vector<DeviceInfo>* devices) {
  DriverLibrary library;
  if (Outcome outcome = open_driver(&library); !outcome.ok()) return outcome;
  int count = 0;
  library.calls.cuDeviceGetCount(&count);
  for (int i = 0; i < count; ++i) {
    DeviceInfo info;
    if (Outcome outcome = probe_device(library, i, &info); !outcome.ok()) return outcome;
    devices->push_back(info);
  }
  return {};
}

}  // namespace tide
