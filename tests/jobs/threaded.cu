// Threads of one program on one device, each with the per-thread default stream: rounds of copy, kernel, copy, whose
// numbers are known; and a shell in between, which uses no GPU.
//   ./threaded [--threads N] [--rounds N]

#include <stdlib.h>

#include <thread>
#include <vector>

#include "job.h"

namespace {

constexpr int kCount = 256;

__global__ void add(int* values, int what) { values[threadIdx.x] += what; }

void work(int thread, int rounds, int* wrong) {
  std::vector<int> values(kCount, thread);
  int* device = nullptr;
  CHECK(cudaMalloc(&device, kCount * sizeof(int)));
  for (int round = 0; round < rounds; round++) {
    CHECK(cudaMemcpyAsync(device, values.data(), kCount * sizeof(int), cudaMemcpyHostToDevice));
    add<<<1, kCount>>>(device, round);
    CHECK(cudaMemcpyAsync(values.data(), device, kCount * sizeof(int), cudaMemcpyDeviceToHost));
    CHECK(cudaStreamSynchronize(nullptr));
  }
  CHECK(cudaFree(device));
  for (const int value : values) *wrong += value != thread + rounds * (rounds - 1) / 2;
}

}  // namespace

int main(int argc, char** argv) {
  const int count = (int)option(argc, argv, "--threads", 4), rounds = (int)option(argc, argv, "--rounds", 10);
  CHECK(cudaFree(nullptr));
  EXPECT(system("echo shell; (true)") == 0, "no shell");
  std::vector<int> wrong(count);
  std::vector<std::thread> threads;
  for (int i = 0; i < count; i++) threads.emplace_back(work, i, rounds, &wrong[i]);
  for (std::thread& thread : threads) thread.join();
  for (int i = 0; i < count; i++) EXPECT(wrong[i] == 0, "thread %d: %d values", i, wrong[i]);
  return verdict("threaded");
}
