// Streams, events, pinned and mapped memory, host functions, peer copies, and threads with streams of their own.
#include <atomic>
#include <thread>
#include <vector>

#include "expect.h"

__global__ void increment(int* data, int count, int by) {
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) data[i] += by;
}

static void CUDART_CB on_host(void* data) { ++*static_cast<std::atomic<int>*>(data); }

static void pipeline() {
  constexpr int kCount = 1 << 16, kStreams = 4;
  int *pinned, *device;
  CALL(cudaMallocHost(&pinned, kCount * 4));
  CALL(cudaMalloc(&device, kCount * 4));
  for (int i = 0; i < kCount; ++i) pinned[i] = i;
  cudaStream_t streams[kStreams];
  cudaEvent_t start, stop;
  CALL(cudaEventCreate(&start));
  CALL(cudaEventCreate(&stop));
  std::atomic<int> seen{0};
  CALL(cudaEventRecord(start));
  for (int s = 0; s < kStreams; ++s) {
    CALL(cudaStreamCreate(&streams[s]));
    const int part = kCount / kStreams, from = s * part;
    CALL(cudaMemcpyAsync(device + from, pinned + from, part * 4, cudaMemcpyHostToDevice, streams[s]));
    increment<<<8, 128, 0, streams[s]>>>(device + from, part, s + 1);
    CALL(cudaMemcpyAsync(pinned + from, device + from, part * 4, cudaMemcpyDeviceToHost, streams[s]));
    CALL(cudaLaunchHostFunc(streams[s], on_host, &seen));
  }
  CALL(cudaEventRecord(stop));
  CALL(cudaEventSynchronize(stop));
#ifdef CUDA_API_PER_THREAD_DEFAULT_STREAM
  CALL(cudaDeviceSynchronize());  // a thread's own default stream waits for no other
#endif
  float ms = -1;
  CALL(cudaEventElapsedTime(&ms, start, stop));
  EXPECT(ms >= 0);
  EXPECT(seen == kStreams);
  for (int i = 0; i < kCount; ++i) EXPECT(pinned[i] == i + i / (kCount / kStreams) + 1);
  for (cudaStream_t stream : streams) CALL(cudaStreamDestroy(stream));
  CALL(cudaFreeHost(pinned));
  CALL(cudaFree(device));
}

static void mapped() {
  int *host, *device;
  CALL(cudaHostAlloc(&host, 4096, cudaHostAllocMapped));
  CALL(cudaHostGetDevicePointer(&device, host, 0));
  for (int i = 0; i < 1024; ++i) host[i] = i;
  increment<<<4, 256>>>(device, 1024, 5);
  CALL(cudaDeviceSynchronize());
  for (int i = 0; i < 1024; ++i) EXPECT(host[i] == i + 5);
  CALL(cudaFreeHost(host));
}

static void peers() {
  std::vector<int> values(5000);
  for (int i = 0; i < 5000; ++i) values[i] = 7 * i;
  int *here, *there;
  CALL(cudaSetDevice(1));
  CALL(cudaMalloc(&there, 20000));
  CALL(cudaSetDevice(0));
  CALL(cudaMalloc(&here, 20000));
  CALL(cudaDeviceEnablePeerAccess(1, 0));
  CALL(cudaMemcpy(here, values.data(), 20000, cudaMemcpyHostToDevice));
  CALL(cudaMemcpyPeer(there, 1, here, 0, 20000));
  CALL(cudaSetDevice(1));
  increment<<<4, 256>>>(there, 5000, 1);
  std::vector<int> back(5000);
  CALL(cudaMemcpy(back.data(), there, 20000, cudaMemcpyDeviceToHost));
  for (int i = 0; i < 5000; ++i) EXPECT(back[i] == values[i] + 1);
  CALL(cudaSetDevice(0));
}

static void threads() {
  std::vector<std::thread> workers;
  for (int t = 0; t < 4; ++t) {
    workers.emplace_back([t] {
      CALL(cudaSetDevice(t % 2));
      int* data;
      CALL(cudaMalloc(&data, 4000));
      CALL(cudaMemset(data, 0, 4000));
      for (int i = 0; i < 20; ++i) increment<<<2, 64, 0, cudaStreamPerThread>>>(data, 1000, t);
      CALL(cudaStreamSynchronize(cudaStreamPerThread));
      std::vector<int> back(1000);
      CALL(cudaMemcpy(back.data(), data, 4000, cudaMemcpyDeviceToHost));
      for (const int value : back) EXPECT(value == 20 * t);
      CALL(cudaFree(data));
    });
  }
  for (auto& worker : workers) worker.join();
}

int main() {
  pipeline();
  mapped();
  peers();
  threads();
  std::printf("ok\n");
}
