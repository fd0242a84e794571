#include "softgpu/driver/occupancy.h"

#include <algorithm>

#include "softgpu/driver/driver.h"

namespace softgpu {
namespace {

constexpr int kWarp = 32;
constexpr int kRegistersGranule = 256;  // of a warp
constexpr size_t kSharedGranule = 128;

template <typename T>
T round_up(T value, T multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

const Profile& profile() { return driver().devices[0]->profile; }

}  // namespace

int blocks_per_multiprocessor(const Launchable& kernel, unsigned threads, size_t dynamic_shared_bytes) {
  const Profile& card = profile();
  if (threads > kernel.info().max_threads_per_block) return 0;
  const int warps = static_cast<int>((threads + kWarp - 1) / kWarp);
  const int by_threads = card.threads_per_multiprocessor / kWarp / warps;
  const int warp_registers = round_up(kernel.registers() * kWarp, kRegistersGranule);
  const int by_registers = kRegistersPerMultiprocessor / warp_registers / warps;
  const size_t shared =
      round_up(kernel.info().static_shared_bytes + dynamic_shared_bytes + kReservedSharedPerBlock, kSharedGranule);
  const size_t by_shared = static_cast<size_t>(card.shared_per_multiprocessor) / shared;
  const int least = std::min({by_threads, by_registers, card.blocks_per_multiprocessor});
  return static_cast<int>(std::min<size_t>(static_cast<size_t>(least), by_shared));
}

}  // namespace softgpu

using namespace softgpu;  // an entry point is C; everything it uses is ours

namespace {

CUresult max_active_blocks(int* blocks, CUfunction function, int block_size, size_t shared) {
  return guarded([&]() -> CUresult {
    if (blocks == nullptr || block_size <= 0) return CUDA_ERROR_INVALID_VALUE;
    Launchable kernel;
    const CUresult result = find_launchable(function, nullptr, &kernel);
    if (result != CUDA_SUCCESS) return result;
    *blocks = blocks_per_multiprocessor(kernel, static_cast<unsigned>(block_size), shared);
    return CUDA_SUCCESS;
  });
}

// The block size with most threads on a multiprocessor; of several, the largest.
CUresult best_block_size(int* grid_size, int* block_size, const Launchable& kernel, CUoccupancyB2DSize shared_of,
                         size_t shared, int limit) {
  int most = static_cast<int>(std::min<unsigned>(kernel.info().max_threads_per_block, kThreadsPerBlock));
  if (limit > 0) most = std::min(most, limit);
  int best_threads = 0;
  for (int size = most; size > 0; size = (size - 1) / 32 * 32) {
    const size_t dynamic = shared_of == nullptr ? shared : shared_of(size);
    const int blocks = blocks_per_multiprocessor(kernel, static_cast<unsigned>(size), dynamic);
    if (blocks * size > best_threads) {
      best_threads = blocks * size;
      *block_size = size;
      *grid_size = blocks * profile().multiprocessors;
    }
  }
  return best_threads == 0 ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

CUresult potential_block_size(int* grid_size, int* block_size, CUfunction function, CUoccupancyB2DSize shared_of,
                              size_t shared, int limit) {
  return guarded([&]() -> CUresult {
    if (grid_size == nullptr || block_size == nullptr || limit < 0) return CUDA_ERROR_INVALID_VALUE;
    Launchable kernel;
    const CUresult result = find_launchable(function, nullptr, &kernel);
    if (result != CUDA_SUCCESS) return result;
    return best_block_size(grid_size, block_size, kernel, shared_of, shared, limit);
  });
}

}  // namespace

extern "C" CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, CUfunction function, int block_size,
                                                                size_t shared) {
  return max_active_blocks(blocks, function, block_size, shared);
}

extern "C" CUresult cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, CUfunction function,
                                                                         int block_size, size_t shared, unsigned int) {
  return max_active_blocks(blocks, function, block_size, shared);
}

extern "C" CUresult cuOccupancyMaxPotentialBlockSize(int* grid_size, int* block_size, CUfunction function,
                                                     CUoccupancyB2DSize shared_of, size_t shared, int limit) {
  return potential_block_size(grid_size, block_size, function, shared_of, shared, limit);
}

extern "C" CUresult cuOccupancyMaxPotentialBlockSizeWithFlags(int* grid_size, int* block_size, CUfunction function,
                                                              CUoccupancyB2DSize shared_of, size_t shared, int limit,
                                                              unsigned int) {
  return potential_block_size(grid_size, block_size, function, shared_of, shared, limit);
}

extern "C" CUresult cuOccupancyAvailableDynamicSMemPerBlock(size_t* bytes, CUfunction function, int blocks,
                                                            int block_size) {
  return guarded([&]() -> CUresult {
    if (bytes == nullptr || blocks <= 0 || block_size <= 0) return CUDA_ERROR_INVALID_VALUE;
    Launchable kernel;
    const CUresult result = find_launchable(function, nullptr, &kernel);
    if (result != CUDA_SUCCESS) return result;
    if (blocks_per_multiprocessor(kernel, static_cast<unsigned>(block_size), 0) < blocks) {
      *bytes = 0;
      return CUDA_SUCCESS;
    }
    const size_t each =
        static_cast<size_t>(profile().shared_per_multiprocessor / blocks) / kSharedGranule * kSharedGranule;
    const size_t used = kernel.info().static_shared_bytes + static_cast<size_t>(kReservedSharedPerBlock);
    const size_t most = static_cast<size_t>(kernel.dynamic_shared_max());
    *bytes = each <= used ? 0 : std::min(each - used, most);
    return CUDA_SUCCESS;
  });
}
