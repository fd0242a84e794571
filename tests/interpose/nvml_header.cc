// Compiles where our declarations agree with NVIDIA's header (tests/e2e/nvml_test.py brings one).

#include "interpose/nvml/types.h"

// Theirs are macros, which would hide ours.
#define CONSTANTS(CONSTANT)                      \
  CONSTANT(NVML_SUCCESS)                         \
  CONSTANT(NVML_ERROR_UNINITIALIZED)             \
  CONSTANT(NVML_ERROR_INVALID_ARGUMENT)          \
  CONSTANT(NVML_ERROR_NOT_SUPPORTED)             \
  CONSTANT(NVML_ERROR_NOT_FOUND)                 \
  CONSTANT(NVML_ERROR_INSUFFICIENT_SIZE)         \
  CONSTANT(NVML_ERROR_DRIVER_NOT_LOADED)         \
  CONSTANT(NVML_ERROR_GPU_IS_LOST)               \
  CONSTANT(NVML_ERROR_ARGUMENT_VERSION_MISMATCH) \
  CONSTANT(NVML_ERROR_UNKNOWN)                   \
  CONSTANT(NVML_FEATURE_DISABLED)                \
  CONSTANT(NVML_FEATURE_ENABLED)                 \
  CONSTANT(NVML_BRAND_UNKNOWN)                   \
  CONSTANT(NVML_BRAND_TESLA)                     \
  CONSTANT(NVML_BRAND_GEFORCE)                   \
  CONSTANT(NVML_BRAND_TITAN)                     \
  CONSTANT(NVML_BRAND_QUADRO_RTX)                \
  CONSTANT(NVML_BRAND_NVIDIA_RTX)                \
  CONSTANT(NVML_BRAND_NVIDIA)                    \
  CONSTANT(NVML_COMPUTEMODE_DEFAULT)             \
  CONSTANT(NVML_COMPUTEMODE_COUNT)               \
  CONSTANT(NVML_CLOCK_GRAPHICS)                  \
  CONSTANT(NVML_CLOCK_SM)                        \
  CONSTANT(NVML_CLOCK_MEM)                       \
  CONSTANT(NVML_CLOCK_COUNT)                     \
  CONSTANT(NVML_TOPOLOGY_SYSTEM)                 \
  CONSTANT(NVML_P2P_CAPS_INDEX_READ)             \
  CONSTANT(NVML_P2P_CAPS_INDEX_UNKNOWN)          \
  CONSTANT(NVML_P2P_STATUS_OK)                   \
  CONSTANT(NVML_P2P_STATUS_NOT_SUPPORTED)        \
  CONSTANT(NVML_DEVICE_ARCH_PASCAL)              \
  CONSTANT(NVML_DEVICE_ARCH_VOLTA)               \
  CONSTANT(NVML_DEVICE_ARCH_TURING)              \
  CONSTANT(NVML_DEVICE_ARCH_AMPERE)              \
  CONSTANT(NVML_DEVICE_ARCH_ADA)                 \
  CONSTANT(NVML_DEVICE_ARCH_HOPPER)              \
  CONSTANT(NVML_DEVICE_ARCH_BLACKWELL)           \
  CONSTANT(NVML_DEVICE_ARCH_UNKNOWN)             \
  CONSTANT(NVML_DEVICE_MIG_DISABLE)              \
  CONSTANT(NVML_INIT_FLAG_NO_GPUS)               \
  CONSTANT(NVML_INIT_FLAG_NO_ATTACH)             \
  CONSTANT(NVML_NVLINK_MAX_LINKS)                \
  CONSTANT(NVML_UUID_TYPE_ASCII)                 \
  CONSTANT(NVML_UUID_TYPE_BINARY)
#define OURS(name) (unsigned long long)(tide::nvml::name),
constexpr unsigned long long kOurs[] = {CONSTANTS(OURS)};

#include <nvml.h>

#include <cstddef>
#include <iterator>

#define THEIRS(name) (unsigned long long)(name),
constexpr unsigned long long kTheirs[] = {CONSTANTS(THEIRS)};

constexpr bool same_constants() {
  for (size_t i = 0; i < std::size(kOurs); ++i) {
    if (kOurs[i] != kTheirs[i]) return false;
  }
  return std::size(kOurs) == std::size(kTheirs);
}
static_assert(same_constants());

#define SAME_SIZE(type) static_assert(sizeof(tide::nvml::type) == sizeof(::type))
#define SAME_PLACE(type, field) static_assert(offsetof(tide::nvml::type, field) == offsetof(::type, field))

SAME_SIZE(nvmlReturn_t);
SAME_SIZE(nvmlDevice_t);
SAME_SIZE(nvmlEnableState_t);
SAME_SIZE(nvmlBrandType_t);
SAME_SIZE(nvmlComputeMode_t);
SAME_SIZE(nvmlPciInfo_t);
SAME_PLACE(nvmlPciInfo_t, domain);
SAME_PLACE(nvmlPciInfo_t, pciDeviceId);
SAME_PLACE(nvmlPciInfo_t, busId);
SAME_SIZE(nvmlPciInfoExt_v1_t);
SAME_PLACE(nvmlPciInfoExt_v1_t, baseClass);
SAME_PLACE(nvmlPciInfoExt_v1_t, busId);
SAME_SIZE(nvmlMemory_t);
SAME_PLACE(nvmlMemory_t, free);
SAME_PLACE(nvmlMemory_t, used);
SAME_SIZE(nvmlMemory_v2_t);
SAME_PLACE(nvmlMemory_v2_t, reserved);
SAME_PLACE(nvmlMemory_v2_t, used);
SAME_SIZE(nvmlUtilization_t);
SAME_PLACE(nvmlUtilization_t, memory);
SAME_SIZE(nvmlProcessInfo_v1_t);
SAME_PLACE(nvmlProcessInfo_v1_t, usedGpuMemory);
SAME_SIZE(nvmlProcessInfo_v2_t);
static_assert(sizeof(tide::nvml::nvmlProcessInfo_v2_t) == sizeof(::nvmlProcessInfo_t));
SAME_PLACE(nvmlProcessInfo_v2_t, computeInstanceId);
SAME_SIZE(nvmlProcessDetail_v1_t);
SAME_PLACE(nvmlProcessDetail_v1_t, usedGpuCcProtectedMemory);
SAME_SIZE(nvmlProcessDetailList_v1_t);
SAME_PLACE(nvmlProcessDetailList_v1_t, procArray);
SAME_SIZE(nvmlFieldValue_t);
SAME_PLACE(nvmlFieldValue_t, nvmlReturn);
SAME_PLACE(nvmlFieldValue_t, value);
SAME_SIZE(nvmlUUID_v1_t);
SAME_PLACE(nvmlUUID_v1_t, value);
SAME_SIZE(nvmlConfComputeSystemState_t);
SAME_SIZE(nvmlSystemConfComputeSettings_v1_t);
SAME_PLACE(nvmlSystemConfComputeSettings_v1_t, multiGpuMode);

static_assert(tide::nvml::struct_version<tide::nvml::nvmlMemory_v2_t>(2) == nvmlMemory_v2);
static_assert(tide::nvml::struct_version<tide::nvml::nvmlUUID_v1_t>(1) == nvmlUUID_v1);
