#pragma once

// cuda.h for the files that define its functions: all versions of each name, and visible outside the library, which is
// otherwise compiled hidden.

#include "base/chunk_hash.h"

#pragma GCC visibility push(default)
#define __CUDA_API_VERSION_INTERNAL
#include <cuda.h>
#include <cudaProfiler.h>
extern "C" {
// Ours, for the worker that moves a vGPU: the next library or module that the calling thread loads puts its globals at
// `address` (a multiple of 2 MiB in the window of device addresses, reserved by the caller or not at all).
CUresult softgpuSetImageBase(CUdeviceptr address);
// Ours too: the next texture or surface object that the calling thread creates gets this handle, or is refused when it
// is taken. 0: any.
CUresult softgpuSetObjectHandle(unsigned long long handle);
// Where the globals of a loaded library lie: whole chunks of 2 MiB; 0 bytes when it has none.
CUresult softgpuGetImageRange(CUlibrary library, CUdeviceptr* base, size_t* bytes);
// The hashes of mapped chunks of device memory as they are now, in no order with work that is under way; of what was
// hashed with the same secret before, only what was written since is read. CUDA_ERROR_INVALID_VALUE, and no hashes,
// where an address is not that of a mapped chunk.
CUresult softgpuHashChunks(const tide::ChunkSecret* secret, const CUdeviceptr* addresses, size_t count,
                           tide::ChunkHash* hashes);
// No hashes are remembered, and writing costs what it did, until the next question.
CUresult softgpuForgetHashes();
// Writes device memory, in this thread and before it returns, in the stream's order: CUDA_ERROR_NOT_READY, and nothing
// is written, where the stream has work to wait for, or copies are to take time or to fail. At most 512 KiB; all of
// `from` can be read.
CUresult softgpuWriteNow(CUdeviceptr to, const void* from, size_t bytes, CUstream stream);
}
#pragma GCC visibility pop
