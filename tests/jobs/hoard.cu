// Takes and frees device memory as it is told on its input, a line each, and says what came of it. For several
// processes of one job on one virtual GPU.
//   take MIB   -> "took MIB", or "no MIB" where there is not so much left, or "error N"
//   free       -> the last one; "freed"
//   left       -> "left MIB of MIB"
//   check      -> "whole": what was taken has kept what was written into it
//   reach      -> "reached": a kernel has used memory of the program

#include <stdio.h>
#include <string.h>

#include <vector>

#include "job.h"

namespace {

constexpr size_t kMiB = 1 << 20;

struct Piece {
  unsigned char* at;
  size_t bytes;
  unsigned char value;
};
std::vector<Piece> pieces;

__global__ void touch(int* value) { *value += 1; }

void take(size_t mib) {
  Piece piece{nullptr, mib * kMiB, (unsigned char)(17 * pieces.size() + mib)};
  const cudaError_t error = cudaMalloc((void**)&piece.at, piece.bytes);
  if (error != cudaSuccess) {
    cudaGetLastError();
    if (error == cudaErrorMemoryAllocation) return (void)printf("no %zu\n", mib);
    printf("error %d\n", (int)error);
    return;
  }
  CHECK(cudaMemset(piece.at, piece.value, piece.bytes));
  CHECK(cudaDeviceSynchronize());
  pieces.push_back(piece);
  printf("took %zu\n", mib);
}

void check() {
  std::vector<unsigned char> back;
  for (const Piece& piece : pieces) {
    back.assign(piece.bytes, 0);
    CHECK(cudaMemcpy(back.data(), piece.at, piece.bytes, cudaMemcpyDeviceToHost));
    for (unsigned char byte : back) EXPECT(byte == piece.value, "%d and not %d", byte, piece.value);
  }
  printf("whole\n");
}

void reach() {
  int *host, *device;
  CHECK(cudaHostAlloc((void**)&host, sizeof(int), cudaHostAllocMapped));
  *host = 1;
  CHECK(cudaHostGetDevicePointer((void**)&device, host, 0));
  touch<<<1, 1>>>(device);
  CHECK(cudaDeviceSynchronize());
  EXPECT(*host == 2, "%d", *host);
  printf("reached\n");
}

}  // namespace

int main() {
  char line[64], word[16];
  setvbuf(stdout, nullptr, _IOLBF, 0);
  while (fgets(line, sizeof line, stdin) != nullptr) {
    size_t mib = 0;
    if (sscanf(line, "%15s %zu", word, &mib) < 1) continue;
    if (strcmp(word, "take") == 0) {
      take(mib);
    } else if (strcmp(word, "free") == 0) {
      CHECK(cudaFree(pieces.back().at));
      pieces.pop_back();
      printf("freed\n");
    } else if (strcmp(word, "left") == 0) {
      size_t left = 0, total = 0;
      CHECK(cudaMemGetInfo(&left, &total));
      printf("left %zu of %zu\n", left / kMiB, total / kMiB);
    } else if (strcmp(word, "check") == 0) {
      check();
    } else if (strcmp(word, "reach") == 0) {
      reach();
    }
  }
  return verdict("hoard");
}
