// Copies, kernels and reads in a fixed order, whose outcome shows whether one of them was lost or came twice. Says when
// each round was over, so that whoever breaks something sees how long it took.
//
// steady [--rounds N] [--pause-us N] [--words N]: "round I NANOSECONDS" lines (CLOCK_MONOTONIC), then "digest X", then
// "steady: ok". --words: of 4 bytes, the most that a copy has, 4,096 to 65,536 (the default).

#include <stdint.h>
#include <unistd.h>

#include "job.h"

static const int kWordsMost = 1 << 16, kRead = 1 << 12;

__global__ void mix(uint32_t* state, const uint32_t* in, int words, uint32_t round) {
  const int at = blockIdx.x * blockDim.x + threadIdx.x;
  if (at < words) state[at] = state[at] * 1664525u + in[at % 1024] + round;
}

static uint64_t fold(uint64_t digest, const uint32_t* words, int count) {
  for (int i = 0; i < count; i++) digest = (digest ^ words[i]) * 1099511628211ull;
  return digest;
}

int main(int argc, char** argv) {
  const int rounds = (int)option(argc, argv, "--rounds", 100);
  const int pause_us = (int)option(argc, argv, "--pause-us", 0);
  const int all = (int)option(argc, argv, "--words", kWordsMost) / 256 * 256;
  if (all < kRead || all > kWordsMost) return 2;
  uint32_t *state, *in, *pinned, *read;
  static uint32_t pageable[kWordsMost];
  CHECK(cudaMalloc(&state, all * 4));
  CHECK(cudaMalloc(&in, all * 4));
  CHECK(cudaMallocHost(&pinned, all * 4));
  CHECK(cudaMallocHost(&read, all * 4));
  CHECK(cudaMemset(state, 0, all * 4));
  cudaStream_t stream;
  CHECK(cudaStreamCreate(&stream));
  uint64_t digest = 1469598103934665603ull;
  for (int i = 0; i < rounds; i++) {
    const int words = i % 3 == 0 ? 1024 : all;
    uint32_t* from = i % 2 == 0 ? pinned : pageable;
    for (int w = 0; w < words; w++) from[w] = (uint32_t)(w * 2654435761u + i);
    CHECK(cudaMemcpyAsync(in, from, words * 4, cudaMemcpyHostToDevice, stream));
    for (int k = 0; k < 5; k++) mix<<<all / 256, 256, 0, stream>>>(state, in, all, (uint32_t)(i * 5 + k));
    const int count = i % 8 == 7 ? all : kRead;
    CHECK(cudaMemcpyAsync(read, state, count * 4, cudaMemcpyDeviceToHost, stream));
    CHECK(cudaStreamSynchronize(stream));
    digest = fold(digest, read, count);
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    printf("round %d %lld\n", i, (long long)now.tv_sec * 1000000000 + now.tv_nsec);
    fflush(stdout);
    if (pause_us > 0) usleep(pause_us);
  }
  CHECK(cudaMemcpy(read, state, all * 4, cudaMemcpyDeviceToHost));
  printf("digest %016llx\n", (unsigned long long)fold(digest, read, all));
  return verdict("steady");
}
