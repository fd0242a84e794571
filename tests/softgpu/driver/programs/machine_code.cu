// nvcc: -gencode arch=compute_80,code=sm_80
// Without PTX: everything about the kernels is known, but they do not run.
#include "expect.h"

struct Mixed {
  char letter;
  double number;
  int count;
};

__device__ int numbers[5];

__global__ void __launch_bounds__(256) mixed(int* out, char letter, Mixed mixed, short small, float4 wide) {
  out[0] = letter + mixed.count + small + static_cast<int>(wide.x) + numbers[1];
}

int main() {
  int* out = nullptr;
  CALL(cudaMalloc(&out, 64));
  const int value = 7;
  int back = 0;
  CALL(cudaMemcpyToSymbol(numbers, &value, sizeof(value), 4));
  CALL(cudaMemcpyFromSymbol(&back, numbers, sizeof(back), 4));
  EXPECT(back == 7);
  cudaFuncAttributes attributes;
  CALL(cudaFuncGetAttributes(&attributes, mixed));
  EXPECT(attributes.maxThreadsPerBlock == 256);
  const size_t offsets[] = {0, 8, 16, 40, 48};
  const size_t sizes[] = {sizeof(int*), sizeof(char), sizeof(Mixed), sizeof(short), sizeof(float4)};
  for (size_t i = 0; i < 5; ++i) {
    size_t offset = 0, size = 0;
    CALL(cudaFuncGetParamInfo(reinterpret_cast<const void*>(mixed), i, &offset, &size));
    EXPECT(offset == offsets[i]);
    EXPECT(size == sizes[i]);
  }
  mixed<<<1, 1>>>(out, 1, Mixed{}, 2, float4{});
  EXPECT(cudaGetLastError() == cudaErrorNoKernelImageForDevice);
  CALL(cudaDeviceSynchronize());
  std::printf("ok\n");
}
