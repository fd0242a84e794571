// nvcc: -arch=sm_80
// A cooperative launch of more blocks than the machine has cores: every one must get to each barrier.
#include <cooperative_groups.h>

#include "expect.h"

__global__ void rounds(int* values, int count) {
  const auto grid = cooperative_groups::this_grid();
  const int i = static_cast<int>(grid.thread_rank()), n = static_cast<int>(grid.num_threads());
  for (int round = 0; round < count; ++round) {
    const int next = values[(i + 1) % n + round % 2 * n];
    values[i + (round + 1) % 2 * n] = next + 1;
    grid.sync();
  }
}

int main() {
  constexpr int kBlocks = 48, kThreads = 64, kCount = kBlocks * kThreads;
  static int host[2 * kCount];
  int *values = nullptr, count = 6;
  for (int i = 0; i < kCount; ++i) host[i] = i;
  CALL(cudaMalloc(&values, sizeof(host)));
  CALL(cudaMemcpy(values, host, sizeof(host), cudaMemcpyHostToDevice));
  void* arguments[] = {&values, &count};
  CALL(cudaLaunchCooperativeKernel(reinterpret_cast<const void*>(rounds), kBlocks, kThreads, arguments));
  CALL(cudaMemcpy(host, values, sizeof(host), cudaMemcpyDeviceToHost));
  for (int i = 0; i < kCount; ++i) EXPECT(host[i] == (i + count) % kCount + count);
  EXPECT(cudaLaunchCooperativeKernel(reinterpret_cast<const void*>(rounds), 1 << 20, kThreads, arguments) ==
         cudaErrorCooperativeLaunchTooLarge);
  std::puts("ok");
  return 0;
}
