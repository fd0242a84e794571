// A device's memory ends exactly where cudaMemGetInfo says, with the error that programs test for, and nothing sticks.

#include <vector>

#include "job.h"

namespace {

__global__ void touch(int* value) { *value += 1; }

size_t free_bytes() {
  size_t free = 0, total = 0;
  CHECK(cudaMemGetInfo(&free, &total));
  EXPECT(free <= total, "%zu free of %zu", free, total);
  return free;
}

}  // namespace

int main() {
  int* kept;
  CHECK(cudaMalloc(&kept, sizeof(int)));
  CHECK(cudaMemset(kept, 0, sizeof(int)));
  const size_t before = free_bytes();

  void* none = (void*)0x1;
  EXPECT(cudaMalloc(&none, before + (64u << 20)) == cudaErrorMemoryAllocation, "more than there is");
  EXPECT(cudaGetLastError() == cudaErrorMemoryAllocation, "the error is the last error");
  EXPECT(cudaGetLastError() == cudaSuccess, "and is gone when it was read");

  const size_t piece = before / 16 & ~((size_t)(2u << 20) - 1);
  std::vector<void*> pieces;
  cudaError_t error = cudaSuccess;
  while (pieces.size() < 64) {
    void* pointer = nullptr;
    error = cudaMalloc(&pointer, piece);
    if (error != cudaSuccess) break;
    pieces.push_back(pointer);
  }
  EXPECT(error == cudaErrorMemoryAllocation, "it ends with %d", (int)error);
  EXPECT(pieces.size() == before / piece || pieces.size() + 1 == before / piece, "%zu pieces of %zu in %zu",
         pieces.size(), piece, before);
  cudaGetLastError();

  touch<<<1, 1>>>(kept);
  CHECK(cudaDeviceSynchronize());
  int value = 0;
  CHECK(cudaMemcpy(&value, kept, sizeof value, cudaMemcpyDeviceToHost));
  EXPECT(value == 1, "kernels run when memory is full: %d", value);

  for (void* pointer : pieces) CHECK(cudaFree(pointer));
  EXPECT(free_bytes() == before, "%zu free, %zu before", free_bytes(), before);
  void* again;
  CHECK(cudaMalloc(&again, piece * 8));
  CHECK(cudaFree(again));
  return verdict("oom");
}
