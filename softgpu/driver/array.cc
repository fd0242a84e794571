#include "softgpu/driver/array.h"

#include <algorithm>
#include <bit>

#include "softgpu/driver/driver.h"

namespace softgpu {
namespace {

constexpr uint64_t kLevelAlignment = 512;
constexpr unsigned kLayered = CUDA_ARRAY3D_LAYERED, kCube = CUDA_ARRAY3D_CUBEMAP;

struct FormatRow {
  CUarray_format format;
  TexelFormat texel;
  uint8_t channels;  // 0: as the descriptor says
  bool normalized;
};

constexpr FormatRow kFormats[] = {
    {CU_AD_FORMAT_UNSIGNED_INT8, TexelFormat::kU8, 0, false},
    {CU_AD_FORMAT_UNSIGNED_INT16, TexelFormat::kU16, 0, false},
    {CU_AD_FORMAT_UNSIGNED_INT32, TexelFormat::kU32, 0, false},
    {CU_AD_FORMAT_SIGNED_INT8, TexelFormat::kS8, 0, false},
    {CU_AD_FORMAT_SIGNED_INT16, TexelFormat::kS16, 0, false},
    {CU_AD_FORMAT_SIGNED_INT32, TexelFormat::kS32, 0, false},
    {CU_AD_FORMAT_HALF, TexelFormat::kF16, 0, false},
    {CU_AD_FORMAT_FLOAT, TexelFormat::kF32, 0, false},
    {CU_AD_FORMAT_UNORM_INT8X1, TexelFormat::kU8, 1, true},
    {CU_AD_FORMAT_UNORM_INT8X2, TexelFormat::kU8, 2, true},
    {CU_AD_FORMAT_UNORM_INT8X4, TexelFormat::kU8, 4, true},
    {CU_AD_FORMAT_UNORM_INT16X1, TexelFormat::kU16, 1, true},
    {CU_AD_FORMAT_UNORM_INT16X2, TexelFormat::kU16, 2, true},
    {CU_AD_FORMAT_UNORM_INT16X4, TexelFormat::kU16, 4, true},
    {CU_AD_FORMAT_SNORM_INT8X1, TexelFormat::kS8, 1, true},
    {CU_AD_FORMAT_SNORM_INT8X2, TexelFormat::kS8, 2, true},
    {CU_AD_FORMAT_SNORM_INT8X4, TexelFormat::kS8, 4, true},
    {CU_AD_FORMAT_SNORM_INT16X1, TexelFormat::kS16, 1, true},
    {CU_AD_FORMAT_SNORM_INT16X2, TexelFormat::kS16, 2, true},
    {CU_AD_FORMAT_SNORM_INT16X4, TexelFormat::kS16, 4, true},
};

struct Limits {
  CUdevice_attribute width, height, depth;  // height or depth 0: has none
};

// Kinds of arrays differ in their largest extents.
Limits limits_of(const CUDA_ARRAY3D_DESCRIPTOR& a, bool mipmap) {
  constexpr auto kNone = static_cast<CUdevice_attribute>(0);
  const bool layered = (a.Flags & kLayered) != 0;
  if ((a.Flags & kCube) != 0 && layered) {
    return {CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURECUBEMAP_LAYERED_WIDTH,
            CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURECUBEMAP_LAYERED_WIDTH,
            CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURECUBEMAP_LAYERED_LAYERS};
  }
  if ((a.Flags & kCube) != 0) {
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

bool within_limits(const Device& device, const CUDA_ARRAY3D_DESCRIPTOR& a, bool mipmap) {
  const Limits limits = limits_of(a, mipmap);
  const auto fits = [&](CUdevice_attribute limit, size_t value) {
    int most = 0;
    return limit == 0 || (device.attribute(limit, &most) && value <= static_cast<size_t>(most));
  };
  return fits(limits.width, a.Width) && fits(limits.height, a.Height) && fits(limits.depth, a.Depth);
}

CUresult check(const Device& device, const CUDA_ARRAY3D_DESCRIPTOR& a, bool mipmap, ElementFormat* format) {
  constexpr unsigned kKnown =
      kLayered | kCube | CUDA_ARRAY3D_SURFACE_LDST | CUDA_ARRAY3D_TEXTURE_GATHER | CUDA_ARRAY3D_COLOR_ATTACHMENT;
  constexpr unsigned kRefused = CUDA_ARRAY3D_SPARSE | CUDA_ARRAY3D_DEFERRED_MAPPING | CUDA_ARRAY3D_DEPTH_TEXTURE |
                                CUDA_ARRAY3D_VIDEO_ENCODE_DECODE;
  if ((a.Flags & kRefused) != 0) return CUDA_ERROR_NOT_SUPPORTED;
  if ((a.Flags & ~kKnown) != 0 || a.Width == 0) return CUDA_ERROR_INVALID_VALUE;
  if (a.NumChannels != 1 && a.NumChannels != 2 && a.NumChannels != 4) return CUDA_ERROR_INVALID_VALUE;
  if (!element_format(a.Format, a.NumChannels, format)) {
    return a.Format > 0x40 ? CUDA_ERROR_NOT_SUPPORTED : CUDA_ERROR_INVALID_VALUE;
  }
  const bool layered = (a.Flags & kLayered) != 0;
  if ((a.Flags & kCube) != 0) {
    const bool faces = layered ? a.Depth != 0 && a.Depth % 6 == 0 : a.Depth == 6;
    if (a.Width != a.Height || !faces) return CUDA_ERROR_INVALID_VALUE;
  } else if (layered ? a.Depth == 0 : a.Height == 0 && a.Depth != 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  const bool flat = a.Height != 0 && a.Depth == 0;
  if ((a.Flags & CUDA_ARRAY3D_TEXTURE_GATHER) != 0 && !flat) return CUDA_ERROR_INVALID_VALUE;
  return within_limits(device, a, mipmap) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

bool is_solid(const CUDA_ARRAY3D_DESCRIPTOR& a) { return a.Depth != 0 && (a.Flags & (kLayered | kCube)) == 0; }

// A level of the array, its bytes at `offset`.
TextureLevel level_of(const CUDA_ARRAY3D_DESCRIPTOR& a, const ElementFormat& format, unsigned number) {
  const auto halved = [&](size_t n) { return static_cast<uint32_t>(std::max<size_t>(n >> number, 1)); };
  TextureLevel level;
  level.width = halved(a.Width);
  level.height = halved(a.Height);
  level.depth = is_solid(a) ? halved(a.Depth) : static_cast<uint32_t>(std::max<size_t>(a.Depth, 1));
  level.pitch = uint64_t{level.width} * format.bytes();
  level.slice = level.pitch * level.height;
  return level;
}

std::shared_ptr<Array> make_level(Context& context, const CUDA_ARRAY3D_DESCRIPTOR& what, const ElementFormat& format,
                                  const TextureLevel& level, unsigned number) {
  auto array = std::make_shared<Array>();
  array->context = &context;
  array->what = what;
  array->format = format;
  array->level = level;
  if (number == 0) return array;
  array->what.Width = level.width;
  if (what.Height != 0) array->what.Height = level.height;
  if (is_solid(what)) array->what.Depth = level.depth;
  return array;
}

}  // namespace

bool element_format(CUarray_format format, unsigned channels, ElementFormat* out) {
  for (const FormatRow& row : kFormats) {
    if (row.format != format) continue;
    *out = {row.texel, static_cast<uint8_t>(channels), row.normalized};
    return row.channels == 0 ? channels == 1 || channels == 2 || channels == 4 : channels == row.channels;
  }
  return false;
}

ArrayStorage::~ArrayStorage() { driver().memory.free_device(address); }

bool Array::solid() const { return is_solid(what); }

CUresult create_array(Context& context, const CUDA_ARRAY3D_DESCRIPTOR& what, CUarray* handle) {
  ElementFormat format;
  CUresult result = check(context.device, what, false, &format);
  if (result != CUDA_SUCCESS) return result;
  const auto array = make_level(context, what, format, level_of(what, format, 0), 0);
  uint64_t address = 0;
  result = driver().memory.allocate(context, array->bytes(), &address);
  if (result != CUDA_SUCCESS) return result;
  array->storage = std::make_shared<ArrayStorage>(address, array->bytes());
  array->level.address = address;
  array->handle = driver().arrays.next();
  driver().arrays.add(array->handle, array);
  *handle = array->handle;
  return CUDA_SUCCESS;
}

CUresult create_mipmap(Context& context, const CUDA_ARRAY3D_DESCRIPTOR& what, unsigned levels,
                       CUmipmappedArray* handle) {
  ElementFormat format;
  CUresult result = check(context.device, what, true, &format);
  if (result != CUDA_SUCCESS) return result;
  size_t longest = std::max(what.Width, what.Height);
  if (is_solid(what)) longest = std::max(longest, what.Depth);
  levels = std::clamp(levels, 1u, static_cast<unsigned>(std::bit_width(longest)));
  auto made = std::make_shared<MipmappedArray>();
  made->context = &context;
  made->what = what;
  uint64_t bytes = 0;
  for (unsigned i = 0; i < levels; ++i) {
    auto array = make_level(context, what, format, level_of(what, format, i), i);
    array->of_mipmap = true;
    array->level.address = bytes;
    bytes += (array->bytes() + kLevelAlignment - 1) / kLevelAlignment * kLevelAlignment;
    made->levels.push_back(std::move(array));
  }
  uint64_t address = 0;
  result = driver().memory.allocate(context, bytes, &address);
  if (result != CUDA_SUCCESS) return result;
  const auto storage = std::make_shared<ArrayStorage>(address, bytes);
  for (const auto& array : made->levels) {
    array->level.address += address;
    array->storage = storage;
    array->handle = driver().arrays.next();
    driver().arrays.add(array->handle, array);
  }
  made->handle = driver().mipmaps.next();
  driver().mipmaps.add(made->handle, made);
  *handle = made->handle;
  return CUDA_SUCCESS;
}

}  // namespace softgpu
