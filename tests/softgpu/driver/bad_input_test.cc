// Programs and launches that cannot be, and kernels that do not end.

#include <cstdio>
#include <cstring>
#include <string>

#include "tests/softgpu/driver/driver_test.h"

namespace softgpu {
namespace {

using BadInput = DriverTest;

constexpr const char* kHeader = ".version 8.0\n.target sm_80\n.address_size 64\n";

struct Loaded {
  CUresult result;
  std::string log;
};

Loaded load(const std::string& ptx) {
  char log[512] = {};
  CUjit_option options[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
  void* values[] = {log, reinterpret_cast<void*>(sizeof(log))};
  CUmodule module = nullptr;
  const CUresult result = cuModuleLoadDataEx(&module, ptx.c_str(), 2, options, values);
  if (result == CUDA_SUCCESS) {
    EXPECT_EQ(cuModuleUnload(module), CUDA_SUCCESS);
  }
  return {result, log};
}

TEST_F(BadInput, errors_in_ptx_come_with_their_line) {
  const Loaded syntax =
      load(std::string(kHeader) + ".visible .entry k()\n{\n  .reg .b32 %r<2>;\n  mov.u32 %r1 5;\n}\n");
  EXPECT_EQ(syntax.result, CUDA_ERROR_INVALID_PTX);
  EXPECT_NE(syntax.log.find("line 7"), std::string::npos) << syntax.log;
  const Loaded version = load(".version 99.0\n.target sm_80\n.address_size 64\n");
  EXPECT_EQ(version.result, CUDA_ERROR_UNSUPPORTED_PTX_VERSION);
  EXPECT_NE(version.log.find("99.0"), std::string::npos) << version.log;
  EXPECT_EQ(load(".version 8.0\n.target sm_999\n.address_size 64\n").result, CUDA_ERROR_INVALID_PTX);
  EXPECT_EQ(load(".version 8.0\n.target sm_90\n.address_size 64\n").result, CUDA_ERROR_INVALID_PTX);
  const Loaded missing =
      load(std::string(kHeader) + ".extern .func nowhere();\n.visible .entry k()\n{\n  call nowhere;\n  ret;\n}\n");
  EXPECT_EQ(missing.result, CUDA_ERROR_INVALID_PTX);
  EXPECT_NE(missing.log.find("'nowhere'"), std::string::npos) << missing.log;
  const Loaded twice = load(std::string(kHeader) + ".global .u32 a;\n.global .u32 a;\n");
  EXPECT_EQ(twice.result, CUDA_ERROR_INVALID_PTX);
  EXPECT_NE(twice.log.find("line 5"), std::string::npos) << twice.log;
}

TEST_F(BadInput, sizes_that_no_gpu_has_are_refused) {
  const std::string shared = std::string(kHeader) +
                             ".visible .entry k()\n{\n  .shared .b8 tile[1073741824];\n  .reg .b32 %r<2>;\n"
                             "  st.shared.u32 [tile], %r1;\n  ret;\n}\n";
  CUmodule module = nullptr;
  CUresult result = cuModuleLoadData(&module, shared.c_str());
  CUfunction kernel = nullptr;
  if (result == CUDA_SUCCESS) result = cuModuleGetFunction(&kernel, module, "k");
  if (result == CUDA_SUCCESS) result = cuLaunchKernel(kernel, 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, nullptr);
  EXPECT_EQ(result, CUDA_ERROR_INVALID_PTX);
  EXPECT_EQ(launch("wild", {}, nullptr, 1, 1, 1u << 30), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(launch("wild", {}, nullptr, 0, 1), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(launch("wild", {}, nullptr, 1, 0), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
}

TEST_F(BadInput, a_stack_that_is_full_is_an_illegal_address) {
  const std::string endless = std::string(kHeader) +
                              ".func f()\n{\n  .local .b8 room[16];\n  call f;\n  ret;\n}\n"
                              ".visible .entry k()\n{\n  call f;\n  ret;\n}\n";
  CUmodule module = nullptr;
  CUfunction kernel = nullptr;
  OK(cuModuleLoadData(&module, endless.c_str()));
  OK(cuModuleGetFunction(&kernel, module, "k"));
  OK(cuLaunchKernel(kernel, 4, 1, 1, 64, 1, 1, 0, nullptr, nullptr, nullptr));
  EXPECT_EQ(cuCtxSynchronize(), CUDA_ERROR_ILLEGAL_ADDRESS);
}

TEST_F(BadInput, a_kernel_that_never_ends_goes_with_its_context) {
  CUcontext other = nullptr;
  OK(cuCtxCreate(&other, nullptr, 0, device_));
  CUmodule module = nullptr;
  CUfunction kernel = nullptr;
  const std::string forever = std::string(kHeader) + ".visible .entry k()\n{\nagain:\n  bra again;\n}\n";
  OK(cuModuleLoadData(&module, forever.c_str()));
  OK(cuModuleGetFunction(&kernel, module, "k"));
  OK(cuLaunchKernel(kernel, 1000, 1, 1, 256, 1, 1, 0, nullptr, nullptr, nullptr));
  OK(cuCtxDestroy(other));
  OK(cuCtxSetCurrent(context_));
  OK(cuCtxSynchronize());
}

const std::string kUser = std::string(kHeader) +
                          ".extern .func (.param .b32 r) give (.param .b32 x);\n"
                          ".visible .entry k(.param .u64 p)\n{\n  .reg .b64 %rd<2>;\n  .reg .b32 %r<2>;\n"
                          "  ld.param.u64 %rd1, [p];\n  { .param .b32 a; st.param.b32 [a], 20; .param .b32 b;\n"
                          "  call (b), give, (a); ld.param.b32 %r1, [b]; }\n  st.global.u32 [%rd1], %r1;\n  ret;\n}\n";
const std::string kGiver = std::string(kHeader) +
                           ".visible .func (.param .b32 r) give (.param .b32 x)\n{\n  .reg .b32 %r<3>;\n"
                           "  ld.param.b32 %r1, [x];\n  add.u32 %r2, %r1, 22;\n  st.param.b32 [r], %r2;\n  ret;\n}\n";

class Links : public DriverTest {
 protected:
  CUresult add(const std::string& ptx, const char* name) {
    return cuLinkAddData(link_, CU_JIT_INPUT_PTX, const_cast<char*>(ptx.c_str()), ptx.size() + 1, name, 0, nullptr,
                         nullptr);
  }
  void begin() {
    CUjit_option options[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
    void* values[] = {log_, reinterpret_cast<void*>(sizeof(log_))};
    OK(cuLinkCreate(2, options, values, &link_));
  }
  CUlinkState link_ = nullptr;
  char log_[512] = {};
  void* cubin_ = nullptr;
  size_t bytes_ = 0;
};

TEST_F(Links, units_are_joined_to_an_image_that_loads) {
  begin();
  OK(add(kUser, "user.ptx"));
  OK(add(kGiver, "giver.ptx"));
  OK(cuLinkComplete(link_, &cubin_, &bytes_));
  ASSERT_GT(bytes_, 0u);
  const std::string copy(static_cast<const char*>(cubin_), bytes_);
  OK(cuLinkDestroy(link_));
  CUmodule module = nullptr;
  CUfunction kernel = nullptr;
  OK(cuModuleLoadData(&module, copy.data()));
  OK(cuModuleGetFunction(&kernel, module, "k"));
  CUdeviceptr out = allocate(4);
  void* params[] = {&out};
  OK(cuLaunchKernel(kernel, 1, 1, 1, 1, 1, 1, 0, nullptr, params, nullptr));
  uint32_t value = 0;
  OK(cuMemcpyDtoH(&value, out, 4));
  EXPECT_EQ(value, 42u);
}

// What libcudadevrt's cudaCGSynchronize calls. Every thread counts itself before each of three barriers, and one of
// each block sees behind it that all have.
constexpr char kGridBarrier[] = R"(.version 8.0
.target sm_80
.address_size 64
.extern .func (.param .b64 r) __cuda_syscall_CGS_get_intrinsic_handle(.param .b32 a);
.extern .func (.param .b32 r) __cuda_syscall_CGS_sync(.param .b64 a, .param .b32 b);
.visible .entry k(.param .u64 count, .param .u64 seen)
{
  .reg .pred %p<3>; .reg .b32 %r<12>; .reg .b64 %rd<8>;
  .param .b32 one; .param .b64 handle; .param .b32 flags; .param .b32 status;
  ld.param.u64 %rd1, [count];
  ld.param.u64 %rd2, [seen];
  st.param.b32 [one], 1;
  call (handle), __cuda_syscall_CGS_get_intrinsic_handle, (one);
  ld.param.b64 %rd3, [handle];
  mov.u32 %r1, %ctaid.x;
  mad.wide.u32 %rd4, %r1, 12, %rd2;
  mov.u32 %r2, 0;
AGAIN:
  atom.global.add.u32 %r3, [%rd1], 1;
  st.param.b64 [handle], %rd3;
  st.param.b32 [flags], 0;
  call (status), __cuda_syscall_CGS_sync, (handle, flags);
  ld.volatile.global.u32 %r4, [%rd1];
  st.param.b64 [handle], %rd3;
  st.param.b32 [flags], 0;
  call (status), __cuda_syscall_CGS_sync, (handle, flags);
  mul.wide.u32 %rd5, %r2, 4;
  add.u64 %rd6, %rd4, %rd5;
  st.global.u32 [%rd6], %r4;
  add.u32 %r2, %r2, 1;
  setp.lt.u32 %p1, %r2, 3;
  @%p1 bra AGAIN;
  ret;
}
)";

TEST_F(Links, the_barrier_of_a_grid_is_there_for_the_device_runtime) {
  begin();
  OK(add(kGridBarrier, "user.ptx"));
  OK(cuLinkComplete(link_, &cubin_, &bytes_));
  CUmodule module = nullptr;
  CUfunction kernel = nullptr;
  OK(cuModuleLoadData(&module, cubin_));
  OK(cuModuleGetFunction(&kernel, module, "k"));
  constexpr unsigned kBlocks = 7, kThreads = 96, kRounds = 3;
  CUdeviceptr count = allocate(4), seen = allocate(sizeof(uint32_t) * kBlocks * kRounds);
  OK(cuMemsetD32(count, 0, 1));
  void* params[] = {&count, &seen};
  OK(cuLaunchCooperativeKernel(kernel, kBlocks, 1, 1, kThreads, 1, 1, 0, nullptr, params));
  uint32_t got[kBlocks][kRounds] = {};
  OK(cuMemcpyDtoH(got, seen, sizeof(got)));
  for (const auto& block : got) {
    for (unsigned round = 0; round < kRounds; ++round) EXPECT_EQ(block[round], kBlocks * kThreads * (round + 1));
  }
  OK(cuLinkDestroy(link_));
}

TEST_F(Links, what_does_not_fit_is_told_in_the_log) {
  begin();
  OK(add(kUser, "user.ptx"));
  EXPECT_EQ(cuLinkComplete(link_, &cubin_, &bytes_), CUDA_ERROR_UNKNOWN);
  EXPECT_NE(std::string(log_).find("Undefined reference to 'give' in 'user.ptx'"), std::string::npos) << log_;
  OK(cuLinkDestroy(link_));
  begin();
  OK(add(kUser, "user.ptx"));
  OK(add(kGiver, "giver.ptx"));
  OK(add(kGiver, "again.ptx"));
  EXPECT_EQ(cuLinkComplete(link_, &cubin_, &bytes_), CUDA_ERROR_UNKNOWN);
  EXPECT_NE(std::string(log_).find("Multiple definition of 'give' in 'again.ptx', first defined in 'giver.ptx'"),
            std::string::npos)
      << log_;
  OK(cuLinkDestroy(link_));
  EXPECT_EQ(cuLinkDestroy(link_), CUDA_ERROR_INVALID_HANDLE);
  begin();
  EXPECT_EQ(add(".version 8.0\n.target sm_80\nnonsense", "bad.ptx"), CUDA_ERROR_INVALID_PTX);
  EXPECT_NE(std::string(log_).find("bad.ptx: line 3"), std::string::npos) << log_;
  EXPECT_EQ(cuLinkAddFile(link_, CU_JIT_INPUT_PTX, "/nonexistent.ptx", 0, nullptr, nullptr), CUDA_ERROR_FILE_NOT_FOUND);
  OK(cuLinkDestroy(link_));
}

}  // namespace
}  // namespace softgpu
