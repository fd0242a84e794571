// Modules, functions, launches, and the errors of kernels.
#include "fixture.h"

namespace conformance {
namespace {

class Launches : public Conformance {};

TEST_F(Launches, run) {
  const CUdeviceptr address = words(std::vector<uint32_t>(100, 3));
  unsigned count = 100, factor = 4;
  CUdeviceptr data = address;
  OK(launch(function("scale"), {&data, &count, &factor}, nullptr, 4, 32));
  const auto values = read(address, 100);
  EXPECT_EQ(values, std::vector<uint32_t>(100, 12));
}

TEST_F(Launches, parameters_in_one_buffer) {
  const CUdeviceptr address = words({0, 0});
  struct {
    CUdeviceptr data;
    unsigned count, value;
  } parameters = {address, 2, 6};
  size_t size = sizeof parameters;
  void* extra[] = {CU_LAUNCH_PARAM_BUFFER_POINTER, &parameters, CU_LAUNCH_PARAM_BUFFER_SIZE, &size,
                   CU_LAUNCH_PARAM_END};
  OK(CU(cuLaunchKernel)(function("fill"), 1, 1, 1, 32, 1, 1, 0, nullptr, nullptr, extra));
  EXPECT_EQ(read(address, 2)[1], 6u);
}

TEST_F(Launches, wrong_shapes) {
  const CUfunction kernel = function("bump");
  const auto shaped = [&](unsigned gx, unsigned gy, unsigned bx, unsigned by, unsigned shared) {
    return CU(cuLaunchKernel)(kernel, gx, gy, 1, bx, by, 1, shared, nullptr, nullptr, nullptr);
  };
  // Which code is to be compared on a card: docs/limits.md.
  EXPECT_NE(shaped(0, 1, 1, 1, 0), CUDA_SUCCESS);
  EXPECT_NE(shaped(1, 1, 0, 1, 0), CUDA_SUCCESS);
  EXPECT_NE(shaped(1, 1, 2048, 1, 0), CUDA_SUCCESS);
  EXPECT_NE(shaped(1, 70000, 1, 1, 0), CUDA_SUCCESS);
  GIVES(CUDA_ERROR_INVALID_VALUE, shaped(1, 1, 1, 1, 1 << 30));
  GIVES(CUDA_ERROR_INVALID_HANDLE, CU(cuLaunchKernel)(nullptr, 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, nullptr));
  GIVES(CUDA_SUCCESS, shaped(1, 1, 1024, 1, 0));
  OK(CU(cuCtxSynchronize)());
}

TEST_F(Launches, more_threads_than_the_kernel_takes) {
  EXPECT_NE(launch(function("limited"), {}, nullptr, 1, 128), CUDA_SUCCESS);  // the code: docs/limits.md
  GIVES(CUDA_SUCCESS, launch(function("limited"), {}, nullptr, 1, 64));
}

TEST_F(Launches, dynamic_shared_memory) {
  CUdeviceptr out = words({0});
  OK(launch(function("dynamic"), {&out}, nullptr, 1, 1, 4096));
  EXPECT_EQ(read(out, 1)[0], 4096u);
  const CUfunction kernel = function("dynamic");
  GIVES(CUDA_ERROR_INVALID_VALUE, launch(kernel, {&out}, nullptr, 1, 1, 64 << 10));
  const int most = attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);
  if (most < (64 << 10)) GTEST_SKIP() << "no more than 48 KiB";
  OK(CU(cuFuncSetAttribute)(kernel, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 64 << 10));
  OK(launch(kernel, {&out}, nullptr, 1, 1, 64 << 10));
  EXPECT_EQ(read(out, 1)[0], 65536u);
  GIVES(CUDA_ERROR_INVALID_VALUE,
        CU(cuFuncSetAttribute)(kernel, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, most + 1024));
}

TEST_F(Launches, with_attributes) {
  const CUdeviceptr address = words({0, 0});
  CUdeviceptr data = address;
  unsigned count = 2, value = 8;
  void* parameters[] = {&data, &count, &value};
  CUlaunchAttribute attributes[1]{};
  attributes[0].id = CU_LAUNCH_ATTRIBUTE_PRIORITY;
  attributes[0].value.priority = 0;
  CUlaunchConfig config{};
  config.gridDimX = config.gridDimY = config.gridDimZ = 1;
  config.blockDimX = 32;
  config.blockDimY = config.blockDimZ = 1;
  config.attrs = attributes;
  config.numAttrs = 1;
  OK(CU(cuLaunchKernelEx)(&config, function("fill"), parameters, nullptr));
  EXPECT_EQ(read(address, 1)[0], 8u);
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuLaunchKernelEx)(nullptr, function("fill"), parameters, nullptr));
}

TEST_F(Launches, events_that_a_launch_records) {
  const CUdeviceptr word = words({1});
  const CUstream first = stream(), second = stream();
  CUevent programmatic = nullptr, completion = nullptr, timed = nullptr;
  OK(CU(cuEventCreate)(&programmatic, CU_EVENT_DISABLE_TIMING));
  OK(CU(cuEventCreate)(&completion, CU_EVENT_DISABLE_TIMING));
  OK(CU(cuEventCreate)(&timed, CU_EVENT_DEFAULT));
  CUlaunchAttribute attributes[2] = {};
  attributes[0].id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_EVENT;
  attributes[0].value.programmaticEvent.event = programmatic;
  attributes[1].id = CU_LAUNCH_ATTRIBUTE_LAUNCH_COMPLETION_EVENT;
  attributes[1].value.launchCompletionEvent.event = completion;
  CUlaunchConfig config = {};
  config.gridDimX = config.gridDimY = config.gridDimZ = config.blockDimX = config.blockDimY = config.blockDimZ = 1;
  config.hStream = first;
  config.attrs = attributes;
  config.numAttrs = 2;
  CUdeviceptr argument = word;
  void* parameters[] = {&argument};
  const CUfunction add = function("add_one");
  OK(CU(cuLaunchKernelEx)(&config, add, parameters, nullptr));
  OK(CU(cuEventSynchronize)(programmatic));
  OK(CU(cuStreamWaitEvent)(second, completion, 0));
  OK(CU(cuStreamSynchronize)(second));
  EXPECT_GE(read(word, 1)[0], 1u);
  attributes[0].value.programmaticEvent.event = timed;
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuLaunchKernelEx)(&config, add, parameters, nullptr));
  attributes[0].value.programmaticEvent.event = reinterpret_cast<CUevent>(0x7);
  GIVES(CUDA_ERROR_INVALID_HANDLE, CU(cuLaunchKernelEx)(&config, add, parameters, nullptr));
}

TEST_F(Launches, cooperative) {
  const CUfunction kernel = function("bump");
  int per_processor = 0;
  OK(CU(cuOccupancyMaxActiveBlocksPerMultiprocessor)(&per_processor, kernel, 64, 0));
  EXPECT_GE(per_processor, 1);
  GIVES(CUDA_SUCCESS, CU(cuLaunchCooperativeKernel)(kernel, 2, 1, 1, 64, 1, 1, 0, nullptr, nullptr));
  const auto too_many = static_cast<unsigned>(per_processor * attribute(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT) + 1);
  GIVES(CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE,
        CU(cuLaunchCooperativeKernel)(kernel, too_many, 1, 1, 64, 1, 1, 0, nullptr, nullptr));
  CUDA_LAUNCH_PARAMS several{};
  EXPECT_EQ(attribute(CU_DEVICE_ATTRIBUTE_COOPERATIVE_MULTI_DEVICE_LAUNCH), 0);
  GIVES(CUDA_ERROR_NOT_SUPPORTED, CU(cuLaunchCooperativeKernelMultiDevice)(&several, 1, 0));
}

TEST_F(Launches, first_version) {
  const CUdeviceptr address = words(std::vector<uint32_t>(64, 2));
  const CUfunction kernel = function("scale");
  OK(CU(cuFuncSetBlockShape)(kernel, 32, 1, 1));
  OK(CU(cuFuncSetSharedSize)(kernel, 0));
  CUdeviceptr data = address;
  OK(CU(cuParamSetv)(kernel, 0, &data, 8));
  OK(CU(cuParamSeti)(kernel, 8, 64));
  OK(CU(cuParamSeti)(kernel, 12, 5));
  OK(CU(cuParamSetSize)(kernel, 16));
  OK(CU(cuLaunchGrid)(kernel, 2, 1));
  EXPECT_EQ(read(address, 64), std::vector<uint32_t>(64, 10));
  OK(CU(cuLaunchGridAsync)(kernel, 2, 1, stream()));
  OK(CU(cuCtxSynchronize)());
  EXPECT_EQ(read(address, 64)[63], 50u);
  OK(CU(cuLaunch)(kernel));
  EXPECT_EQ(read(address, 64)[63], 50u);
  EXPECT_EQ(read(address, 64)[0], 250u);
  OK(CU(cuParamSetf)(kernel, 12, 0.0f));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuParamSeti)(kernel, -4, 1));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuFuncSetBlockShape)(kernel, 0, 1, 1));
}

TEST_F(Launches, function_attributes) {
  const CUfunction kernel = function("shared_sum");
  int value = -1;
  GIVES(CUDA_SUCCESS, CU(cuFuncGetAttribute)(&value, CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, kernel));
  EXPECT_EQ(value, 4096);
  GIVES(CUDA_SUCCESS, CU(cuFuncGetAttribute)(&value, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, function("limited")));
  EXPECT_EQ(value, 64);
  GIVES(CUDA_SUCCESS, CU(cuFuncGetAttribute)(&value, CU_FUNC_ATTRIBUTE_NUM_REGS, kernel));
  EXPECT_GT(value, 0);
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuFuncGetAttribute)(&value, static_cast<CUfunction_attribute>(1000), kernel));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuFuncGetAttribute)(nullptr, CU_FUNC_ATTRIBUTE_NUM_REGS, kernel));
  GIVES(CUDA_SUCCESS, CU(cuFuncSetCacheConfig)(kernel, CU_FUNC_CACHE_PREFER_L1));
  CUmodule of = nullptr;
  GIVES(CUDA_SUCCESS, CU(cuFuncGetModule)(&of, kernel));
  EXPECT_EQ(of, module);
  const char* name = nullptr;
  GIVES(CUDA_SUCCESS, CU(cuFuncGetName)(&name, kernel));
  EXPECT_STREQ(name, "shared_sum");
  size_t offset = 99, size = 0;
  GIVES(CUDA_SUCCESS, CU(cuFuncGetParamInfo)(function("fill"), 1, &offset, &size));
  EXPECT_EQ(offset, 8u);
  EXPECT_EQ(size, 4u);
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuFuncGetParamInfo)(function("fill"), 3, &offset, &size));
}

TEST_F(Launches, occupancy) {
  const CUfunction kernel = function("bump");
  int blocks = 0, grid = 0, threads = 0;
  GIVES(CUDA_SUCCESS, CU(cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags)(&blocks, kernel, 128, 0, 0));
  EXPECT_GE(blocks, 1);
  GIVES(CUDA_SUCCESS, CU(cuOccupancyMaxPotentialBlockSize)(&grid, &threads, kernel, nullptr, 0, 0));
  EXPECT_GE(threads, 32);
  GIVES(CUDA_SUCCESS, CU(cuOccupancyMaxPotentialBlockSizeWithFlags)(&grid, &threads, kernel, nullptr, 0, 0, 0));
  size_t bytes = 0;
  GIVES(CUDA_SUCCESS, CU(cuOccupancyAvailableDynamicSMemPerBlock)(&bytes, kernel, 1, 128));
  EXPECT_GE(bytes, 1024u);
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuOccupancyMaxActiveBlocksPerMultiprocessor)(&blocks, kernel, 0, 0));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuOccupancyMaxActiveBlocksPerMultiprocessor)(nullptr, kernel, 128, 0));
}

// --- modules
// ----------------------------------------------------------------------------------------------------------

class Modules : public Conformance {};

TEST_F(Modules, globals) {
  load();
  CUdeviceptr address = 0;
  size_t size = 0;
  GIVES(CUDA_SUCCESS, CU(cuModuleGetGlobal_v2)(&address, &size, module, "counter"));
  EXPECT_EQ(size, 4u);
  EXPECT_EQ(read(address, 1)[0], 40u);
  OK(launch(function("bump"), {}, nullptr, 3, 1));
  EXPECT_EQ(read(address, 1)[0], 43u);
  GIVES(CUDA_SUCCESS, CU(cuModuleGetGlobal_v2)(&address, &size, module, "constants"));
  EXPECT_EQ(size, 16u);
  EXPECT_EQ(read(address, 4)[3], 4u);
  GIVES(CUDA_ERROR_NOT_FOUND, CU(cuModuleGetGlobal_v2)(&address, &size, module, "nothing"));
  GIVES(CUDA_SUCCESS, CU(cuModuleGetGlobal_v2)(nullptr, &size, module, "counter"));
}

TEST_F(Modules, functions) {
  load();
  CUfunction found = nullptr;
  GIVES(CUDA_ERROR_NOT_FOUND, CU(cuModuleGetFunction)(&found, module, "nothing"));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuModuleGetFunction)(nullptr, module, "fill"));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuModuleGetFunction)(&found, module, nullptr));
  unsigned count = 0;
  GIVES(CUDA_SUCCESS, CU(cuModuleGetFunctionCount)(&count, module));
  EXPECT_EQ(count, 10u);
  std::vector<CUfunction> all(count);
  GIVES(CUDA_SUCCESS, CU(cuModuleEnumerateFunctions)(all.data(), count, module));
  for (const CUfunction one : all) {
    const char* name = nullptr;
    GIVES(CUDA_SUCCESS, CU(cuFuncGetName)(&name, one));
    EXPECT_NE(name, nullptr);
  }
  CUmoduleLoadingMode mode{};
  GIVES(CUDA_SUCCESS, CU(cuModuleGetLoadingMode)(&mode));
  GIVES(CUDA_SUCCESS, CU(cuModuleUnload)(module));
  GIVES(CUDA_ERROR_INVALID_HANDLE, CU(cuModuleUnload)(nullptr));
}

TEST_F(Modules, lazy_functions) {
  const CUfunction kernel = function("bump");
  CUfunctionLoadingState state{};
  GIVES(CUDA_SUCCESS, CU(cuFuncLoad)(kernel));
  GIVES(CUDA_SUCCESS, CU(cuFuncIsLoaded)(&state, kernel));
  EXPECT_EQ(state, CU_FUNCTION_LOADING_STATE_LOADED);
}

TEST_F(Modules, errors_of_the_compiler) {
  char log[512] = "";
  CUjit_option options[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
  void* values[] = {log, reinterpret_cast<void*>(sizeof log)};
  const char* broken = ".version 8.0\n.target sm_75\n.address_size 64\n.visible .entry k() { add.u32 %r1 + ; ret; }\n";
  GIVES(CUDA_ERROR_INVALID_PTX, CU(cuModuleLoadDataEx)(&module, broken, 2, options, values));
  EXPECT_NE(strstr(log, "line 4"), nullptr) << log;
  GIVES(CUDA_ERROR_INVALID_PTX, CU(cuModuleLoadData)(&module, ".version 8.0\n.target sm_999\n"));
  GIVES(CUDA_ERROR_UNSUPPORTED_PTX_VERSION,
        CU(cuModuleLoadData)(&module, ".version 99.0\n.target sm_75\n.address_size 64\n"));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuModuleLoadData)(&module, nullptr));
}

TEST_F(Modules, from_files) {
  char path[] = "/tmp/conformance-XXXXXX";
  const int fd = mkstemp(path);
  ASSERT_GE(fd, 0);
  FILE* file = fdopen(fd, "w");
  fputs(kKernels, file);
  fclose(file);
  OK(CU(cuModuleLoad)(&module, path));
  GIVES(CUDA_SUCCESS, CU(cuModuleUnload)(module));
  CUlibrary library = nullptr;
  GIVES(CUDA_SUCCESS, CU(cuLibraryLoadFromFile)(&library, path, nullptr, nullptr, 0, nullptr, nullptr, 0));
  GIVES(CUDA_SUCCESS, CU(cuLibraryUnload)(library));
  remove(path);
  GIVES(CUDA_ERROR_FILE_NOT_FOUND, CU(cuModuleLoad)(&module, "/nowhere/nothing.ptx"));
}

TEST_F(Modules, libraries) {
  CUlibrary library = nullptr;
  OK(CU(cuLibraryLoadData)(&library, kKernels, nullptr, nullptr, 0, nullptr, nullptr, 0));
  CUkernel kernel = nullptr;
  OK(CU(cuLibraryGetKernel)(&kernel, library, "fill"));
  GIVES(CUDA_ERROR_NOT_FOUND, CU(cuLibraryGetKernel)(&kernel, library, "nothing"));
  OK(CU(cuLibraryGetKernel)(&kernel, library, "fill"));
  unsigned count = 0;
  GIVES(CUDA_SUCCESS, CU(cuLibraryGetKernelCount)(&count, library));
  EXPECT_EQ(count, 10u);
  std::vector<CUkernel> all(count);
  GIVES(CUDA_SUCCESS, CU(cuLibraryEnumerateKernels)(all.data(), count, library));
  CUdeviceptr address = 0;
  size_t size = 0;
  GIVES(CUDA_SUCCESS, CU(cuLibraryGetGlobal)(&address, &size, library, "counter"));
  EXPECT_EQ(read(address, 1)[0], 40u);
  GIVES(CUDA_ERROR_NOT_FOUND, CU(cuLibraryGetManaged)(&address, &size, library, "counter"));
  void* unified = nullptr;
  GIVES(CUDA_ERROR_NOT_FOUND, CU(cuLibraryGetUnifiedFunction)(&unified, library, "fill"));
  CUmodule as_module = nullptr;
  GIVES(CUDA_SUCCESS, CU(cuLibraryGetModule)(&as_module, library));
  CUfunction as_function = nullptr;
  GIVES(CUDA_SUCCESS, CU(cuKernelGetFunction)(&as_function, kernel));
  const char* name = nullptr;
  GIVES(CUDA_SUCCESS, CU(cuKernelGetName)(&name, kernel));
  EXPECT_STREQ(name, "fill");
  CUlibrary of = nullptr;
  GIVES(CUDA_SUCCESS, CU(cuKernelGetLibrary)(&of, kernel));
  EXPECT_EQ(of, library);
  size_t offset = 9;
  GIVES(CUDA_SUCCESS, CU(cuKernelGetParamInfo)(kernel, 0, &offset, &size));
  EXPECT_EQ(offset, 0u);
  int value = 0;
  GIVES(CUDA_SUCCESS, CU(cuKernelGetAttribute)(&value, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, kernel, device));
  EXPECT_EQ(value, 1024);
  GIVES(CUDA_SUCCESS, CU(cuKernelSetAttribute)(CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT, 50, kernel, device));
  GIVES(CUDA_SUCCESS, CU(cuKernelSetCacheConfig)(kernel, CU_FUNC_CACHE_PREFER_L1, device));
  // A kernel may be launched as it is.
  CUdeviceptr data = words({0});
  unsigned one = 1, what = 9;
  OK(launch(reinterpret_cast<CUfunction>(kernel), {&data, &one, &what}));
  EXPECT_EQ(read(data, 1)[0], 9u);
  GIVES(CUDA_SUCCESS, CU(cuLibraryUnload)(library));
}

TEST_F(Modules, linking) {
  CUlinkState state = nullptr;
  OK(CU(cuLinkCreate_v2)(0, nullptr, nullptr, &state));
  OK(CU(cuLinkAddData_v2)(state, CU_JIT_INPUT_PTX, const_cast<char*>(kKernels), strlen(kKernels) + 1, "kernels", 0,
                          nullptr, nullptr));
  void* image = nullptr;
  size_t size = 0;
  OK(CU(cuLinkComplete)(state, &image, &size));
  EXPECT_GT(size, 0u);
  OK(CU(cuModuleLoadData)(&module, image));
  GIVES(CUDA_SUCCESS, CU(cuLinkDestroy)(state));
  CUdeviceptr data = words({0});
  unsigned one = 1, what = 9;
  OK(launch(function("fill"), {&data, &one, &what}));
  EXPECT_EQ(read(data, 1)[0], 9u);
}

TEST_F(Modules, old_linking) {
  CUlinkState state = nullptr;
  OK(CU(cuLinkCreate)(0, nullptr, nullptr, &state));
  OK(CU(cuLinkAddData)(state, CU_JIT_INPUT_PTX, const_cast<char*>(kKernels), strlen(kKernels) + 1, "kernels", 0,
                       nullptr, nullptr));
  GIVES(CUDA_ERROR_FILE_NOT_FOUND,
        CU(cuLinkAddFile)(state, CU_JIT_INPUT_PTX, "/nowhere/nothing.ptx", 0, nullptr, nullptr));
  GIVES(CUDA_SUCCESS, CU(cuLinkDestroy)(state));
}

// --- errors of kernels
// ------------------------------------------------------------------------------------------------

class KernelErrors : public Conformance {
 protected:
  // After `kernel`, every call of the context gives `code`.
  void poisons(const char* kernel, CUresult code) {
    OK(launch(function(kernel), {}));
    GIVES(code, CU(cuCtxSynchronize)());
    CUdeviceptr address = 0;
    GIVES(code, CU(cuMemAlloc_v2)(&address, 16));
    GIVES(code, launch(reinterpret_cast<CUfunction>(1), {}));
    CUstream made = nullptr;
    GIVES(code, CU(cuStreamCreate)(&made, 0));
    GIVES(code, CU(cuCtxSynchronize)());
    CUdevice of = -1;
    GIVES(CUDA_SUCCESS, CU(cuCtxGetDevice)(&of));
  }
};

TEST_F(KernelErrors, illegal_address) { poisons("wild", CUDA_ERROR_ILLEGAL_ADDRESS); }
TEST_F(KernelErrors, trap) { poisons("trap_now", CUDA_ERROR_LAUNCH_FAILED); }

// What was lost is lost, and what begins after it works.
class NewBeginnings : public KernelErrors {
 protected:
  void expect_a_new_life() {
    module = nullptr;
    const CUdeviceptr word = words({41});
    CUdeviceptr argument = word;
    const CUstream made = stream();
    OK(launch(function("add_one"), {&argument}, made));
    OK(CU(cuStreamSynchronize)(made));
    EXPECT_EQ(read(word, 1)[0], 42u);
    uint32_t* host = nullptr;
    OK(CU(cuMemHostAlloc)(reinterpret_cast<void**>(&host), 4096, CU_MEMHOSTALLOC_DEVICEMAP));
    *host = 1;
    OK(CU(cuMemHostGetDevicePointer_v2)(&argument, host, 0));
    OK(launch(function("add_one"), {&argument}));
    OK(CU(cuCtxSynchronize)());
    EXPECT_EQ(*host, 2u);
  }
};

TEST_F(NewBeginnings, with_a_new_context) {
  for (const auto& [kernel, code] :
       {std::pair("wild", CUDA_ERROR_ILLEGAL_ADDRESS), std::pair("trap_now", CUDA_ERROR_LAUNCH_FAILED)}) {
    const CUdeviceptr old = words({1});
    poisons(kernel, code);
    OK(CU(cuCtxDestroy_v2)(context));
    OK(CU(cuCtxCreate_v4)(&context, nullptr, 0, device));
    uint32_t value = 0;
    GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemcpyDtoH_v2)(&value, old, 4));
    expect_a_new_life();
  }
}

TEST_F(NewBeginnings, with_a_reset_of_the_primary_context) {
  OK(CU(cuCtxDestroy_v2)(context));
  OK(CU(cuDevicePrimaryCtxRetain)(&context, device));
  OK(CU(cuCtxSetCurrent)(context));
  poisons("wild", CUDA_ERROR_ILLEGAL_ADDRESS);
  OK(CU(cuDevicePrimaryCtxReset_v2)(device));
  OK(CU(cuDevicePrimaryCtxRetain)(&context, device));
  OK(CU(cuCtxSetCurrent)(context));
  expect_a_new_life();
}

TEST_F(KernelErrors, seen_by_events_and_streams) {
  const CUstream work = stream();
  CUevent event = nullptr;
  OK(CU(cuEventCreate)(&event, 0));
  OK(launch(function("wild"), {}, work));
  CU(cuEventRecord)(event, work);
  GIVES(CUDA_ERROR_ILLEGAL_ADDRESS, CU(cuStreamSynchronize)(work));
  GIVES(CUDA_ERROR_ILLEGAL_ADDRESS, CU(cuEventQuery)(event));
  GIVES(CUDA_ERROR_ILLEGAL_ADDRESS, CU(cuStreamQuery)(work));
}

}  // namespace
}  // namespace conformance
