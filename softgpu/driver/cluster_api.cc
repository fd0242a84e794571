// Entry points: how large clusters may be, and how many of them fit.

#include "softgpu/driver/driver.h"
#include "softgpu/driver/kernel_work.h"
#include "softgpu/driver/occupancy.h"

namespace softgpu {

uint32_t blocks_per_cluster(const Launchable& kernel) { return kernel.settings().large_clusters ? 16 : 8; }

namespace {

struct Fit {
  Launchable kernel;
  Shape shape;
  uint64_t blocks = 0;  // on the whole device
};

CUresult fit_of(CUfunction function, const CUlaunchConfig* config, Fit* out) {
  if (config == nullptr || (config->numAttrs != 0 && config->attrs == nullptr)) return CUDA_ERROR_INVALID_VALUE;
  const uint64_t threads = uint64_t{config->blockDimX} * config->blockDimY * config->blockDimZ;
  if (threads == 0 || threads > 1024) return CUDA_ERROR_INVALID_VALUE;
  CUresult result = find_launchable(function, nullptr, &out->kernel);
  if (result == CUDA_SUCCESS) result = apply_attributes(config->attrs, config->numAttrs, &out->shape);
  if (result != CUDA_SUCCESS) return result;
  const int each = blocks_per_multiprocessor(out->kernel, static_cast<unsigned>(threads), config->sharedMemBytes);
  out->blocks = static_cast<uint64_t>(each) * static_cast<uint64_t>(driver().devices[0]->profile.multiprocessors);
  return CUDA_SUCCESS;
}

}  // namespace
}  // namespace softgpu

using namespace softgpu;  // an entry point is C; everything it uses is ours

extern "C" CUresult cuOccupancyMaxPotentialClusterSize(int* size, CUfunction function, const CUlaunchConfig* config) {
  return guarded([&]() -> CUresult {
    Fit fit;
    if (size == nullptr) return CUDA_ERROR_INVALID_VALUE;
    const CUresult result = fit_of(function, config, &fit);
    if (result != CUDA_SUCCESS) return result;
    uint32_t most = blocks_per_cluster(fit.kernel);
    while (most > fit.blocks) most /= 2;
    *size = static_cast<int>(most);
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuOccupancyMaxActiveClusters(int* clusters, CUfunction function, const CUlaunchConfig* config) {
  return guarded([&]() -> CUresult {
    Fit fit;
    if (clusters == nullptr) return CUDA_ERROR_INVALID_VALUE;
    const CUresult result = fit_of(function, config, &fit);
    if (result != CUDA_SUCCESS) return result;
    const Dim3 wanted = fit.shape.cluster.x != 0 ? fit.shape.cluster : fit.kernel.info().cluster;
    const uint64_t size = wanted.x == 0 ? 1 : uint64_t{wanted.x} * wanted.y * wanted.z;
    *clusters = size > blocks_per_cluster(fit.kernel) ? 0 : static_cast<int>(fit.blocks / size);
    return CUDA_SUCCESS;
  });
}
