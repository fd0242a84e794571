// Cooperative groups.
#include <cooperative_groups.h>
#include <cooperative_groups/memcpy_async.h>
#include <cooperative_groups/reduce.h>
#include <cooperative_groups/scan.h>

#include <cuda/atomic>
#include <cuda/barrier>

namespace cg = cooperative_groups;

template <unsigned N>
__device__ int tiles(cg::thread_block block, int x) {
  const auto tile = cg::tiled_partition<N>(block);
  int y = tile.shfl(x, 0) + tile.shfl_down(x, 1) + tile.shfl_xor(x, 1) + tile.any(x) + tile.all(x) + tile.ballot(x);
  y += cg::reduce(tile, x, cg::plus<int>()) + cg::reduce(tile, x, cg::less<int>()) +
       cg::reduce(tile, x, cg::bit_xor<int>());
  y += cg::inclusive_scan(tile, x) + cg::exclusive_scan(tile, x, cg::plus<int>());
  tile.sync();
  return y + tile.thread_rank() + tile.meta_group_rank() + tile.match_any(x);
}
__global__ void tiled(int* x, float* f, double* d) {
  const auto block = cg::this_thread_block();
  x[0] = tiles<32>(block, x[1]) + tiles<8>(block, x[2]) + tiles<2>(block, x[3]);
  const auto tile = cg::tiled_partition<32>(block);
  f[0] = cg::reduce(tile, f[1], cg::plus<float>()) + cg::reduce(tile, f[2], cg::greater<float>());
  d[0] = cg::reduce(tile, d[1], cg::plus<double>()) + cg::inclusive_scan(tile, d[2]);
  const auto odd = cg::binary_partition(tile, block.thread_rank() & 1);
  x[4] = cg::reduce(odd, x[5], cg::plus<int>()) + odd.size();
  const auto label = cg::labeled_partition(tile, x[6]);
  x[7] = label.thread_rank() + cg::exclusive_scan(label, x[8]);
  const auto active = cg::coalesced_threads();
  if (active.thread_rank() == 0) x[9] = active.size() + active.num_threads();
  x[10] = cg::reduce(active, x[11], cg::plus<int>());
  cg::invoke_one(tile, [&] { x[12] = 1; });
  x[13] = cg::invoke_one_broadcast(active, [&] { return x[14]; });
}
__global__ void block_tiles(int* x) {
  __shared__ cg::block_tile_memory<256> memory;
  const auto block = cg::this_thread_block(memory);
  const auto tile = cg::tiled_partition<128>(block);
  x[0] = cg::reduce(tile, x[1], cg::plus<int>()) + cg::inclusive_scan(tile, x[2]) + tile.shfl(x[3], 64);
  tile.sync();
  block.sync();
  auto token = block.barrier_arrive();
  block.barrier_wait(static_cast<decltype(token)&&>(token));
}
__global__ void whole_grid(int* x) {
  const auto grid = cg::this_grid();
  grid.sync();
  x[grid.thread_rank()] = grid.size() + grid.is_valid() + grid.block_rank();
  auto token = grid.barrier_arrive();
  grid.barrier_wait(static_cast<decltype(token)&&>(token));
}
__global__ void copies(int* out, const int4* in) {
  __shared__ int4 room[64];
  const auto block = cg::this_thread_block();
  cg::memcpy_async(block, room, in, sizeof(room));
  cg::wait(block);
  cg::memcpy_async(block, room, cuda::aligned_size_t<16>(512), in, cuda::aligned_size_t<16>(512));
  cg::memcpy_async(block, room, in + 9, cuda::aligned_size_t<16>(256));
  cg::wait_prior<1>(block);
  out[threadIdx.x] = room[threadIdx.x].x;
  const cuda::atomic_ref<int, cuda::thread_scope_device> total(out[0]);
  cg::reduce_update_async(cg::tiled_partition<32>(block), total, 3, cg::plus<int>());
}
#if __CUDA_ARCH__ >= 900
__global__ void __cluster_dims__(2, 1, 1) clusters(int* x) {
  __shared__ int room[32];
  const auto cluster = cg::this_cluster();
  room[threadIdx.x] = x[threadIdx.x];
  cluster.sync();
  int* other = cluster.map_shared_rank(room, cluster.block_rank() ^ 1);
  x[threadIdx.x] = other[3] + cluster.num_blocks() + cluster.query_shared_rank(other) + cluster.dim_threads().x;
  atomicAdd(other, 1);
  auto token = cluster.barrier_arrive();
  cluster.barrier_wait(static_cast<decltype(token)&&>(token));
}
#endif
