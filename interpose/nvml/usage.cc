// What changes: memory, utilisation, processes.

#include <algorithm>

#include "interpose/nvml/entry.h"

using namespace tide;
using namespace tide::nvml;

namespace {

constexpr unsigned kNoInstance = 0xffffffff;  // MIG is off

nvmlReturn_t used_memory(const Vgpu* vgpu, uint64_t* used) {
  Usage usage;
  const nvmlReturn_t r = measure(vgpu, &usage);
  // The quota holds for each process: their sum may be more.
  if (r == NVML_SUCCESS) *used = std::min(usage.total.resident_bytes, vgpu->memory_bytes);
  return r;
}

void fill(const DoorClientUsage& client, nvmlProcessInfo_v1_t* out) {
  *out = {.pid = client.pid, .usedGpuMemory = client.resident_bytes};
}
void fill(const DoorClientUsage& client, nvmlProcessInfo_v2_t* out) {
  *out = {.pid = client.pid,
          .usedGpuMemory = client.resident_bytes,
          .gpuInstanceId = kNoInstance,
          .computeInstanceId = kNoInstance};
}
void fill(const DoorClientUsage& client, nvmlProcessDetail_v1_t* out) {
  *out = {.pid = client.pid,
          .usedGpuMemory = client.resident_bytes,
          .gpuInstanceId = kNoInstance,
          .computeInstanceId = kNoInstance,
          .usedGpuCcProtectedMemory = 0};
}

// `*count`: room before, processes afterwards.
template <class T>
nvmlReturn_t write_processes(const std::vector<DoorClientUsage>& clients, unsigned* count, T* infos) {
  const unsigned room = *count;
  *count = unsigned(clients.size());
  if (clients.size() > room) return NVML_ERROR_INSUFFICIENT_SIZE;
  if (!clients.empty() && infos == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  for (size_t i = 0; i < clients.size(); ++i) fill(clients[i], &infos[i]);
  return NVML_SUCCESS;
}

template <class T>
nvmlReturn_t compute_processes(nvmlDevice_t device, unsigned* count, T* infos) {
  const Vgpu* vgpu = nullptr;
  if (const nvmlReturn_t r = enter(device, &vgpu, count); r != NVML_SUCCESS) return r;
  Usage usage;
  if (const nvmlReturn_t r = measure(vgpu, &usage); r != NVML_SUCCESS) return r;
  return write_processes(usage.clients, count, infos);
}

// All processes of a job compute.
nvmlReturn_t no_processes(nvmlDevice_t device, unsigned* count) { return answer(device, count, 0); }

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t* memory) {
  const Vgpu* vgpu = nullptr;
  uint64_t used = 0;
  if (const nvmlReturn_t r = enter(device, &vgpu, memory); r != NVML_SUCCESS) return r;
  if (const nvmlReturn_t r = used_memory(vgpu, &used); r != NVML_SUCCESS) return r;
  *memory = {.total = vgpu->memory_bytes, .free = vgpu->memory_bytes - used, .used = used};
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t* memory) {
  const Vgpu* vgpu = nullptr;
  uint64_t used = 0;
  const unsigned wanted = struct_version<nvmlMemory_v2_t>(2);
  if (const nvmlReturn_t r = enter(device, &vgpu, memory); r != NVML_SUCCESS) return r;
  if (memory->version != wanted) return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
  if (const nvmlReturn_t r = used_memory(vgpu, &used); r != NVML_SUCCESS) return r;
  *memory = {
      .version = wanted, .total = vgpu->memory_bytes, .reserved = 0, .free = vgpu->memory_bytes - used, .used = used};
  return NVML_SUCCESS;
}

// How long memory was read or written nobody counts: 0.
nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t* utilization) {
  const Vgpu* vgpu = nullptr;
  Usage usage;
  if (const nvmlReturn_t r = enter(device, &vgpu, utilization); r != NVML_SUCCESS) return r;
  if (const nvmlReturn_t r = measure(vgpu, &usage); r != NVML_SUCCESS) return r;
  *utilization = {.gpu = (usage.total.busy_permille + 5) / 10, .memory = 0};
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetComputeRunningProcesses(nvmlDevice_t device, unsigned* count, nvmlProcessInfo_v1_t* infos) {
  return compute_processes(device, count, infos);
}
nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v2(nvmlDevice_t device, unsigned* count,
                                                     nvmlProcessInfo_v2_t* infos) {
  return compute_processes(device, count, infos);
}
nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t device, unsigned* count,
                                                     nvmlProcessInfo_v2_t* infos) {
  return compute_processes(device, count, infos);
}

nvmlReturn_t nvmlDeviceGetRunningProcessDetailList(nvmlDevice_t device, nvmlProcessDetailList_v1_t* list) {
  const Vgpu* vgpu = nullptr;
  if (const nvmlReturn_t r = enter(device, &vgpu, list); r != NVML_SUCCESS) return r;
  if (list->version != struct_version<nvmlProcessDetailList_v1_t>(1)) return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
  if (list->mode != 0) return no_processes(device, &list->numProcArrayEntries);
  return compute_processes(device, &list->numProcArrayEntries, list->procArray);
}

#define NO_PROCESSES(function) \
  nvmlReturn_t function(nvmlDevice_t device, unsigned* count, void*) { return no_processes(device, count); }
NO_PROCESSES(nvmlDeviceGetGraphicsRunningProcesses)
NO_PROCESSES(nvmlDeviceGetGraphicsRunningProcesses_v2)
NO_PROCESSES(nvmlDeviceGetGraphicsRunningProcesses_v3)
NO_PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses)
NO_PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses_v2)
NO_PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses_v3)
#undef NO_PROCESSES

}  // extern "C"
#pragma GCC visibility pop
