// Memory that host and kernels share, and pools: managed memory, mapped and registered host memory. Both sides change
// different parts between synchronisations, and each must find the other's.

#include <vector>

#include "job.h"

namespace {

constexpr int kCount = 10000;

__global__ void add(int* values, int first, int count, int amount) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) values[first + i] += amount;
}

void add_some(int* values, int first, int count, int amount, cudaStream_t stream = 0) {
  add<<<(count + 127) / 128, 128, 0, stream>>>(values, first, count, amount);
  CHECK(cudaGetLastError());
}

// `host` and `device` name the same memory.
void check_sharing(const char* what, int* host, int* device) {
  for (int i = 0; i < kCount; i++) host[i] = i;
  add_some(device, 0, kCount, 1);
  CHECK(cudaDeviceSynchronize());
  for (int i = 0; i < kCount; i += 7) EXPECT(host[i] == i + 1, "%s: %d at %d", what, host[i], i);
  // The device takes even halves, the host writes beside it while nothing was waited for.
  add_some(device, 0, kCount / 2, 10);
  for (int i = kCount / 2; i < kCount; i++) host[i] = -i;
  add_some(device, kCount / 2, kCount / 2, 100);
  CHECK(cudaDeviceSynchronize());
  for (int i = 0; i < kCount; i += 3) {
    const int expected = i < kCount / 2 ? i + 11 : 100 - i;
    EXPECT(host[i] == expected, "%s: %d at %d, not %d", what, host[i], i, expected);
  }
  // Copies and fills see it, too.
  std::vector<int> copied(kCount);
  host[5] = 55;
  CHECK(cudaMemcpy(copied.data(), host, kCount * sizeof(int), cudaMemcpyDefault));
  EXPECT(copied[5] == 55 && copied[6] == 17, "%s: copied %d %d", what, copied[5], copied[6]);
  copied[9] = 99;
  CHECK(cudaMemcpy(host, copied.data(), kCount * sizeof(int), cudaMemcpyDefault));
  EXPECT(host[9] == 99, "%s: %d", what, host[9]);
  CHECK(cudaMemset(device, 0, 64));
  CHECK(cudaDeviceSynchronize());
  EXPECT(host[0] == 0 && host[16] == 27, "%s: %d %d", what, host[0], host[16]);
}

void check_managed() {
  int* values = nullptr;
  CHECK(cudaMallocManaged(&values, kCount * sizeof(int)));
  cudaPointerAttributes about{};
  CHECK(cudaPointerGetAttributes(&about, values + 3));
  EXPECT(about.type == cudaMemoryTypeManaged && about.hostPointer == about.devicePointer, "type %d", (int)about.type);
  check_sharing("managed", values, values);
  // Events and streams order as well as the device does.
  cudaStream_t stream;
  cudaEvent_t event;
  CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  CHECK(cudaEventCreate(&event));
  values[1] = 1;
  add_some(values, 0, 8, 5, stream);
  CHECK(cudaEventRecord(event, stream));
  CHECK(cudaEventSynchronize(event));
  EXPECT(values[1] == 6, "%d", values[1]);
  values[1] = 2;
  add_some(values, 0, 8, 5, stream);
  CHECK(cudaStreamSynchronize(stream));
  EXPECT(values[1] == 7, "%d", values[1]);
  CHECK(cudaFree(values));
  CHECK(cudaEventDestroy(event));
  CHECK(cudaStreamDestroy(stream));
}

void check_mapped() {
  int *host = nullptr, *device = nullptr;
  CHECK(cudaHostAlloc(&host, kCount * sizeof(int), cudaHostAllocMapped));
  CHECK(cudaHostGetDevicePointer(&device, host, 0));
  check_sharing("mapped", host, device);
  CHECK(cudaFreeHost(host));
  std::vector<int> mine(kCount + 1000);
  CHECK(cudaHostRegister(mine.data(), mine.size() * sizeof(int), cudaHostRegisterMapped));
  CHECK(cudaHostGetDevicePointer(&device, mine.data(), 0));
  check_sharing("registered", mine.data(), device);
  CHECK(cudaHostUnregister(mine.data()));
}

void check_pools() {
  cudaMemPool_t pool = nullptr;
  CHECK(cudaDeviceGetDefaultMemPool(&pool, 0));
  unsigned long long threshold = ~0ull, used = 0, high = 0;
  CHECK(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &threshold));
  int* values = nullptr;
  CHECK(cudaMallocAsync(&values, kCount * sizeof(int), 0));
  CHECK(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemCurrent, &used));
  EXPECT(used >= kCount * sizeof(int), "%llu", used);
  CHECK(cudaMemsetAsync(values, 0, kCount * sizeof(int), 0));
  add_some(values, 0, kCount, 3);
  std::vector<int> copied(kCount);
  CHECK(cudaMemcpyAsync(copied.data(), values, kCount * sizeof(int), cudaMemcpyDeviceToHost, 0));
  CHECK(cudaFreeAsync(values, 0));
  CHECK(cudaStreamSynchronize(0));
  EXPECT(copied[kCount - 1] == 3, "%d", copied[kCount - 1]);
  CHECK(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemCurrent, &used));
  CHECK(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemHigh, &high));
  EXPECT(used == 0 && high >= kCount * sizeof(int), "%llu %llu", used, high);
  CHECK(cudaMemPoolTrimTo(pool, 0));
}

}  // namespace

int main() {
  check_managed();
  check_mapped();
  check_pools();
  return verdict("mirrors");
}
