// Two units that need each other; a kernel that prints before the program does; a link at run time; an assert at the
// end.
#include <cuda.h>

#include <cassert>
#include <cstdio>
#include <cstdlib>
#include <cstring>

extern __device__ int helped(int x);

#define CALL(call)                                                       \
  do {                                                                   \
    const cudaError_t error = (call);                                    \
    if (error != cudaSuccess) {                                          \
      std::printf("line %d: %s\n", __LINE__, cudaGetErrorString(error)); \
      std::exit(1);                                                      \
    }                                                                    \
  } while (0)

__global__ void speak(int round) { printf("kernel %d: %d\n", round, helped(round)); }
__global__ void demand(int n) { assert(n == 0); }

// Joins two texts by the driver's linker and runs the result.
int link_and_run() {
  const char* user =
      ".version 8.0\n.target sm_75\n.address_size 64\n.extern .func (.param .b32 r) give ();\n"
      ".visible .entry k(.param .u64 p)\n{\n.reg .b64 %rd<2>;\n.reg .b32 %r<2>;\nld.param.u64 %rd1, [p];\n"
      "{ .param .b32 b;\ncall (b), give;\nld.param.b32 %r1, [b]; }\nst.global.u32 [%rd1], %r1;\nret;\n}\n";
  const char* giver =
      ".version 8.0\n.target sm_75\n.address_size 64\n.visible .func (.param .b32 r) give ()\n{\n"
      "st.param.b32 [r], 42;\nret;\n}\n";
  char log[512] = {};
  CUjit_option options[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
  void* values[] = {log, reinterpret_cast<void*>(sizeof(log))};
  CUlinkState link = nullptr;
  void* image = nullptr;
  size_t bytes = 0;
  if (cuLinkCreate(2, options, values, &link) != CUDA_SUCCESS) return -1;
  cuLinkAddData(link, CU_JIT_INPUT_PTX, const_cast<char*>(user), std::strlen(user) + 1, "user", 0, nullptr, nullptr);
  if (cuLinkComplete(link, &image, &bytes) == CUDA_SUCCESS) return -2;
  std::printf("log %s\n", std::strstr(log, "'give'") != nullptr ? "names it" : log);
  cuLinkDestroy(link);
  cuLinkCreate(0, nullptr, nullptr, &link);
  cuLinkAddData(link, CU_JIT_INPUT_PTX, const_cast<char*>(user), std::strlen(user) + 1, "user", 0, nullptr, nullptr);
  cuLinkAddData(link, CU_JIT_INPUT_PTX, const_cast<char*>(giver), std::strlen(giver) + 1, "give", 0, nullptr, nullptr);
  if (cuLinkComplete(link, &image, &bytes) != CUDA_SUCCESS) return -3;
  CUmodule module = nullptr;
  CUfunction kernel = nullptr;
  if (cuModuleLoadData(&module, image) != CUDA_SUCCESS) return -4;
  cuLinkDestroy(link);
  if (cuModuleGetFunction(&kernel, module, "k") != CUDA_SUCCESS) return -5;
  CUdeviceptr out = 0;
  int value = 0;
  cuMemAlloc(&out, 4);
  void* params[] = {&out};
  cuLaunchKernel(kernel, 1, 1, 1, 1, 1, 1, 0, nullptr, params, nullptr);
  return cuMemcpyDtoH(&value, out, 4) == CUDA_SUCCESS ? value : -6;
}

int main() {
  CALL(cudaFree(nullptr));
  for (int round = 0; round < 50; ++round) {
    speak<<<1, 1>>>(round);
    CALL(cudaDeviceSynchronize());
    std::printf("program %d\n", round);
  }
  std::printf("linked %d\n", link_and_run());
  demand<<<1, 1>>>(1);
  const cudaError_t error = cudaDeviceSynchronize();
  std::fprintf(stderr, "program: %d\n", static_cast<int>(error));
  return error == cudaErrorAssert ? 0 : 1;
}
