#include "softgpu/driver/array.h"

#include <algorithm>
#include <bit>

#include "api/array_shape.h"
#include "softgpu/driver/driver.h"

namespace softgpu {
namespace {

constexpr uint64_t kLevelAlignment = 512;

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

CUresult check(const Device& device, const CUDA_ARRAY3D_DESCRIPTOR& a, bool mipmap, ElementFormat* format) {
  const CUresult result = tide::check_array_shape(a, mipmap, [&](CUdevice_attribute limit) {
    int most = 0;
    return device.attribute(limit, &most) ? most : 0;
  });
  if (result != CUDA_SUCCESS || element_format(a.Format, a.NumChannels, format)) return result;
  return tide::array_format_refused(a.Format);
}

bool is_solid(const CUDA_ARRAY3D_DESCRIPTOR& a) {
  return a.Depth != 0 && (a.Flags & (CUDA_ARRAY3D_LAYERED | CUDA_ARRAY3D_CUBEMAP)) == 0;
}

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
