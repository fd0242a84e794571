// Loading and launching: what is refused at the call, what poisons a context, and where globals lie.

#include <cstring>
#include <string>

#include "tests/softgpu/driver/driver_test.h"

extern "C" {
CUresult softgpuSetImageBase(CUdeviceptr address);
CUresult softgpuGetImageRange(CUlibrary library, CUdeviceptr* base, size_t* bytes);
}

namespace softgpu {
namespace {

class Launches : public DriverTest {
 protected:
  CUresult shaped(const char* name, unsigned gx, unsigned gy, unsigned bx, unsigned by, unsigned bz, unsigned shared) {
    return cuLaunchKernel(function(name), gx, gy, 1, bx, by, bz, shared, nullptr, nullptr, nullptr);
  }
};

TEST_F(Launches, shapes_that_no_card_runs_are_refused_at_the_call) {
  EXPECT_EQ(shaped("small", 0, 1, 1, 1, 1, 0), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(shaped("small", 1, 1, 0, 1, 1, 0), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(shaped("small", 1, 65536, 1, 1, 1, 0), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(shaped("count_up", 1, 1, 1025, 1, 1, 0), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(shaped("count_up", 1, 1, 32, 32, 2, 0), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(shaped("count_up", 1, 1, 1, 1, 65, 0), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(shaped("small", 1, 1, 65, 1, 1, 0), CUDA_ERROR_INVALID_VALUE);  // .maxntid 64
  EXPECT_EQ(shaped("small", 1, 1, 64, 1, 1, 0), CUDA_SUCCESS);
  OK(cuCtxSynchronize());
}

TEST_F(Launches, dynamic_shared_memory_beyond_48_kib_must_be_asked_for) {
  EXPECT_EQ(shaped("small", 1, 1, 1, 1, 1, 48 << 10), CUDA_SUCCESS);
  EXPECT_EQ(shaped("small", 1, 1, 1, 1, 1, (48 << 10) + 1), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(shaped("staged", 1, 1, 1, 1, 1, 48 << 10), CUDA_ERROR_INVALID_VALUE);  // 4 KiB are static
  CUfunction f = function("small");
  int most = 0;
  OK(cuDeviceGetAttribute(&most, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, 0));
  EXPECT_EQ(cuFuncSetAttribute(f, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, most + 1), CUDA_ERROR_INVALID_VALUE);
  OK(cuFuncSetAttribute(f, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, most));
  EXPECT_EQ(shaped("small", 1, 1, 1, 1, 1, static_cast<unsigned>(most)), CUDA_SUCCESS);
  OK(cuCtxSynchronize());
}

TEST_F(Launches, bad_handles_and_missing_arguments_are_refused) {
  EXPECT_EQ(cuLaunchKernel(reinterpret_cast<CUfunction>(0x1230), 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, nullptr),
            CUDA_ERROR_INVALID_HANDLE);
  EXPECT_EQ(
      cuLaunchKernel(function("small"), 1, 1, 1, 1, 1, 1, 0, reinterpret_cast<CUstream>(0x1230), nullptr, nullptr),
      CUDA_ERROR_INVALID_HANDLE);
  EXPECT_EQ(cuLaunchKernel(function("scale"), 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, nullptr),
            CUDA_ERROR_INVALID_VALUE);
  CUfunction none = nullptr;
  EXPECT_EQ(cuModuleGetFunction(&none, module_, "absent"), CUDA_ERROR_NOT_FOUND);
  EXPECT_EQ(cuModuleGetFunction(nullptr, module_, "small"), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(cuModuleGetFunction(&none, reinterpret_cast<CUmodule>(0x1230), "small"), CUDA_ERROR_INVALID_HANDLE);
}

TEST_F(Launches, arguments_may_come_as_one_buffer) {
  struct {
    CUdeviceptr data;
    uint32_t count, factor;
  } params{allocate(4), 1, 6};
  OK(cuMemsetD32(params.data, 7, 1));
  size_t bytes = sizeof(params);
  void* extra[] = {CU_LAUNCH_PARAM_BUFFER_POINTER, &params, CU_LAUNCH_PARAM_BUFFER_SIZE, &bytes, CU_LAUNCH_PARAM_END};
  OK(cuLaunchKernel(function("scale"), 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, extra));
  uint32_t result = 0;
  OK(cuMemcpyDtoH(&result, params.data, 4));
  EXPECT_EQ(result, 42u);
  bytes = 8;
  EXPECT_EQ(cuLaunchKernel(function("scale"), 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, extra), CUDA_ERROR_INVALID_VALUE);
}

TEST_F(Launches, faults_poison_the_context_until_it_is_destroyed) {
  const struct {
    const char* kernel;
    CUresult error;
  } kFaults[] = {{"wild", CUDA_ERROR_ILLEGAL_ADDRESS}, {"trap_now", CUDA_ERROR_LAUNCH_FAILED}};
  for (const auto& fault : kFaults) {
    CUcontext context = nullptr;
    CUmodule module = nullptr;
    CUfunction f = nullptr;
    OK(cuCtxCreate(&context, nullptr, 0, 0));
    OK(cuModuleLoadData(&module, kKernels));
    OK(cuModuleGetFunction(&f, module, fault.kernel));
    OK(cuLaunchKernel(f, 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, nullptr));
    EXPECT_EQ(cuCtxSynchronize(), fault.error) << fault.kernel;
    CUdeviceptr address = 0;
    EXPECT_EQ(cuMemAlloc(&address, 4), fault.error) << fault.kernel;
    EXPECT_EQ(cuStreamQuery(nullptr), fault.error) << fault.kernel;
    OK(cuCtxDestroy(context));
    OK(cuCtxSetCurrent(context_));
    EXPECT_EQ(cuMemAlloc(&address, 4), CUDA_SUCCESS) << "other contexts go on";
  }
}

TEST_F(Launches, refused_calls_poison_nothing) {
  EXPECT_EQ(shaped("small", 0, 1, 1, 1, 1, 0), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(cuMemFree(4096), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(shaped("small", 1, 1, 1, 1, 1, 0), CUDA_SUCCESS);
  OK(cuCtxSynchronize());
}

TEST_F(Launches, globals_are_initialised_and_kept_per_module) {
  CUdeviceptr counter = 0;
  size_t bytes = 0;
  OK(cuModuleGetGlobal(&counter, &bytes, module_, "counter"));
  EXPECT_EQ(bytes, 4u);
  OK(shaped("count_up", 1, 1, 1, 1, 1, 0));
  OK(shaped("count_up", 1, 1, 1, 1, 1, 0));
  uint32_t value = 0;
  OK(cuMemcpyDtoH(&value, counter, 4));
  EXPECT_EQ(value, 42u);
  CUmodule second = nullptr;
  CUdeviceptr other = 0;
  OK(cuModuleLoadData(&second, kKernels));
  OK(cuModuleGetGlobal(&other, nullptr, second, "counter"));
  OK(cuMemcpyDtoH(&value, other, 4));
  EXPECT_EQ(value, 40u);
  OK(cuModuleUnload(second));
  EXPECT_EQ(cuModuleGetGlobal(&other, nullptr, second, "counter"), CUDA_ERROR_INVALID_HANDLE);
}

TEST_F(Launches, libraries_name_kernels_without_a_context_and_launch_them_in_any) {
  CUlibrary library = nullptr;
  OK(cuLibraryLoadData(&library, kKernels, nullptr, nullptr, 0, nullptr, nullptr, 0));
  unsigned count = 0;
  OK(cuLibraryGetKernelCount(&count, library));
  EXPECT_EQ(count, 7u);
  std::vector<CUkernel> kernels(count);
  OK(cuLibraryEnumerateKernels(kernels.data(), count, library));
  const char* name = nullptr;
  OK(cuKernelGetName(&name, kernels[0]));
  EXPECT_STREQ(name, "scale");
  size_t offset = 0, bytes = 0;
  OK(cuKernelGetParamInfo(kernels[0], 2, &offset, &bytes));
  EXPECT_EQ(offset, 12u);
  EXPECT_EQ(bytes, 4u);
  EXPECT_EQ(cuKernelGetParamInfo(kernels[0], 3, &offset, &bytes), CUDA_ERROR_INVALID_VALUE);
  CUkernel kernel = nullptr;
  OK(cuLibraryGetKernel(&kernel, library, "count_up"));
  CUcontext other = nullptr;
  OK(cuCtxCreate(&other, nullptr, 0, 1));
  for (CUcontext context : {context_, other}) {
    OK(cuCtxSetCurrent(context));
    OK(cuLaunchKernel(reinterpret_cast<CUfunction>(kernel), 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, nullptr));
    CUdeviceptr counter = 0;
    OK(cuLibraryGetGlobal(&counter, nullptr, library, "counter"));
    uint32_t value = 0;
    OK(cuMemcpyDtoH(&value, counter, 4));
    EXPECT_EQ(value, 41u);
  }
  OK(cuCtxDestroy(other));
  OK(cuCtxSetCurrent(context_));
  OK(cuLibraryUnload(library));
}

TEST_F(Launches, globals_lie_where_the_loader_was_told_and_again_after_a_reload) {
  constexpr CUdeviceptr kBase = 0x2070'0000'0000;
  CUdeviceptr reserved = 0;
  OK(cuMemAddressReserve(&reserved, 4 << 20, 0, kBase, 0));  // as the worker does with a vGPU's whole range
  for (int round = 0; round < 2; ++round) {
    CUlibrary library = nullptr;
    OK(softgpuSetImageBase(kBase));
    OK(cuLibraryLoadData(&library, kKernels, nullptr, nullptr, 0, nullptr, nullptr, 0));
    CUdeviceptr base = 0, counter = 0;
    size_t bytes = 0;
    OK(softgpuGetImageRange(library, &base, &bytes));
    EXPECT_EQ(base, kBase);
    EXPECT_EQ(bytes, size_t{2} << 20);
    OK(cuLibraryGetGlobal(&counter, nullptr, library, "counter"));
    EXPECT_GE(counter, kBase);
    EXPECT_LT(counter, kBase + bytes);
    CUkernel kernel = nullptr;
    OK(cuLibraryGetKernel(&kernel, library, "count_up"));
    OK(cuLaunchKernel(reinterpret_cast<CUfunction>(kernel), 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, nullptr));
    uint32_t value = 0;
    OK(cuMemcpyDtoH(&value, counter, 4));
    EXPECT_EQ(value, 41u);
    OK(cuLibraryUnload(library));
  }
  OK(cuMemAddressFree(kBase, 4 << 20));
  EXPECT_EQ(softgpuSetImageBase(kBase + 4096), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(softgpuSetImageBase(0x1000'0000), CUDA_ERROR_INVALID_VALUE);
}

TEST_F(Launches, kernels_with_missing_instructions_fail_when_asked_for_and_spoil_no_others) {
  const char* text =
      ".version 8.0\n.target sm_80\n.address_size 64\n"
      ".entry odd() {\n wgmma.fence.sync.aligned;\n ret; }\n.entry plain() { ret; }\n";
  CUmodule module = nullptr;
  CUfunction plain = nullptr, odd = nullptr;
  OK(cuModuleLoadData(&module, text));
  EXPECT_EQ(cuModuleGetFunction(&odd, module, "odd"), CUDA_ERROR_NO_BINARY_FOR_GPU);
  OK(cuModuleGetFunction(&plain, module, "plain"));
  OK(cuLaunchKernel(plain, 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, nullptr));
  OK(cuCtxSynchronize());
  CUfunction both[2] = {};
  OK(cuModuleEnumerateFunctions(both, 2, module));
  EXPECT_EQ(cuLaunchKernel(both[0], 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, nullptr), CUDA_ERROR_NO_BINARY_FOR_GPU);
  const char* name = nullptr;
  OK(cuFuncGetName(&name, both[0]));
  EXPECT_STREQ(name, "odd");
  OK(cuModuleUnload(module));
  CUlibrary library = nullptr;
  CUkernel kernel = nullptr;
  OK(cuLibraryLoadData(&library, text, nullptr, nullptr, 0, nullptr, nullptr, 0));
  EXPECT_EQ(cuLibraryGetKernel(&kernel, library, "odd"), CUDA_ERROR_NO_BINARY_FOR_GPU);
  OK(cuLibraryGetKernel(&kernel, library, "plain"));
  OK(cuLibraryUnload(library));
}

TEST_F(Launches, a_module_without_a_usable_kernel_does_not_load_and_the_log_says_why) {
  char text[256] = {};
  CUjit_option options[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
  void* values[] = {text, reinterpret_cast<void*>(sizeof(text))};
  CUmodule module = nullptr;
  const std::string head = ".version 8.0\n.target sm_80\n.address_size 64\n.entry odd() {\n";
  EXPECT_EQ(cuModuleLoadDataEx(&module, (head + "wgmma.fence.sync.aligned;\nret; }\n").c_str(), 2, options, values),
            CUDA_ERROR_INVALID_PTX);
  EXPECT_STREQ(text, "kernel odd, line 5: instruction 'wgmma.fence.sync.aligned' is not supported");
  EXPECT_EQ(cuModuleLoadDataEx(&module, (head + "ret;\nret ret; }\n").c_str(), 2, options, values),
            CUDA_ERROR_INVALID_PTX);
  EXPECT_STREQ(text, "kernel odd, line 6: unknown symbol 'ret'");
}

TEST_F(Launches, images_that_cannot_run_are_told_apart) {
  CUmodule module = nullptr;
  EXPECT_EQ(cuModuleLoadData(&module, "not a program"), CUDA_ERROR_INVALID_IMAGE);
  char message[256] = {};
  CUjit_option options[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
  void* values[] = {message, reinterpret_cast<void*>(sizeof(message))};
  const std::string unknown = std::string(".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry odd()\n{\n") +
                              "frobnicate.u32 %r1, %r2;\nret;\n}\n";
  EXPECT_EQ(cuModuleLoadDataEx(&module, unknown.c_str(), 2, options, values), CUDA_ERROR_INVALID_PTX);
  EXPECT_NE(std::string(message).find("frobnicate"), std::string::npos) << message;
  EXPECT_EQ(cuModuleLoad(&module, "/nonexistent/file"), CUDA_ERROR_FILE_NOT_FOUND);
}

TEST_F(Launches, occupancy_follows_threads_and_shared_memory) {
  int blocks = 0;
  OK(cuOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, function("scale"), 1024, 0));
  EXPECT_EQ(blocks, 2);
  OK(cuOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, function("scale"), 32, 0));
  EXPECT_EQ(blocks, 32);
  OK(cuOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, function("scale"), 32, 40 << 10));
  EXPECT_EQ(blocks, 4);
  int grid = 0, size = 0;
  OK(cuOccupancyMaxPotentialBlockSize(&grid, &size, function("scale"), nullptr, 0, 0));
  EXPECT_EQ(size, 1024);
  EXPECT_EQ(grid, 2 * 108);
}

}  // namespace
}  // namespace softgpu
