// Which vGPUs there are, and what never changes of them.

#include <cuda.h>

#include <cstdio>
#include <string>

#include "api/uuid.h"
#include "interpose/nvml/entry.h"

using namespace tide;
using namespace tide::nvml;

namespace {

struct Pci {
  unsigned domain = 0, bus = 0, device = 0;
  bool operator==(const Pci&) const = default;
};

Pci pci_of(const Vgpu& vgpu) {
  const int* attributes = vgpu.info.attributes;
  return {.domain = unsigned(attributes[CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID]),
          .bus = unsigned(attributes[CU_DEVICE_ATTRIBUTE_PCI_BUS_ID]),
          .device = unsigned(attributes[CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID])};
}

// "domain:bus:device.function", with or without its first and last part.
bool parse_pci(const char* text, Pci* pci) {
  if (sscanf(text, "%x:%x:%x", &pci->domain, &pci->bus, &pci->device) == 3) return true;
  pci->domain = 0;
  return sscanf(text, "%x:%x", &pci->bus, &pci->device) == 2;
}

constexpr unsigned kVendor = 0x10de;  // the device's own number is not carried

template <class T>
void fill_pci(const Vgpu& vgpu, T* out) {
  const Pci pci = pci_of(vgpu);
  out->domain = pci.domain;
  out->bus = pci.bus;
  out->device = pci.device;
  out->pciDeviceId = kVendor;
  out->pciSubSystemId = 0;
  snprintf(out->busId, sizeof out->busId, "%08X:%02X:%02X.0", pci.domain, pci.bus, pci.device);
}

nvmlReturn_t find_by(nvmlDevice_t* device, const void* key, bool (*matches)(const Vgpu& vgpu, const void* key)) {
  if (!joined()) return NVML_ERROR_UNINITIALIZED;
  if (key == nullptr || device == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  for (uint32_t i = 0; i < vgpu_count(); ++i) {
    if (!matches(*find_vgpu(handle_of(i)), key)) continue;
    *device = handle_of(i);
    return NVML_SUCCESS;
  }
  return NVML_ERROR_NOT_FOUND;
}

bool has_uuid_text(const Vgpu& vgpu, const void* text) {
  return uuid_text(vgpu.info.uuid) == static_cast<const char*>(text);
}

bool has_uuid(const Vgpu& vgpu, const void* bytes) { return memcmp(vgpu.info.uuid, bytes, 16) == 0; }

bool has_pci(const Vgpu& vgpu, const void* pci) { return pci_of(vgpu) == *static_cast<const Pci*>(pci); }

int attribute(const Vgpu& vgpu, CUdevice_attribute which) { return vgpu.info.attributes[which]; }

nvmlReturn_t answer_attribute(nvmlDevice_t device, CUdevice_attribute which, unsigned divisor, unsigned* output) {
  const Vgpu* vgpu = nullptr;
  if (const nvmlReturn_t r = enter(device, &vgpu, output); r != NVML_SUCCESS) return r;
  if (vgpu->info.attribute_known[which] == 0) return NVML_ERROR_NOT_SUPPORTED;
  *output = unsigned(attribute(*vgpu, which)) / divisor;
  return NVML_SUCCESS;
}

unsigned architecture_of(int major, int minor) {
  switch (major) {
    case 6:
      return NVML_DEVICE_ARCH_PASCAL;
    case 7:
      return minor < 5 ? NVML_DEVICE_ARCH_VOLTA : NVML_DEVICE_ARCH_TURING;
    case 8:
      return minor == 9 ? NVML_DEVICE_ARCH_ADA : NVML_DEVICE_ARCH_AMPERE;
    case 9:
      return NVML_DEVICE_ARCH_HOPPER;
    case 10:
    case 12:
      return NVML_DEVICE_ARCH_BLACKWELL;
    default:
      return NVML_DEVICE_ARCH_UNKNOWN;
  }
}

struct BrandName {
  const char* part;
  nvmlBrandType_t brand;
};
constexpr BrandName kBrands[] = {{"GeForce", NVML_BRAND_GEFORCE},       {"TITAN", NVML_BRAND_TITAN},
                                 {"Quadro RTX", NVML_BRAND_QUADRO_RTX}, {"RTX", NVML_BRAND_NVIDIA_RTX},
                                 {"Tesla", NVML_BRAND_TESLA},           {"NVIDIA", NVML_BRAND_NVIDIA}};

nvmlBrandType_t brand_of(const char* name) {
  for (const BrandName& each : kBrands) {
    if (strstr(name, each.part) != nullptr) return each.brand;
  }
  return NVML_BRAND_UNKNOWN;
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned* number) {
  if (!joined()) return NVML_ERROR_UNINITIALIZED;
  if (number == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  *number = vgpu_count();
  return NVML_SUCCESS;
}
nvmlReturn_t nvmlDeviceGetCount(unsigned* number) { return nvmlDeviceGetCount_v2(number); }

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice_t* device) {
  if (!joined()) return NVML_ERROR_UNINITIALIZED;
  if (device == nullptr || index >= vgpu_count()) return NVML_ERROR_INVALID_ARGUMENT;
  *device = handle_of(index);
  return NVML_SUCCESS;
}
nvmlReturn_t nvmlDeviceGetHandleByIndex(unsigned index, nvmlDevice_t* device) {
  return nvmlDeviceGetHandleByIndex_v2(index, device);
}

nvmlReturn_t nvmlDeviceGetHandleByUUID(const char* uuid, nvmlDevice_t* device) {
  return find_by(device, uuid, has_uuid_text);
}

nvmlReturn_t nvmlDeviceGetHandleByUUIDV(const nvmlUUID_v1_t* uuid, nvmlDevice_t* device) {
  if (!joined()) return NVML_ERROR_UNINITIALIZED;
  if (uuid == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  if (uuid->version != struct_version<nvmlUUID_v1_t>(1)) return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
  if (uuid->type == NVML_UUID_TYPE_BINARY) return find_by(device, uuid->value.bytes, has_uuid);
  if (uuid->type != NVML_UUID_TYPE_ASCII) return NVML_ERROR_INVALID_ARGUMENT;
  const std::string text(uuid->value.str, strnlen(uuid->value.str, sizeof uuid->value.str));
  return find_by(device, text.c_str(), has_uuid_text);
}

nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char* text, nvmlDevice_t* device) {
  if (!joined()) return NVML_ERROR_UNINITIALIZED;
  Pci pci;
  if (text == nullptr || !parse_pci(text, &pci)) return NVML_ERROR_INVALID_ARGUMENT;
  return find_by(device, &pci, has_pci);
}
nvmlReturn_t nvmlDeviceGetHandleByPciBusId(const char* text, nvmlDevice_t* device) {
  return nvmlDeviceGetHandleByPciBusId_v2(text, device);
}

nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char* name, unsigned length) {
  const Vgpu* vgpu = nullptr;
  const nvmlReturn_t r = enter(device, &vgpu);
  return r == NVML_SUCCESS ? copy_text(vgpu->info.name, name, length) : r;
}

nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char* uuid, unsigned length) {
  const Vgpu* vgpu = nullptr;
  const nvmlReturn_t r = enter(device, &vgpu);
  return r == NVML_SUCCESS ? copy_text(uuid_text(vgpu->info.uuid).c_str(), uuid, length) : r;
}

nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t device, unsigned* index) {
  const Vgpu* vgpu = nullptr;
  const nvmlReturn_t r = enter(device, &vgpu, index);
  if (r == NVML_SUCCESS) *index = index_of(vgpu);
  return r;
}
nvmlReturn_t nvmlDeviceGetMinorNumber(nvmlDevice_t device, unsigned* minor) {
  return nvmlDeviceGetIndex(device, minor);
}

nvmlReturn_t nvmlDeviceGetBrand(nvmlDevice_t device, nvmlBrandType_t* brand) {
  const Vgpu* vgpu = nullptr;
  const nvmlReturn_t r = enter(device, &vgpu, brand);
  if (r == NVML_SUCCESS) *brand = brand_of(vgpu->info.name);
  return r;
}

nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t* pci) {
  const Vgpu* vgpu = nullptr;
  if (const nvmlReturn_t r = enter(device, &vgpu, pci); r != NVML_SUCCESS) return r;
  *pci = {};
  fill_pci(*vgpu, pci);
  snprintf(pci->busIdLegacy, sizeof pci->busIdLegacy, "%04X:%02X:%02X.0", pci->domain & 0xffff, pci->bus & 0xff,
           pci->device & 0xff);
  return NVML_SUCCESS;
}
nvmlReturn_t nvmlDeviceGetPciInfoExt(nvmlDevice_t device, nvmlPciInfoExt_v1_t* pci) {
  const Vgpu* vgpu = nullptr;
  if (const nvmlReturn_t r = enter(device, &vgpu, pci); r != NVML_SUCCESS) return r;
  const unsigned wanted = struct_version<nvmlPciInfoExt_v1_t>(1);
  if (pci->version != wanted) return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
  *pci = {};
  pci->version = wanted;
  pci->baseClass = 3;  // a display controller,
  pci->subClass = 2;   // for computing only
  fill_pci(*vgpu, pci);
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int* major, int* minor) {
  const Vgpu* vgpu = nullptr;
  if (const nvmlReturn_t r = enter(device, &vgpu, major); r != NVML_SUCCESS) return r;
  if (minor == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  *major = attribute(*vgpu, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
  *minor = attribute(*vgpu, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetArchitecture(nvmlDevice_t device, unsigned* architecture) {
  int major = 0, minor = 0;
  if (const nvmlReturn_t r = nvmlDeviceGetCudaComputeCapability(device, &major, &minor); r != NVML_SUCCESS) return r;
  return answer(device, architecture, architecture_of(major, minor));
}

nvmlReturn_t nvmlDeviceGetComputeMode(nvmlDevice_t device, nvmlComputeMode_t* mode) {
  const Vgpu* vgpu = nullptr;
  const nvmlReturn_t r = enter(device, &vgpu, mode);
  if (r == NVML_SUCCESS) *mode = nvmlComputeMode_t(attribute(*vgpu, CU_DEVICE_ATTRIBUTE_COMPUTE_MODE));
  return r;
}

nvmlReturn_t nvmlDeviceGetEccMode(nvmlDevice_t device, nvmlEnableState_t* current, nvmlEnableState_t* pending) {
  unsigned on = 0;
  if (pending == nullptr) return joined() ? NVML_ERROR_INVALID_ARGUMENT : NVML_ERROR_UNINITIALIZED;
  const nvmlReturn_t r = answer_attribute(device, CU_DEVICE_ATTRIBUTE_ECC_ENABLED, 1, &on);
  return r == NVML_SUCCESS ? answer(device, current, *pending = nvmlEnableState_t(on)) : r;
}

nvmlReturn_t nvmlDeviceGetMemoryBusWidth(nvmlDevice_t device, unsigned* bits) {
  return answer_attribute(device, CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH, 1, bits);
}

// In MHz; CUDA says kHz.
nvmlReturn_t nvmlDeviceGetMaxClockInfo(nvmlDevice_t device, nvmlClockType_t type, unsigned* clock) {
  if (joined() && unsigned(type) >= NVML_CLOCK_COUNT) return NVML_ERROR_INVALID_ARGUMENT;
  if (type == NVML_CLOCK_MEM) return answer_attribute(device, CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE, 1000, clock);
  if (type == NVML_CLOCK_GRAPHICS || type == NVML_CLOCK_SM)
    return answer_attribute(device, CU_DEVICE_ATTRIBUTE_CLOCK_RATE, 1000, clock);
  const nvmlReturn_t r = answer(device, clock, 0);
  return r == NVML_SUCCESS ? NVML_ERROR_NOT_SUPPORTED : r;
}

// The driver is always there, no screen ever.
nvmlReturn_t nvmlDeviceGetPersistenceMode(nvmlDevice_t device, nvmlEnableState_t* mode) {
  return answer(device, mode, NVML_FEATURE_ENABLED);
}
nvmlReturn_t nvmlDeviceGetDisplayMode(nvmlDevice_t device, nvmlEnableState_t* display) {
  return answer(device, display, NVML_FEATURE_DISABLED);
}
nvmlReturn_t nvmlDeviceGetDisplayActive(nvmlDevice_t device, nvmlEnableState_t* active) {
  return answer(device, active, NVML_FEATURE_DISABLED);
}
nvmlReturn_t nvmlDeviceGetMultiGpuBoard(nvmlDevice_t device, unsigned* multi) { return answer(device, multi, 0); }

nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned* current, unsigned* pending) {
  const nvmlReturn_t r = answer(device, current, NVML_DEVICE_MIG_DISABLE);
  return r == NVML_SUCCESS ? answer(device, pending, NVML_DEVICE_MIG_DISABLE) : r;
}
nvmlReturn_t nvmlDeviceIsMigDeviceHandle(nvmlDevice_t device, unsigned* is_mig) { return answer(device, is_mig, 0); }
nvmlReturn_t nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t device, unsigned* devices) {
  return answer(device, devices, 0);
}

}  // extern "C"
#pragma GCC visibility pop
