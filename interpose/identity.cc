#include "interpose/identity.h"

#include <cuda.h>

#include <cstring>

#include "api/composed/environment.h"
#include "api/handshake/handshake.h"
#include "base/log.h"
#include "interpose/process.h"
#include "interpose/thread.h"

// The exported functions themselves: tables that the runtime asks for lead to them.
extern "C" {
CUresult entry_load_fat_binary(CUmodule* module, const void* image) __asm__("cuModuleLoadFatBinary");
CUresult entry_function_count(unsigned* count, CUmodule module) __asm__("cuModuleGetFunctionCount");
CUresult entry_list_functions(CUfunction* functions, unsigned count,
                              CUmodule module) __asm__("cuModuleEnumerateFunctions");
}

namespace tide {
namespace {

struct Shown {
  CUdevice_attribute attribute;
  int value;
};

// Pageable and registered memory at their own addresses, external resources and stream memory operations are not
// served, of sharing only descriptors are.
constexpr Shown kShown[] = {
    {CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY, 1},
    {CU_DEVICE_ATTRIBUTE_MANAGED_MEMORY, 1},
    {CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS, 0},
    {CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS_USES_HOST_PAGE_TABLES, 0},
    {CU_DEVICE_ATTRIBUTE_DIRECT_MANAGED_MEM_ACCESS_FROM_HOST, 0},
    {CU_DEVICE_ATTRIBUTE_HOST_NATIVE_ATOMIC_SUPPORTED, 0},
    {CU_DEVICE_ATTRIBUTE_CAN_USE_HOST_POINTER_FOR_REGISTERED_MEM, 0},
    {CU_DEVICE_ATTRIBUTE_READ_ONLY_HOST_REGISTER_SUPPORTED, 0},
    {CU_DEVICE_ATTRIBUTE_CAN_USE_STREAM_MEM_OPS_V1, 0},
    {CU_DEVICE_ATTRIBUTE_CAN_USE_64_BIT_STREAM_MEM_OPS_V1, 0},
    {CU_DEVICE_ATTRIBUTE_CAN_USE_STREAM_WAIT_VALUE_NOR_V1, 0},
    {CU_DEVICE_ATTRIBUTE_CAN_USE_64_BIT_STREAM_MEM_OPS, 0},
    {CU_DEVICE_ATTRIBUTE_CAN_USE_STREAM_WAIT_VALUE_NOR, 0},
    {CU_DEVICE_ATTRIBUTE_COOPERATIVE_MULTI_DEVICE_LAUNCH, 0},
    {CU_DEVICE_ATTRIBUTE_CAN_FLUSH_REMOTE_WRITES, 0},
    {CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED, 1},
    {CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_WIN32_HANDLE_SUPPORTED, 0},
    {CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_WIN32_KMT_HANDLE_SUPPORTED, 0},
    {CU_DEVICE_ATTRIBUTE_GENERIC_COMPRESSION_SUPPORTED, 0},
    {CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_SUPPORTED, 0},
    {CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WITH_CUDA_VMM_SUPPORTED, 0},
    {CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_FLUSH_WRITES_OPTIONS, 0},
    {CU_DEVICE_ATTRIBUTE_SPARSE_CUDA_ARRAY_SUPPORTED, 0},
    {CU_DEVICE_ATTRIBUTE_TIMELINE_SEMAPHORE_INTEROP_SUPPORTED, 0},
    {CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED, 1},
    {CU_DEVICE_ATTRIBUTE_DEFERRED_MAPPING_CUDA_ARRAY_SUPPORTED, 0},
    {CU_DEVICE_ATTRIBUTE_IPC_EVENT_SUPPORTED, 1},
    {CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_FABRIC_SUPPORTED, 0},
    {CU_DEVICE_ATTRIBUTE_UNIFIED_FUNCTION_POINTERS, 0},
    {CU_DEVICE_ATTRIBUTE_NUMA_CONFIG, 0},
    {CU_DEVICE_ATTRIBUTE_NUMA_ID, -1},
    {CU_DEVICE_ATTRIBUTE_MULTICAST_SUPPORTED, 0},
    {CU_DEVICE_ATTRIBUTE_HOST_NUMA_ID, -1},
    {CU_DEVICE_ATTRIBUTE_MEM_DECOMPRESS_ALGORITHM_MASK, 0},
    {CU_DEVICE_ATTRIBUTE_MEM_DECOMPRESS_MAXIMUM_LENGTH, 0},
    {CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING, 1},
    {CU_DEVICE_ATTRIBUTE_HOST_REGISTER_SUPPORTED, 1},
};

CUresult hook_primary(CUcontext* context, CUdevice device) {
  Process* p = process();
  if (p == nullptr) return CUDA_ERROR_NOT_INITIALIZED;
  if (p->device(device) == nullptr) return CUDA_ERROR_INVALID_DEVICE;
  *context = reinterpret_cast<CUcontext>(p->device(device)->primary->handle);
  return CUDA_SUCCESS;
}

CUresult hook_current(CUcontext* context) {
  *context = reinterpret_cast<CUcontext>(current_context_handle());
  return CUDA_SUCCESS;
}

CUresult hook_context_id(CUcontext handle, unsigned long long* id) {
  Process* p = process();
  if (p == nullptr) return CUDA_ERROR_NOT_INITIALIZED;
  const uint64_t current = current_context_handle();
  const Context* context = handle == nullptr ? p->contexts.find(current) : p->contexts.find(handle);
  if (context == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  *id = context->id;
  return CUDA_SUCCESS;
}

CUresult hook_stream_id(CUcontext handle, CUstream stream_handle, unsigned long long* id) {
  Entered e;
  if (CUresult r = enter_quietly(&e); r != CUDA_SUCCESS) return r;
  if (handle != nullptr) {
    e.context = e.process->contexts.find(handle);
    if (e.context == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
    e.vgpu = e.context->vgpu;
  }
  Stream* stream = nullptr;
  if (CUresult r = find_stream(e, stream_handle, &stream); r != CUDA_SUCCESS) return r;
  *id = stream->id;
  return CUDA_SUCCESS;
}

int hook_driver_version() {
  Process* p = process();
  return p == nullptr ? CUDA_VERSION : p->driver_version;
}

int hook_device_count() {
  Process* p = process();
  return p == nullptr ? 0 : int(p->devices.size());
}

void hook_identity(int device, uint8_t uuid[16], int32_t pci[3]) {
  Process* p = process();
  if (p == nullptr || p->device(device) == nullptr) return;
  const DeviceInfo& info = p->device(device)->info;
  memcpy(uuid, info.uuid, sizeof info.uuid);
  pci[0] = info.attributes[CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID];
  pci[1] = info.attributes[CU_DEVICE_ATTRIBUTE_PCI_BUS_ID];
  pci[2] = info.attributes[CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID];
}

}  // namespace

std::vector<uint32_t> visible_devices(const char* variable, const std::vector<VgpuPlace>& places) {
  std::vector<const uint8_t*> uuids;
  for (const VgpuPlace& place : places) uuids.push_back(place.info.uuid);
  return composed::visible_devices(variable, uuids);
}

void hide_what_is_not_served(DeviceInfo* info, bool one_memory) {
  // A mirror belongs to one vGPU, and follows a little later.
  if (!one_memory) info->attributes[CU_DEVICE_ATTRIBUTE_CONCURRENT_MANAGED_ACCESS] = 0;
  for (const Shown& shown : kShown) {
    info->attributes[shown.attribute] = shown.value;
    info->attribute_known[shown.attribute] = 1;
  }
  const int types = shares_memory(*info) ? CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR : CU_MEM_HANDLE_TYPE_NONE;
  info->attributes[CU_DEVICE_ATTRIBUTE_MEMPOOL_SUPPORTED_HANDLE_TYPES] = types;
  info->attribute_known[CU_DEVICE_ATTRIBUTE_MEMPOOL_SUPPORTED_HANDLE_TYPES] = 1;
}

bool shares_memory(const DeviceInfo& info) {
  return info.attributes[CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED] != 0;
}

void install_hooks() {
  handshake::set_hooks({.primary_context = hook_primary,
                        .current_context = hook_current,
                        .context_id = hook_context_id,
                        .stream_id = hook_stream_id,
                        .driver_version = hook_driver_version,
                        .device_count = hook_device_count,
                        .load_fat_binary = entry_load_fat_binary,
                        .function_count = entry_function_count,
                        .list_functions = entry_list_functions,
                        .device_identity = hook_identity});
}

}  // namespace tide
