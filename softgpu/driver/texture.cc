#include "softgpu/driver/texture.h"

#include <algorithm>

#include "softgpu/driver/driver.h"

namespace softgpu {
namespace {

constexpr uint64_t kAddressAlignment = 512, kPitchAlignment = 32;  // as the device's attributes say
constexpr unsigned kKnownFlags = CU_TRSF_READ_AS_INTEGER | CU_TRSF_NORMALIZED_COORDINATES | CU_TRSF_SRGB |
                                 CU_TRSF_DISABLE_TRILINEAR_OPTIMIZATION | CU_TRSF_SEAMLESS_CUBEMAP;

bool attribute_allows(CUdevice_attribute which, uint64_t value) {
  int most = 0;
  return driver().devices[0]->attribute(which, &most) && value <= static_cast<uint64_t>(most);
}

void set_format(const ElementFormat& format, Texture* out) {
  out->format = format.texel;
  out->channels = format.channels;
  out->normalized = format.normalized;
}

void set_kind(const Array& array, Texture* out) {
  set_format(array.format, out);
  out->layered = (array.what.Flags & CUDA_ARRAY3D_LAYERED) != 0;
  out->cube = (array.what.Flags & CUDA_ARRAY3D_CUBEMAP) != 0;
  out->solid = array.solid();
}

// Whether there is memory where it begins. Programs say more than they have (CUDA's convolutionFFT2D does): only what
// is read has to be there.
bool begins_in_memory(uint64_t address) { return driver().memory.find(address).has_value(); }

CUresult of_linear(const CUDA_RESOURCE_DESC& resource, Texture* out) {
  const auto& linear = resource.res.linear;
  ElementFormat format;
  if (!element_format(linear.format, linear.numChannels, &format)) return CUDA_ERROR_INVALID_VALUE;
  const uint64_t texels = linear.sizeInBytes / format.bytes();
  if (linear.devPtr == 0 || linear.devPtr % kAddressAlignment != 0 || texels == 0) return CUDA_ERROR_INVALID_VALUE;
  if (!attribute_allows(CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE1D_LINEAR_WIDTH, texels)) return CUDA_ERROR_INVALID_VALUE;
  if (!begins_in_memory(linear.devPtr)) return CUDA_ERROR_INVALID_VALUE;
  set_format(format, out);
  out->linear_memory = true;
  out->level[0] = {linear.devPtr, linear.sizeInBytes, linear.sizeInBytes, static_cast<uint32_t>(texels), 1, 1};
  return CUDA_SUCCESS;
}

CUresult of_pitched(const CUDA_RESOURCE_DESC& resource, Texture* out) {
  const auto& flat = resource.res.pitch2D;
  ElementFormat format;
  if (!element_format(flat.format, flat.numChannels, &format)) return CUDA_ERROR_INVALID_VALUE;
  if (flat.devPtr == 0 || flat.devPtr % kAddressAlignment != 0 || flat.pitchInBytes % kPitchAlignment != 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (flat.width == 0 || flat.height == 0 || flat.width * format.bytes() > flat.pitchInBytes ||
      !attribute_allows(CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE2D_LINEAR_WIDTH, flat.width) ||
      !attribute_allows(CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE2D_LINEAR_HEIGHT, flat.height) ||
      !attribute_allows(CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE2D_LINEAR_PITCH, flat.pitchInBytes)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (!begins_in_memory(flat.devPtr)) return CUDA_ERROR_INVALID_VALUE;
  set_format(format, out);
  out->level[0] = {flat.devPtr,
                   flat.pitchInBytes,
                   flat.pitchInBytes * flat.height,
                   static_cast<uint32_t>(flat.width),
                   static_cast<uint32_t>(flat.height),
                   1};
  return CUDA_SUCCESS;
}

CUresult of_resource(const CUDA_RESOURCE_DESC& resource, Texture* out) {
  if (resource.flags != 0) return CUDA_ERROR_INVALID_VALUE;
  switch (resource.resType) {
    case CU_RESOURCE_TYPE_ARRAY: {
      const auto array = driver().arrays.find(resource.res.array.hArray);
      if (array == nullptr) return CUDA_ERROR_INVALID_HANDLE;
      set_kind(*array, out);
      out->level[0] = array->level;
      return CUDA_SUCCESS;
    }
    case CU_RESOURCE_TYPE_MIPMAPPED_ARRAY: {
      const auto mipmap = driver().mipmaps.find(resource.res.mipmap.hMipmappedArray);
      if (mipmap == nullptr) return CUDA_ERROR_INVALID_HANDLE;
      set_kind(*mipmap->levels[0], out);
      out->levels = static_cast<uint32_t>(mipmap->levels.size());
      for (size_t i = 0; i < mipmap->levels.size(); ++i) out->level[i] = mipmap->levels[i]->level;
      return CUDA_SUCCESS;
    }
    case CU_RESOURCE_TYPE_LINEAR:
      return of_linear(resource, out);
    case CU_RESOURCE_TYPE_PITCH2D:
      return of_pitched(resource, out);
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
}

// The plain formats of views come in threes: one, two and four channels of each kind of number.
bool view_format(CUresourceViewFormat format, ElementFormat* out) {
  static constexpr TexelFormat kKinds[] = {TexelFormat::kU8,  TexelFormat::kS8,  TexelFormat::kU16, TexelFormat::kS16,
                                           TexelFormat::kU32, TexelFormat::kS32, TexelFormat::kF16, TexelFormat::kF32};
  const int number = static_cast<int>(format) - CU_RES_VIEW_FORMAT_UINT_1X8;
  if (number < 0 || number >= 24) return false;
  *out = {kKinds[number / 3], static_cast<uint8_t>(1 << number % 3), false};
  return true;
}

CUresult apply_view(const CUDA_RESOURCE_VIEW_DESC& view, CUresourcetype type, Texture* out) {
  if (type != CU_RESOURCE_TYPE_ARRAY && type != CU_RESOURCE_TYPE_MIPMAPPED_ARRAY) return CUDA_ERROR_INVALID_VALUE;
  if (view.format != CU_RES_VIEW_FORMAT_NONE) {
    ElementFormat format;
    if (view.format >= CU_RES_VIEW_FORMAT_UNSIGNED_BC1) return CUDA_ERROR_NOT_SUPPORTED;
    if (!view_format(view.format, &format) || format.bytes() != out->texel_bytes()) return CUDA_ERROR_INVALID_VALUE;
    set_format(format, out);
  }
  if (view.firstMipmapLevel > view.lastMipmapLevel || view.lastMipmapLevel >= out->levels) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  const TextureLevel& base = out->level[0];
  const bool same_height = view.height == base.height || (view.height == 0 && base.height == 1);
  if (view.width != base.width || !same_height) return CUDA_ERROR_INVALID_VALUE;
  const bool layers = out->layered || out->cube;
  if (layers && (view.firstLayer > view.lastLayer || view.lastLayer >= base.depth)) return CUDA_ERROR_INVALID_VALUE;
  out->levels = view.lastMipmapLevel - view.firstMipmapLevel + 1;
  for (uint32_t i = 0; i < out->levels; ++i) {
    TextureLevel level = out->level[i + view.firstMipmapLevel];
    if (layers) {
      level.address += view.firstLayer * level.slice;
      level.depth = view.lastLayer - view.firstLayer + 1;
    }
    out->level[i] = level;
  }
  return CUDA_SUCCESS;
}

CUresult apply_sampler(const CUDA_TEXTURE_DESC& what, Texture* out) {
  const bool modes = std::all_of(std::begin(what.addressMode), std::end(what.addressMode), [](CUaddress_mode mode) {
    return mode >= CU_TR_ADDRESS_MODE_WRAP && mode <= CU_TR_ADDRESS_MODE_BORDER;
  });
  const auto filter = [](CUfilter_mode mode) {
    return mode == CU_TR_FILTER_MODE_POINT || mode == CU_TR_FILTER_MODE_LINEAR;
  };
  if (!modes || !filter(what.filterMode) || !filter(what.mipmapFilterMode) || (what.flags & ~kKnownFlags) != 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  const bool mapped = out->levels > 1;
  const bool coordinates = (what.flags & CU_TRSF_NORMALIZED_COORDINATES) != 0;
  if (mapped && !coordinates) return CUDA_ERROR_INVALID_VALUE;
  Sampler& sampler = out->sampler;
  for (size_t i = 0; i < 3; ++i) sampler.address[i] = static_cast<AddressMode>(what.addressMode[i]);
  sampler.linear = what.filterMode == CU_TR_FILTER_MODE_LINEAR;
  sampler.linear_mip = what.mipmapFilterMode == CU_TR_FILTER_MODE_LINEAR;
  sampler.normalized_coordinates = coordinates;
  sampler.seamless = (what.flags & CU_TRSF_SEAMLESS_CUBEMAP) != 0;
  sampler.bias = what.mipmapLevelBias;
  sampler.lod_min = what.minMipmapLevelClamp;
  sampler.lod_max = what.maxMipmapLevelClamp;
  std::copy_n(what.borderColor, 4, sampler.border.begin());
  const bool small = out->format == TexelFormat::kU8 || out->format == TexelFormat::kS8 ||
                     out->format == TexelFormat::kU16 || out->format == TexelFormat::kS16;
  out->normalized = small && (out->normalized || (what.flags & CU_TRSF_READ_AS_INTEGER) == 0);
  out->srgb = (what.flags & CU_TRSF_SRGB) != 0 && out->normalized && out->format == TexelFormat::kU8;
  return CUDA_SUCCESS;
}

static_assert(static_cast<int>(AddressMode::kWrap) == CU_TR_ADDRESS_MODE_WRAP);
static_assert(static_cast<int>(AddressMode::kClamp) == CU_TR_ADDRESS_MODE_CLAMP);
static_assert(static_cast<int>(AddressMode::kMirror) == CU_TR_ADDRESS_MODE_MIRROR);
static_assert(static_cast<int>(AddressMode::kBorder) == CU_TR_ADDRESS_MODE_BORDER);

}  // namespace

CUresult describe_texture(const TextureObject& object, Texture* out) {
  CUresult result = of_resource(object.resource, out);
  if (result == CUDA_SUCCESS && object.has_view) result = apply_view(object.view, object.resource.resType, out);
  return result != CUDA_SUCCESS ? result : apply_sampler(object.texture, out);
}

CUresult describe_surface(const CUDA_RESOURCE_DESC& resource, Texture* out) {
  if (resource.resType != CU_RESOURCE_TYPE_ARRAY || resource.flags != 0) return CUDA_ERROR_INVALID_VALUE;
  const auto array = driver().arrays.find(resource.res.array.hArray);
  if (array == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if ((array->what.Flags & CUDA_ARRAY3D_SURFACE_LDST) == 0) return CUDA_ERROR_INVALID_VALUE;
  set_kind(*array, out);
  out->level[0] = array->level;
  return CUDA_SUCCESS;
}

TextureTable& TextureObjects::table() const {
  TextureTables& tables = driver().texture_tables;
  return surfaces_ ? tables.surfaces : tables.textures;
}

CUresult TextureObjects::add(TextureObject object, std::unique_ptr<const Texture> texture, uint64_t wanted,
                             uint64_t* handle) {
  const std::lock_guard lock(mu_);
  reap();
  if (wanted != 0) take_back(wanted);
  const uint64_t got = table().add(std::move(texture), wanted);
  if (got == 0) return wanted != 0 ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_OUT_OF_MEMORY;
  objects_.add(got, std::make_shared<TextureObject>(object));
  *handle = got;
  return CUDA_SUCCESS;
}

CUresult TextureObjects::remove(uint64_t handle) {
  const auto object = objects_.remove(handle);
  if (object == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  const std::lock_guard lock(mu_);
  reap();
  auto after = object->context->all_pending();
  if (after.empty()) {
    table().remove(handle);
  } else {
    retired_.push_back({handle, nullptr, std::move(after)});
  }
  return CUDA_SUCCESS;
}

void TextureObjects::forget(Context& context) {
  std::vector<uint64_t> handles;
  objects_.for_each_handle([&](uint64_t handle, const TextureObject& object) {
    if (object.context == &context) handles.push_back(handle);
  });
  for (const uint64_t handle : handles) remove(handle);
}

void TextureObjects::reap() {
  std::erase_if(retired_, [&](const Retired& retired) {
    const bool over = std::all_of(retired.after.begin(), retired.after.end(), [](const Ticket& t) { return t.done(); });
    if (over && retired.texture == nullptr) table().remove(retired.handle);
    return over;
  });
}

void TextureObjects::take_back(uint64_t handle) {
  for (Retired& retired : retired_) {
    if (retired.handle == handle && retired.texture == nullptr) retired.texture = table().remove(handle);
  }
}

}  // namespace softgpu
