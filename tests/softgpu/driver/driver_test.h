#pragma once

// A fixture with one context on the first of two devices, and kernels as PTX.

#include <cuda.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace softgpu {

// What the programs below need to know of their kernels.
//   scale(u64 data, u32 count, u32 factor): data[i] *= factor
//   hold(u64 flag): ends when *flag is not 0; the flag is mapped host memory
//   wild(): writes where nothing is            trap_now(): trap
//   count_up(): adds one to the global `counter`, which begins at 40
//   small(): .maxntid 64                       staged(): 4096 bytes of static shared memory
extern const char* const kKernels;

inline void check(CUresult result, const char* what) {
  const char* name = nullptr;
  cuGetErrorName(result, &name);
  ASSERT_EQ(result, CUDA_SUCCESS) << what << ": " << (name == nullptr ? "?" : name);
}
#define OK(call) ASSERT_NO_FATAL_FAILURE(check((call), #call))

class DriverTest : public testing::Test {
 protected:
  void SetUp() override {
    OK(cuInit(0));
    OK(cuDeviceGet(&device_, 0));
    OK(cuCtxCreate(&context_, nullptr, 0, device_));
    OK(cuModuleLoadData(&module_, kKernels));
  }
  void TearDown() override { EXPECT_EQ(cuCtxDestroy(context_), CUDA_SUCCESS); }

  CUfunction function(const char* name) {
    CUfunction found = nullptr;
    EXPECT_EQ(cuModuleGetFunction(&found, module_, name), CUDA_SUCCESS) << name;
    return found;
  }

  CUresult launch(const char* name, std::vector<void*> params, CUstream stream = nullptr, unsigned grid = 1,
                  unsigned block = 1, unsigned shared = 0) {
    return cuLaunchKernel(function(name), grid, 1, 1, block, 1, 1, shared, stream, params.data(), nullptr);
  }

  CUdeviceptr allocate(size_t bytes) {
    CUdeviceptr address = 0;
    EXPECT_EQ(cuMemAlloc(&address, bytes), CUDA_SUCCESS);
    return address;
  }

  CUstream stream(unsigned flags = CU_STREAM_DEFAULT) {
    CUstream made = nullptr;
    EXPECT_EQ(cuStreamCreate(&made, flags), CUDA_SUCCESS);
    return made;
  }

  CUdevice device_ = 0;
  CUcontext context_ = nullptr;
  CUmodule module_ = nullptr;
};

// A kernel that occupies a stream until it is let go.
class Holding {
 public:
  Holding() {
    void* pointer = nullptr;
    EXPECT_EQ(cuMemHostAlloc(&pointer, sizeof(uint32_t), CU_MEMHOSTALLOC_DEVICEMAP), CUDA_SUCCESS);
    flag_ = static_cast<std::atomic<uint32_t>*>(pointer);
    *flag_ = 0;
    EXPECT_EQ(cuMemHostGetDevicePointer(&address_, pointer, 0), CUDA_SUCCESS);
  }
  CUdeviceptr* param() { return &address_; }
  void let_go() { *flag_ = 1; }

 private:
  std::atomic<uint32_t>* flag_ = nullptr;
  CUdeviceptr address_ = 0;
};

}  // namespace softgpu
