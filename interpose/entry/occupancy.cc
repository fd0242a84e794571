// Clusters are the worker's to say. The block size with the best occupancy is tried out here, because the caller's
// function that says how much shared memory a block needs can only be called here. Each occupancy comes from the worker
// once, then from the cache.

#include <algorithm>

#include "api/payload.h"
#include "commands.h"
#include "interpose/entry/entry.h"

using namespace tide;

namespace {

struct Search {
  CUfunction function;
  CUoccupancyB2DSize shared_of_block;
  size_t shared_bytes;
  int limit;
  unsigned flags;
};

CUresult search_block(const Search& s, const Vgpu& vgpu, int* grid, int* block) {
  const int* a = vgpu.info.attributes;
  int kernel_limit = 0;
  TIDE_TRY(cuFuncGetAttribute(&kernel_limit, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, s.function));
  int largest = std::min(kernel_limit, a[CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK]);
  if (s.limit > 0) largest = std::min(largest, s.limit);
  const int warp = std::max(1, a[CU_DEVICE_ATTRIBUTE_WARP_SIZE]);
  const int most = a[CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR];
  int best_threads = 0, best_block = 0, best_blocks = 0;
  for (int rounded = (largest + warp - 1) / warp * warp; rounded > 0; rounded -= warp) {
    const int size = std::min(rounded, largest);
    const size_t shared = s.shared_of_block != nullptr ? s.shared_of_block(size) : s.shared_bytes;
    int blocks = 0;
    TIDE_TRY(cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(&blocks, s.function, size, shared, s.flags));
    if (blocks * size > best_threads) {
      best_threads = blocks * size;
      best_block = size;
      best_blocks = blocks;
    }
    if (best_threads == most) break;
  }
  *grid = best_blocks * a[CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT];
  *block = best_block;
  return CUDA_SUCCESS;
}

constexpr unsigned kAttributesMax = 32;

CUresult ask_clusters(int* answer, CUfunction function, const CUlaunchConfig* c, bool most) {
  Entered e;
  TIDE_TRY(enter(&e));
  if (answer == nullptr || c == nullptr || c->numAttrs > kAttributesMax) return CUDA_ERROR_INVALID_VALUE;
  if (c->numAttrs != 0 && c->attrs == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const Kernel* kernel = e.process->kernels.find(function);
  if (kernel == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  uint64_t number = 0;
  TIDE_TRY(wire_kernel(*e.process, *kernel, *e.context, &number));
  const command::Clusters command{number,
                                  c->gridDimX,
                                  c->gridDimY,
                                  c->gridDimZ,
                                  c->blockDimX,
                                  c->blockDimY,
                                  c->blockDimZ,
                                  c->sharedMemBytes,
                                  uint32_t(most),
                                  c->numAttrs,
                                  0};
  Reply reply;
  TIDE_TRY(ask_command(*e.context, Call::tideClusters, command, command::kClustersDataOffset,
                       std::as_bytes(std::span(c->attrs, c->numAttrs)), &reply));
  ClustersAnswer clusters;
  TIDE_TRY(read_answer(reply, &clusters));
  *answer = clusters.count;
  return CUDA_SUCCESS;
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

CUresult cuOccupancyMaxPotentialBlockSizeWithFlags(int* grid, int* block, CUfunction function,
                                                   CUoccupancyB2DSize shared_of_block, size_t shared_bytes, int limit,
                                                   unsigned int flags) {
  Entered e;
  TIDE_TRY(enter(&e));
  if (grid == nullptr || block == nullptr || limit < 0) return CUDA_ERROR_INVALID_VALUE;
  return search_block({function, shared_of_block, shared_bytes, limit, flags}, *e.vgpu, grid, block);
}

CUresult cuOccupancyMaxPotentialBlockSize(int* grid, int* block, CUfunction function,
                                          CUoccupancyB2DSize shared_of_block, size_t shared_bytes, int limit) {
  return cuOccupancyMaxPotentialBlockSizeWithFlags(grid, block, function, shared_of_block, shared_bytes, limit, 0);
}

CUresult cuOccupancyMaxPotentialClusterSize(int* size, CUfunction function, const CUlaunchConfig* config) {
  return ask_clusters(size, function, config, true);
}

CUresult cuOccupancyMaxActiveClusters(int* clusters, CUfunction function, const CUlaunchConfig* config) {
  return ask_clusters(clusters, function, config, false);
}

}  // extern "C"
#pragma GCC visibility pop
