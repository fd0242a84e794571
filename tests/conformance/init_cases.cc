// Initialization, errors and the resolver.
#include <thread>

#include "fixture.h"

namespace conformance {
namespace {

TEST(Init, wants_no_flags) {
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuInit)(1));
  GIVES(CUDA_SUCCESS, CU(cuInit)(0));
  GIVES(CUDA_SUCCESS, CU(cuInit)(0));
}

TEST(Init, comes_first) {
  int count = -1;
  GIVES(CUDA_ERROR_NOT_INITIALIZED, CU(cuDeviceGetCount)(&count));
  CUdeviceptr address = 0;
  GIVES(CUDA_ERROR_NOT_INITIALIZED, CU(cuMemAlloc_v2)(&address, 16));
  CUcontext context = nullptr;
  GIVES(CUDA_ERROR_NOT_INITIALIZED, CU(cuCtxGetCurrent)(&context));
  GIVES(CUDA_SUCCESS, CU(cuInit)(0));
  GIVES(CUDA_SUCCESS, CU(cuDeviceGetCount)(&count));
  EXPECT_GE(count, 1);
}

TEST(Init, from_many_threads) {
  std::vector<std::thread> threads;
  std::vector<CUresult> codes(16, CUDA_ERROR_UNKNOWN);
  for (size_t i = 0; i < codes.size(); i++) {
    threads.emplace_back([&codes, i] { codes[i] = CU(cuInit)(0); });
  }
  for (std::thread& thread : threads) thread.join();
  for (const CUresult code : codes) EXPECT_EQ(code, CUDA_SUCCESS);
}

TEST(Init, version_needs_no_init) {
  int version = 0;
  GIVES(CUDA_SUCCESS, CU(cuDriverGetVersion)(&version));
  EXPECT_GE(version, 12000);
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuDriverGetVersion)(nullptr));
}

TEST(Errors, have_names_and_texts) {
  const char* text = nullptr;
  GIVES(CUDA_SUCCESS, CU(cuGetErrorName)(CUDA_ERROR_ILLEGAL_ADDRESS, &text));
  EXPECT_STREQ(text, "CUDA_ERROR_ILLEGAL_ADDRESS");
  GIVES(CUDA_SUCCESS, CU(cuGetErrorString)(CUDA_ERROR_ILLEGAL_ADDRESS, &text));
  EXPECT_STREQ(text, "an illegal memory access was encountered");
  GIVES(CUDA_SUCCESS, CU(cuGetErrorString)(CUDA_SUCCESS, &text));
  EXPECT_STREQ(text, "no error");
}

TEST(Errors, unknown_codes) {
  const char* text = "x";
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGetErrorName)(static_cast<CUresult>(-1), &text));
  EXPECT_EQ(text, nullptr);
  text = "x";
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGetErrorString)(static_cast<CUresult>(123456), &text));
  EXPECT_EQ(text, nullptr);
}

TEST(Resolver, finds_versions) {
  OK(CU(cuInit)(0));
  void* address = nullptr;
  CUdriverProcAddressQueryResult how{};
  GIVES(CUDA_SUCCESS, CU(cuGetProcAddress_v2)("cuMemAlloc", &address, 12000, CU_GET_PROC_ADDRESS_LEGACY_STREAM, &how));
  EXPECT_EQ(address, find_symbol("cuMemAlloc_v2"));
  EXPECT_EQ(how, CU_GET_PROC_ADDRESS_SUCCESS);
  GIVES(CUDA_SUCCESS, CU(cuGetProcAddress_v2)("cuMemAlloc", &address, 2000, CU_GET_PROC_ADDRESS_LEGACY_STREAM, &how));
  EXPECT_EQ(address, find_symbol("cuMemAlloc"));
  GIVES(CUDA_SUCCESS,
        CU(cuGetProcAddress_v2)("cuStreamGetCaptureInfo", &address, 13000, CU_GET_PROC_ADDRESS_LEGACY_STREAM, &how));
  EXPECT_EQ(address, find_symbol("cuStreamGetCaptureInfo_v3"));
}

TEST(Resolver, finds_forms_for_per_thread_streams) {
  OK(CU(cuInit)(0));
  void* address = nullptr;
  GIVES(CUDA_SUCCESS, CU(cuGetProcAddress_v2)("cuLaunchKernel", &address, 12000,
                                              CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM, nullptr));
  EXPECT_EQ(address, find_symbol("cuLaunchKernel_ptsz"));
  GIVES(CUDA_SUCCESS, CU(cuGetProcAddress_v2)("cuMemcpyHtoD", &address, 12000,
                                              CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM, nullptr));
  EXPECT_EQ(address, find_symbol("cuMemcpyHtoD_v2_ptds"));
}

TEST(Resolver, says_what_is_missing) {
  OK(CU(cuInit)(0));
  void* address = &address;
  CUdriverProcAddressQueryResult how{};
  GIVES(CUDA_SUCCESS, CU(cuGetProcAddress_v2)("cuNothing", &address, 12000, CU_GET_PROC_ADDRESS_DEFAULT, nullptr));
  EXPECT_EQ(address, nullptr);
  GIVES(CUDA_SUCCESS, CU(cuGetProcAddress_v2)("cuNothing", &address, 12000, CU_GET_PROC_ADDRESS_DEFAULT, &how));
  EXPECT_EQ(how, CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND);
  GIVES(CUDA_SUCCESS, CU(cuGetProcAddress_v2)("cuGraphCreate", &address, 2000, CU_GET_PROC_ADDRESS_DEFAULT, &how));
  EXPECT_EQ(how, CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT);
  GIVES(CUDA_ERROR_INVALID_VALUE,
        CU(cuGetProcAddress_v2)(nullptr, &address, 12000, CU_GET_PROC_ADDRESS_DEFAULT, nullptr));
  GIVES(CUDA_ERROR_INVALID_VALUE,
        CU(cuGetProcAddress_v2)("cuInit", nullptr, 12000, CU_GET_PROC_ADDRESS_DEFAULT, nullptr));
}

TEST(Resolver, first_version) {
  OK(CU(cuInit)(0));
  void* address = nullptr;
  GIVES(CUDA_SUCCESS, CU(cuGetProcAddress)("cuInit", &address, 12000, CU_GET_PROC_ADDRESS_DEFAULT));
  EXPECT_EQ(address, find_symbol("cuInit"));
  GIVES(CUDA_ERROR_NOT_FOUND, CU(cuGetProcAddress)("cuNothing", &address, 12000, CU_GET_PROC_ADDRESS_DEFAULT));
}

TEST(Resolver, refuses_unknown_tables) {
  OK(CU(cuInit)(0));
  const void* table = nullptr;
  const CUuuid nobody = {"nobody has this"};
  EXPECT_NE(CU(cuGetExportTable)(&table, &nobody), CUDA_SUCCESS);
}

TEST(Profiler, starts_and_stops) {
  OK(CU(cuInit)(0));
  CUcontext context = nullptr;
  OK(CU(cuCtxCreate_v4)(&context, nullptr, 0, 0));
  GIVES(CUDA_SUCCESS, CU(cuProfilerStart)());
  GIVES(CUDA_SUCCESS, CU(cuProfilerStop)());
  GIVES(CUDA_ERROR_NOT_SUPPORTED, CU(cuProfilerInitialize)("in", "out", CU_OUT_CSV));  // gone since CUDA 11
}

}  // namespace
}  // namespace conformance
