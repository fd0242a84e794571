// Entry points: allocation and registration of memory.

#include "api/graph/memory.h"
#include "softgpu/driver/driver.h"
#include "softgpu/driver/graph_host.h"
#include "softgpu/driver/pool_table.h"

using namespace softgpu;  // an entry point is C; everything it uses is ours

namespace {

constexpr size_t kPitchAlignment = 512;

CUresult allocate_host(void** pointer, size_t bytes, unsigned flags) {
  return in_context([&](Context& context) -> CUresult {
    constexpr unsigned kKnown = CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP | CU_MEMHOSTALLOC_WRITECOMBINED;
    if (pointer == nullptr || bytes == 0 || (flags & ~kKnown) != 0) return CUDA_ERROR_INVALID_VALUE;
    if (const CUresult unsafe = tide::graph::unsafe_call(); unsafe != CUDA_SUCCESS) return unsafe;
    return driver().memory.allocate_pinned(context, bytes, flags, pointer);
  });
}

// The range that begins at an address, of a kind that a free call may take.
template <typename Accept>
CUresult wait_for_uses(uint64_t address, Accept accept, CUresult otherwise) {
  const auto range = driver().memory.find(address);
  if (!range || (range->address != address && range->kind != RangeKind::kImported) || !accept(range->kind)) {
    return otherwise;
  }
  if (range->context != nullptr) {
    range->context->synchronize();
  } else {  // of no context: whoever may use it
    synchronize_all();
  }
  return CUDA_SUCCESS;
}

bool freeable(RangeKind kind) {
  return kind == RangeKind::kDevice || kind == RangeKind::kManaged || kind == RangeKind::kPooled ||
         kind == RangeKind::kImported;
}

}  // namespace

extern "C" CUresult cuMemGetInfo_v2(size_t* free, size_t* total) {
  return in_context([&](Context& context) -> CUresult {
    if (free == nullptr || total == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *total = context.device.memory_bytes;
    *free = context.device.memory_bytes - context.device.used();
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuMemAlloc_v2(CUdeviceptr* address, size_t bytes) {
  return in_context([&](Context& context) -> CUresult {
    if (address == nullptr || bytes == 0) return CUDA_ERROR_INVALID_VALUE;
    if (const CUresult unsafe = tide::graph::unsafe_call(); unsafe != CUDA_SUCCESS) return unsafe;
    uint64_t place = 0;
    CUresult result = driver().memory.allocate(context, bytes, &place);
    if (result == CUDA_ERROR_OUT_OF_MEMORY && trim_pools_of(context.device)) {
      result = driver().memory.allocate(context, bytes, &place);
    }
    if (result == CUDA_SUCCESS) *address = place;
    return result;
  });
}

extern "C" CUresult cuMemAllocPitch_v2(CUdeviceptr* address, size_t* pitch, size_t width, size_t height,
                                       unsigned int element_bytes) {
  if (pitch == nullptr || width == 0 || height == 0) return CUDA_ERROR_INVALID_VALUE;
  if (element_bytes != 4 && element_bytes != 8 && element_bytes != 16) return CUDA_ERROR_INVALID_VALUE;
  const size_t row = (width + kPitchAlignment - 1) / kPitchAlignment * kPitchAlignment;
  if (row < width || height > kWindowBytes / row) return CUDA_ERROR_OUT_OF_MEMORY;
  const CUresult result = cuMemAlloc_v2(address, row * height);
  if (result == CUDA_SUCCESS) *pitch = row;
  return result;
}

extern "C" CUresult cuMemFree_v2(CUdeviceptr address) {
  return in_context([&](Context&) -> CUresult {
    if (address == 0) return CUDA_SUCCESS;
    if (const CUresult unsafe = tide::graph::unsafe_call(); unsafe != CUDA_SUCCESS) return unsafe;
    if (tide::graph::is_memory(address))
      return tide::graph::unuse_memory(address) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
    const CUresult result = wait_for_uses(address, freeable, CUDA_ERROR_INVALID_VALUE);
    return result != CUDA_SUCCESS ? result : driver().memory.free_device(address);
  });
}

extern "C" CUresult cuMemGetAddressRange_v2(CUdeviceptr* base, size_t* bytes, CUdeviceptr address) {
  return in_context([&](Context&) -> CUresult {
    const auto range = driver().memory.find(address);
    if (!range) return CUDA_ERROR_NOT_FOUND;
    if (base != nullptr) *base = range->address;
    if (bytes != nullptr) *bytes = range->bytes;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuMemAllocHost_v2(void** pointer, size_t bytes) { return allocate_host(pointer, bytes, 0); }

extern "C" CUresult cuMemHostAlloc(void** pointer, size_t bytes, unsigned int flags) {
  return allocate_host(pointer, bytes, flags);
}

extern "C" CUresult cuMemFreeHost(void* pointer) {
  return in_context([&](Context&) -> CUresult {
    const auto pinned = [](RangeKind kind) { return kind == RangeKind::kPinned; };
    const CUresult result = wait_for_uses(reinterpret_cast<uint64_t>(pointer), pinned, CUDA_ERROR_INVALID_VALUE);
    return result != CUDA_SUCCESS ? result : driver().memory.free_host(pointer);
  });
}

extern "C" CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr* address, void* pointer, unsigned int flags) {
  return in_context([&](Context&) -> CUresult {
    if (address == nullptr || flags != 0) return CUDA_ERROR_INVALID_VALUE;
    const auto range = driver().memory.find(reinterpret_cast<uint64_t>(pointer));
    if (!range || !range->on_host()) return CUDA_ERROR_INVALID_VALUE;
    *address = reinterpret_cast<CUdeviceptr>(pointer);
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuMemHostGetFlags(unsigned int* flags, void* pointer) {
  return in_context([&](Context&) -> CUresult {
    const auto range = driver().memory.find(reinterpret_cast<uint64_t>(pointer));
    if (flags == nullptr || !range || range->kind != RangeKind::kPinned) return CUDA_ERROR_INVALID_VALUE;
    *flags = range->host_flags | CU_MEMHOSTALLOC_DEVICEMAP;  // implied by unified addressing
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuMemHostRegister_v2(void* pointer, size_t bytes, unsigned int flags) {
  return in_context([&](Context& context) -> CUresult {
    constexpr unsigned kKnown = CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP |
                                CU_MEMHOSTREGISTER_IOMEMORY | CU_MEMHOSTREGISTER_READ_ONLY;
    if (pointer == nullptr || bytes == 0 || (flags & ~kKnown) != 0) return CUDA_ERROR_INVALID_VALUE;
    if ((flags & (CU_MEMHOSTREGISTER_IOMEMORY | CU_MEMHOSTREGISTER_READ_ONLY)) != 0) return CUDA_ERROR_NOT_SUPPORTED;
    return driver().memory.register_host(context, pointer, bytes, flags);
  });
}

extern "C" CUresult cuMemHostUnregister(void* pointer) {
  return in_context([&](Context&) -> CUresult {
    const auto registered = [](RangeKind kind) { return kind == RangeKind::kRegistered; };
    const CUresult result =
        wait_for_uses(reinterpret_cast<uint64_t>(pointer), registered, CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED);
    return result != CUDA_SUCCESS ? result : driver().memory.unregister_host(pointer);
  });
}
