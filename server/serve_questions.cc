// Commands that only ask the driver: tensor maps, and how many clusters of a kernel fit.

#include <algorithm>
#include <cstring>
#include <vector>

#include "api/payload.h"
#include "serve.h"

namespace tide {
namespace {

constexpr uint32_t kAttributesMax = 32;

CUresult encode(const Driver& d, const TensorMapQuestion& q, CUtensorMap* map) {
  const auto type = CUtensorMapDataType(q.type);
  const auto interleave = CUtensorMapInterleave(q.interleave);
  const auto swizzle = CUtensorMapSwizzle(q.swizzle);
  const auto promotion = CUtensorMapL2promotion(q.promotion);
  const auto fill = CUtensorMapFloatOOBfill(q.fill);
  auto* address = reinterpret_cast<void*>(q.address);
  static_assert(sizeof(cuuint64_t) == sizeof(q.lengths[0]));
  cuuint64_t lengths[5], strides[5];
  std::copy_n(q.lengths, 5, lengths);
  std::copy_n(q.strides, 5, strides);
  switch (q.kind) {
    case TensorMapKind::kTiled:
      if (d.cuTensorMapEncodeTiled == nullptr) return CUDA_ERROR_NOT_SUPPORTED;
      return d.cuTensorMapEncodeTiled(map, type, q.rank, address, lengths, strides, q.box, q.steps, interleave, swizzle,
                                      promotion, fill);
    case TensorMapKind::kIm2col:
      if (d.cuTensorMapEncodeIm2col == nullptr) return CUDA_ERROR_NOT_SUPPORTED;
      return d.cuTensorMapEncodeIm2col(map, type, q.rank, address, lengths, strides, q.lower, q.upper, q.channels,
                                       q.pixels, q.steps, interleave, swizzle, promotion, fill);
    case TensorMapKind::kIm2colWide:
      if (d.cuTensorMapEncodeIm2colWide == nullptr) return CUDA_ERROR_NOT_SUPPORTED;
      return d.cuTensorMapEncodeIm2colWide(map, type, q.rank, address, lengths, strides, q.lower[0], q.upper[0],
                                           q.channels, q.pixels, q.steps, interleave, CUtensorMapIm2ColWideMode(q.mode),
                                           swizzle, promotion, fill);
    case TensorMapKind::kReplaceAddress:
      if (d.cuTensorMapReplaceAddress == nullptr) return CUDA_ERROR_NOT_SUPPORTED;
      memcpy(map, q.map, sizeof q.map);
      return d.cuTensorMapReplaceAddress(map, address);
  }
  return CUDA_ERROR_INVALID_VALUE;
}

// A cluster's shape and how it is placed; the others say nothing about what fits.
std::vector<CUlaunchAttribute> cluster_attributes(std::span<const std::byte> data) {
  std::vector<CUlaunchAttribute> all(data.size() / sizeof(CUlaunchAttribute));
  if (!all.empty()) memcpy(all.data(), data.data(), all.size() * sizeof(CUlaunchAttribute));
  std::erase_if(all, [](const CUlaunchAttribute& attribute) {
    return attribute.id != CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION &&
           attribute.id != CU_LAUNCH_ATTRIBUTE_CLUSTER_SCHEDULING_POLICY_PREFERENCE &&
           attribute.id != CU_LAUNCH_ATTRIBUTE_PREFERRED_CLUSTER_DIMENSION;
  });
  return all;
}

}  // namespace

CUresult serve_tideEncodeTensorMap(Session& session, const command::EncodeTensorMap&, Received& q, Outputs& a) {
  TensorMapQuestion question;
  if (q.tail().size() != sizeof question) return CUDA_ERROR_INVALID_VALUE;
  memcpy(&question, q.tail().data(), sizeof question);
  if (question.rank > 5) return CUDA_ERROR_INVALID_VALUE;
  CUtensorMap map;
  const CUresult result = encode(session.driver(), question, &map);
  if (result == CUDA_SUCCESS) memcpy(a.out<TensorMapAnswer>(1)->map, &map, sizeof map);
  return result;
}

CUresult serve_tideClusters(Session& session, const command::Clusters& c, Received& q, Outputs& a) {
  const Driver& driver = session.driver();
  if (c.attribute_count > kAttributesMax) return CUDA_ERROR_INVALID_VALUE;
  CUfunction function = session.libraries().function(c.kernel);
  if (function == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  const auto ask = c.most != 0 ? driver.cuOccupancyMaxPotentialClusterSize : driver.cuOccupancyMaxActiveClusters;
  if (ask == nullptr) return CUDA_ERROR_NOT_SUPPORTED;
  std::vector<CUlaunchAttribute> attributes = cluster_attributes(q.tail());
  CUlaunchConfig config = {};
  config.gridDimX = c.grid_x, config.gridDimY = c.grid_y, config.gridDimZ = c.grid_z;
  config.blockDimX = c.block_x, config.blockDimY = c.block_y, config.blockDimZ = c.block_z;
  config.sharedMemBytes = c.shared_bytes;
  config.attrs = attributes.data();
  config.numAttrs = unsigned(attributes.size());
  int count = 0;
  const CUresult result = ask(&count, function, &config);
  if (result == CUDA_SUCCESS) a.out<ClustersAnswer>(1)->count = count;
  return result;
}

}  // namespace tide
