// How vGPUs reach each other, as on a machine whose GPUs have no NVLink and no access to each other; and fields, none
// of which is counted.

#include <algorithm>

#include "interpose/nvml/entry.h"

using namespace tide;
using namespace tide::nvml;

namespace {

nvmlReturn_t enter_pair(nvmlDevice_t one, nvmlDevice_t other, const void* output, bool* same) {
  const Vgpu *first = nullptr, *second = nullptr;
  if (const nvmlReturn_t r = enter(one, &first); r != NVML_SUCCESS) return r;
  if (const nvmlReturn_t r = enter(other, &second); r != NVML_SUCCESS) return r;
  *same = first == second;
  return output == nullptr ? NVML_ERROR_INVALID_ARGUMENT : NVML_SUCCESS;
}

nvmlReturn_t no_link(nvmlDevice_t device, unsigned link, const void* output) {
  const Vgpu* vgpu = nullptr;
  if (const nvmlReturn_t r = enter(device, &vgpu); r != NVML_SUCCESS) return r;
  return output == nullptr || link >= NVML_NVLINK_MAX_LINKS ? NVML_ERROR_INVALID_ARGUMENT : NVML_ERROR_NOT_SUPPORTED;
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

nvmlReturn_t nvmlDeviceGetP2PStatus(nvmlDevice_t one, nvmlDevice_t other, nvmlGpuP2PCapsIndex_t index,
                                    nvmlGpuP2PStatus_t* status) {
  bool same = false;
  if (const nvmlReturn_t r = enter_pair(one, other, status, &same); r != NVML_SUCCESS) return r;
  if (unsigned(index) >= NVML_P2P_CAPS_INDEX_UNKNOWN) return NVML_ERROR_INVALID_ARGUMENT;
  *status = same ? NVML_P2P_STATUS_OK : NVML_P2P_STATUS_NOT_SUPPORTED;
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetTopologyCommonAncestor(nvmlDevice_t one, nvmlDevice_t other, nvmlGpuTopologyLevel_t* level) {
  bool same = false;
  const nvmlReturn_t r = enter_pair(one, other, level, &same);
  if (r == NVML_SUCCESS) *level = same ? nvmlGpuTopologyLevel_t(0) : NVML_TOPOLOGY_SYSTEM;
  return r;
}

nvmlReturn_t nvmlDeviceOnSameBoard(nvmlDevice_t one, nvmlDevice_t other, int* on_same_board) {
  bool same = false;
  const nvmlReturn_t r = enter_pair(one, other, on_same_board, &same);
  if (r == NVML_SUCCESS) *on_same_board = same ? 1 : 0;
  return r;
}

nvmlReturn_t nvmlDeviceGetNvLinkState(nvmlDevice_t device, unsigned link, nvmlEnableState_t* active) {
  return no_link(device, link, active);
}
nvmlReturn_t nvmlDeviceGetNvLinkVersion(nvmlDevice_t device, unsigned link, unsigned* number) {
  return no_link(device, link, number);
}
nvmlReturn_t nvmlDeviceGetNvLinkCapability(nvmlDevice_t device, unsigned link, int, unsigned* has) {
  return no_link(device, link, has);
}
nvmlReturn_t nvmlDeviceGetNvLinkRemotePciInfo(nvmlDevice_t device, unsigned link, nvmlPciInfo_t* pci) {
  return no_link(device, link, pci);
}
nvmlReturn_t nvmlDeviceGetNvLinkRemotePciInfo_v2(nvmlDevice_t device, unsigned link, nvmlPciInfo_t* pci) {
  return no_link(device, link, pci);
}
nvmlReturn_t nvmlDeviceGetNvLinkRemoteDeviceType(nvmlDevice_t device, unsigned link, int* type) {
  return no_link(device, link, type);
}

nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t device, int count, nvmlFieldValue_t* values) {
  const Vgpu* vgpu = nullptr;
  if (const nvmlReturn_t r = enter(device, &vgpu, values); r != NVML_SUCCESS) return r;
  if (count <= 0) return NVML_ERROR_INVALID_ARGUMENT;
  for (int i = 0; i < count; ++i) {
    values[i].timestamp = values[i].latencyUsec = 0;
    values[i].nvmlReturn = NVML_ERROR_NOT_SUPPORTED;
  }
  return NVML_SUCCESS;
}

}  // extern "C"
#pragma GCC visibility pop
