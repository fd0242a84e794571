// nvcc: -arch=compute_90 -std=c++17
// Clusters: their indices and barriers, shared memory of other blocks, bulk copies to one and to all of them, tensor
// maps.
#include <cooperative_groups.h>
#include <cuda.h>
#include <cudaTypedefs.h>

#include <cstdlib>
#include <cuda/barrier>
#include <vector>

#include "expect.h"

namespace cg = cooperative_groups;
namespace ptx = cuda::ptx;

constexpr int kThreads = 64;

// Every block reads what the next one of its cluster has written.
__global__ void pass_round(int* out) {
  __shared__ int mine[kThreads];
  cg::cluster_group cluster = cg::this_cluster();
  mine[threadIdx.x] = int(blockIdx.x * 1000 + threadIdx.x);
  cluster.sync();
  const unsigned next = (cluster.block_rank() + 1) % cluster.num_blocks();
  const int* theirs = cluster.map_shared_rank(mine, next);
  out[blockIdx.x * kThreads + threadIdx.x] = theirs[kThreads - 1 - threadIdx.x];
  cluster.sync();
}

__global__ void __cluster_dims__(2, 2, 1) indices(unsigned* out) {
  __shared__ unsigned count;
  cg::cluster_group cluster = cg::this_cluster();
  if (threadIdx.x == 0) count = 0;
  cluster.sync();
  atomicAdd(cluster.map_shared_rank(&count, 0), cluster.block_rank() + 1);
  cluster.sync();
  const unsigned block = blockIdx.y * gridDim.x + blockIdx.x;
  const dim3 at = cluster.block_index(), size = cluster.dim_blocks();
  if (threadIdx.x == 0) {
    out[block] = cluster.block_rank() * 1000 + at.x * 100 + at.y * 10 + size.x * size.y +
                 1000000 * *cluster.map_shared_rank(&count, 0);
  }
  cluster.sync();
}

// Rows come by bulk copies; sums go back by one.
__global__ void bulk(const int* in, int* out) {
  __shared__ alignas(128) int row[256];
  __shared__ cuda::barrier<cuda::thread_scope_block> ready;
  if (threadIdx.x == 0) init(&ready, blockDim.x);
  __syncthreads();
  cuda::barrier<cuda::thread_scope_block>::arrival_token token;
  if (threadIdx.x == 0) {
    cuda::device::memcpy_async_tx(row, in, cuda::aligned_size_t<16>(sizeof(row)), ready);
    token = cuda::device::barrier_arrive_tx(ready, 1, sizeof(row));
  } else {
    token = ready.arrive();
  }
  ready.wait(std::move(token));
  for (int i = threadIdx.x; i < 256; i += blockDim.x) row[i] *= 3;
  ptx::fence_proxy_async(ptx::space_shared);
  __syncthreads();
  if (threadIdx.x == 0) {
    ptx::cp_reduce_async_bulk(ptx::space_global, ptx::space_shared, ptx::op_add, out, row, sizeof(row));
    ptx::cp_async_bulk_commit_group();
    ptx::cp_async_bulk_wait_group_read(ptx::n32_t<0>());
  }
}

// A box of a matrix, swizzled or not, and back to another place.
__global__ void move_box(const __grid_constant__ CUtensorMap from, const __grid_constant__ CUtensorMap to, int x, int y,
                         unsigned* seen) {
  __shared__ alignas(1024) unsigned box[8][32];
  __shared__ cuda::barrier<cuda::thread_scope_block> ready;
  if (threadIdx.x == 0) {
    init(&ready, 1);
    ptx::fence_proxy_async(ptx::space_shared);
    cuda::device::experimental::cp_async_bulk_tensor_2d_global_to_shared(box, &from, x, y, ready);
    ready.wait(cuda::device::barrier_arrive_tx(ready, 1, sizeof(box)));
    for (int r = 0; r < 8; ++r) {
      for (int c = 0; c < 32; ++c) seen[r * 32 + c] = box[r][c];
    }
    cuda::device::experimental::cp_async_bulk_tensor_2d_shared_to_global(&to, 32, 8, box);
    cuda::device::experimental::cp_async_bulk_commit_group();
    cuda::device::experimental::cp_async_bulk_wait_group_read<0>();
  }
}

template <class T>
std::vector<T> fetch(const T* from, size_t count) {
  std::vector<T> out(count);
  CALL(cudaDeviceSynchronize());
  CALL(cudaMemcpy(out.data(), from, count * sizeof(T), cudaMemcpyDeviceToHost));
  return out;
}

void try_clusters() {
  int* out;
  CALL(cudaMalloc(&out, 16 * kThreads * sizeof(int)));
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = 4;
  attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = 8;
  config.blockDim = kThreads;
  config.attrs = &attribute;
  config.numAttrs = 1;
  CALL(cudaLaunchKernelEx(&config, pass_round, out));
  const auto got = fetch(out, 8 * kThreads);
  for (int i = 0; i < 8 * kThreads; ++i) {
    const int block = i / kThreads, next = block / 4 * 4 + (block + 1) % 4;
    EXPECT(got[i] == next * 1000 + kThreads - 1 - i % kThreads);
  }
  int most = 0, at_once = 0, supported = 0;
  CALL(cudaDeviceGetAttribute(&supported, cudaDevAttrClusterLaunch, 0));
  EXPECT(supported == 1);
  CALL(cudaOccupancyMaxPotentialClusterSize(&most, pass_round, &config));
  CALL(cudaOccupancyMaxActiveClusters(&at_once, pass_round, &config));
  EXPECT(most == 8 && at_once > 0);
  config.gridDim = 16;
  attribute.val.clusterDim.x = 16;
  EXPECT(cudaLaunchKernelEx(&config, pass_round, out) == cudaErrorInvalidClusterSize);
  cudaGetLastError();
  CALL(cudaFuncSetAttribute(pass_round, cudaFuncAttributeNonPortableClusterSizeAllowed, 1));
  CALL(cudaLaunchKernelEx(&config, pass_round, out));
  EXPECT(fetch(out, 16 * kThreads)[0] == 1000 + kThreads - 1);
  config.gridDim = 8;
  attribute.val.clusterDim.x = 3;
  EXPECT(cudaLaunchKernelEx(&config, pass_round, out) != cudaSuccess);
  cudaGetLastError();
  indices<<<dim3(4, 2), 32>>>(reinterpret_cast<unsigned*>(out));
  const auto seen = fetch(out, 8);
  for (int i = 0; i < 8; ++i) {
    const int x = i % 4 % 2, y = i / 4, rank = y * 2 + x;
    EXPECT(seen[i] == rank * 1000 + x * 100 + y * 10 + 4 + 1000000 * 32 * (1 + 2 + 3 + 4));
  }
  CALL(cudaFree(out));
}

void try_bulk() {
  int *in, *out;
  CALL(cudaMalloc(&in, 1024));
  CALL(cudaMalloc(&out, 1024));
  std::vector<int> values(256), start(256, 5);
  for (int i = 0; i < 256; ++i) values[i] = i * i;
  CALL(cudaMemcpy(in, values.data(), 1024, cudaMemcpyHostToDevice));
  CALL(cudaMemcpy(out, start.data(), 1024, cudaMemcpyHostToDevice));
  bulk<<<2, kThreads>>>(in, out);
  const auto got = fetch(out, 256);
  for (int i = 0; i < 256; ++i) EXPECT(got[i] == 5 + 2 * 3 * i * i);
}

void try_tensor_maps() {
  constexpr int kWidth = 80, kHeight = 40;
  void* entry = nullptr;
  cudaDriverEntryPointQueryResult found;
  CALL(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry, 12000, cudaEnableDefault, &found));
  EXPECT(found == cudaDriverEntryPointSuccess);
  const auto encode = reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(entry);
  std::vector<unsigned> matrix(kWidth * kHeight);
  for (size_t i = 0; i < matrix.size(); ++i) matrix[i] = unsigned(1000 + i);
  unsigned *from, *to, *seen;
  CALL(cudaMalloc(&from, matrix.size() * 4));
  CALL(cudaMalloc(&to, matrix.size() * 4));
  CALL(cudaMalloc(&seen, 1024));
  CALL(cudaMemcpy(from, matrix.data(), matrix.size() * 4, cudaMemcpyHostToDevice));
  for (const CUtensorMapSwizzle swizzle : {CU_TENSOR_MAP_SWIZZLE_NONE, CU_TENSOR_MAP_SWIZZLE_128B}) {
    for (const auto& [x, y] : {std::pair{3, 5}, std::pair{70, 36}, std::pair{-4, -2}}) {
      CALL(cudaMemset(to, 0, matrix.size() * 4));
      const cuuint64_t size[] = {kWidth, kHeight}, stride[] = {kWidth * 4};
      const cuuint32_t box[] = {32, 8}, step[] = {1, 1};
      CUtensorMap maps[2];
      for (int i = 0; i < 2; ++i) {
        EXPECT(encode(&maps[i], CU_TENSOR_MAP_DATA_TYPE_UINT32, 2, i == 0 ? from : to, size, stride, box, step,
                      CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle, CU_TENSOR_MAP_L2_PROMOTION_NONE,
                      CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS);
      }
      move_box<<<1, 32>>>(maps[0], maps[1], x, y, seen);
      const auto in_shared = fetch(seen, 256);
      const auto moved = fetch(to, matrix.size());
      for (int r = 0; r < 8; ++r) {
        for (int c = 0; c < 32; ++c) {
          const bool inside = x + c >= 0 && x + c < kWidth && y + r >= 0 && y + r < kHeight;
          const unsigned expected = inside ? matrix[(y + r) * kWidth + x + c] : 0;
          // Sixteen-byte pieces of line r are exchanged by the bits of r.
          const int column = swizzle == CU_TENSOR_MAP_SWIZZLE_NONE ? c : ((c / 4) ^ r) * 4 + c % 4;
          EXPECT(in_shared[r * 32 + column] == expected);
          EXPECT(moved[(8 + r) * kWidth + 32 + c] == expected);
        }
      }
      EXPECT(moved[7 * kWidth + 40] == 0 && moved[16 * kWidth + 40] == 0 && moved[9 * kWidth + 64] == 0);
    }
  }
  const cuuint64_t size[] = {kWidth, kHeight}, stride[] = {kWidth * 4 + 2};
  const cuuint32_t box[] = {32, 8}, step[] = {1, 1};
  CUtensorMap bad;
  EXPECT(encode(&bad, CU_TENSOR_MAP_DATA_TYPE_UINT32, 2, from, size, stride, box, step, CU_TENSOR_MAP_INTERLEAVE_NONE,
                CU_TENSOR_MAP_SWIZZLE_NONE, CU_TENSOR_MAP_L2_PROMOTION_NONE,
                CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_ERROR_INVALID_VALUE);
}

int main() {
  setenv("SOFTGPU_PROFILE", "13.0", 1);  // a device that has clusters
  try_clusters();
  try_bulk();
  try_tensor_maps();
  std::printf("ok\n");
}
