// Texture and surface references (references.h).

#include "api/composed/references.h"

#include <algorithm>
#include <list>
#include <memory>
#include <mutex>

// Opaque in cuda.h.
struct CUtexref_st {
  tide::composed::Reference reference;
  CUarray_format format = CU_AD_FORMAT_FLOAT;
  int channels = 1;
  CUdeviceptr address = 0;  // as the program gave it
};
struct CUsurfref_st {
  tide::composed::Reference reference;
};

using namespace tide::composed;  // an entry point is C; everything it uses is ours

namespace {

template <class Ref>
using List = std::list<std::unique_ptr<Ref>>;

struct Registry {
  std::mutex mutex;
  List<CUtexref_st> textures;
  List<CUsurfref_st> surfaces;
};
Registry& registry() {
  static auto* all = new Registry;  // outlives calls from atexit
  return *all;
}

// Calls `body` with a live reference, in a context.
template <class Ref, class Body>
CUresult of(List<Ref>& list, Ref* handle, Body body) {
  CUdevice device = 0;
  if (const CUresult result = cuCtxGetDevice(&device); result != CUDA_SUCCESS) return result;
  const std::lock_guard lock(registry().mutex);
  const bool live = std::any_of(list.begin(), list.end(), [=](const auto& ref) { return ref.get() == handle; });
  return live ? body(*handle) : CUDA_ERROR_INVALID_VALUE;
}
template <class Body>
CUresult of_texture(CUtexref handle, Body body) {
  return of(registry().textures, handle, body);
}
template <class Body>
CUresult of_surface(CUsurfref handle, Body body) {
  return of(registry().surfaces, handle, body);
}

template <class Ref>
CUresult get(List<Ref>& list, Ref** handle, CUmodule module, const char* name, bool surface) {
  if (handle == nullptr || name == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (const CUresult result = find_reference(module, name, surface); result != CUDA_SUCCESS) return result;
  const std::lock_guard lock(registry().mutex);
  for (const auto& ref : list) {
    if (ref->reference.module != module || ref->reference.name != name) continue;
    *handle = ref.get();
    return CUDA_SUCCESS;
  }
  auto made = std::make_unique<Ref>();
  made->reference.module = module;
  made->reference.name = name;
  *handle = made.get();
  list.push_back(std::move(made));
  return CUDA_SUCCESS;
}

// The binding is what the program said last; one that is bound nowhere is only remembered.
CUresult apply(CUtexref_st* t) {
  if (t->reference.resource.resType == CU_RESOURCE_TYPE_LINEAR) {
    t->reference.resource.res.linear.format = t->format;
    t->reference.resource.res.linear.numChannels = static_cast<unsigned>(t->channels);
  } else if (t->reference.resource.resType == CU_RESOURCE_TYPE_PITCH2D) {
    t->reference.resource.res.pitch2D.format = t->format;
    t->reference.resource.res.pitch2D.numChannels = static_cast<unsigned>(t->channels);
  }
  return t->reference.module == nullptr ? CUDA_SUCCESS : bind_reference(&t->reference, false);
}

// Properties may be said after the resource that they fit: until then it is bound with harmless ones.
CUresult apply_harmlessly(CUtexref_st* t) {
  const CUDA_TEXTURE_DESC properties = t->reference.texture;
  t->reference.texture = {};
  t->reference.texture.flags = CU_TRSF_NORMALIZED_COORDINATES;
  const CUresult result = apply(t);
  t->reference.texture = properties;
  return result;
}

CUresult show(CUtexref_st* t, const CUDA_RESOURCE_DESC& resource) {
  const Reference before = t->reference;
  t->reference.resource = resource;
  CUresult result = apply(t);
  if (result != CUDA_SUCCESS) result = apply_harmlessly(t);
  if (result != CUDA_SUCCESS) {
    t->reference = before;
    return result;
  }
  t->reference.bound = true;
  return CUDA_SUCCESS;
}

// A property of a texture. Bound, it takes effect at once; with the other properties that follow it may fit better.
template <class Change>
CUresult change(CUtexref handle, Change change_it) {
  return of_texture(handle, [&](CUtexref_st& t) {
    const CUresult result = change_it(t);
    if (result == CUDA_SUCCESS && t.reference.bound) apply(&t);
    return result;
  });
}

template <class Out, class Read>
CUresult read(CUtexref handle, Out* out, Read read_it) {
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  return of_texture(handle, [&](const CUtexref_st& t) {
    *out = read_it(t);
    return CUDA_SUCCESS;
  });
}

CUresult alignment(size_t* bytes) {
  CUdevice device = 0;
  int value = 0;
  CUresult result = cuCtxGetDevice(&device);
  if (result == CUDA_SUCCESS) {
    result = cuDeviceGetAttribute(&value, CU_DEVICE_ATTRIBUTE_TEXTURE_ALIGNMENT, device);
  }
  *bytes = static_cast<size_t>(std::max(value, 1));
  return result;
}

bool possible_format(CUarray_format format, int channels) {
  switch (format) {
    case CU_AD_FORMAT_UNSIGNED_INT8:
    case CU_AD_FORMAT_UNSIGNED_INT16:
    case CU_AD_FORMAT_UNSIGNED_INT32:
    case CU_AD_FORMAT_SIGNED_INT8:
    case CU_AD_FORMAT_SIGNED_INT16:
    case CU_AD_FORMAT_SIGNED_INT32:
    case CU_AD_FORMAT_HALF:
    case CU_AD_FORMAT_FLOAT:
      return channels == 1 || channels == 2 || channels == 4;
    default:
      return false;
  }
}

CUresult show_array(CUtexref_st* t, CUarray array, const CUDA_RESOURCE_DESC& resource) {
  CUDA_ARRAY3D_DESCRIPTOR what;
  if (const CUresult result = cuArray3DGetDescriptor_v2(&what, array); result != CUDA_SUCCESS) return result;
  const CUresult result = show(t, resource);
  if (result != CUDA_SUCCESS) return result;
  t->format = what.Format;
  t->channels = static_cast<int>(what.NumChannels);
  return CUDA_SUCCESS;
}

constexpr unsigned kFlags = CU_TRSF_READ_AS_INTEGER | CU_TRSF_NORMALIZED_COORDINATES | CU_TRSF_SRGB |
                            CU_TRSF_DISABLE_TRILINEAR_OPTIMIZATION | CU_TRSF_SEAMLESS_CUBEMAP;

}  // namespace

void tide::composed::forget_references(CUmodule module) {
  const std::lock_guard lock(registry().mutex);
  const auto its = [=](const auto& ref) { return ref->reference.module == module; };
  registry().textures.remove_if(its);
  registry().surfaces.remove_if(its);
}

#pragma GCC visibility push(default)
extern "C" {

CUresult cuModuleGetTexRef(CUtexref* handle, CUmodule module, const char* name) {
  return get(registry().textures, handle, module, name, false);
}
CUresult cuModuleGetSurfRef(CUsurfref* handle, CUmodule module, const char* name) {
  return get(registry().surfaces, handle, module, name, true);
}

CUresult cuTexRefCreate(CUtexref* handle) {
  CUdevice device = 0;
  if (const CUresult result = cuCtxGetDevice(&device); result != CUDA_SUCCESS) return result;
  if (handle == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const std::lock_guard lock(registry().mutex);
  registry().textures.push_back(std::make_unique<CUtexref_st>());
  *handle = registry().textures.back().get();
  return CUDA_SUCCESS;
}

// Those of modules end with their modules.
CUresult cuTexRefDestroy(CUtexref handle) {
  const std::lock_guard lock(registry().mutex);
  const auto made = [=](const auto& ref) { return ref.get() == handle && ref->reference.module == nullptr; };
  return registry().textures.remove_if(made) == 1 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuTexRefSetArray(CUtexref handle, CUarray array, unsigned int flags) {
  if (flags != CU_TRSA_OVERRIDE_FORMAT) return CUDA_ERROR_INVALID_VALUE;
  return of_texture(handle, [=](CUtexref_st& t) {
    CUDA_RESOURCE_DESC resource = {};
    resource.resType = CU_RESOURCE_TYPE_ARRAY;
    resource.res.array.hArray = array;
    return show_array(&t, array, resource);
  });
}

CUresult cuTexRefSetMipmappedArray(CUtexref handle, CUmipmappedArray array, unsigned int flags) {
  if (flags != CU_TRSA_OVERRIDE_FORMAT) return CUDA_ERROR_INVALID_VALUE;
  return of_texture(handle, [=](CUtexref_st& t) {
    CUarray first = nullptr;
    if (const CUresult result = cuMipmappedArrayGetLevel(&first, array, 0); result != CUDA_SUCCESS) return result;
    CUDA_RESOURCE_DESC resource = {};
    resource.resType = CU_RESOURCE_TYPE_MIPMAPPED_ARRAY;
    resource.res.mipmap.hMipmappedArray = array;
    return show_array(&t, first, resource);
  });
}

// Kernels read from an aligned address on; *offset says how far before the program's own that is.
CUresult cuTexRefSetAddress_v2(size_t* offset, CUtexref handle, CUdeviceptr address, size_t bytes) {
  size_t aligned = 1;
  if (const CUresult result = alignment(&aligned); result != CUDA_SUCCESS) return result;
  const size_t before = address % aligned;
  if (bytes == 0 || (offset == nullptr && before != 0)) return CUDA_ERROR_INVALID_VALUE;
  return of_texture(handle, [=](CUtexref_st& t) {
    CUDA_RESOURCE_DESC resource = {};
    resource.resType = CU_RESOURCE_TYPE_LINEAR;
    resource.res.linear.devPtr = address - before;
    resource.res.linear.sizeInBytes = bytes + before;
    const CUresult result = show(&t, resource);
    if (result != CUDA_SUCCESS) return result;
    t.address = address;
    if (offset != nullptr) *offset = before;
    return CUDA_SUCCESS;
  });
}

CUresult cuTexRefSetAddress2D_v3(CUtexref handle, const CUDA_ARRAY_DESCRIPTOR* what, CUdeviceptr address,
                                 size_t pitch) {
  size_t aligned = 1;
  if (const CUresult result = alignment(&aligned); result != CUDA_SUCCESS) return result;
  if (what == nullptr || address % aligned != 0) return CUDA_ERROR_INVALID_VALUE;
  if (!possible_format(what->Format, static_cast<int>(what->NumChannels))) return CUDA_ERROR_INVALID_VALUE;
  return of_texture(handle, [=](CUtexref_st& t) {
    CUDA_RESOURCE_DESC resource = {};
    resource.resType = CU_RESOURCE_TYPE_PITCH2D;
    resource.res.pitch2D.devPtr = address;
    resource.res.pitch2D.width = what->Width;
    resource.res.pitch2D.height = what->Height;
    resource.res.pitch2D.pitchInBytes = pitch;
    const auto before = t;
    t.format = what->Format;
    t.channels = static_cast<int>(what->NumChannels);
    const CUresult result = show(&t, resource);
    if (result != CUDA_SUCCESS) {
      t.format = before.format;
      t.channels = before.channels;
      return result;
    }
    t.address = address;
    return CUDA_SUCCESS;
  });
}

CUresult cuTexRefSetFormat(CUtexref handle, CUarray_format format, int channels) {
  return change(handle, [=](CUtexref_st& t) {
    if (!possible_format(format, channels)) return CUDA_ERROR_INVALID_VALUE;
    t.format = format;
    t.channels = channels;
    return CUDA_SUCCESS;
  });
}
CUresult cuTexRefSetAddressMode(CUtexref handle, int axis, CUaddress_mode mode) {
  return change(handle, [=](CUtexref_st& t) {
    if (axis < 0 || axis > 2 || mode > CU_TR_ADDRESS_MODE_BORDER) return CUDA_ERROR_INVALID_VALUE;
    t.reference.texture.addressMode[axis] = mode;
    return CUDA_SUCCESS;
  });
}
CUresult cuTexRefSetFilterMode(CUtexref handle, CUfilter_mode mode) {
  return change(handle, [=](CUtexref_st& t) {
    if (mode > CU_TR_FILTER_MODE_LINEAR) return CUDA_ERROR_INVALID_VALUE;
    t.reference.texture.filterMode = mode;
    return CUDA_SUCCESS;
  });
}
CUresult cuTexRefSetMipmapFilterMode(CUtexref handle, CUfilter_mode mode) {
  return change(handle, [=](CUtexref_st& t) {
    if (mode > CU_TR_FILTER_MODE_LINEAR) return CUDA_ERROR_INVALID_VALUE;
    t.reference.texture.mipmapFilterMode = mode;
    return CUDA_SUCCESS;
  });
}
CUresult cuTexRefSetMipmapLevelBias(CUtexref handle, float bias) {
  return change(handle, [=](CUtexref_st& t) {
    t.reference.texture.mipmapLevelBias = bias;
    return CUDA_SUCCESS;
  });
}
CUresult cuTexRefSetMipmapLevelClamp(CUtexref handle, float least, float most) {
  return change(handle, [=](CUtexref_st& t) {
    t.reference.texture.minMipmapLevelClamp = least;
    t.reference.texture.maxMipmapLevelClamp = most;
    return CUDA_SUCCESS;
  });
}
CUresult cuTexRefSetMaxAnisotropy(CUtexref handle, unsigned int most) {
  return change(handle, [=](CUtexref_st& t) {
    t.reference.texture.maxAnisotropy = most;
    return CUDA_SUCCESS;
  });
}
CUresult cuTexRefSetBorderColor(CUtexref handle, float* color) {
  if (color == nullptr) return CUDA_ERROR_INVALID_VALUE;
  return change(handle, [=](CUtexref_st& t) {
    std::copy_n(color, 4, t.reference.texture.borderColor);
    return CUDA_SUCCESS;
  });
}
CUresult cuTexRefSetFlags(CUtexref handle, unsigned int flags) {
  return change(handle, [=](CUtexref_st& t) {
    if ((flags & ~kFlags) != 0) return CUDA_ERROR_INVALID_VALUE;
    t.reference.texture.flags = flags;
    return CUDA_SUCCESS;
  });
}

CUresult cuTexRefGetAddress_v2(CUdeviceptr* address, CUtexref handle) {
  if (address == nullptr) return CUDA_ERROR_INVALID_VALUE;
  return of_texture(handle, [=](const CUtexref_st& t) {
    const CUresourcetype type = t.reference.resource.resType;
    const bool memory = type == CU_RESOURCE_TYPE_LINEAR || type == CU_RESOURCE_TYPE_PITCH2D;
    if (!t.reference.bound || !memory) return CUDA_ERROR_INVALID_VALUE;
    *address = t.address;
    return CUDA_SUCCESS;
  });
}
CUresult cuTexRefGetArray(CUarray* array, CUtexref handle) {
  if (array == nullptr) return CUDA_ERROR_INVALID_VALUE;
  return of_texture(handle, [=](const CUtexref_st& t) {
    if (!t.reference.bound || t.reference.resource.resType != CU_RESOURCE_TYPE_ARRAY) return CUDA_ERROR_INVALID_VALUE;
    *array = t.reference.resource.res.array.hArray;
    return CUDA_SUCCESS;
  });
}
CUresult cuTexRefGetMipmappedArray(CUmipmappedArray* array, CUtexref handle) {
  if (array == nullptr) return CUDA_ERROR_INVALID_VALUE;
  return of_texture(handle, [=](const CUtexref_st& t) {
    const bool its = t.reference.bound && t.reference.resource.resType == CU_RESOURCE_TYPE_MIPMAPPED_ARRAY;
    if (!its) return CUDA_ERROR_INVALID_VALUE;
    *array = t.reference.resource.res.mipmap.hMipmappedArray;
    return CUDA_SUCCESS;
  });
}
CUresult cuTexRefGetAddressMode(CUaddress_mode* mode, CUtexref handle, int axis) {
  if (axis < 0 || axis > 2) return CUDA_ERROR_INVALID_VALUE;
  return read(handle, mode, [=](const CUtexref_st& t) { return t.reference.texture.addressMode[axis]; });
}
CUresult cuTexRefGetFilterMode(CUfilter_mode* mode, CUtexref handle) {
  return read(handle, mode, [](const CUtexref_st& t) { return t.reference.texture.filterMode; });
}
CUresult cuTexRefGetFormat(CUarray_format* format, int* channels, CUtexref handle) {
  const CUresult result = read(handle, format, [](const CUtexref_st& t) { return t.format; });
  if (result != CUDA_SUCCESS || channels == nullptr) return result;
  return read(handle, channels, [](const CUtexref_st& t) { return t.channels; });
}
CUresult cuTexRefGetMipmapFilterMode(CUfilter_mode* mode, CUtexref handle) {
  return read(handle, mode, [](const CUtexref_st& t) { return t.reference.texture.mipmapFilterMode; });
}
CUresult cuTexRefGetMipmapLevelBias(float* bias, CUtexref handle) {
  return read(handle, bias, [](const CUtexref_st& t) { return t.reference.texture.mipmapLevelBias; });
}
CUresult cuTexRefGetMipmapLevelClamp(float* least, float* most, CUtexref handle) {
  const CUresult result =
      read(handle, least, [](const CUtexref_st& t) { return t.reference.texture.minMipmapLevelClamp; });
  if (result != CUDA_SUCCESS) return result;
  return read(handle, most, [](const CUtexref_st& t) { return t.reference.texture.maxMipmapLevelClamp; });
}
CUresult cuTexRefGetMaxAnisotropy(int* most, CUtexref handle) {
  return read(handle, most, [](const CUtexref_st& t) { return static_cast<int>(t.reference.texture.maxAnisotropy); });
}
CUresult cuTexRefGetBorderColor(float* color, CUtexref handle) {
  if (color == nullptr) return CUDA_ERROR_INVALID_VALUE;
  return of_texture(handle, [=](const CUtexref_st& t) {
    std::copy_n(t.reference.texture.borderColor, 4, color);
    return CUDA_SUCCESS;
  });
}
CUresult cuTexRefGetFlags(unsigned int* flags, CUtexref handle) {
  return read(handle, flags, [](const CUtexref_st& t) { return t.reference.texture.flags; });
}

CUresult cuParamSetTexRef(CUfunction function, int unit, CUtexref handle) {
  int threads = 0;
  const CUresult result = cuFuncGetAttribute(&threads, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, function);
  if (result != CUDA_SUCCESS) return result;
  if (unit != CU_PARAM_TR_DEFAULT) return CUDA_ERROR_INVALID_VALUE;
  return of_texture(handle, [](const CUtexref_st&) { return CUDA_SUCCESS; });
}

CUresult cuSurfRefSetArray(CUsurfref handle, CUarray array, unsigned int flags) {
  if (flags != 0) return CUDA_ERROR_INVALID_VALUE;
  return of_surface(handle, [=](CUsurfref_st& s) {
    const Reference before = s.reference;
    s.reference.resource = {};
    s.reference.resource.resType = CU_RESOURCE_TYPE_ARRAY;
    s.reference.resource.res.array.hArray = array;
    const CUresult result = bind_reference(&s.reference, true);
    if (result != CUDA_SUCCESS) {
      s.reference = before;
    } else {
      s.reference.bound = true;
    }
    return result;
  });
}
CUresult cuSurfRefGetArray(CUarray* array, CUsurfref handle) {
  if (array == nullptr) return CUDA_ERROR_INVALID_VALUE;
  return of_surface(handle, [=](const CUsurfref_st& s) {
    if (!s.reference.bound) return CUDA_ERROR_INVALID_VALUE;
    *array = s.reference.resource.res.array.hArray;
    return CUDA_SUCCESS;
  });
}

// Earlier versions.
CUresult cuTexRefSetAddress2D_v2(CUtexref handle, const CUDA_ARRAY_DESCRIPTOR* what, CUdeviceptr address,
                                 size_t pitch) {
  return cuTexRefSetAddress2D_v3(handle, what, address, pitch);
}
CUresult cuTexRefSetAddress2D(CUtexref handle, const CUDA_ARRAY_DESCRIPTOR_v1* what, CUdeviceptr_v1 address,
                              unsigned int pitch) {
  if (what == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const CUDA_ARRAY_DESCRIPTOR wide = {what->Width, what->Height, what->Format, what->NumChannels};
  return cuTexRefSetAddress2D_v3(handle, &wide, address, pitch);
}
CUresult cuTexRefSetAddress(unsigned int* offset, CUtexref handle, CUdeviceptr_v1 address, unsigned int bytes) {
  size_t wide = 0;
  const CUresult result = cuTexRefSetAddress_v2(offset == nullptr ? nullptr : &wide, handle, address, bytes);
  if (result == CUDA_SUCCESS && offset != nullptr) *offset = clamped(wide);
  return result;
}
CUresult cuTexRefGetAddress(CUdeviceptr_v1* address, CUtexref handle) {
  CUdeviceptr wide = 0;
  if (address == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const CUresult result = cuTexRefGetAddress_v2(&wide, handle);
  if (result != CUDA_SUCCESS) return result;
  if (!fits(wide)) return CUDA_ERROR_INVALID_VALUE;
  *address = static_cast<CUdeviceptr_v1>(wide);
  return CUDA_SUCCESS;
}

}  // extern "C"
#pragma GCC visibility pop
