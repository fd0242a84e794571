// Entry points: copies of rectangles and boxes, and copies from and to arrays.

#include <cstring>

#include "api/box.h"
#include "softgpu/driver/copy.h"
#include "softgpu/driver/driver.h"

using namespace softgpu;  // an entry point is C; everything it uses is ours

namespace {

CUresult copy_box(const CUDA_MEMCPY3D& what, CUstream stream_handle, Wait wait) {
  return on_stream(stream_handle, [&](Context& context, const std::shared_ptr<Stream>& stream) -> CUresult {
    CopyRect rect;
    const CUresult result = resolve_copy(what, &rect);
    return result != CUDA_SUCCESS ? result : copy_rect(context, stream, rect, wait, &what);
  });
}

CUresult copy_2d(const CUDA_MEMCPY2D* copy, CUstream stream, Wait wait) {
  return copy == nullptr ? CUDA_ERROR_INVALID_VALUE : copy_box(tide::as_3d(*copy), stream, wait);
}

CUresult copy_3d(const CUDA_MEMCPY3D* copy, CUstream stream, Wait wait) {
  return copy == nullptr ? CUDA_ERROR_INVALID_VALUE : copy_box(*copy, stream, wait);
}

bool usable(CUcontext handle) {
  const auto context = driver().contexts.find(handle);
  return context != nullptr && context->alive;
}

CUresult copy_peer(const CUDA_MEMCPY3D_PEER* copy, CUstream stream, Wait wait) {
  if (copy == nullptr) return CUDA_ERROR_INVALID_VALUE;
  return in_context([&](Context&) -> CUresult {
    if (copy->srcMemoryType == CU_MEMORYTYPE_DEVICE && !usable(copy->srcContext)) return CUDA_ERROR_INVALID_CONTEXT;
    if (copy->dstMemoryType == CU_MEMORYTYPE_DEVICE && !usable(copy->dstContext)) return CUDA_ERROR_INVALID_CONTEXT;
    CUDA_MEMCPY3D what = {};
    static_assert(sizeof(what) == sizeof(*copy));  // the same, with contexts where that has reserved pointers
    std::memcpy(&what, copy, sizeof(what));
    what.reserved0 = what.reserved1 = nullptr;
    return copy_box(what, stream, wait);
  });
}

// `bytes` bytes from an offset on, through all rows of an array.
CUresult array_bytes(CUarray handle, size_t offset, size_t bytes, uint64_t* address) {
  const auto array = driver().arrays.find(handle);
  if (array == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  const uint64_t size = array->bytes(), element = array->format.bytes();
  if (offset > size || bytes > size - offset) return CUDA_ERROR_INVALID_VALUE;
  if (offset % element != 0 || bytes % element != 0) return CUDA_ERROR_INVALID_VALUE;
  *address = array->level.address + offset;
  return CUDA_SUCCESS;
}

struct LinearSide {
  CUarray array = nullptr;  // null: `address` is meant
  uint64_t address = 0;     // or the offset in the array
};

CUresult copy_linear(const LinearSide& to, const LinearSide& from, size_t bytes, CUstream stream_handle, Wait wait) {
  return on_stream(stream_handle, [&](Context& context, const std::shared_ptr<Stream>& stream) -> CUresult {
    CopyRect rect{to.address, bytes, from.address, bytes, bytes, 1, 1, bytes, bytes};
    CUresult result = CUDA_SUCCESS;
    if (to.array != nullptr) result = array_bytes(to.array, to.address, bytes, &rect.destination);
    if (result != CUDA_SUCCESS) return result;
    if (from.array != nullptr) result = array_bytes(from.array, from.address, bytes, &rect.source);
    return result != CUDA_SUCCESS ? result : copy_rect(context, stream, rect, wait);
  });
}

uint64_t number(const void* pointer) { return reinterpret_cast<uint64_t>(pointer); }

}  // namespace

extern "C" CUresult cuMemcpy2D_v2(const CUDA_MEMCPY2D* copy) { return copy_2d(copy, nullptr, Wait::kForHost); }

extern "C" CUresult cuMemcpy2DUnaligned_v2(const CUDA_MEMCPY2D* copy) { return copy_2d(copy, nullptr, Wait::kForHost); }

extern "C" CUresult cuMemcpy2DAsync_v2(const CUDA_MEMCPY2D* copy, CUstream stream) {
  return copy_2d(copy, stream, Wait::kForPageable);
}

extern "C" CUresult cuMemcpy3D_v2(const CUDA_MEMCPY3D* copy) { return copy_3d(copy, nullptr, Wait::kForHost); }

extern "C" CUresult cuMemcpy3DAsync_v2(const CUDA_MEMCPY3D* copy, CUstream stream) {
  return copy_3d(copy, stream, Wait::kForPageable);
}

extern "C" CUresult cuMemcpy3DPeer(const CUDA_MEMCPY3D_PEER* copy) { return copy_peer(copy, nullptr, Wait::kForHost); }

extern "C" CUresult cuMemcpy3DPeerAsync(const CUDA_MEMCPY3D_PEER* copy, CUstream stream) {
  return copy_peer(copy, stream, Wait::kForPageable);
}

extern "C" CUresult cuMemcpyDtoA_v2(CUarray to, size_t offset, CUdeviceptr from, size_t bytes) {
  if (to == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  return copy_linear({to, offset}, {nullptr, from}, bytes, nullptr, Wait::kForHost);
}

extern "C" CUresult cuMemcpyAtoD_v2(CUdeviceptr to, CUarray from, size_t offset, size_t bytes) {
  if (from == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  return copy_linear({nullptr, to}, {from, offset}, bytes, nullptr, Wait::kForHost);
}

extern "C" CUresult cuMemcpyHtoA_v2(CUarray to, size_t offset, const void* from, size_t bytes) {
  if (to == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  return copy_linear({to, offset}, {nullptr, number(from)}, bytes, nullptr, Wait::kForHost);
}

extern "C" CUresult cuMemcpyAtoH_v2(void* to, CUarray from, size_t offset, size_t bytes) {
  if (from == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  return copy_linear({nullptr, number(to)}, {from, offset}, bytes, nullptr, Wait::kForHost);
}

extern "C" CUresult cuMemcpyAtoA_v2(CUarray to, size_t to_offset, CUarray from, size_t from_offset, size_t bytes) {
  if (to == nullptr || from == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  return copy_linear({to, to_offset}, {from, from_offset}, bytes, nullptr, Wait::kForHost);
}

extern "C" CUresult cuMemcpyHtoAAsync_v2(CUarray to, size_t offset, const void* from, size_t bytes, CUstream stream) {
  if (to == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  return copy_linear({to, offset}, {nullptr, number(from)}, bytes, stream, Wait::kForPageable);
}

extern "C" CUresult cuMemcpyAtoHAsync_v2(void* to, CUarray from, size_t offset, size_t bytes, CUstream stream) {
  if (from == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  return copy_linear({nullptr, number(to)}, {from, offset}, bytes, stream, Wait::kForPageable);
}
