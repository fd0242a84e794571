// nvcc: -rdc=true -arch=sm_80 units/separate_helper.cu
// Two units that need each other: functions, variables, a table of functions, names that both use.
#include "expect.h"

extern __device__ int helper(int x);
extern __device__ int counts[4];
extern __constant__ int scale;
typedef int (*Operation)(int);
extern __device__ Operation operations[2];

__device__ int from_main(int x) { return 100 + x; }
static __device__ int hidden = 3;
static __device__ __noinline__ int own(int x) { return x + hidden; }
template <typename T>
__device__ __noinline__ T both(T x) {
  return x * 2;
}

__global__ void compute(int* out) {
  const int i = static_cast<int>(threadIdx.x);
  out[i] = helper(i) + counts[i % 4] * scale + operations[i % 2](i) + own(i) + both(i);
}

extern void set_scale(int value);

int main() {
  int* device = nullptr;
  int host[64];
  CALL(cudaMalloc(&device, sizeof(host)));
  set_scale(7);
  compute<<<1, 64>>>(device);
  CALL(cudaMemcpy(host, device, sizeof(host), cudaMemcpyDeviceToHost));
  for (int i = 0; i < 64; ++i) {
    const int helped = 3 * i + 50 + 2 * i + (100 + i);
    const int operated = i % 2 == 0 ? i + 1 : i * i;
    EXPECT(host[i] == helped + 10 * (i % 4 + 1) * 7 + operated + (i + 3) + 2 * i);
  }
  std::puts("ok");
  return 0;
}
