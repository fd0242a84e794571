// Entry points: tensor maps, for copies of boxes by kernels. Tiles and image to column, without interleaving.

#include <cstring>

#include "softgpu/driver/driver.h"
#include "softgpu/exec/tensor_map.h"

using namespace softgpu;  // an entry point is C; everything it uses is ours

namespace {

constexpr cuuint64_t kLongest = cuuint64_t{1} << 32;
constexpr cuuint64_t kFarthest = cuuint64_t{1} << 40;

// Types of less than a byte are not supported.
bool element_of(CUtensorMapDataType type, TensorMap* map) {
  static_assert(static_cast<int>(TensorElement::kTf32Ftz) == CU_TENSOR_MAP_DATA_TYPE_TFLOAT32_FTZ);
  if (type < CU_TENSOR_MAP_DATA_TYPE_UINT8 || type > CU_TENSOR_MAP_DATA_TYPE_TFLOAT32_FTZ) return false;
  map->type = static_cast<TensorElement>(type);
  map->element_bytes = bytes_of(map->type);
  return true;
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

namespace {

// What both kinds of maps say.
struct Common {
  CUtensorMap* out;
  CUtensorMapDataType type;
  cuuint32_t rank;
  void* address;
  CUtensorMapInterleave interleave;
  CUtensorMapSwizzle swizzle;
  CUtensorMapFloatOOBfill fill;
};

CUresult begin(const Common& c, const Tiles& t, uint32_t lowest_rank, TensorMap* map, uint32_t* line_max) {
  if (const CUresult result = ready(); result != CUDA_SUCCESS) return result;
  const auto where = reinterpret_cast<uint64_t>(c.address);
  const bool given = c.out != nullptr && t.lengths != nullptr && t.box != nullptr && t.steps != nullptr;
  if (!given || reinterpret_cast<uint64_t>(c.out) % alignof(TensorMap) != 0) return CUDA_ERROR_INVALID_VALUE;
  if (c.rank < lowest_rank || c.rank > 5 || (c.rank > 1 && t.strides == nullptr) || where == 0 || where % 16 != 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (!element_of(c.type, map) || c.interleave != CU_TENSOR_MAP_INTERLEAVE_NONE ||
      !swizzle_of(c.swizzle, &map->swizzle, line_max)) {
    return CUDA_ERROR_NOT_SUPPORTED;
  }
  map->address = where;
  map->rank = static_cast<uint8_t>(c.rank);
  // A NaN in every float format when its halves are these.
  map->outside = c.fill == CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE ? 0 : 0x7fff;
  return CUDA_SUCCESS;
}

CUresult finish(const Common& c, const Tiles& t, uint32_t line_max, TensorMap* map) {
  if (!describe(t, line_max, map)) return CUDA_ERROR_INVALID_VALUE;
  static_assert(sizeof(CUtensorMap) == sizeof(TensorMap));
  std::memcpy(c.out, map, sizeof(*map));
  return CUDA_SUCCESS;
}

}  // namespace

extern "C" CUresult cuTensorMapEncodeTiled(CUtensorMap* out, CUtensorMapDataType type, cuuint32_t rank, void* address,
                                           const cuuint64_t* lengths, const cuuint64_t* strides, const cuuint32_t* box,
                                           const cuuint32_t* steps, CUtensorMapInterleave interleave,
                                           CUtensorMapSwizzle swizzle, CUtensorMapL2promotion,
                                           CUtensorMapFloatOOBfill fill) {
  const Common common{out, type, rank, address, interleave, swizzle, fill};
  const Tiles tiles{lengths, strides, box, steps};
  TensorMap map;
  uint32_t line_max = 0;
  const CUresult result = begin(common, tiles, 1, &map, &line_max);
  return result != CUDA_SUCCESS ? result : finish(common, tiles, line_max, &map);
}

// Corners are in the order of the dimensions: width, height, depth.
extern "C" CUresult cuTensorMapEncodeIm2col(CUtensorMap* out, CUtensorMapDataType type, cuuint32_t rank, void* address,
                                            const cuuint64_t* lengths, const cuuint64_t* strides, const int* lower,
                                            const int* upper, cuuint32_t channels, cuuint32_t pixels,
                                            const cuuint32_t* steps, CUtensorMapInterleave interleave,
                                            CUtensorMapSwizzle swizzle, CUtensorMapL2promotion,
                                            CUtensorMapFloatOOBfill fill) {
  const Common common{out, type, rank, address, interleave, swizzle, fill};
  const cuuint32_t box[5] = {channels, 1, 1, 1, 1};
  const Tiles tiles{lengths, strides, box, steps};
  TensorMap map;
  uint32_t line_max = 0;
  if (const CUresult result = begin(common, tiles, 3, &map, &line_max); result != CUDA_SUCCESS) return result;
  if (lower == nullptr || upper == nullptr || pixels == 0 || pixels > 1024) return CUDA_ERROR_INVALID_VALUE;
  map.image_to_column = true;
  map.pixels = static_cast<uint16_t>(pixels);
  const int most = rank == 3 ? 1 << 15 : rank == 4 ? 1 << 7 : 1 << 4;
  for (cuuint32_t d = 0; d + 2 < rank; ++d) {
    for (const int corner : {lower[d], upper[d]}) {
      if (corner < -most || corner >= most) return CUDA_ERROR_INVALID_VALUE;
    }
    map.lower[d] = static_cast<int16_t>(lower[d]);
    map.upper[d] = static_cast<int16_t>(upper[d]);
  }
  return finish(common, tiles, line_max, &map);
}

// Only architectures that are not offered here read such maps.
extern "C" CUresult cuTensorMapEncodeIm2colWide(CUtensorMap* out, CUtensorMapDataType, cuuint32_t rank, void* address,
                                                const cuuint64_t* lengths, const cuuint64_t* strides, int, int,
                                                cuuint32_t, cuuint32_t, const cuuint32_t* steps, CUtensorMapInterleave,
                                                CUtensorMapIm2ColWideMode, CUtensorMapSwizzle, CUtensorMapL2promotion,
                                                CUtensorMapFloatOOBfill) {
  if (const CUresult result = ready(); result != CUDA_SUCCESS) return result;
  const bool given = out != nullptr && address != nullptr && lengths != nullptr && strides != nullptr;
  return !given || steps == nullptr || rank < 3 || rank > 5 ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_NOT_SUPPORTED;
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
