#pragma once

// cuda.h for the files that define its functions: all versions of each name, and visible outside the library, which is
// otherwise compiled hidden.

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
}
#pragma GCC visibility pop
