#pragma once

// The part of NVML's binary interface that this library serves, declared from its public documentation: the toolkit has
// no nvml.h. Names are NVML's. tests/interpose/nvml_header.cc compares this with the header where it can be had.

#include <cstdint>

namespace tide::nvml {

enum nvmlReturn_t : int {
  NVML_SUCCESS = 0,
  NVML_ERROR_UNINITIALIZED = 1,
  NVML_ERROR_INVALID_ARGUMENT = 2,
  NVML_ERROR_NOT_SUPPORTED = 3,
  NVML_ERROR_NOT_FOUND = 6,
  NVML_ERROR_INSUFFICIENT_SIZE = 7,
  NVML_ERROR_DRIVER_NOT_LOADED = 9,
  NVML_ERROR_GPU_IS_LOST = 15,
  NVML_ERROR_ARGUMENT_VERSION_MISMATCH = 25,
  NVML_ERROR_UNKNOWN = 999,
};

using nvmlDevice_t = struct nvmlDevice_st*;

enum nvmlEnableState_t : int { NVML_FEATURE_DISABLED = 0, NVML_FEATURE_ENABLED = 1 };
enum nvmlBrandType_t : int {
  NVML_BRAND_UNKNOWN = 0,
  NVML_BRAND_TESLA = 2,
  NVML_BRAND_GEFORCE = 5,
  NVML_BRAND_TITAN = 6,
  NVML_BRAND_QUADRO_RTX = 12,
  NVML_BRAND_NVIDIA_RTX = 13,
  NVML_BRAND_NVIDIA = 14,
};
enum nvmlComputeMode_t : int { NVML_COMPUTEMODE_DEFAULT = 0, NVML_COMPUTEMODE_COUNT = 4 };
enum nvmlClockType_t : int { NVML_CLOCK_GRAPHICS = 0, NVML_CLOCK_SM = 1, NVML_CLOCK_MEM = 2, NVML_CLOCK_COUNT = 4 };
enum nvmlGpuTopologyLevel_t : int { NVML_TOPOLOGY_SYSTEM = 50 };
enum nvmlGpuP2PCapsIndex_t : int { NVML_P2P_CAPS_INDEX_READ = 0, NVML_P2P_CAPS_INDEX_UNKNOWN = 5 };
enum nvmlGpuP2PStatus_t : int { NVML_P2P_STATUS_OK = 0, NVML_P2P_STATUS_NOT_SUPPORTED = 5 };

inline constexpr unsigned NVML_DEVICE_ARCH_PASCAL = 4;
inline constexpr unsigned NVML_DEVICE_ARCH_VOLTA = 5;
inline constexpr unsigned NVML_DEVICE_ARCH_TURING = 6;
inline constexpr unsigned NVML_DEVICE_ARCH_AMPERE = 7;
inline constexpr unsigned NVML_DEVICE_ARCH_ADA = 8;
inline constexpr unsigned NVML_DEVICE_ARCH_HOPPER = 9;
inline constexpr unsigned NVML_DEVICE_ARCH_BLACKWELL = 10;
inline constexpr unsigned NVML_DEVICE_ARCH_UNKNOWN = 0xffffffff;
inline constexpr unsigned NVML_DEVICE_MIG_DISABLE = 0;
inline constexpr unsigned NVML_INIT_FLAG_NO_GPUS = 1;
inline constexpr unsigned NVML_INIT_FLAG_NO_ATTACH = 2;
inline constexpr unsigned NVML_NVLINK_MAX_LINKS = 18;
inline constexpr unsigned NVML_UUID_TYPE_ASCII = 1;
inline constexpr unsigned NVML_UUID_TYPE_BINARY = 2;

struct nvmlPciInfo_t {
  char busIdLegacy[16];
  unsigned domain, bus, device;
  unsigned pciDeviceId, pciSubSystemId;
  char busId[32];
};

struct nvmlPciInfoExt_v1_t {
  unsigned version;
  unsigned domain, bus, device;
  unsigned pciDeviceId, pciSubSystemId;
  unsigned baseClass, subClass;
  char busId[32];
};

struct nvmlMemory_t {
  unsigned long long total, free, used;
};

struct nvmlMemory_v2_t {
  unsigned version;
  unsigned long long total, reserved, free, used;
};

struct nvmlUtilization_t {
  unsigned gpu, memory;
};

struct nvmlProcessInfo_v1_t {
  unsigned pid;
  unsigned long long usedGpuMemory;
};

struct nvmlProcessInfo_v2_t {  // of v3, too
  unsigned pid;
  unsigned long long usedGpuMemory;
  unsigned gpuInstanceId, computeInstanceId;
};

struct nvmlProcessDetail_v1_t {
  unsigned pid;
  unsigned long long usedGpuMemory;
  unsigned gpuInstanceId, computeInstanceId;
  unsigned long long usedGpuCcProtectedMemory;
};

struct nvmlProcessDetailList_v1_t {
  unsigned version, mode, numProcArrayEntries;
  nvmlProcessDetail_v1_t* procArray;
};

struct nvmlFieldValue_t {
  unsigned fieldId, scopeId;
  long long timestamp, latencyUsec;
  int valueType;
  nvmlReturn_t nvmlReturn;
  unsigned long long value;
};

struct nvmlUUID_v1_t {
  unsigned version, type;
  union {
    char str[41];
    unsigned char bytes[16];
  } value;
};

struct nvmlConfComputeSystemState_t {
  unsigned environment, ccFeature, devToolsMode;
};

struct nvmlSystemConfComputeSettings_v1_t {
  unsigned version, environment, ccFeature, devToolsMode, multiGpuMode;
};

// What a caller puts into a structure's `version`.
template <class T>
constexpr unsigned struct_version(unsigned number) {
  return unsigned(sizeof(T)) | number << 24;
}

}  // namespace tide::nvml
