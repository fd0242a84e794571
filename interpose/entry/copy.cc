// Copies. The directions in the names are promises about the addresses; unified addressing tells them anyway.

#include "api/box.h"
#include "interpose/array.h"
#include "interpose/entry/entry.h"
#include "interpose/transfer.h"

using namespace tide;

namespace {

uint64_t word(const void* pointer) { return reinterpret_cast<uint64_t>(pointer); }

CopyOrder flat(uint64_t to, uint64_t from, uint64_t bytes) {
  return {.to = {to, bytes}, .from = {from, bytes}, .width = bytes};
}

CUresult copy_now(uint64_t to, uint64_t from, uint64_t bytes) {
  CopyOrder order = flat(to, from, bytes);
  order.synchronous = true;
  return copy(order);
}

CUresult copy_later(uint64_t to, uint64_t from, uint64_t bytes, CUstream stream) {
  CopyOrder order = flat(to, from, bytes);
  order.stream = stream;
  return copy(order);
}

// Whether an address is device memory of this job: what a name promises must be so.
bool on_device(CUdeviceptr address) {
  Process* p = process();
  HostBlock block;
  return p == nullptr || p->vgpu_of(address) != nullptr || p->host.find(address, &block);
}

bool side_address(CUmemorytype type, const void* host, CUdeviceptr device, uint64_t* address) {
  if (type == CU_MEMORYTYPE_ARRAY) return false;
  *address = type == CU_MEMORYTYPE_HOST ? word(host) : device;
  return type == CU_MEMORYTYPE_HOST || type == CU_MEMORYTYPE_DEVICE || type == CU_MEMORYTYPE_UNIFIED;
}

CUresult order_2d(const CUDA_MEMCPY2D* c, CopyOrder* order) {
  if (c == nullptr) return CUDA_ERROR_INVALID_VALUE;
  uint64_t to = 0, from = 0;
  if (!side_address(c->srcMemoryType, c->srcHost, c->srcDevice, &from)) return CUDA_ERROR_INVALID_VALUE;
  if (!side_address(c->dstMemoryType, c->dstHost, c->dstDevice, &to)) return CUDA_ERROR_INVALID_VALUE;
  // A pitch of 0 means rows without gaps.
  const uint64_t to_pitch = c->dstPitch != 0 ? c->dstPitch : c->WidthInBytes + c->dstXInBytes;
  const uint64_t from_pitch = c->srcPitch != 0 ? c->srcPitch : c->WidthInBytes + c->srcXInBytes;
  order->to = {to + c->dstY * to_pitch + c->dstXInBytes, to_pitch};
  order->from = {from + c->srcY * from_pitch + c->srcXInBytes, from_pitch};
  order->width = c->WidthInBytes;
  order->height = c->Height;
  if (order->width == to_pitch && order->width == from_pitch) {  // no gaps: one long row
    order->width *= order->height;
    order->to.pitch = order->from.pitch = order->width;
    order->height = order->width == 0 ? 0 : 1;
  }
  return CUDA_SUCCESS;
}

bool has_array(const CUDA_MEMCPY2D* c) {
  return c != nullptr && (c->srcMemoryType == CU_MEMORYTYPE_ARRAY || c->dstMemoryType == CU_MEMORYTYPE_ARRAY);
}

CUresult between(CUdeviceptr to, CUcontext to_handle, CUdeviceptr from, CUcontext from_handle, CopyOrder order) {
  Process* p = process();
  if (p == nullptr) return CUDA_ERROR_NOT_INITIALIZED;
  Context* to_context = p->contexts.find(to_handle);
  Context* from_context = p->contexts.find(from_handle);
  if (to_context == nullptr || from_context == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  order.to.address = to;
  order.from.address = from;
  return copy_between(*to_context, *from_context, order);
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void* from, size_t bytes) {
  return bytes != 0 && !on_device(to) ? CUDA_ERROR_INVALID_VALUE : copy_now(to, word(from), bytes);
}
CUresult cuMemcpyDtoH_v2(void* to, CUdeviceptr from, size_t bytes) {
  return bytes != 0 && !on_device(from) ? CUDA_ERROR_INVALID_VALUE : copy_now(word(to), from, bytes);
}
CUresult cuMemcpyDtoD_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes) {
  return bytes != 0 && !(on_device(to) && on_device(from)) ? CUDA_ERROR_INVALID_VALUE : copy_now(to, from, bytes);
}
CUresult cuMemcpy(CUdeviceptr to, CUdeviceptr from, size_t bytes) { return copy_now(to, from, bytes); }

CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void* from, size_t bytes, CUstream stream) {
  return bytes != 0 && !on_device(to) ? CUDA_ERROR_INVALID_VALUE : copy_later(to, word(from), bytes, stream);
}
CUresult cuMemcpyDtoHAsync_v2(void* to, CUdeviceptr from, size_t bytes, CUstream stream) {
  return bytes != 0 && !on_device(from) ? CUDA_ERROR_INVALID_VALUE : copy_later(word(to), from, bytes, stream);
}
CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
  return bytes != 0 && !(on_device(to) && on_device(from)) ? CUDA_ERROR_INVALID_VALUE
                                                           : copy_later(to, from, bytes, stream);
}
CUresult cuMemcpyAsync(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
  return copy_later(to, from, bytes, stream);
}

CUresult cuMemcpyPeer(CUdeviceptr to, CUcontext to_context, CUdeviceptr from, CUcontext from_context, size_t bytes) {
  CopyOrder order = flat(to, from, bytes);
  order.synchronous = true;
  return between(to, to_context, from, from_context, order);
}
CUresult cuMemcpyPeerAsync(CUdeviceptr to, CUcontext to_context, CUdeviceptr from, CUcontext from_context, size_t bytes,
                           CUstream stream) {
  CopyOrder order = flat(to, from, bytes);
  order.stream = stream;
  return between(to, to_context, from, from_context, order);
}

CUresult cuMemcpy2D_v2(const CUDA_MEMCPY2D* c) {
  if (has_array(c)) return copy_box(as_3d(*c), {true, nullptr});
  CopyOrder order;
  TIDE_TRY(order_2d(c, &order));
  order.synchronous = true;
  return copy(order);
}
CUresult cuMemcpy2DUnaligned_v2(const CUDA_MEMCPY2D* c) { return cuMemcpy2D_v2(c); }
CUresult cuMemcpy2DAsync_v2(const CUDA_MEMCPY2D* c, CUstream stream) {
  if (has_array(c)) return copy_box(as_3d(*c), {false, stream});
  CopyOrder order;
  TIDE_TRY(order_2d(c, &order));
  order.stream = stream;
  return copy(order);
}

}  // extern "C"
#pragma GCC visibility pop
