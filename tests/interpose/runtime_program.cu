// Uses the CUDA runtime as programs do: device queries, memory, streams, events, launches, errors, copies between
// devices. The kernel's result is not looked at: the fake worker only records launches.

#include <cstdio>
#include <cstdlib>
#include <vector>

#define CHECK(call)                                                             \
  do {                                                                          \
    const cudaError_t error = (call);                                           \
    if (error != cudaSuccess) fail(__LINE__, #call, cudaGetErrorString(error)); \
  } while (0)
#define EXPECT(condition) \
  if (!(condition)) fail(__LINE__, #condition, "is not so")

static void fail(int line, const char* what, const char* why) {
  fprintf(stderr, "runtime_program.cu:%d: %s: %s\n", line, what, why);
  exit(1);
}

extern "C" __global__ void scale(int* p, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) p[i] *= 2;
}

static int* use_device(int device) {
  CHECK(cudaSetDevice(device));
  std::vector<int> out(1000, device + 3), in(1000);
  int *p = nullptr, *pinned = nullptr;
  cudaStream_t stream;
  cudaEvent_t start, end;
  CHECK(cudaMalloc(&p, 4000));
  CHECK(cudaMallocHost(&pinned, 4000));
  CHECK(cudaStreamCreate(&stream));
  CHECK(cudaEventCreate(&start));
  CHECK(cudaEventCreate(&end));
  CHECK(cudaMemcpy(p, out.data(), 4000, cudaMemcpyHostToDevice));
  CHECK(cudaEventRecord(start, stream));
  scale<<<4, 256, 0, stream>>>(p, 1000);
  CHECK(cudaGetLastError());
  CHECK(cudaEventRecord(end, stream));
  CHECK(cudaMemcpyAsync(pinned, p, 4000, cudaMemcpyDeviceToHost, stream));
  CHECK(cudaStreamSynchronize(stream));
  EXPECT(pinned[999] == device + 3);
  float ms = 0;
  CHECK(cudaEventElapsedTime(&ms, start, end));
  CHECK(cudaMemcpy(in.data(), p, 4000, cudaMemcpyDefault));
  EXPECT(in == out);
  cudaPointerAttributes attributes;
  CHECK(cudaPointerGetAttributes(&attributes, p));
  EXPECT(attributes.type == cudaMemoryTypeDevice && attributes.device == device);
  CHECK(cudaPointerGetAttributes(&attributes, out.data()));
  EXPECT(attributes.type == cudaMemoryTypeUnregistered);
  void* too_much = nullptr;
  EXPECT(cudaMalloc(&too_much, size_t(1) << 40) == cudaErrorMemoryAllocation);
  EXPECT(cudaGetLastError() == cudaErrorMemoryAllocation);
  scale<<<0, 1>>>(p, 1);
  EXPECT(cudaGetLastError() == cudaErrorInvalidConfiguration);
  CHECK(cudaFreeHost(pinned));
  CHECK(cudaStreamDestroy(stream));
  CHECK(cudaEventDestroy(start));
  CHECK(cudaEventDestroy(end));
  CHECK(cudaDeviceSynchronize());
  return p;
}

int main() {
  int count = 0;
  CHECK(cudaGetDeviceCount(&count));
  EXPECT(count == 2);
  int* first = use_device(0);
  int* second = use_device(1);
  std::vector<int> out(1000, 77), in(1000);
  CHECK(cudaMemcpy(first, out.data(), 4000, cudaMemcpyHostToDevice));
  CHECK(cudaMemcpyPeer(second, 1, first, 0, 4000));
  CHECK(cudaMemcpy(in.data(), second, 4000, cudaMemcpyDeviceToHost));
  EXPECT(in == out);
  CHECK(cudaFree(second));
  CHECK(cudaDeviceReset());
  printf("runtime program: ok\n");
  return 0;
}
