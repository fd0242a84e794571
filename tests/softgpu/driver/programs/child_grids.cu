// nvcc: -rdc=true -arch=sm_80 -lcudadevrt
// Grids that kernels launch, in order, nested, detached and behind their parent.
#include "expect.h"

__global__ void note(int* log, int value) {
  if (threadIdx.x == 0) log[1 + atomicAdd(log, 1)] = value;
}
__global__ void parent(int* log) {
  note<<<1, 32>>>(log, 1);
  note<<<2, 1>>>(log, 2);
  note<<<1, 1, 0, cudaStreamTailLaunch>>>(log, 9);
  cudaStream_t stream;
  cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  note<<<1, 1, 0, stream>>>(log, 3);
  note<<<1, 1, 0, stream>>>(log, 4);
  cudaStreamDestroy(stream);
}

// Powers of two by generations.
__global__ void grow(int* count, int depth) {
  atomicAdd(count, 1);
  if (depth > 0) {
    grow<<<1, 1, 0, cudaStreamFireAndForget>>>(count, depth - 1);
    grow<<<1, 1, 0, cudaStreamFireAndForget>>>(count, depth - 1);
  }
}

struct Many {
  double a;
  int b[6];
};
__global__ void take(Many many, int* out, char c) {
  out[threadIdx.x] = static_cast<int>(many.a) + many.b[threadIdx.x] + c;
}
__global__ void give(int* out) {
  Many many = {100.0, {1, 2, 3, 4, 5, 6}};
  take<<<1, 6>>>(many, out, 'A');
}

__global__ void ask(int* out) {
  int value = 0;
  out[0] = cudaDeviceGetAttribute(&value, cudaDevAttrWarpSize, 0);
  out[1] = value;
  out[2] = cudaGetDevice(&value);
  out[3] = value;
  note<<<0, 1>>>(out, 1);
  out[4] = cudaGetLastError();
  note<<<1, 2048>>>(out, 1);
  out[5] = cudaGetLastError();
  out[6] = cudaGetLastError();
  int* block = nullptr;
  out[7] = cudaMalloc(&block, 64);
  block[3] = 77;
  out[8] = block[3];
  cudaFree(block);
}

__global__ void copy(int* to, const int* from, int bytes) {
  cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, 0);
  cudaMemsetAsync(to + 16, 0, 64, 0);  // the device runtime knows no other value
}

int main() {
  int *device = nullptr, host[64];
  CALL(cudaMalloc(&device, sizeof(host)));
  CALL(cudaMemset(device, 0, sizeof(host)));
  parent<<<1, 1>>>(device);
  CALL(cudaMemcpy(host, device, sizeof(host), cudaMemcpyDeviceToHost));
  const int wanted[] = {1, 2, 2, 3, 4, 9};
  EXPECT(host[0] == 6);
  for (int i = 0; i < 6; ++i) EXPECT(host[1 + i] == wanted[i]);

  CALL(cudaMemset(device, 0, sizeof(host)));
  grow<<<1, 1>>>(device, 6);
  CALL(cudaMemcpy(host, device, sizeof(host), cudaMemcpyDeviceToHost));
  EXPECT(host[0] == 127);

  give<<<1, 1>>>(device);
  CALL(cudaMemcpy(host, device, sizeof(host), cudaMemcpyDeviceToHost));
  for (int i = 0; i < 6; ++i) EXPECT(host[i] == 100 + i + 1 + 'A');

  ask<<<1, 1>>>(device);
  CALL(cudaMemcpy(host, device, sizeof(host), cudaMemcpyDeviceToHost));
  EXPECT(host[0] == 0 && host[1] == 32 && host[2] == 0 && host[3] == 0);
  EXPECT(host[4] == cudaErrorInvalidConfiguration && host[5] == cudaErrorInvalidConfiguration && host[6] == 0);
  EXPECT(host[7] == 0 && host[8] == 77);

  for (int i = 0; i < 64; ++i) host[i] = i;
  CALL(cudaMemcpy(device, host, sizeof(host), cudaMemcpyHostToDevice));
  copy<<<1, 1>>>(device, device + 32, 64);
  CALL(cudaMemcpy(host, device, sizeof(host), cudaMemcpyDeviceToHost));
  for (int i = 0; i < 16; ++i) EXPECT(host[i] == 32 + i && host[16 + i] == 0 && host[32 + i] == 32 + i);
  std::puts("ok");
  return 0;
}
