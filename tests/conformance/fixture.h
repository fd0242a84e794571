#pragma once

// What most cases begin with: a context on device 0, kernels, and short ways to say what is expected.

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <vector>

#include "driver.h"

namespace conformance {

// The name of a code, for messages.
inline std::string code_name(CUresult code) {
  const char* name = nullptr;
  CU(cuGetErrorName)(code, &name);
  return name == nullptr ? std::to_string(code) : name;
}

// Fails the case, without ending it, unless a call gave what was expected.
inline bool expect_code(CUresult expected, CUresult got, const char* what, const char* file, int line) {
  if (got != expected)
    ADD_FAILURE_AT(file, line) << what << " gives " << code_name(got) << ", not " << code_name(expected);
  return got == expected;
}

// GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemAlloc_v2)(&address, 0)); OK ends the case unless the call succeeds.
#define GIVES(code, call) conformance::expect_code(code, call, #call, __FILE__, __LINE__)
#define OK(call) \
  if (!conformance::expect_code(CUDA_SUCCESS, call, #call, __FILE__, __LINE__)) return

// PTX of the kernels below.
//   fill(u64 data, u32 count, u32 value): data[i] = value       scale(u64 data, u32 count, u32 factor): data[i] *=
//   factor add_one(u64 word): *word += 1, by one thread                bump(): adds one to the global `counter` (40 at
//   first) wild(): writes where nothing is                             trap_now(): trap spin_until(u64 flag): ends when
//   *flag, volatile, is not 0   limited(): .maxntid 64 shared_sum(u64 out): 4 KiB of static shared memory dynamic(u64
//   out): dynamic shared memory
extern const char* const kKernels;

class Conformance : public testing::Test {
 protected:
  void SetUp() override {
    OK(CU(cuInit)(0));
    OK(CU(cuDeviceGet)(&device, 0));
    OK(CU(cuCtxCreate_v4)(&context, nullptr, 0, device));
  }

  void load() { OK(CU(cuModuleLoadData)(&module, kKernels)); }

  CUfunction function(const char* name) {
    if (module == nullptr) load();
    CUfunction found = nullptr;
    EXPECT_EQ(CU(cuModuleGetFunction)(&found, module, name), CUDA_SUCCESS) << name;
    return found;
  }

  CUresult launch(CUfunction kernel, std::vector<void*> parameters, CUstream stream = nullptr, unsigned blocks = 1,
                  unsigned threads = 1, unsigned shared = 0) {
    return CU(cuLaunchKernel)(kernel, blocks, 1, 1, threads, 1, 1, shared, stream, parameters.data(), nullptr);
  }

  CUdeviceptr allocate(size_t bytes) {
    CUdeviceptr address = 0;
    EXPECT_EQ(CU(cuMemAlloc_v2)(&address, bytes), CUDA_SUCCESS);
    return address;
  }

  // Device memory with these words. A copy from pageable memory may return before it has arrived, and streams that do
  // not block do not wait for it.
  CUdeviceptr words(const std::vector<uint32_t>& values) {
    const CUdeviceptr address = allocate(values.size() * 4);
    EXPECT_EQ(CU(cuMemcpyHtoD_v2)(address, values.data(), values.size() * 4), CUDA_SUCCESS);
    EXPECT_EQ(CU(cuStreamSynchronize)(nullptr), CUDA_SUCCESS);
    return address;
  }

  std::vector<uint32_t> read(CUdeviceptr address, size_t count) {
    std::vector<uint32_t> values(count);
    EXPECT_EQ(CU(cuMemcpyDtoH_v2)(values.data(), address, count * 4), CUDA_SUCCESS);
    return values;
  }

  CUstream stream(unsigned flags = CU_STREAM_NON_BLOCKING) {
    CUstream made = nullptr;
    EXPECT_EQ(CU(cuStreamCreate)(&made, flags), CUDA_SUCCESS);
    return made;
  }

  int attribute(CUdevice_attribute which, CUdevice of = 0) {
    int value = 0;
    EXPECT_EQ(CU(cuDeviceGetAttribute)(&value, which, of), CUDA_SUCCESS);
    return value;
  }

  int device_count() {
    int count = 0;
    EXPECT_EQ(CU(cuDeviceGetCount)(&count), CUDA_SUCCESS);
    return count;
  }

  CUdevice device = 0;
  CUcontext context = nullptr;
  CUmodule module = nullptr;
};

}  // namespace conformance
