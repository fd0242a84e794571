// Entry points: tensor maps, for copies of boxes by kernels. Tiles without interleaving; the rest is refused.

#include <cstring>

#include "softgpu/driver/driver.h"
#include "softgpu/exec/tensor_map.h"

using namespace softgpu;  // an entry point is C; everything it uses is ours

namespace {

constexpr cuuint64_t kLongest = cuuint64_t{1} << 32;
constexpr cuuint64_t kFarthest = cuuint64_t{1} << 40;

// Bytes of an element, 0 for types that are not supported.
uint8_t bytes_of(CUtensorMapDataType type) {
  switch (type) {
    case CU_TENSOR_MAP_DATA_TYPE_UINT8:
      return 1;
    case CU_TENSOR_MAP_DATA_TYPE_UINT16:
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT16:
    case CU_TENSOR_MAP_DATA_TYPE_BFLOAT16:
      return 2;
    case CU_TENSOR_MAP_DATA_TYPE_UINT32:
    case CU_TENSOR_MAP_DATA_TYPE_INT32:
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT32:
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT32_FTZ:
    case CU_TENSOR_MAP_DATA_TYPE_TFLOAT32:
    case CU_TENSOR_MAP_DATA_TYPE_TFLOAT32_FTZ:
      return 4;
    case CU_TENSOR_MAP_DATA_TYPE_UINT64:
    case CU_TENSOR_MAP_DATA_TYPE_INT64:
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT64:
      return 8;
    default:
      return 0;
  }
}

bool swizzle_of(CUtensorMapSwizzle swizzle, Swizzle* out, uint32_t* line_max) {
  switch (swizzle) {
    case CU_TENSOR_MAP_SWIZZLE_NONE:
      *out = Swizzle::kNone;
      return true;
    case CU_TENSOR_MAP_SWIZZLE_32B:
      *out = Swizzle::k32;
      *line_max = 32;
      return true;
    case CU_TENSOR_MAP_SWIZZLE_64B:
      *out = Swizzle::k64;
      *line_max = 64;
      return true;
    case CU_TENSOR_MAP_SWIZZLE_128B:
      *out = Swizzle::k128;
      *line_max = 128;
      return true;
    default:
      return false;
  }
}

struct Tiles {
  const cuuint64_t* lengths;
  const cuuint64_t* strides;
  const cuuint32_t* box;
  const cuuint32_t* steps;
};

bool describe(const Tiles& t, uint32_t line_max, TensorMap* map) {
  for (uint32_t d = 0; d < map->rank; ++d) {
    if (t.lengths[d] == 0 || t.lengths[d] > kLongest) return false;
    if (t.box[d] == 0 || t.box[d] > 256 || t.steps[d] == 0 || t.steps[d] > 8) return false;
    map->last[d] = static_cast<uint32_t>(t.lengths[d] - 1);
    map->box[d] = static_cast<uint16_t>(t.box[d]);
    map->steps[d] = static_cast<uint8_t>(t.steps[d]);
    if (d == 0) continue;
    const cuuint64_t stride = t.strides[d - 1];
    if (stride % 16 != 0 || stride >= kFarthest) return false;
    map->strides[d - 1] = stride;
  }
  const uint32_t line = map->box[0] * map->element_bytes;
  return line % 16 == 0 && (line_max == 0 || line <= line_max);
}

}  // namespace

extern "C" CUresult cuTensorMapEncodeTiled(CUtensorMap* out, CUtensorMapDataType type, cuuint32_t rank, void* address,
                                           const cuuint64_t* lengths, const cuuint64_t* strides, const cuuint32_t* box,
                                           const cuuint32_t* steps, CUtensorMapInterleave interleave,
                                           CUtensorMapSwizzle swizzle, CUtensorMapL2promotion,
                                           CUtensorMapFloatOOBfill fill) {
  if (const CUresult result = ready(); result != CUDA_SUCCESS) return result;
  const auto where = reinterpret_cast<uint64_t>(address);
  const bool given = out != nullptr && lengths != nullptr && box != nullptr && steps != nullptr;
  if (!given || reinterpret_cast<uint64_t>(out) % alignof(TensorMap) != 0) return CUDA_ERROR_INVALID_VALUE;
  if (rank == 0 || rank > 5 || (rank > 1 && strides == nullptr) || where == 0 || where % 16 != 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  TensorMap map;
  uint32_t line_max = 0;
  map.element_bytes = bytes_of(type);
  if (map.element_bytes == 0 || interleave != CU_TENSOR_MAP_INTERLEAVE_NONE ||
      !swizzle_of(swizzle, &map.swizzle, &line_max)) {
    return CUDA_ERROR_NOT_SUPPORTED;
  }
  map.address = where;
  map.rank = static_cast<uint8_t>(rank);
  // A NaN in every float format when its halves are these.
  map.outside = fill == CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE ? 0 : 0x7fff;
  if (!describe({lengths, strides, box, steps}, line_max, &map)) return CUDA_ERROR_INVALID_VALUE;
  static_assert(sizeof(CUtensorMap) == sizeof(TensorMap));
  std::memcpy(out, &map, sizeof(map));
  return CUDA_SUCCESS;
}

extern "C" CUresult cuTensorMapReplaceAddress(CUtensorMap* out, void* address) {
  if (const CUresult result = ready(); result != CUDA_SUCCESS) return result;
  const auto where = reinterpret_cast<uint64_t>(address);
  if (out == nullptr || where == 0 || where % 16 != 0) return CUDA_ERROR_INVALID_VALUE;
  TensorMap map;
  std::memcpy(static_cast<void*>(&map), out, sizeof(map));
  if (map.magic != TensorMap::kMagic) return CUDA_ERROR_INVALID_VALUE;
  map.address = where;
  std::memcpy(out, &map, sizeof(map));
  return CUDA_SUCCESS;
}
