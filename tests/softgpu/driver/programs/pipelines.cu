// nvcc: -arch=sm_80 -std=c++17
// Barriers and pipelines of libcu++ and cooperative groups: copies that overlap with work, arrivals apart from waits.
#include <cooperative_groups.h>
#include <cooperative_groups/memcpy_async.h>
#include <cooperative_groups/reduce.h>

#include <cuda/barrier>
#include <cuda/pipeline>
#include <vector>

#include "expect.h"

namespace cg = cooperative_groups;

constexpr int kThreads = 128, kTiles = 9;

// Sums tiles of `in`, two of them under way at any time.
__global__ void sum_tiles(const int* in, int* out) {
  constexpr int kStages = 2;
  __shared__ alignas(16) int tiles[kStages][kThreads];
  __shared__ cuda::pipeline_shared_state<cuda::thread_scope_block, kStages> state;
  auto block = cg::this_thread_block();
  auto pipe = cuda::make_pipeline(block, &state);
  int next = 0, sum = 0;
  for (int tile = 0; tile < kTiles; ++tile) {
    for (; next < kTiles && next < tile + kStages; ++next) {
      pipe.producer_acquire();
      cuda::memcpy_async(block, tiles[next % kStages], in + next * kThreads, sizeof(tiles[0]), pipe);
      pipe.producer_commit();
    }
    pipe.consumer_wait();
    sum += tiles[tile % kStages][kThreads - 1 - threadIdx.x];
    pipe.consumer_release();
  }
  out[threadIdx.x] = sum;
}

// One warp fills, the others drain, by barriers of their own.
__global__ void hand_over(int* out) {
  __shared__ int slot[32];
  __shared__ cuda::barrier<cuda::thread_scope_block> full, empty;
  if (threadIdx.x == 0) {
    init(&full, blockDim.x);
    init(&empty, blockDim.x);
  }
  __syncthreads();
  int sum = 0;
  for (int round = 0; round < 20; ++round) {
    if (threadIdx.x < 32) slot[threadIdx.x] = round * 100 + threadIdx.x;
    full.wait(full.arrive());
    sum += slot[(threadIdx.x + round) % 32];
    empty.arrive_and_wait();
  }
  out[threadIdx.x] = sum;
}

__global__ void copy_as_group(const int* in, int* out) {
  __shared__ alignas(16) int tile[kThreads];
  __shared__ cuda::barrier<cuda::thread_scope_block> ready;
  auto block = cg::this_thread_block();
  if (block.thread_rank() == 0) init(&ready, block.size());
  block.sync();
  cg::memcpy_async(block, tile, in, sizeof(tile));
  cg::wait(block);
  int value = tile[threadIdx.x ^ 1];
  block.sync();
  cuda::memcpy_async(block, tile, in + kThreads, cuda::aligned_size_t<16>(sizeof(tile)), ready);
  ready.arrive_and_wait();
  out[threadIdx.x] = value * 3 + tile[threadIdx.x ^ 2] + cg::reduce(cg::tiled_partition<32>(block), 1, cg::plus<int>());
}

int main() {
  std::vector<int> values(kTiles * kThreads), result(kThreads);
  for (size_t i = 0; i < values.size(); ++i) values[i] = int(i * i % 1009);
  int *in, *out;
  CALL(cudaMalloc(&in, values.size() * sizeof(int)));
  CALL(cudaMalloc(&out, result.size() * sizeof(int)));
  CALL(cudaMemcpy(in, values.data(), values.size() * sizeof(int), cudaMemcpyHostToDevice));
  const auto fetch = [&] {
    CALL(cudaGetLastError());
    CALL(cudaMemcpy(result.data(), out, result.size() * sizeof(int), cudaMemcpyDeviceToHost));
  };
  sum_tiles<<<1, kThreads>>>(in, out);
  fetch();
  for (int t = 0; t < kThreads; ++t) {
    int sum = 0;
    for (int tile = 0; tile < kTiles; ++tile) sum += values[tile * kThreads + kThreads - 1 - t];
    EXPECT(result[t] == sum);
  }
  hand_over<<<1, kThreads>>>(out);
  fetch();
  for (int t = 0; t < kThreads; ++t) {
    int sum = 0;
    for (int round = 0; round < 20; ++round) sum += round * 100 + (t + round) % 32;
    EXPECT(result[t] == sum);
  }
  copy_as_group<<<1, kThreads>>>(in, out);
  fetch();
  for (int t = 0; t < kThreads; ++t) EXPECT(result[t] == values[t ^ 1] * 3 + values[kThreads + (t ^ 2)] + 32);
  std::printf("ok\n");
}
