#pragma once

// Which arrays there can be: what the driver says of a description before it looks for memory. Both drivers ask here.

#include <cuda.h>

#include <cstddef>

namespace tide {

struct ArrayLimits {
  CUdevice_attribute width, height, depth;  // height or depth 0: has none
};

// Kinds of arrays differ in their largest extents.
inline ArrayLimits limits_of_array(const CUDA_ARRAY3D_DESCRIPTOR& a, bool mipmap) {
  constexpr auto kNone = static_cast<CUdevice_attribute>(0);
  const bool layered = (a.Flags & CUDA_ARRAY3D_LAYERED) != 0, cube = (a.Flags & CUDA_ARRAY3D_CUBEMAP) != 0;
  if (cube && layered) {
    return {CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURECUBEMAP_LAYERED_WIDTH,
            CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURECUBEMAP_LAYERED_WIDTH,
            CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURECUBEMAP_LAYERED_LAYERS};
  }
  if (cube) {
    return {CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURECUBEMAP_WIDTH, CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURECUBEMAP_WIDTH, kNone};
  }
  if (layered && a.Height == 0) {
    return {CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE1D_LAYERED_WIDTH, kNone,
            CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE1D_LAYERED_LAYERS};
  }
  if (layered) {
    return {CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE2D_LAYERED_WIDTH, CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE2D_LAYERED_HEIGHT,
            CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE2D_LAYERED_LAYERS};
  }
  if (a.Depth != 0) {
    return {CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE3D_WIDTH, CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE3D_HEIGHT,
            CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE3D_DEPTH};
  }
  if (a.Height == 0) {
    return {
        mipmap ? CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE1D_MIPMAPPED_WIDTH : CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE1D_WIDTH,
        kNone, kNone};
  }
  if ((a.Flags & CUDA_ARRAY3D_TEXTURE_GATHER) != 0) {
    return {CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE2D_GATHER_WIDTH, CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE2D_GATHER_HEIGHT,
            kNone};
  }
  if (mipmap) {
    return {CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE2D_MIPMAPPED_WIDTH,
            CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE2D_MIPMAPPED_HEIGHT, kNone};
  }
  return {CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE2D_WIDTH, CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE2D_HEIGHT, kNone};
}

// `limit` gives the device's attributes.
template <typename Limit>
bool within_array_limits(const CUDA_ARRAY3D_DESCRIPTOR& a, bool mipmap, Limit limit) {
  const ArrayLimits limits = limits_of_array(a, mipmap);
  const auto fits = [&](CUdevice_attribute most, size_t value) {
    return most == 0 || value <= static_cast<size_t>(limit(most));
  };
  return fits(limits.width, a.Width) && fits(limits.height, a.Height) && fits(limits.depth, a.Depth);
}

// Formats that have no plain elements: those that this driver knows but does not serve, and those that do not exist.
inline CUresult array_format_refused(CUarray_format format) {
  return format > 0x40 ? CUDA_ERROR_NOT_SUPPORTED : CUDA_ERROR_INVALID_VALUE;
}

// All but the format.
template <typename Limit>
CUresult check_array_shape(const CUDA_ARRAY3D_DESCRIPTOR& a, bool mipmap, Limit limit) {
  constexpr unsigned kLayered = CUDA_ARRAY3D_LAYERED, kCube = CUDA_ARRAY3D_CUBEMAP;
  constexpr unsigned kKnown =
      kLayered | kCube | CUDA_ARRAY3D_SURFACE_LDST | CUDA_ARRAY3D_TEXTURE_GATHER | CUDA_ARRAY3D_COLOR_ATTACHMENT;
  constexpr unsigned kRefused = CUDA_ARRAY3D_SPARSE | CUDA_ARRAY3D_DEFERRED_MAPPING | CUDA_ARRAY3D_DEPTH_TEXTURE |
                                CUDA_ARRAY3D_VIDEO_ENCODE_DECODE;
  if ((a.Flags & kRefused) != 0) return CUDA_ERROR_NOT_SUPPORTED;
  if ((a.Flags & ~kKnown) != 0 || a.Width == 0) return CUDA_ERROR_INVALID_VALUE;
  if (a.NumChannels != 1 && a.NumChannels != 2 && a.NumChannels != 4) return CUDA_ERROR_INVALID_VALUE;
  const bool layered = (a.Flags & kLayered) != 0;
  if ((a.Flags & kCube) != 0) {
    const bool faces = layered ? a.Depth != 0 && a.Depth % 6 == 0 : a.Depth == 6;
    if (a.Width != a.Height || !faces) return CUDA_ERROR_INVALID_VALUE;
  } else if (layered ? a.Depth == 0 : a.Height == 0 && a.Depth != 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  const bool flat = a.Height != 0 && a.Depth == 0;
  if ((a.Flags & CUDA_ARRAY3D_TEXTURE_GATHER) != 0 && !flat) return CUDA_ERROR_INVALID_VALUE;
  return within_array_limits(a, mipmap, limit) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

}  // namespace tide
