// The smallest whole program: allocate, copy, launch, copy back; on each device.
#include <vector>

#include "expect.h"

__device__ int calls;
__constant__ float scale = 2.0f;

__global__ void add(const float* a, const float* b, float* c, int count) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i == 0) atomicAdd(&calls, 1);
  if (i < count) c[i] = scale * (a[i] + b[i]);
}

int main() {
  constexpr int kCount = 100003;
  int devices = 0;
  CALL(cudaGetDeviceCount(&devices));
  EXPECT(devices == 2);
  std::vector<float> a(kCount), b(kCount), c(kCount);
  for (int i = 0; i < kCount; ++i) a[i] = float(i), b[i] = float(3 * i);
  for (int device = 0; device < devices; ++device) {
    CALL(cudaSetDevice(device));
    float *da, *db, *dc;
    CALL(cudaMalloc(&da, kCount * 4));
    CALL(cudaMalloc(&db, kCount * 4));
    CALL(cudaMalloc(&dc, kCount * 4));
    CALL(cudaMemcpy(da, a.data(), kCount * 4, cudaMemcpyHostToDevice));
    CALL(cudaMemcpy(db, b.data(), kCount * 4, cudaMemcpyHostToDevice));
    add<<<(kCount + 255) / 256, 256>>>(da, db, dc, kCount);
    CALL(cudaGetLastError());
    CALL(cudaMemcpy(c.data(), dc, kCount * 4, cudaMemcpyDeviceToHost));
    for (int i = 0; i < kCount; ++i) EXPECT(c[i] == 8.0f * float(i));
    const float other = 0.5f;
    CALL(cudaMemcpyToSymbol(scale, &other, sizeof(other)));
    add<<<(kCount + 255) / 256, 256>>>(da, db, dc, kCount);
    CALL(cudaMemcpy(c.data(), dc, kCount * 4, cudaMemcpyDeviceToHost));
    for (int i = 0; i < kCount; ++i) EXPECT(c[i] == 2.0f * float(i));
    int seen = 0;
    CALL(cudaMemcpyFromSymbol(&seen, calls, sizeof(seen)));
    EXPECT(seen == 2);
    CALL(cudaFree(da));
    CALL(cudaFree(db));
    CALL(cudaFree(dc));
  }
  CALL(cudaDeviceReset());
  std::printf("ok\n");
}
