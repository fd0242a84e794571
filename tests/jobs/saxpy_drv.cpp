// The driver API alone: no runtime, a module from PTX text, launches by an array of arguments and by a packed buffer.

#include <cuda.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include <vector>

namespace {

const char kModule[] = R"(
.version 7.0
.target sm_52
.address_size 64
.visible .global .align 4 .u32 launches;
.visible .entry saxpy(.param .u64 y_param, .param .u64 x_param, .param .f32 a_param, .param .u32 n_param) {
  .reg .pred %p;
  .reg .b32 %r<6>;
  .reg .f32 %f<4>;
  .reg .b64 %d<6>;
  ld.param.u64 %d0, [y_param];
  ld.param.u64 %d1, [x_param];
  ld.param.f32 %f0, [a_param];
  ld.param.u32 %r0, [n_param];
  mov.u32 %r1, %ctaid.x;
  mov.u32 %r2, %ntid.x;
  mov.u32 %r3, %tid.x;
  mad.lo.s32 %r4, %r1, %r2, %r3;
  setp.ne.s32 %p, %r4, 0;
  @%p bra COMPUTE;
  atom.global.add.u32 %r5, [launches], 1;
COMPUTE:
  setp.ge.u32 %p, %r4, %r0;
  @%p bra DONE;
  cvta.to.global.u64 %d0, %d0;
  cvta.to.global.u64 %d1, %d1;
  mul.wide.u32 %d2, %r4, 4;
  add.s64 %d3, %d0, %d2;
  add.s64 %d4, %d1, %d2;
  ld.global.f32 %f1, [%d3];
  ld.global.f32 %f2, [%d4];
  fma.rn.f32 %f3, %f0, %f2, %f1;
  st.global.f32 [%d3], %f3;
DONE:
  ret;
}
)";

void check(CUresult result, const char* what, int line) {
  if (result == CUDA_SUCCESS) return;
  const char* name = "?";
  cuGetErrorName(result, &name);
  fprintf(stderr, "saxpy_drv: line %d: %s: %s (%d)\n", line, what, name, static_cast<int>(result));
  exit(1);
}
#define CHECK(call) check((call), #call, __LINE__)

struct Packed {
  CUdeviceptr y, x;
  float a;
  unsigned n;
};

void launch_twice(CUfunction function, CUstream stream, Packed packed, unsigned blocks) {
  void* arguments[] = {&packed.y, &packed.x, &packed.a, &packed.n};
  CHECK(cuLaunchKernel(function, blocks, 1, 1, 128, 1, 1, 0, stream, arguments, nullptr));
  size_t bytes = sizeof packed;
  void* extra[] = {CU_LAUNCH_PARAM_BUFFER_POINTER, &packed, CU_LAUNCH_PARAM_BUFFER_SIZE, &bytes, CU_LAUNCH_PARAM_END};
  CHECK(cuLaunchKernel(function, blocks, 1, 1, 128, 1, 1, 0, stream, nullptr, extra));
}

}  // namespace

int main() {
  constexpr unsigned n = 10000;
  CHECK(cuInit(0));
  CUdevice device;
  CUcontext context;
  CHECK(cuDeviceGet(&device, 0));
  CHECK(cuDevicePrimaryCtxRetain(&context, device));
  CHECK(cuCtxSetCurrent(context));
  CUmodule module;
  CUfunction function;
  CUstream stream;
  CHECK(cuModuleLoadData(&module, kModule));
  CHECK(cuModuleGetFunction(&function, module, "saxpy"));
  CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));

  std::vector<float> x(n), y(n);
  for (unsigned i = 0; i < n; i++) {
    x[i] = static_cast<float>(i % 97);
    y[i] = static_cast<float>(i % 13);
  }
  CUdeviceptr device_x, device_y, launches;
  size_t launches_bytes = 0;
  CHECK(cuMemAlloc(&device_x, n * sizeof(float)));
  CHECK(cuMemAlloc(&device_y, n * sizeof(float)));
  CHECK(cuModuleGetGlobal(&launches, &launches_bytes, module, "launches"));
  CHECK(cuMemsetD32Async(launches, 0, 1, stream));  // the default stream would not be waited for
  CHECK(cuMemcpyHtoDAsync(device_x, x.data(), n * sizeof(float), stream));
  CHECK(cuMemcpyHtoDAsync(device_y, y.data(), n * sizeof(float), stream));
  launch_twice(function, stream, {device_y, device_x, 2.0f, n}, (n + 127) / 128);
  std::vector<float> result(n);
  CHECK(cuMemcpyDtoHAsync(result.data(), device_y, n * sizeof(float), stream));
  CHECK(cuStreamSynchronize(stream));
  unsigned counted = 0;
  CHECK(cuMemcpyDtoH(&counted, launches, sizeof counted));

  unsigned wrong = counted != 2 || launches_bytes != 4;
  for (unsigned i = 0; i < n; i++) wrong += result[i] != 2.0f * x[i] + (2.0f * x[i] + y[i]);
  CUfunction none;
  wrong += cuModuleGetFunction(&none, module, "no_such_kernel") != CUDA_ERROR_NOT_FOUND;
  CHECK(cuMemFree(device_x));
  CHECK(cuMemFree(device_y));
  CHECK(cuStreamDestroy(stream));
  CHECK(cuModuleUnload(module));
  CHECK(cuDevicePrimaryCtxRelease(device));
  printf("saxpy_drv: %s\n", wrong == 0 ? "ok" : "FAILED");
  return wrong == 0 ? 0 : 1;
}
