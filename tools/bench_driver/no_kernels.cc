// The software GPU, but that it runs no kernels: for measuring what is above a driver (tools/bench). Whoever looks a
// function up here finds these first and everything else in the library that this one needs.

#include <cuda.h>

#pragma GCC visibility push(default)
extern "C" {

CUresult cuLaunchKernel(CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, CUstream,
                        void**, void**) {
  return CUDA_SUCCESS;
}

CUresult cuLaunchKernelEx(const CUlaunchConfig*, CUfunction, void**, void**) { return CUDA_SUCCESS; }

}  // extern "C"
#pragma GCC visibility pop
