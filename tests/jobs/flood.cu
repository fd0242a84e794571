// Queues far more to the GPU than a channel holds, without waiting, and says what arrived. Nothing of it can be packed.
//
// flood [--mib N] [--pinned 0|1]: "filled" when its own memory is there, then "digest X", then "flood: ok".

#include <stdint.h>

#include "job.h"

static const size_t kPiece = 1 << 20;

__global__ void fold(uint64_t* digest, const uint32_t* in, int words) {
  uint64_t sum = *digest;
  for (int i = 0; i < words; i += 64) sum = (sum ^ in[i]) * 1099511628211ull;
  *digest = sum;
}

static void fill(uint32_t* words, size_t count) {
  uint64_t state = 88172645463325252ull;
  for (size_t i = 0; i < count; i++) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    words[i] = (uint32_t)(state >> 16);
  }
}

int main(int argc, char** argv) {
  const size_t bytes = (size_t)option(argc, argv, "--mib", 64) * kPiece;
  uint32_t *from, *in;
  uint64_t *digest, read;
  if (option(argc, argv, "--pinned", 0) != 0) {
    CHECK(cudaMallocHost(&from, bytes));
  } else {
    from = (uint32_t*)malloc(bytes);
  }
  fill(from, bytes / 4);
  CHECK(cudaMalloc(&in, kPiece));
  CHECK(cudaMalloc(&digest, 8));
  CHECK(cudaMemset(digest, 0, 8));
  CHECK(cudaDeviceSynchronize());
  puts("filled");
  fflush(stdout);
  cudaStream_t stream;
  CHECK(cudaStreamCreate(&stream));
  for (size_t at = 0; at < bytes; at += kPiece) {
    CHECK(cudaMemcpyAsync(in, from + at / 4, kPiece, cudaMemcpyHostToDevice, stream));
    fold<<<1, 1, 0, stream>>>(digest, in, kPiece / 4);
  }
  CHECK(cudaMemcpyAsync(&read, digest, 8, cudaMemcpyDeviceToHost, stream));
  CHECK(cudaStreamSynchronize(stream));
  printf("digest %016llx\n", (unsigned long long)read);
  return verdict("flood");
}
