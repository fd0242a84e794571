// The codes of wrong calls, and which of them stick.

#include "job.h"

namespace {

__global__ void store(int* where, int value) { *where = value; }

#define EXPECT_ERROR(call, expected)                                                                                  \
  do {                                                                                                                \
    const cudaError_t got_ = (call);                                                                                  \
    EXPECT(got_ == (expected), "%s gave %d (%s), not %d", #call, (int)got_, cudaGetErrorName(got_), (int)(expected)); \
    cudaGetLastError();                                                                                               \
  } while (0)

cudaError_t launch(dim3 grid, dim3 block, size_t shared, int* where) {
  store<<<grid, block, shared>>>(where, 1);
  return cudaGetLastError();
}

void wrong_arguments(int* memory) {
  int devices = 0, value = 0;
  CHECK(cudaGetDeviceCount(&devices));
  EXPECT_ERROR(cudaSetDevice(devices), cudaErrorInvalidDevice);
  EXPECT_ERROR(cudaSetDevice(-1), cudaErrorInvalidDevice);
  EXPECT_ERROR(cudaMalloc(nullptr, 16), cudaErrorInvalidValue);
  EXPECT_ERROR(cudaFree((void*)0x1234567), cudaErrorInvalidValue);
  EXPECT_ERROR(cudaMemcpy(&value, (void*)0x1234567, sizeof value, cudaMemcpyDeviceToHost), cudaErrorInvalidValue);
  EXPECT_ERROR(cudaMemset((void*)0x1234567, 0, 16), cudaErrorInvalidValue);
  EXPECT_ERROR(cudaMemcpy(memory, &value, sizeof value, (cudaMemcpyKind)77), cudaErrorInvalidMemcpyDirection);
  EXPECT_ERROR(cudaFree(nullptr), cudaSuccess);
}

// The runtime and the driver below it have each a code of their own for such a launch.
void expect_refused_launch(cudaError_t got) {
  EXPECT(got == cudaErrorInvalidConfiguration || got == cudaErrorInvalidValue, "%d (%s)", (int)got,
         cudaGetErrorName(got));
  EXPECT(cudaGetLastError() == cudaSuccess, "it does not stick");
}

void wrong_launches(int* memory) {
  expect_refused_launch(launch(dim3(1), dim3(2048), 0, memory));
  expect_refused_launch(launch(dim3(0), dim3(1), 0, memory));
  expect_refused_launch(launch(dim3(1), dim3(1, 1, 65), 0, memory));
  expect_refused_launch(launch(dim3(1), dim3(1), 1 << 30, memory));
  EXPECT_ERROR(launch(dim3(1), dim3(1), 0, memory), cudaSuccess);
  EXPECT_ERROR(cudaDeviceSynchronize(), cudaSuccess);
}

void wrong_events() {
  cudaEvent_t first, second, untimed;
  CHECK(cudaEventCreate(&first));
  CHECK(cudaEventCreate(&second));
  CHECK(cudaEventCreateWithFlags(&untimed, cudaEventDisableTiming));
  float ms = 0;
  EXPECT_ERROR(cudaEventElapsedTime(&ms, first, second), cudaErrorInvalidResourceHandle);
  CHECK(cudaEventRecord(first));
  CHECK(cudaEventRecord(untimed));
  CHECK(cudaEventRecord(second));
  CHECK(cudaDeviceSynchronize());
  EXPECT_ERROR(cudaEventElapsedTime(&ms, first, untimed), cudaErrorInvalidResourceHandle);
  EXPECT_ERROR(cudaEventElapsedTime(&ms, first, second), cudaSuccess);
  EXPECT(ms >= 0 && ms < 60000, "%f ms", ms);
  CHECK(cudaEventDestroy(first));
  CHECK(cudaEventDestroy(second));
  CHECK(cudaEventDestroy(untimed));
}

// A store through a bad pointer ends the context: every later call says so, in this device only.
void sticky(int* memory) {
  int devices = 0, value = 0;
  CHECK(cudaGetDeviceCount(&devices));
  CHECK(cudaSetDevice(0));
  EXPECT_ERROR(launch(dim3(1), dim3(1), 0, (int*)0x10), cudaSuccess);
  EXPECT_ERROR(cudaDeviceSynchronize(), cudaErrorIllegalAddress);
  EXPECT_ERROR(cudaMemcpy(&value, memory, sizeof value, cudaMemcpyDeviceToHost), cudaErrorIllegalAddress);
  EXPECT_ERROR(launch(dim3(1), dim3(1), 0, memory), cudaErrorIllegalAddress);
  void* more = nullptr;
  EXPECT_ERROR(cudaMalloc(&more, 16), cudaErrorIllegalAddress);
  if (devices < 2) return;
  CHECK(cudaSetDevice(1));
  int* other = nullptr;
  EXPECT_ERROR(cudaMalloc(&other, sizeof(int)), cudaSuccess);
  EXPECT_ERROR(launch(dim3(1), dim3(1), 0, other), cudaSuccess);
  EXPECT_ERROR(cudaMemcpy(&value, other, sizeof value, cudaMemcpyDeviceToHost), cudaSuccess);
  EXPECT(value == 1, "%d", value);
}

}  // namespace

int main() {
  int* memory;
  CHECK(cudaMalloc(&memory, sizeof(int)));
  wrong_arguments(memory);
  wrong_launches(memory);
  wrong_events();
  sticky(memory);
  return verdict("errors");
}
