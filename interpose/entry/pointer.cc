// What is known of a pointer.

#include <cstring>

#include "interpose/entry/entry.h"
#include "interpose/identity.h"

using namespace tide;

namespace {

struct Known {
  bool device = false, host = false, managed = false;
  Vgpu* vgpu = nullptr;
  Allocation allocation;
  uint64_t base = 0, bytes = 0, id = 0, context = 0, on_device = 0;
};

Known look_up(Process& p, CUdeviceptr address) {
  Known k;
  if (HostBlock block; p.host.find(address, &block)) {
    k.device = k.managed = block.managed();
    k.host = true;
    k.vgpu = block.home;
    k.base = block.host;
    k.bytes = block.bytes;
    k.id = block.id;
    k.context = block.context;
    k.on_device = block.device == 0 ? 0 : block.device + block.offset_of(address);
    return k;
  }
  k.on_device = address;
  k.vgpu = p.vgpu_of(address);
  if (k.vgpu != nullptr && k.vgpu->is_open() && k.vgpu->memory->find(address, &k.allocation)) {
    k.device = true;
    k.base = k.allocation.base;
    k.bytes = k.allocation.bytes;
    k.id = k.allocation.id;
    k.context = k.vgpu->primary->handle;
    if (k.vgpu->primary->number.load() != k.allocation.context) {
      p.contexts.each([&](const Context* c) {
        if (c->vgpu == k.vgpu && c->number.load() == k.allocation.context) k.context = c->handle;
      });
    }
  }
  return k;
}

// Of registered memory, which kernels reach from the moment at which somebody asks where.
uint64_t device_pointer(Process& p, CUdeviceptr address) {
  Entered e;
  uint64_t device = 0;
  if (enter(&e) != CUDA_SUCCESS || p.host.attach(*e.context, address, &device) != CUDA_SUCCESS) return 0;
  return device;
}

int ordinal_of(Process& p, const Known& k) {
  if (k.device) return k.vgpu->ordinal;
  const Context* context = p.contexts.find(k.context);
  return context == nullptr ? 0 : context->vgpu->ordinal;
}

template <class T>
CUresult put(void* data, T value) {
  memcpy(data, &value, sizeof value);
  return CUDA_SUCCESS;
}

// Of a known pointer.
CUresult answer(Process& p, const Known& k, CUpointer_attribute attribute, CUdeviceptr address, void* data) {
  switch (attribute) {
    case CU_POINTER_ATTRIBUTE_CONTEXT:
      return put(data, k.context);
    case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
      return put(data, uint32_t(k.device ? CU_MEMORYTYPE_DEVICE : CU_MEMORYTYPE_HOST));
    case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:
      return put(data, k.on_device != 0 ? k.on_device : device_pointer(p, address));
    case CU_POINTER_ATTRIBUTE_HOST_POINTER:
      return k.host ? put(data, p.host.on_host(address)) : CUDA_ERROR_INVALID_VALUE;
    case CU_POINTER_ATTRIBUTE_BUFFER_ID:
      return put(data, k.id);
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
      return put(data, int32_t(ordinal_of(p, k)));
    case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
      return put(data, k.base);
    case CU_POINTER_ATTRIBUTE_RANGE_SIZE:
      return put(data, k.bytes);
    case CU_POINTER_ATTRIBUTE_MAPPED:
      return put(data, uint32_t(1));
    case CU_POINTER_ATTRIBUTE_ACCESS_FLAGS:
      return put(data, uint32_t(CU_POINTER_ATTRIBUTE_ACCESS_FLAG_READWRITE));
    case CU_POINTER_ATTRIBUTE_IS_MANAGED:
      return put(data, uint32_t(k.managed));
    case CU_POINTER_ATTRIBUTE_SYNC_MEMOPS:
      return put(data, uint32_t(k.allocation.synchronous));
    case CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES:
    case CU_POINTER_ATTRIBUTE_IS_GPU_DIRECT_RDMA_CAPABLE:
    case CU_POINTER_ATTRIBUTE_IS_HW_DECOMPRESS_CAPABLE:
      return put(data, uint32_t(0));
    case CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE: {
      const bool plain = k.device && !k.managed && !k.allocation.mapped && p.pools.of(k.base) == nullptr;
      return put(data, uint32_t(plain && shares_memory(k.vgpu->info)));
    }
    case CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE: {
      const MemoryPool* pool = p.pools.of(k.base);
      return put(data, pool == nullptr ? uint64_t(0) : pool->handle);
    }
    case CU_POINTER_ATTRIBUTE_MAPPING_SIZE:
    case CU_POINTER_ATTRIBUTE_MAPPING_BASE_ADDR:
    case CU_POINTER_ATTRIBUTE_MEMORY_BLOCK_ID:
      return put(data, uint64_t(0));
    case CU_POINTER_ATTRIBUTE_P2P_TOKENS:
      return CUDA_ERROR_NOT_SUPPORTED;
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
}

// cuPointerGetAttributes answers for pointers that nobody knows: zeros, and device -2.
void answer_unknown(CUpointer_attribute attribute, void* data) {
  switch (attribute) {
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
      put(data, int32_t(-2));
      return;
    case CU_POINTER_ATTRIBUTE_CONTEXT:
    case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:
    case CU_POINTER_ATTRIBUTE_HOST_POINTER:
    case CU_POINTER_ATTRIBUTE_BUFFER_ID:
    case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
    case CU_POINTER_ATTRIBUTE_RANGE_SIZE:
    case CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE:
    case CU_POINTER_ATTRIBUTE_MAPPING_SIZE:
    case CU_POINTER_ATTRIBUTE_MAPPING_BASE_ADDR:
    case CU_POINTER_ATTRIBUTE_MEMORY_BLOCK_ID:
      put(data, uint64_t(0));
      return;
    case CU_POINTER_ATTRIBUTE_P2P_TOKENS:
      put(data, CUDA_POINTER_ATTRIBUTE_P2P_TOKENS{});
      return;
    default:
      put(data, uint32_t(0));
  }
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

CUresult cuPointerGetAttribute(void* data, CUpointer_attribute attribute, CUdeviceptr address) {
  Process* p = process();
  if (p == nullptr) return CUDA_ERROR_NOT_INITIALIZED;
  if (data == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const Known k = look_up(*p, address);
  if (!k.device && !k.host) return CUDA_ERROR_INVALID_VALUE;
  return answer(*p, k, attribute, address, data);
}

CUresult cuPointerGetAttributes(unsigned int count, CUpointer_attribute* attributes, void** data, CUdeviceptr address) {
  Process* p = process();
  if (p == nullptr) return CUDA_ERROR_NOT_INITIALIZED;
  if (count == 0 || attributes == nullptr || data == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const Known k = look_up(*p, address);
  for (unsigned i = 0; i < count; ++i) {
    if (attributes[i] < CU_POINTER_ATTRIBUTE_CONTEXT || attributes[i] > CU_POINTER_ATTRIBUTE_IS_HW_DECOMPRESS_CAPABLE) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    if (data[i] == nullptr) return CUDA_ERROR_INVALID_VALUE;
    const bool known = k.device || k.host;
    if (!known || answer(*p, k, attributes[i], address, data[i]) != CUDA_SUCCESS)
      answer_unknown(attributes[i], data[i]);
  }
  return CUDA_SUCCESS;
}

CUresult cuPointerSetAttribute(const void* value, CUpointer_attribute attribute, CUdeviceptr address) {
  Process* p = process();
  if (p == nullptr) return CUDA_ERROR_NOT_INITIALIZED;
  if (value == nullptr || attribute != CU_POINTER_ATTRIBUTE_SYNC_MEMOPS) return CUDA_ERROR_INVALID_VALUE;
  uint32_t on = 0;
  memcpy(&on, value, sizeof on);
  Vgpu* vgpu = p->vgpu_of(address);
  if (vgpu == nullptr || !vgpu->is_open()) return CUDA_ERROR_INVALID_VALUE;
  return vgpu->memory->set_synchronous(address, on != 0);
}

}  // extern "C"
#pragma GCC visibility pop
