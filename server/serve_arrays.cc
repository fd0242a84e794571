// Commands about arrays, textures and surfaces.

#include <algorithm>
#include <cstring>
#include <functional>
#include <string>

#include "api/payload.h"
#include "serve.h"

namespace tide {
namespace {

struct Descriptions {
  CUDA_RESOURCE_DESC resource;
  CUDA_TEXTURE_DESC texture;
  CUDA_RESOURCE_VIEW_DESC view;
};

// The memory between the first and behind the last byte of a box; false where it is not the vGPU's.
bool covers_box(Session& session, const command::CopyArray& c, uint64_t address, uint64_t pitch, uint32_t height) {
  uint64_t rows = 0, bytes = 0;
  if (c.depth > 1 && height < c.height) return false;
  if (c.height > 1 && pitch < c.width) return false;
  if (__builtin_mul_overflow(uint64_t{c.depth - 1}, height, &rows)) return false;
  rows += c.height - 1;
  return !__builtin_mul_overflow(rows, pitch, &bytes) && !__builtin_add_overflow(bytes, c.width, &bytes) &&
         session.covers(address, bytes);
}

// Where the client's number of an array stood in the description, the driver's handle.
CUresult fill_in_array(Session& session, uint64_t reference, CUDA_RESOURCE_DESC* resource) {
  switch (resource->resType) {
    case CU_RESOURCE_TYPE_ARRAY:
      resource->res.array.hArray = session.arrays().array(reference);
      return resource->res.array.hArray == nullptr ? CUDA_ERROR_INVALID_HANDLE : CUDA_SUCCESS;
    case CU_RESOURCE_TYPE_MIPMAPPED_ARRAY: {
      const ArrayEntry* entry = session.arrays().find(uint32_t(reference));
      if (entry == nullptr || entry->mipmap == nullptr) return CUDA_ERROR_INVALID_HANDLE;
      resource->res.mipmap.hMipmappedArray = entry->mipmap;
      return CUDA_SUCCESS;
    }
    case CU_RESOURCE_TYPE_LINEAR:
      return session.covers(resource->res.linear.devPtr, resource->res.linear.sizeInBytes) ? CUDA_SUCCESS
                                                                                           : CUDA_ERROR_INVALID_VALUE;
    case CU_RESOURCE_TYPE_PITCH2D: {
      const auto& flat = resource->res.pitch2D;
      uint64_t bytes = 0;
      if (__builtin_mul_overflow(flat.pitchInBytes, flat.height, &bytes)) return CUDA_ERROR_INVALID_VALUE;
      return session.covers(flat.devPtr, bytes) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
    }
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
}

}  // namespace

CUresult serve_tideCreateArray(Session& session, const command::CreateArray& c, Received& q, Outputs&) {
  const CUDA_ARRAY3D_DESCRIPTOR what{c.width, c.height, c.depth, CUarray_format(c.format), c.channels, c.flags};
  const CUresult result = session.arrays().create(c.array, q.header().context, what, c.levels);
  if (result == CUDA_SUCCESS) session.objects().add(ObjectKind::kArray, c.array, q.header(), q.payload());
  return result;
}

CUresult serve_tideDestroyArray(Session& session, const command::DestroyArray& command, Received&, Outputs&) {
  if (session.arrays().find(command.array) == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (!session.streams().idle()) {
    session.settle();
    return kAgain;
  }
  // Objects that still show it could not be made again without it.
  for (const uint64_t key : session.arrays().textures_of(command.array)) {
    session.objects().end(ObjectKind::kTexture, key);
  }
  session.objects().end(ObjectKind::kArray, command.array);
  return session.arrays().destroy(command.array);
}

CUresult serve_tideCopyArray(Session& session, const command::CopyArray& c, Received& q, Outputs&) {
  if (c.width == 0 || c.height == 0 || c.depth == 0) return CUDA_SUCCESS;
  const Driver& driver = session.driver();
  if (driver.cuMemcpy3DAsync_v2 == nullptr) return CUDA_ERROR_NOT_SUPPORTED;
  CUDA_MEMCPY3D copy = {};
  copy.dstMemoryType = c.to_array != 0 ? CU_MEMORYTYPE_ARRAY : CU_MEMORYTYPE_DEVICE;
  copy.srcMemoryType = c.from_array != 0 ? CU_MEMORYTYPE_ARRAY : CU_MEMORYTYPE_DEVICE;
  if (c.to_array != 0) {
    copy.dstArray = session.arrays().array(c.to_array);
    if (copy.dstArray == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    copy.dstXInBytes = c.to_x, copy.dstY = c.to_y, copy.dstZ = c.to_z;
  } else {
    if (!covers_box(session, c, c.to_address, c.to_pitch, c.to_height)) return CUDA_ERROR_INVALID_VALUE;
    copy.dstDevice = c.to_address, copy.dstPitch = c.to_pitch, copy.dstHeight = c.to_height;
  }
  if (c.from_array != 0) {
    copy.srcArray = session.arrays().array(c.from_array);
    if (copy.srcArray == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    copy.srcXInBytes = c.from_x, copy.srcY = c.from_y, copy.srcZ = c.from_z;
  } else {
    if (!covers_box(session, c, c.from_address, c.from_pitch, c.from_height)) return CUDA_ERROR_INVALID_VALUE;
    copy.srcDevice = c.from_address, copy.srcPitch = c.from_pitch, copy.srcHeight = c.from_height;
  }
  copy.WidthInBytes = c.width, copy.Height = c.height, copy.Depth = c.depth;
  CUstream stream = nullptr;
  if (const CUresult result = session.streams().enter(q.header().stream, &stream); result != CUDA_SUCCESS)
    return result;
  return driver.cuMemcpy3DAsync_v2(&copy, stream);
}

CUresult serve_tideCreateTexture(Session& session, const command::CreateTexture& c, Received& q, Outputs& a) {
  Descriptions what;
  if (q.tail().size() != sizeof(what)) return CUDA_ERROR_INVALID_VALUE;
  memcpy(&what, q.tail().data(), sizeof(what));
  CUresult result = fill_in_array(session, c.array, &what.resource);
  if (result != CUDA_SUCCESS) return result;
  // Only where it is made again may it have a wish.
  const uint64_t wanted = session.replaying() ? c.wanted : 0;
  uint64_t handle = 0;
  result = session.arrays().create_texture(q.header().context, c.surface != 0, wanted, uint32_t(c.array), what.resource,
                                           what.texture, c.has_view != 0 ? &what.view : nullptr, &handle);
  if (result != CUDA_SUCCESS) return result;
  std::vector<std::byte> payload(q.payload().begin(), q.payload().end());
  command::CreateTexture kept = c;
  kept.wanted = handle;
  memcpy(payload.data(), &kept, sizeof(kept));
  session.objects().add(ObjectKind::kTexture, Arrays::texture_key(c.surface != 0, handle), q.header(), payload);
  a.out<TextureAnswer>(1)->handle = handle;
  return CUDA_SUCCESS;
}

CUresult serve_tideDestroyTexture(Session& session, const command::DestroyTexture& command, Received&, Outputs&) {
  session.objects().end(ObjectKind::kTexture, Arrays::texture_key(command.surface != 0, command.handle));
  return session.arrays().destroy_texture(command.surface != 0, command.handle);
}

namespace {

// The library's module in the current context.
CUresult module_of(Session& session, uint64_t library, CUmodule* module) {
  const Library* found = session.libraries().find(library);
  if (found == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  return session.driver().cuLibraryGetModule(module, found->handle);
}

CUresult find_texture(const Driver& d, CUmodule module, const std::string& name, CUtexref* reference) {
  return d.cuModuleGetTexRef == nullptr ? CUDA_ERROR_NOT_SUPPORTED
                                        : d.cuModuleGetTexRef(reference, module, name.c_str());
}
CUresult find_surface(const Driver& d, CUmodule module, const std::string& name, CUsurfref* reference) {
  return d.cuModuleGetSurfRef == nullptr ? CUDA_ERROR_NOT_SUPPORTED
                                         : d.cuModuleGetSurfRef(reference, module, name.c_str());
}

// The driver's own words for what a texture shows.
CUresult set_resource(const Driver& d, CUtexref reference, const CUDA_RESOURCE_DESC& what) {
  size_t offset = 0;
  switch (what.resType) {
    case CU_RESOURCE_TYPE_ARRAY:
      return d.cuTexRefSetArray(reference, what.res.array.hArray, CU_TRSA_OVERRIDE_FORMAT);
    case CU_RESOURCE_TYPE_MIPMAPPED_ARRAY:
      return d.cuTexRefSetMipmappedArray(reference, what.res.mipmap.hMipmappedArray, CU_TRSA_OVERRIDE_FORMAT);
    case CU_RESOURCE_TYPE_LINEAR:
      d.cuTexRefSetFormat(reference, what.res.linear.format, int(what.res.linear.numChannels));
      return d.cuTexRefSetAddress_v2(&offset, reference, what.res.linear.devPtr, what.res.linear.sizeInBytes);
    case CU_RESOURCE_TYPE_PITCH2D: {
      const auto& flat = what.res.pitch2D;
      const CUDA_ARRAY_DESCRIPTOR shape = {flat.width, flat.height, flat.format, flat.numChannels};
      return d.cuTexRefSetAddress2D_v3(reference, &shape, flat.devPtr, flat.pitchInBytes);
    }
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
}

// Properties first: they take effect with the binding.
CUresult bind_texture(const Driver& d, CUtexref reference, const Descriptions& what) {
  const CUDA_TEXTURE_DESC& t = what.texture;
  CUresult result = d.cuTexRefSetFlags(reference, t.flags);
  for (int axis = 0; axis < 3 && result == CUDA_SUCCESS; ++axis) {
    result = d.cuTexRefSetAddressMode(reference, axis, t.addressMode[axis]);
  }
  if (result == CUDA_SUCCESS) result = d.cuTexRefSetFilterMode(reference, t.filterMode);
  float color[4];
  std::copy_n(t.borderColor, 4, color);
  if (result == CUDA_SUCCESS) result = d.cuTexRefSetBorderColor(reference, color);
  if (result == CUDA_SUCCESS) result = d.cuTexRefSetMaxAnisotropy(reference, t.maxAnisotropy);
  if (result == CUDA_SUCCESS && what.resource.resType == CU_RESOURCE_TYPE_MIPMAPPED_ARRAY) {
    d.cuTexRefSetMipmapFilterMode(reference, t.mipmapFilterMode);
    d.cuTexRefSetMipmapLevelBias(reference, t.mipmapLevelBias);
    d.cuTexRefSetMipmapLevelClamp(reference, t.minMipmapLevelClamp, t.maxMipmapLevelClamp);
  }
  return result != CUDA_SUCCESS ? result : set_resource(d, reference, what.resource);
}

uint64_t reference_key(uint64_t library, bool surface, const std::string& name) {
  return (library << 1 | uint64_t{surface}) * 0x9e3779b97f4a7c15 ^ std::hash<std::string>()(name);
}

}  // namespace

CUresult serve_tideFindReference(Session& session, const command::FindReference& c, Received& q, Outputs&) {
  if (q.tail().empty() || q.tail().size() > kReferenceNameMax) return CUDA_ERROR_INVALID_VALUE;
  const std::string name = text_of(q.tail());
  CUmodule module = nullptr;
  CUtexref texture = nullptr;
  CUsurfref surface = nullptr;
  if (const CUresult result = module_of(session, c.library, &module); result != CUDA_SUCCESS) return result;
  return c.surface != 0 ? find_surface(session.driver(), module, name, &surface)
                        : find_texture(session.driver(), module, name, &texture);
}

CUresult serve_tideBindReference(Session& session, const command::BindReference& c, Received& q, Outputs&) {
  Descriptions what;
  if (c.name_bytes == 0 || c.name_bytes > kReferenceNameMax || c.bytes != sizeof what) return CUDA_ERROR_INVALID_VALUE;
  const std::string name = text_of(q.tail().first(c.name_bytes));
  memcpy(&what, q.tail().data() + c.name_bytes, sizeof what);
  CUmodule module = nullptr;
  CUtexref texture = nullptr;
  CUsurfref surface = nullptr;
  const Driver& driver = session.driver();
  CUresult result = module_of(session, c.library, &module);
  if (result == CUDA_SUCCESS) result = fill_in_array(session, c.array, &what.resource);
  if (result != CUDA_SUCCESS) return result;
  if (c.surface != 0) {
    if (what.resource.resType != CU_RESOURCE_TYPE_ARRAY) return CUDA_ERROR_INVALID_VALUE;
    result = find_surface(driver, module, name, &surface);
    if (result == CUDA_SUCCESS) result = driver.cuSurfRefSetArray(surface, what.resource.res.array.hArray, 0);
  } else {
    result = find_texture(driver, module, name, &texture);
    if (result == CUDA_SUCCESS) result = bind_texture(driver, texture, what);
  }
  if (result != CUDA_SUCCESS) return result;
  session.objects().bind(reference_key(c.library, c.surface != 0, name), q.header(), q.payload(), c.library);
  return CUDA_SUCCESS;
}

}  // namespace tide
