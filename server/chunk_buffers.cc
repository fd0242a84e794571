#include "server/chunk_buffers.h"

#include <cstdlib>

namespace tide {

ChunkBuffers::~ChunkBuffers() {
  if (stream_ != nullptr) driver_.cuStreamSynchronize(stream_);
  for (Buffer& buffer : buffers_) {
    if (buffer.done != nullptr) driver_.cuEventDestroy_v2(buffer.done);
  }
  if (locked_ != nullptr) driver_.cuMemHostUnregister(locked_);
  free(own_);
  if (stream_ != nullptr) driver_.cuStreamDestroy_v2(stream_);
}

Outcome ChunkBuffers::start(ChunkSlots* slots) {
  constexpr size_t kOwn = 2;
  if (slots == nullptr) own_ = static_cast<std::byte*>(aligned_alloc(4096, kOwn * kChunkBytes));
  std::byte* const data = slots == nullptr ? own_ : slots->at(0);
  if (data == nullptr) return Outcome::fail("no host memory is left to copy the vGPU's memory through");
  count_ = slots == nullptr ? kOwn : ChunkSlots::kSlots;
  // Copies are slower where it cannot be locked, not wrong.
  const bool locked =
      driver_.cuMemHostRegister_v2 != nullptr &&
      driver_.cuMemHostRegister_v2(data, count_ * kChunkBytes, CU_MEMHOSTREGISTER_PORTABLE) == CUDA_SUCCESS;
  if (locked) locked_ = data;
  for (size_t i = 0; i < count_; ++i) {
    buffers_[i].data = data + i * kChunkBytes;
    if (const CUresult r = driver_.cuEventCreate(&buffers_[i].done, CU_EVENT_DISABLE_TIMING); r != CUDA_SUCCESS)
      return fail(r);
  }
  const CUresult r = driver_.cuStreamCreateWithPriority(&stream_, CU_STREAM_NON_BLOCKING, 0);
  return r == CUDA_SUCCESS ? Outcome() : fail(r);
}

Outcome ChunkBuffers::fetch(Buffer* buffer, uint64_t address) {
  const CUresult r = driver_.cuMemcpyDtoHAsync_v2(buffer->data, address, kChunkBytes, stream_);
  return r == CUDA_SUCCESS ? mark(buffer) : fail(r);
}

Outcome ChunkBuffers::store(Buffer* buffer, uint64_t address) {
  const CUresult r = driver_.cuMemcpyHtoDAsync_v2(address, buffer->data, kChunkBytes, stream_);
  return r == CUDA_SUCCESS ? mark(buffer) : fail(r);
}

Outcome ChunkBuffers::clear(uint64_t address, uint64_t bytes) {
  const CUresult r = driver_.cuMemsetD32Async(address, 0, bytes / 4, stream_);
  return r == CUDA_SUCCESS ? Outcome() : fail(r);
}

// Without the event the copy is as asynchronous, so it is waited for.
Outcome ChunkBuffers::mark(Buffer* buffer) {
  CUresult r = driver_.cuEventRecord(buffer->done, stream_);
  buffer->busy = r == CUDA_SUCCESS;
  if (!buffer->busy) driver_.cuStreamSynchronize(stream_);
  return buffer->busy ? Outcome() : fail(r);
}

Outcome ChunkBuffers::wait(Buffer* buffer) {
  if (!buffer->busy) return {};
  buffer->busy = false;
  const CUresult r = driver_.cuEventSynchronize(buffer->done);
  return r == CUDA_SUCCESS ? Outcome() : fail(r);
}

Outcome ChunkBuffers::rest() {
  for (Buffer& buffer : buffers_) buffer.busy = false;
  const CUresult r = stream_ == nullptr ? CUDA_SUCCESS : driver_.cuStreamSynchronize(stream_);
  return r == CUDA_SUCCESS ? Outcome() : fail(r);
}

Outcome ChunkBuffers::fail(CUresult r) const {
  return Outcome::fail("copying the vGPU's memory failed: " + error_text(driver_, r));
}

}  // namespace tide
