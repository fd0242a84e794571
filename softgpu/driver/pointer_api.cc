// Entry points: what is known of a pointer.

#include <cstring>

#include "softgpu/driver/driver.h"

using namespace softgpu;  // an entry point is C; everything it uses is ours

namespace {

constexpr int kNoDevice = -2;  // as the driver answers for pointers it does not know

template <typename T>
CUresult give(void* data, T value) {
  std::memcpy(data, &value, sizeof(value));
  return CUDA_SUCCESS;
}

// What may be handed to another process, as a mask of CUmemAllocationHandleType.
uint32_t handle_types(const Range& range) {
  if (range.physical != nullptr) return range.physical->properties.requestedHandleTypes;
  return range.pool != nullptr ? range.pool->properties.handleTypes : 0;
}

// Whether the current context's device may touch it; without one, its own.
bool reachable(const Range& range) {
  const auto context = current_or_null();
  const int device = context == nullptr ? range.device->index : context->device.index;
  switch (range.kind) {
    case RangeKind::kMapped:
      return (range.access & only(device)) != 0;
    case RangeKind::kPooled:
      return (driver().memory.use_of(*range.pool).seen_by & only(device)) != 0;
    case RangeKind::kDevice:
    case RangeKind::kImage:
      return range.advice != nullptr || driver().memory.views().peer(device, range.device->index);
    default:
      return true;
  }
}

// Where the kernels of the current context find it.
CUresult give_device_pointer(void* data, uint64_t address, const Range& range) {
  return reachable(range) || range.on_device() ? give(data, address) : CUDA_ERROR_INVALID_VALUE;
}

CUresult get_attribute(void* data, CUpointer_attribute attribute, uint64_t address, const Range& range) {
  const bool managed = range.advice != nullptr;
  const bool on_device = !range.on_host();
  switch (attribute) {
    case CU_POINTER_ATTRIBUTE_CONTEXT:
      return give(data, range.context == nullptr ? nullptr : range.context->handle);
    case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
      return give<uint32_t>(data, on_device ? CU_MEMORYTYPE_DEVICE : CU_MEMORYTYPE_HOST);
    case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:
      return give_device_pointer(data, address, range);
    case CU_POINTER_ATTRIBUTE_HOST_POINTER:
      return on_device && !managed ? CUDA_ERROR_INVALID_VALUE : give(data, address);
    case CU_POINTER_ATTRIBUTE_SYNC_MEMOPS:
      return give<uint32_t>(data, range.sync_memops);
    case CU_POINTER_ATTRIBUTE_BUFFER_ID:
    case CU_POINTER_ATTRIBUTE_MEMORY_BLOCK_ID:
      return give(data, range.buffer_id);
    case CU_POINTER_ATTRIBUTE_IS_MANAGED:
      return give<uint32_t>(data, managed);
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
      return give<int32_t>(data, range.device->index);
    case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
      return give(data, range.address);
    case CU_POINTER_ATTRIBUTE_RANGE_SIZE:
      return give(data, range.bytes);
    case CU_POINTER_ATTRIBUTE_MAPPING_BASE_ADDR:
      return give(data, range.address - (range.kind == RangeKind::kMapped ? 0 : range.backing_offset));
    case CU_POINTER_ATTRIBUTE_MAPPING_SIZE:
      return give(data,
                  range.backing == nullptr || range.kind == RangeKind::kMapped ? range.bytes : range.backing->bytes);
    case CU_POINTER_ATTRIBUTE_MAPPED:
      return give<uint32_t>(data, range.access != 0);
    case CU_POINTER_ATTRIBUTE_ACCESS_FLAGS:
      return give<uint32_t>(data, reachable(range) ? CU_POINTER_ATTRIBUTE_ACCESS_FLAG_READWRITE : 0);
    case CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE:
      return give<CUmemoryPool>(data, range.pool == nullptr ? nullptr : range.pool->handle);
    case CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE:
      return give<uint32_t>(data, range.kind == RangeKind::kDevice);
    case CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES:
      return give<uint32_t>(data, handle_types(range));
    case CU_POINTER_ATTRIBUTE_IS_GPU_DIRECT_RDMA_CAPABLE:
    case CU_POINTER_ATTRIBUTE_IS_HW_DECOMPRESS_CAPABLE:
      return give<uint32_t>(data, 0);
    case CU_POINTER_ATTRIBUTE_P2P_TOKENS:
      return CUDA_ERROR_NOT_SUPPORTED;
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
}

CUresult get_of_unknown(void* data, CUpointer_attribute attribute) {
  switch (attribute) {
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
      return give<int32_t>(data, kNoDevice);
    case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
    case CU_POINTER_ATTRIBUTE_SYNC_MEMOPS:
    case CU_POINTER_ATTRIBUTE_IS_MANAGED:
    case CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE:
    case CU_POINTER_ATTRIBUTE_MAPPED:
    case CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES:
    case CU_POINTER_ATTRIBUTE_IS_GPU_DIRECT_RDMA_CAPABLE:
    case CU_POINTER_ATTRIBUTE_ACCESS_FLAGS:
    case CU_POINTER_ATTRIBUTE_IS_HW_DECOMPRESS_CAPABLE:
      return give<uint32_t>(data, 0);
    case CU_POINTER_ATTRIBUTE_P2P_TOKENS:
      return CUDA_ERROR_INVALID_VALUE;
    default:
      return give<uint64_t>(data, 0);
  }
}

}  // namespace

extern "C" CUresult cuPointerGetAttribute(void* data, CUpointer_attribute attribute, CUdeviceptr address) {
  return guarded([&]() -> CUresult {
    if (data == nullptr) return CUDA_ERROR_INVALID_VALUE;
    const auto range = driver().memory.find(address);
    return range ? get_attribute(data, attribute, address, *range) : CUDA_ERROR_INVALID_VALUE;
  });
}

extern "C" CUresult cuPointerGetAttributes(unsigned int count, CUpointer_attribute* attributes, void** data,
                                           CUdeviceptr address) {
  return guarded([&]() -> CUresult {
    if (count == 0 || attributes == nullptr || data == nullptr) return CUDA_ERROR_INVALID_VALUE;
    const auto range = driver().memory.find(address);
    for (unsigned i = 0; i < count; ++i) {
      if (data[i] == nullptr) return CUDA_ERROR_INVALID_VALUE;
      CUresult result = range ? get_attribute(data[i], attributes[i], address, *range) : CUDA_ERROR_INVALID_VALUE;
      // What does not apply to this pointer is zero here, where the single query fails.
      if (result != CUDA_SUCCESS) result = get_of_unknown(data[i], attributes[i]);
      if (result != CUDA_SUCCESS) return result;
    }
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuPointerSetAttribute(const void* value, CUpointer_attribute attribute, CUdeviceptr address) {
  return guarded([&]() -> CUresult {
    if (value == nullptr || attribute != CU_POINTER_ATTRIBUTE_SYNC_MEMOPS) return CUDA_ERROR_INVALID_VALUE;
    uint32_t on = 0;
    std::memcpy(&on, value, sizeof(on));
    return driver().memory.set_sync_memops(address, on != 0);
  });
}
