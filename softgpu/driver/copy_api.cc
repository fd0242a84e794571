// Entry points: cuMemcpy* and cuMemset*.

#include "softgpu/driver/copy.h"
#include "softgpu/driver/driver.h"
#include "softgpu/driver/work.h"

using namespace softgpu;  // an entry point is C; everything it uses is ours

namespace {

uint64_t number(const void* pointer) { return reinterpret_cast<uint64_t>(pointer); }

CUresult copy(uint64_t destination, uint64_t source, size_t bytes, CUstream stream_handle, Wait wait) {
  return on_stream(stream_handle, [&](Context& context, const std::shared_ptr<Stream>& stream) {
    return copy_rect(context, stream, {destination, bytes, source, bytes, bytes, 1}, wait);
  });
}

CUresult copy_now(uint64_t destination, uint64_t source, size_t bytes) {
  return copy(destination, source, bytes, nullptr, Wait::kForHost);
}

CUresult copy_async(uint64_t destination, uint64_t source, size_t bytes, CUstream stream) {
  return copy(destination, source, bytes, stream, Wait::kForPageable);
}

// Whether an address may stand where a call's name says device.
bool is_device(uint64_t address, size_t bytes) { return bytes == 0 || driver().memory.find(address).has_value(); }

bool usable(CUcontext handle, std::shared_ptr<Context>* context) {
  *context = driver().contexts.find(handle);
  return *context != nullptr && (*context)->alive;
}

CUresult fill(CUstream stream_handle, const FillRect& rect) {
  return on_stream(stream_handle, [&](Context& context, const std::shared_ptr<Stream>& stream) {
    return fill_rect(context, stream, rect);
  });
}

// CU_POINTER_ATTRIBUTE_SYNC_MEMOPS: what is not asynchronous by name has happened when it returns.
bool is_synchronous(uint64_t address) {
  const auto range = driver().memory.find(address);
  return range && range->sync_memops;
}

CUresult fill(const FillRect& rect) {
  const CUresult result = fill(nullptr, rect);
  if (result != CUDA_SUCCESS || !is_synchronous(rect.address)) return result;
  return cuStreamSynchronize(nullptr);
}

}  // namespace

extern "C" CUresult cuMemcpy(CUdeviceptr destination, CUdeviceptr source, size_t bytes) {
  return copy_now(destination, source, bytes);
}

extern "C" CUresult cuMemcpyHtoD_v2(CUdeviceptr destination, const void* source, size_t bytes) {
  if (!is_device(destination, bytes)) return CUDA_ERROR_INVALID_VALUE;
  return copy_now(destination, number(source), bytes);
}

extern "C" CUresult cuMemcpyDtoH_v2(void* destination, CUdeviceptr source, size_t bytes) {
  if (!is_device(source, bytes)) return CUDA_ERROR_INVALID_VALUE;
  return copy_now(number(destination), source, bytes);
}

extern "C" CUresult cuMemcpyDtoD_v2(CUdeviceptr destination, CUdeviceptr source, size_t bytes) {
  if (!is_device(destination, bytes) || !is_device(source, bytes)) return CUDA_ERROR_INVALID_VALUE;
  const CUresult result = copy_now(destination, source, bytes);
  if (result != CUDA_SUCCESS || (!is_synchronous(destination) && !is_synchronous(source))) return result;
  return cuStreamSynchronize(nullptr);
}

extern "C" CUresult cuMemcpyAsync(CUdeviceptr destination, CUdeviceptr source, size_t bytes, CUstream stream) {
  return copy_async(destination, source, bytes, stream);
}

extern "C" CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr destination, const void* source, size_t bytes, CUstream stream) {
  if (!is_device(destination, bytes)) return CUDA_ERROR_INVALID_VALUE;
  return copy_async(destination, number(source), bytes, stream);
}

extern "C" CUresult softgpuWriteNow(CUdeviceptr to, const void* from, size_t bytes, CUstream handle) {
  return on_stream(handle, [&](Context& context, const std::shared_ptr<Stream>& stream) -> CUresult {
    if (bytes > kBriefBytesMax || !driver().memory.covered(to, bytes)) return CUDA_ERROR_INVALID_VALUE;
    if (stream->capturing()) return CUDA_ERROR_NOT_READY;
    Task task;
    task.brief = true;
    task.run = [to, from, bytes] {
      const bool written = driver().memory.write(to, static_cast<const std::byte*>(from), bytes);
      return written ? CUDA_SUCCESS : CUDA_ERROR_ILLEGAL_ADDRESS;
    };
    return context.submit_if_idle(stream, task) ? context.error() : CUDA_ERROR_NOT_READY;
  });
}

extern "C" CUresult cuMemcpyDtoHAsync_v2(void* destination, CUdeviceptr source, size_t bytes, CUstream stream) {
  if (!is_device(source, bytes)) return CUDA_ERROR_INVALID_VALUE;
  return copy_async(number(destination), source, bytes, stream);
}

extern "C" CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr destination, CUdeviceptr source, size_t bytes, CUstream stream) {
  if (!is_device(destination, bytes) || !is_device(source, bytes)) return CUDA_ERROR_INVALID_VALUE;
  return copy_async(destination, source, bytes, stream);
}

// Ordered behind and before everything in both contexts.
extern "C" CUresult cuMemcpyPeer(CUdeviceptr destination, CUcontext destination_context, CUdeviceptr source,
                                 CUcontext source_context, size_t bytes) {
  return in_context([&](Context& context) -> CUresult {
    std::shared_ptr<Context> to, from;
    if (!usable(destination_context, &to) || !usable(source_context, &from)) return CUDA_ERROR_INVALID_CONTEXT;
    to->synchronize();
    from->synchronize();
    const CUresult result = copy_now(destination, source, bytes);
    context.legacy_stream()->last().wait();
    return result;
  });
}

extern "C" CUresult cuMemcpyPeerAsync(CUdeviceptr destination, CUcontext destination_context, CUdeviceptr source,
                                      CUcontext source_context, size_t bytes, CUstream stream) {
  return in_context([&](Context&) -> CUresult {
    std::shared_ptr<Context> to, from;
    if (!usable(destination_context, &to) || !usable(source_context, &from)) return CUDA_ERROR_INVALID_CONTEXT;
    return copy_async(destination, source, bytes, stream);
  });
}

extern "C" CUresult cuMemsetD8_v2(CUdeviceptr address, unsigned char value, size_t count) {
  return fill({address, 0, value, 1, count, 1});
}

extern "C" CUresult cuMemsetD16_v2(CUdeviceptr address, unsigned short value, size_t count) {
  return fill({address, 0, value, 2, count, 1});
}

extern "C" CUresult cuMemsetD32_v2(CUdeviceptr address, unsigned int value, size_t count) {
  return fill({address, 0, value, 4, count, 1});
}

extern "C" CUresult cuMemsetD8Async(CUdeviceptr address, unsigned char value, size_t count, CUstream stream) {
  return fill(stream, {address, 0, value, 1, count, 1});
}

extern "C" CUresult cuMemsetD16Async(CUdeviceptr address, unsigned short value, size_t count, CUstream stream) {
  return fill(stream, {address, 0, value, 2, count, 1});
}

extern "C" CUresult cuMemsetD32Async(CUdeviceptr address, unsigned int value, size_t count, CUstream stream) {
  return fill(stream, {address, 0, value, 4, count, 1});
}

extern "C" CUresult cuMemsetD2D8_v2(CUdeviceptr address, size_t pitch, unsigned char value, size_t width,
                                    size_t height) {
  return fill({address, pitch, value, 1, width, height});
}

extern "C" CUresult cuMemsetD2D16_v2(CUdeviceptr address, size_t pitch, unsigned short value, size_t width,
                                     size_t height) {
  return fill({address, pitch, value, 2, width, height});
}

extern "C" CUresult cuMemsetD2D32_v2(CUdeviceptr address, size_t pitch, unsigned int value, size_t width,
                                     size_t height) {
  return fill({address, pitch, value, 4, width, height});
}

extern "C" CUresult cuMemsetD2D8Async(CUdeviceptr address, size_t pitch, unsigned char value, size_t width,
                                      size_t height, CUstream stream) {
  return fill(stream, {address, pitch, value, 1, width, height});
}

extern "C" CUresult cuMemsetD2D16Async(CUdeviceptr address, size_t pitch, unsigned short value, size_t width,
                                       size_t height, CUstream stream) {
  return fill(stream, {address, pitch, value, 2, width, height});
}

extern "C" CUresult cuMemsetD2D32Async(CUdeviceptr address, size_t pitch, unsigned int value, size_t width,
                                       size_t height, CUstream stream) {
  return fill(stream, {address, pitch, value, 4, width, height});
}
