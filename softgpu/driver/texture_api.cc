// Entry points: texture and surface objects.

#include <utility>

#include "softgpu/driver/driver.h"

using namespace softgpu;  // an entry point is C; everything it uses is ours

namespace {

thread_local uint64_t t_wanted_handle = 0;

template <typename Body>
CUresult with_object(const TextureObjects& objects, uint64_t handle, Body body) {
  return in_context([&](Context&) -> CUresult {
    const auto object = objects.find(handle);
    return object == nullptr ? CUDA_ERROR_INVALID_VALUE : body(*object);
  });
}

}  // namespace

extern "C" CUresult softgpuSetObjectHandle(unsigned long long handle) {
  t_wanted_handle = handle;
  return CUDA_SUCCESS;
}

extern "C" CUresult cuTexObjectCreate(CUtexObject* handle, const CUDA_RESOURCE_DESC* resource,
                                      const CUDA_TEXTURE_DESC* what, const CUDA_RESOURCE_VIEW_DESC* view) {
  const uint64_t wanted = std::exchange(t_wanted_handle, 0);
  return in_context([&](Context& context) -> CUresult {
    if (handle == nullptr || resource == nullptr || what == nullptr) return CUDA_ERROR_INVALID_VALUE;
    TextureObject object{&context, *resource, *what, {}, view != nullptr};
    if (view != nullptr) object.view = *view;
    auto texture = std::make_unique<Texture>();
    CUresult result = describe_texture(object, texture.get());
    if (result != CUDA_SUCCESS) return result;
    uint64_t got = 0;
    result = driver().textures.add(object, std::move(texture), wanted, &got);
    if (result == CUDA_SUCCESS) *handle = got;
    return result;
  });
}

extern "C" CUresult cuTexObjectDestroy(CUtexObject handle) {
  return in_context([&](Context&) { return driver().textures.remove(handle); });
}

extern "C" CUresult cuTexObjectGetResourceDesc(CUDA_RESOURCE_DESC* what, CUtexObject handle) {
  return with_object(driver().textures, handle, [&](const TextureObject& object) -> CUresult {
    if (what == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *what = object.resource;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuTexObjectGetTextureDesc(CUDA_TEXTURE_DESC* what, CUtexObject handle) {
  return with_object(driver().textures, handle, [&](const TextureObject& object) -> CUresult {
    if (what == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *what = object.texture;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuTexObjectGetResourceViewDesc(CUDA_RESOURCE_VIEW_DESC* what, CUtexObject handle) {
  return with_object(driver().textures, handle, [&](const TextureObject& object) -> CUresult {
    if (what == nullptr || !object.has_view) return CUDA_ERROR_INVALID_VALUE;
    *what = object.view;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuSurfObjectCreate(CUsurfObject* handle, const CUDA_RESOURCE_DESC* resource) {
  const uint64_t wanted = std::exchange(t_wanted_handle, 0);
  return in_context([&](Context& context) -> CUresult {
    if (handle == nullptr || resource == nullptr) return CUDA_ERROR_INVALID_VALUE;
    auto surface = std::make_unique<Texture>();
    CUresult result = describe_surface(*resource, surface.get());
    if (result != CUDA_SUCCESS) return result;
    uint64_t got = 0;
    result = driver().surfaces.add({&context, *resource, {}, {}, false}, std::move(surface), wanted, &got);
    if (result == CUDA_SUCCESS) *handle = got;
    return result;
  });
}

extern "C" CUresult cuSurfObjectDestroy(CUsurfObject handle) {
  return in_context([&](Context&) { return driver().surfaces.remove(handle); });
}

extern "C" CUresult cuSurfObjectGetResourceDesc(CUDA_RESOURCE_DESC* what, CUsurfObject handle) {
  return with_object(driver().surfaces, handle, [&](const TextureObject& object) -> CUresult {
    if (what == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *what = object.resource;
    return CUDA_SUCCESS;
  });
}
