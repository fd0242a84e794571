#pragma once

// Everything about a GPU that a program may ask at start-up, read once by `tide-worker --probe` on the GPU server and
// carried, as opaque bytes, through the scheduler to the client library, which answers all start-up queries from it.

#include <cstdint>

namespace tide {

inline constexpr uint32_t kDeviceInfoVersion = 1;
inline constexpr uint32_t kAttributeLimit = 192;  // CUdevice_attribute values are below it (143 in CUDA 13.0)

struct DeviceInfo {
  uint32_t version = kDeviceInfoVersion;
  int32_t driver_version = 0;  // cuDriverGetVersion
  char name[256] = {};
  uint8_t uuid[16] = {};
  uint64_t total_memory = 0;                      // bytes
  int32_t attributes[kAttributeLimit] = {};       // by CUdevice_attribute
  uint8_t attribute_known[kAttributeLimit] = {};  // 1: cuDeviceGetAttribute succeeded
  int32_t least_stream_priority = 0, greatest_stream_priority = 0;
  uint32_t software = 0;  // 1: the software GPU
  uint32_t reserved = 0;
};

}  // namespace tide
