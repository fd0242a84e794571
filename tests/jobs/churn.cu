// Makes and ends memory, streams and events without pause; what is kept must keep its contents.
//   ./churn [--rounds N] [--seconds N] [--seed N]

#include <stdint.h>

#include <vector>

#include "job.h"

namespace {

__global__ void fill(unsigned* values, size_t count, unsigned seed) {
  for (size_t i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) {
    values[i] = seed ^ (unsigned)i;
  }
}

struct Block {
  unsigned* values;
  size_t count;
  unsigned seed;
};

struct Random {
  uint64_t state;
  unsigned next(unsigned below) {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    return (unsigned)(state >> 33) % below;
  }
};

Block make_block(Random* random) {
  // Most are small and share a chunk, some are larger than one.
  const size_t count = random->next(8) == 0 ? 1 + random->next(1 << 20) : 1 + random->next(4096);
  Block block = {nullptr, count, random->next(1u << 30)};
  cudaStream_t stream;
  cudaEvent_t event;
  CHECK(cudaMalloc(&block.values, count * sizeof(unsigned)));
  CHECK(cudaStreamCreate(&stream));
  CHECK(cudaEventCreate(&event));
  const int blocks = count > 4096 ? 32 : 2;
  fill<<<blocks, 128, 0, stream>>>(block.values, count, block.seed);
  CHECK(cudaGetLastError());
  CHECK(cudaEventRecord(event, stream));
  if (random->next(2) == 0) CHECK(cudaEventSynchronize(event));
  CHECK(cudaEventDestroy(event));
  CHECK(cudaStreamDestroy(stream));  // what it still holds is done nevertheless
  return block;
}

void check_and_free(const Block& block) {
  std::vector<unsigned> values(block.count);
  CHECK(cudaDeviceSynchronize());
  CHECK(cudaMemcpy(values.data(), block.values, block.count * sizeof(unsigned), cudaMemcpyDeviceToHost));
  size_t wrong = 0;
  for (size_t i = 0; i < block.count; i++) wrong += values[i] != (block.seed ^ (unsigned)i);
  EXPECT(wrong == 0, "%zu of %zu values at %p", wrong, block.count, (void*)block.values);
  CHECK(cudaFree(block.values));
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = (int)option(argc, argv, "--rounds", 200);
  const double end = now_seconds() + option(argc, argv, "--seconds", 0);
  Random random = {(uint64_t)option(argc, argv, "--seed", 1)};
  size_t before = 0, after = 0, total = 0;
  CHECK(cudaFree(nullptr));
  CHECK(cudaMemGetInfo(&before, &total));
  std::vector<Block> blocks;
  int made = 0;
  while (failures_ == 0 && (made < rounds || now_seconds() < end)) {
    if (blocks.size() < 4 || (blocks.size() < 48 && random.next(2) == 0)) {
      blocks.push_back(make_block(&random));
      made++;
    } else {
      const size_t victim = random.next((unsigned)blocks.size());
      check_and_free(blocks[victim]);
      blocks[victim] = blocks.back();
      blocks.pop_back();
    }
  }
  for (const Block& block : blocks) check_and_free(block);
  CHECK(cudaMemGetInfo(&after, &total));
  EXPECT(after + (64u << 20) >= before, "%zu free, %zu before", after, before);
  fprintf(stderr, "churn: %d blocks\n", made);
  return verdict("churn");
}
