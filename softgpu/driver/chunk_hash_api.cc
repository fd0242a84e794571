// Entry points of our own: what a chunk of device memory holds, for the worker that moves a vGPU.

#include <memory>
#include <vector>

#include "softgpu/driver/driver.h"

using namespace softgpu;  // an entry point is C; everything it uses is ours

namespace {

// Neighbours in one block of physical memory.
struct Run {
  std::shared_ptr<Backing> backing;
  uint64_t first = 0, count = 0;  // chunks
};

// The run that the addresses begin with; no chunks: the first one is not mapped.
Run next_run(const CUdeviceptr* addresses, size_t count) {
  const auto range = driver().memory.find(addresses[0]);
  if (!range || !range->usable() || !range->on_device() || range->backing == nullptr) return {};
  const uint64_t at = range->backing_offset + addresses[0] - range->address;
  if (at % kChunkBytes != 0) return {};
  const uint64_t whole = round_up(range->address + range->bytes - addresses[0], kChunkBytes) / kChunkBytes;
  Run run{range->backing, at / kChunkBytes, 1};
  while (run.count < whole && run.count < count && addresses[run.count] == addresses[0] + run.count * kChunkBytes) {
    ++run.count;
  }
  return run;
}

}  // namespace

extern "C" CUresult softgpuHashChunks(const tide::ChunkSecret* secret, const CUdeviceptr* addresses, size_t count,
                                      tide::ChunkHash* hashes) {
  return guarded([&]() -> CUresult {
    if (secret == nullptr || (count != 0 && (addresses == nullptr || hashes == nullptr))) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    std::vector<Run> runs;
    for (size_t done = 0; done < count; done += runs.back().count) {
      if (addresses[done] % kChunkBytes != 0) return CUDA_ERROR_INVALID_VALUE;
      runs.push_back(next_run(addresses + done, count - done));
      if (runs.back().count == 0) return CUDA_ERROR_INVALID_VALUE;
    }
    for (const Run& run : runs) {
      run.backing->hash(*secret, run.first, run.count, hashes);
      hashes += run.count;
    }
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult softgpuForgetHashes() {
  return guarded([]() -> CUresult {
    for (const auto& device : driver().devices) {
      for (const Range& range : driver().memory.device_ranges(*device)) {
        if (range.backing != nullptr) range.backing->forget_hashes();
      }
    }
    driver().physicals.for_each([](Physical& physical) { physical.backing->forget_hashes(); });
    return CUDA_SUCCESS;
  });
}
