#include "interpose/identity.h"

#include <cuda.h>

#include <cstdlib>
#include <cstring>

#include "api/handshake/handshake.h"
#include "base/log.h"
#include "interpose/process.h"
#include "interpose/thread.h"

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
    {CU_DEVICE_ATTRIBUTE_TENSOR_MAP_ACCESS_SUPPORTED, 0},
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

int& pci_domain(DeviceInfo& info) { return info.attributes[CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID]; }

bool same_pci(DeviceInfo& a, DeviceInfo& b) {
  return pci_domain(a) == pci_domain(b) &&
         a.attributes[CU_DEVICE_ATTRIBUTE_PCI_BUS_ID] == b.attributes[CU_DEVICE_ATTRIBUTE_PCI_BUS_ID] &&
         a.attributes[CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID] == b.attributes[CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID];
}

bool matches_uuid(const std::string& wanted, const DeviceInfo& info) {
  return wanted.size() > 4 && uuid_text(info.uuid).compare(0, wanted.size(), wanted) == 0;
}

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

void make_distinct(std::vector<VgpuPlace>* places) {
  for (size_t i = 0; i < places->size(); ++i) {
    DeviceInfo& info = (*places)[i].info;
    for (size_t j = 0; j < i; ++j) {
      DeviceInfo& other = (*places)[j].info;
      if (memcmp(info.uuid, other.uuid, sizeof info.uuid) == 0) {
        info.uuid[14] ^= uint8_t(0xA5);
        info.uuid[15] = uint8_t(info.uuid[15] + i);
        j = size_t(-1);  // look at all again
        continue;
      }
      if (same_pci(info, other)) {
        pci_domain(info) = 0x100 + int(i);
        j = size_t(-1);
      }
    }
  }
}

std::string uuid_text(const uint8_t uuid[16]) {
  std::string text = "GPU-";
  for (int i = 0; i < 16; ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    text += format("%02x", uuid[i]);
  }
  return text;
}

std::vector<uint32_t> visible_devices(const char* variable, const std::vector<VgpuPlace>& places) {
  std::vector<uint32_t> result;
  if (variable == nullptr) {
    for (uint32_t i = 0; i < places.size(); ++i) result.push_back(i);
    return result;
  }
  const std::string text = variable;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find(',', at), text.size());
    const std::string item = text.substr(at, end - at);
    at = end + 1;
    uint32_t number = kVgpusMax;
    if (item.compare(0, 4, "GPU-") == 0) {
      for (uint32_t i = 0; i < places.size() && number == kVgpusMax; ++i) {
        if (matches_uuid(item, places[i].info)) number = i;
      }
    } else {
      char* rest = nullptr;
      const long value = strtol(item.c_str(), &rest, 10);
      if (rest != item.c_str() && value >= 0 && value < long(kVgpusMax)) number = uint32_t(value);
    }
    // The driver's rule: an invalid or repeated entry hides itself and all that follow.
    if (number >= places.size()) break;
    for (const uint32_t seen : result) {
      if (seen == number) return {};
    }
    result.push_back(number);
  }
  return result;
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
                        .load_fat_binary = cuModuleLoadFatBinary,
                        .device_identity = hook_identity});
}

}  // namespace tide
