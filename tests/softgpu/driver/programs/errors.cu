// What the runtime reports of bad calls and of a kernel that goes astray.
#include <cstring>

#include "expect.h"

__global__ void store(int* to) { *to = 1; }

int main() {
  void* none = nullptr;
  EXPECT(cudaMalloc(&none, size_t{1} << 40) == cudaErrorMemoryAllocation);
  EXPECT(cudaGetLastError() == cudaErrorMemoryAllocation);
  EXPECT(cudaGetLastError() == cudaSuccess);
  EXPECT(cudaSetDevice(17) == cudaErrorInvalidDevice);
  cudaGetLastError();
  store<<<1, 2048>>>(nullptr);
  EXPECT(cudaGetLastError() != cudaSuccess);  // what exactly a real driver makes of it is not confirmed
  int on_stack = 0;
  EXPECT(cudaFree(&on_stack) == cudaErrorInvalidValue);
  cudaGetLastError();
  cudaPointerAttributes attributes;
  CALL(cudaPointerGetAttributes(&attributes, &on_stack));
  EXPECT(attributes.type == cudaMemoryTypeUnregistered);
  store<<<1, 1>>>(nullptr);
  EXPECT(cudaGetLastError() == cudaSuccess);
  EXPECT(cudaDeviceSynchronize() == cudaErrorIllegalAddress);
  EXPECT(cudaMalloc(&none, 16) == cudaErrorIllegalAddress);
  EXPECT(std::strcmp(cudaGetErrorName(cudaErrorIllegalAddress), "cudaErrorIllegalAddress") == 0);
  CALL(cudaDeviceReset());
  CALL(cudaMalloc(&none, 16));
  std::printf("ok\n");
}
