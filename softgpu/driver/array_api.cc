// Entry points: arrays and mipmapped arrays.

#include "softgpu/driver/array.h"
#include "softgpu/driver/driver.h"

using namespace softgpu;  // an entry point is C; everything it uses is ours

namespace {

template <typename Body>
CUresult with_array(CUarray handle, Body body) {
  return in_context([&](Context&) -> CUresult {
    const auto array = driver().arrays.find(handle);
    return array == nullptr ? CUDA_ERROR_INVALID_HANDLE : body(*array);
  });
}

template <typename Body>
CUresult with_mipmap(CUmipmappedArray handle, Body body) {
  return in_context([&](Context&) -> CUresult {
    const auto mipmap = driver().mipmaps.find(handle);
    return mipmap == nullptr ? CUDA_ERROR_INVALID_HANDLE : body(*mipmap);
  });
}

}  // namespace

extern "C" CUresult cuArray3DCreate_v2(CUarray* array, const CUDA_ARRAY3D_DESCRIPTOR* what) {
  return in_context([&](Context& context) -> CUresult {
    if (array == nullptr || what == nullptr) return CUDA_ERROR_INVALID_VALUE;
    return create_array(context, *what, array);
  });
}

extern "C" CUresult cuArrayCreate_v2(CUarray* array, const CUDA_ARRAY_DESCRIPTOR* what) {
  if (what == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const CUDA_ARRAY3D_DESCRIPTOR same{what->Width, what->Height, 0, what->Format, what->NumChannels, 0};
  return cuArray3DCreate_v2(array, &same);
}

extern "C" CUresult cuArrayGetDescriptor_v2(CUDA_ARRAY_DESCRIPTOR* what, CUarray handle) {
  return with_array(handle, [&](const Array& array) -> CUresult {
    if (what == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *what = {array.what.Width, array.what.Height, array.what.Format, array.what.NumChannels};
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuArray3DGetDescriptor_v2(CUDA_ARRAY3D_DESCRIPTOR* what, CUarray handle) {
  return with_array(handle, [&](const Array& array) -> CUresult {
    if (what == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *what = array.what;
    return CUDA_SUCCESS;
  });
}

// No array has its mapping deferred, is sparse or has planes.
extern "C" CUresult cuArrayGetMemoryRequirements(CUDA_ARRAY_MEMORY_REQUIREMENTS*, CUarray handle, CUdevice) {
  return with_array(handle, [](const Array&) { return CUDA_ERROR_INVALID_VALUE; });
}

extern "C" CUresult cuMipmappedArrayGetMemoryRequirements(CUDA_ARRAY_MEMORY_REQUIREMENTS*, CUmipmappedArray handle,
                                                          CUdevice) {
  return with_mipmap(handle, [](const MipmappedArray&) { return CUDA_ERROR_INVALID_VALUE; });
}

extern "C" CUresult cuArrayGetSparseProperties(CUDA_ARRAY_SPARSE_PROPERTIES*, CUarray handle) {
  return with_array(handle, [](const Array&) { return CUDA_ERROR_INVALID_VALUE; });
}

extern "C" CUresult cuMipmappedArrayGetSparseProperties(CUDA_ARRAY_SPARSE_PROPERTIES*, CUmipmappedArray handle) {
  return with_mipmap(handle, [](const MipmappedArray&) { return CUDA_ERROR_INVALID_VALUE; });
}

extern "C" CUresult cuArrayGetPlane(CUarray*, CUarray handle, unsigned int) {
  return with_array(handle, [](const Array&) { return CUDA_ERROR_INVALID_VALUE; });
}

extern "C" CUresult cuArrayDestroy(CUarray handle) {
  return with_array(handle, [&](const Array& array) -> CUresult {
    if (array.of_mipmap) return CUDA_ERROR_INVALID_HANDLE;
    array.context->synchronize();
    driver().arrays.remove(handle);
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuMipmappedArrayCreate(CUmipmappedArray* mipmap, const CUDA_ARRAY3D_DESCRIPTOR* what,
                                           unsigned int levels) {
  return in_context([&](Context& context) -> CUresult {
    if (mipmap == nullptr || what == nullptr) return CUDA_ERROR_INVALID_VALUE;
    return create_mipmap(context, *what, levels, mipmap);
  });
}

extern "C" CUresult cuMipmappedArrayGetLevel(CUarray* array, CUmipmappedArray handle, unsigned int level) {
  return with_mipmap(handle, [&](const MipmappedArray& mipmap) -> CUresult {
    if (array == nullptr || level >= mipmap.levels.size()) return CUDA_ERROR_INVALID_VALUE;
    *array = mipmap.levels[level]->handle;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuMipmappedArrayDestroy(CUmipmappedArray handle) {
  return with_mipmap(handle, [&](const MipmappedArray& mipmap) -> CUresult {
    mipmap.context->synchronize();
    for (const auto& level : mipmap.levels) driver().arrays.remove(level->handle);
    driver().mipmaps.remove(handle);
    return CUDA_SUCCESS;
  });
}
