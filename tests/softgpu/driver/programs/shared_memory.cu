// Static and dynamic shared memory, barriers, shuffles, atomics, templates and structs as arguments.
#include <vector>

#include "expect.h"

struct Setting {
  char tag;
  double scale;
  int offset[3];
};

template <typename T>
__global__ void sum(const T* in, T* out, int count, Setting setting) {
  extern __shared__ char raw[];
  T* const partial = reinterpret_cast<T*>(raw);
  T mine = 0;
  for (int i = threadIdx.x; i < count; i += blockDim.x) mine += in[i];
  for (int step = 16; step > 0; step /= 2) mine += __shfl_down_sync(0xffffffffu, mine, step);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = mine;
  __syncthreads();
  if (threadIdx.x == 0) {
    T all = 0;
    for (int warp = 0; warp < int(blockDim.x) / 32; ++warp) all += partial[warp];
    *out = T(double(all) * setting.scale) + T(setting.offset[2]) + T(setting.tag);
  }
}

template <typename T>
void try_sum(int shared_bytes) {
  constexpr int kCount = 10000;
  std::vector<T> values(kCount, T(3));
  T *in, *out, result;
  CALL(cudaMalloc(&in, kCount * sizeof(T)));
  CALL(cudaMalloc(&out, sizeof(T)));
  CALL(cudaMemcpy(in, values.data(), kCount * sizeof(T), cudaMemcpyHostToDevice));
  if (shared_bytes > 48 << 10) {
    CALL(cudaFuncSetAttribute(sum<T>, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes));
  }
  sum<T><<<1, 256, shared_bytes>>>(in, out, kCount, Setting{7, 2.0, {1, 2, 30}});
  CALL(cudaGetLastError());
  CALL(cudaMemcpy(&result, out, sizeof(T), cudaMemcpyDeviceToHost));
  EXPECT(result == T(60037));
}

int main() {
  try_sum<int>(1024);
  try_sum<double>(1024);
  try_sum<float>(100 << 10);
  int blocks = 0;
  CALL(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, sum<int>, 256, 1024));
  EXPECT(blocks > 0);
  cudaFuncAttributes attributes;
  CALL(cudaFuncGetAttributes(&attributes, sum<int>));
  EXPECT(attributes.maxThreadsPerBlock == 1024);
  std::printf("ok\n");
}
