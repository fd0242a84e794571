// The first version's copies and arrays.

#include "api/composed/composed.h"

namespace {

CUDA_MEMCPY2D widened(const CUDA_MEMCPY2D_v1& c) {
  return {c.srcXInBytes, c.srcY,        c.srcMemoryType, c.srcHost,       c.srcDevice, c.srcArray,
          c.srcPitch,    c.dstXInBytes, c.dstY,          c.dstMemoryType, c.dstHost,   c.dstDevice,
          c.dstArray,    c.dstPitch,    c.WidthInBytes,  c.Height};
}

CUDA_MEMCPY3D widened(const CUDA_MEMCPY3D_v1& c) {
  CUDA_MEMCPY3D box = {};
  box.srcXInBytes = c.srcXInBytes;
  box.srcY = c.srcY;
  box.srcZ = c.srcZ;
  box.srcLOD = c.srcLOD;
  box.srcMemoryType = c.srcMemoryType;
  box.srcHost = c.srcHost;
  box.srcDevice = c.srcDevice;
  box.srcArray = c.srcArray;
  box.srcPitch = c.srcPitch;
  box.srcHeight = c.srcHeight;
  box.dstXInBytes = c.dstXInBytes;
  box.dstY = c.dstY;
  box.dstZ = c.dstZ;
  box.dstLOD = c.dstLOD;
  box.dstMemoryType = c.dstMemoryType;
  box.dstHost = c.dstHost;
  box.dstDevice = c.dstDevice;
  box.dstArray = c.dstArray;
  box.dstPitch = c.dstPitch;
  box.dstHeight = c.dstHeight;
  box.WidthInBytes = c.WidthInBytes;
  box.Height = c.Height;
  box.Depth = c.Depth;
  return box;
}

// Calls `copy` with the wide form of a description that may be missing.
template <typename Narrow, typename Copy>
CUresult with_widened(const Narrow* narrow, Copy copy) {
  if (narrow == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const auto box = widened(*narrow);
  return copy(&box);
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

CUresult cuMemcpyHtoD(CUdeviceptr_v1 to, const void* from, unsigned int bytes) {
  return cuMemcpyHtoD_v2(to, from, bytes);
}
CUresult cuMemcpyDtoH(void* to, CUdeviceptr_v1 from, unsigned int bytes) { return cuMemcpyDtoH_v2(to, from, bytes); }
CUresult cuMemcpyDtoD(CUdeviceptr_v1 to, CUdeviceptr_v1 from, unsigned int bytes) {
  return cuMemcpyDtoD_v2(to, from, bytes);
}
CUresult cuMemcpyDtoA(CUarray to, unsigned int offset, CUdeviceptr_v1 from, unsigned int bytes) {
  return cuMemcpyDtoA_v2(to, offset, from, bytes);
}
CUresult cuMemcpyAtoD(CUdeviceptr_v1 to, CUarray from, unsigned int offset, unsigned int bytes) {
  return cuMemcpyAtoD_v2(to, from, offset, bytes);
}
CUresult cuMemcpyHtoA(CUarray to, unsigned int offset, const void* from, unsigned int bytes) {
  return cuMemcpyHtoA_v2(to, offset, from, bytes);
}
CUresult cuMemcpyAtoH(void* to, CUarray from, unsigned int offset, unsigned int bytes) {
  return cuMemcpyAtoH_v2(to, from, offset, bytes);
}
CUresult cuMemcpyAtoA(CUarray to, unsigned int to_offset, CUarray from, unsigned int from_offset, unsigned int bytes) {
  return cuMemcpyAtoA_v2(to, to_offset, from, from_offset, bytes);
}
CUresult cuMemcpyHtoDAsync(CUdeviceptr_v1 to, const void* from, unsigned int bytes, CUstream stream) {
  return cuMemcpyHtoDAsync_v2(to, from, bytes, stream);
}
CUresult cuMemcpyDtoHAsync(void* to, CUdeviceptr_v1 from, unsigned int bytes, CUstream stream) {
  return cuMemcpyDtoHAsync_v2(to, from, bytes, stream);
}
CUresult cuMemcpyDtoDAsync(CUdeviceptr_v1 to, CUdeviceptr_v1 from, unsigned int bytes, CUstream stream) {
  return cuMemcpyDtoDAsync_v2(to, from, bytes, stream);
}
CUresult cuMemcpyHtoAAsync(CUarray to, unsigned int offset, const void* from, unsigned int bytes, CUstream stream) {
  return cuMemcpyHtoAAsync_v2(to, offset, from, bytes, stream);
}
CUresult cuMemcpyAtoHAsync(void* to, CUarray from, unsigned int offset, unsigned int bytes, CUstream stream) {
  return cuMemcpyAtoHAsync_v2(to, from, offset, bytes, stream);
}

CUresult cuMemcpy2D(const CUDA_MEMCPY2D_v1* copy) { return with_widened(copy, cuMemcpy2D_v2); }
CUresult cuMemcpy2DUnaligned(const CUDA_MEMCPY2D_v1* copy) { return with_widened(copy, cuMemcpy2DUnaligned_v2); }
CUresult cuMemcpy3D(const CUDA_MEMCPY3D_v1* copy) { return with_widened(copy, cuMemcpy3D_v2); }
CUresult cuMemcpy2DAsync(const CUDA_MEMCPY2D_v1* copy, CUstream stream) {
  return with_widened(copy, [=](const CUDA_MEMCPY2D* box) { return cuMemcpy2DAsync_v2(box, stream); });
}
CUresult cuMemcpy3DAsync(const CUDA_MEMCPY3D_v1* copy, CUstream stream) {
  return with_widened(copy, [=](const CUDA_MEMCPY3D* box) { return cuMemcpy3DAsync_v2(box, stream); });
}

CUresult cuArrayCreate(CUarray* array, const CUDA_ARRAY_DESCRIPTOR_v1* d) {
  if (d == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const CUDA_ARRAY_DESCRIPTOR wide = {d->Width, d->Height, d->Format, d->NumChannels};
  return cuArrayCreate_v2(array, &wide);
}

CUresult cuArrayGetDescriptor(CUDA_ARRAY_DESCRIPTOR_v1* d, CUarray array) {
  CUDA_ARRAY_DESCRIPTOR wide = {};
  const CUresult result = cuArrayGetDescriptor_v2(d == nullptr ? nullptr : &wide, array);
  if (result != CUDA_SUCCESS) return result;
  *d = {static_cast<unsigned>(wide.Width), static_cast<unsigned>(wide.Height), wide.Format, wide.NumChannels};
  return CUDA_SUCCESS;
}

CUresult cuArray3DCreate(CUarray* array, const CUDA_ARRAY3D_DESCRIPTOR_v1* d) {
  if (d == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const CUDA_ARRAY3D_DESCRIPTOR wide = {d->Width, d->Height, d->Depth, d->Format, d->NumChannels, d->Flags};
  return cuArray3DCreate_v2(array, &wide);
}

CUresult cuArray3DGetDescriptor(CUDA_ARRAY3D_DESCRIPTOR_v1* d, CUarray array) {
  CUDA_ARRAY3D_DESCRIPTOR wide = {};
  const CUresult result = cuArray3DGetDescriptor_v2(d == nullptr ? nullptr : &wide, array);
  if (result != CUDA_SUCCESS) return result;
  *d = {static_cast<unsigned>(wide.Width),
        static_cast<unsigned>(wide.Height),
        static_cast<unsigned>(wide.Depth),
        wide.Format,
        wide.NumChannels,
        wide.Flags};
  return CUDA_SUCCESS;
}

}  // extern "C"
#pragma GCC visibility pop
