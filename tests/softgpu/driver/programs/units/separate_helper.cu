#include <cuda_runtime.h>

extern __device__ int from_main(int x);
__device__ int counts[4] = {10, 20, 30, 40};
__constant__ int scale = 1;
static __device__ int hidden = 50;
static __device__ __noinline__ int own(int x) { return x + hidden; }
template <typename T>
__device__ __noinline__ T both(T x) {
  return x * 2;
}
__device__ int helper(int x) { return own(3 * x) + both(x) + from_main(x); }

__device__ __noinline__ int plus_one(int x) { return x + 1; }
__device__ __noinline__ int squared(int x) { return x * x; }
typedef int (*Operation)(int);
__device__ Operation operations[2] = {plus_one, squared};

void set_scale(int value) { cudaMemcpyToSymbol(scale, &value, sizeof(value)); }
