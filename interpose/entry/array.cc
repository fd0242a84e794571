// Arrays, and copies of which a side may be one.

#include "interpose/array.h"

#include <algorithm>
#include <cstring>

#include "interpose/entry/entry.h"

using namespace tide;

namespace {

CUresult look_up(CUarray handle, Array** array) {
  Entered e;
  TIDE_TRY(enter_quietly(&e));
  *array = e.process->arrays.find(handle);
  return *array != nullptr ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

CUresult look_up(CUmipmappedArray handle, MipmappedArray** mipmap) {
  Entered e;
  TIDE_TRY(enter_quietly(&e));
  *mipmap = e.process->mipmaps.find(handle);
  return *mipmap != nullptr ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

// No array that we make is sparse, has planes or has its mapping deferred.
CUresult none_of_that(CUarray handle) {
  Array* array = nullptr;
  TIDE_TRY(look_up(handle, &array));
  return CUDA_ERROR_INVALID_VALUE;
}

CUresult none_of_that(CUmipmappedArray handle) {
  MipmappedArray* mipmap = nullptr;
  TIDE_TRY(look_up(handle, &mipmap));
  return CUDA_ERROR_INVALID_VALUE;
}

CUresult copy_3d(const CUDA_MEMCPY3D* c, bool synchronous, CUstream stream) {
  return c == nullptr ? CUDA_ERROR_INVALID_VALUE : copy_box(*c, {synchronous, stream});
}

CUresult copy_peer(const CUDA_MEMCPY3D_PEER* c, bool synchronous, CUstream stream) {
  Process* p = process();
  if (p == nullptr) return CUDA_ERROR_NOT_INITIALIZED;
  if (c == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const auto known = [&](CUmemorytype type, CUcontext context) {
    return type != CU_MEMORYTYPE_DEVICE || p->contexts.find(context) != nullptr;
  };
  if (!known(c->srcMemoryType, c->srcContext) || !known(c->dstMemoryType, c->dstContext)) {
    return CUDA_ERROR_INVALID_CONTEXT;
  }
  CUDA_MEMCPY3D same = {};
  static_assert(sizeof same == sizeof *c);  // contexts where that has reserved pointers
  memcpy(&same, c, sizeof same);
  same.reserved0 = same.reserved1 = nullptr;
  return copy_box(same, {synchronous, stream});
}

struct Linear {
  CUarray array = nullptr;
  uint64_t offset = 0;  // in the array, or the address
  CUmemorytype type = CU_MEMORYTYPE_ARRAY;
};

struct Box {
  uint64_t x, y, z, width, rows;
};

// The next piece from a byte offset on: rows of one slice where whole ones fit, else a part of one.
Box next_box(const Array& array, uint64_t offset, uint64_t bytes) {
  const uint64_t row = offset / array.row_bytes(), x = offset % array.row_bytes();
  Box box{x, row % array.rows(), row / array.rows(), std::min(bytes, array.row_bytes() - x), 1};
  if (x == 0 && bytes >= array.row_bytes()) box.rows = std::min(bytes / array.row_bytes(), array.rows() - box.y);
  return box;
}

void put_side(const Linear& side, const Box& box, uint64_t done, bool destination, CUDA_MEMCPY3D* c) {
  const bool array = side.type == CU_MEMORYTYPE_ARRAY;
  auto* const host = reinterpret_cast<void*>(side.offset + done);
  if (destination) {
    c->dstMemoryType = side.type;
    c->dstArray = side.array;
    c->dstHost = host;
    c->dstDevice = side.offset + done;
    if (array) c->dstXInBytes = box.x, c->dstY = box.y, c->dstZ = box.z;
  } else {
    c->srcMemoryType = side.type;
    c->srcArray = side.array;
    c->srcHost = host;
    c->srcDevice = side.offset + done;
    if (array) c->srcXInBytes = box.x, c->srcY = box.y, c->srcZ = box.z;
  }
}

// `bytes` bytes on, counted through the rows of an array.
CUresult copy_linear(const Linear& to, const Linear& from, uint64_t bytes, bool synchronous, CUstream stream) {
  Entered e;
  TIDE_TRY(enter(&e));
  for (const Linear* side : {&to, &from}) {
    if (side->type != CU_MEMORYTYPE_ARRAY) continue;
    const Array* array = e.process->arrays.find(side->array);
    if (array == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    const uint64_t size = array->row_bytes() * array->rows() * array->slices();
    if (side->offset > size || bytes > size - side->offset) return CUDA_ERROR_INVALID_VALUE;
    if (side->offset % array->element_bytes != 0 || bytes % array->element_bytes != 0) return CUDA_ERROR_INVALID_VALUE;
  }
  const Array* to_array = to.type == CU_MEMORYTYPE_ARRAY ? e.process->arrays.find(to.array) : nullptr;
  const Array* from_array = from.type == CU_MEMORYTYPE_ARRAY ? e.process->arrays.find(from.array) : nullptr;
  for (uint64_t done = 0; done < bytes;) {
    Box a{0, 0, 0, bytes - done, 1}, b = a;
    if (to_array != nullptr) a = next_box(*to_array, to.offset + done, bytes - done);
    if (from_array != nullptr) b = next_box(*from_array, from.offset + done, bytes - done);
    CUDA_MEMCPY3D c = {};
    c.Depth = 1;
    if (to_array != nullptr && from_array != nullptr) {  // what both have in one row
      c.WidthInBytes = std::min(a.width, b.width);
      c.Height = 1;
    } else {
      const Box& box = to_array != nullptr ? a : b;
      c.WidthInBytes = box.width;
      c.Height = box.rows;
    }
    put_side(to, a, done, true, &c);
    put_side(from, b, done, false, &c);
    TIDE_TRY(copy_box(c, {synchronous, stream}));
    done += c.WidthInBytes * c.Height;
  }
  return CUDA_SUCCESS;
}

Linear at(CUarray array, size_t offset) { return {array, offset, CU_MEMORYTYPE_ARRAY}; }
Linear at(const void* host) { return {nullptr, reinterpret_cast<uint64_t>(host), CU_MEMORYTYPE_HOST}; }
Linear at(CUdeviceptr device) { return {nullptr, device, CU_MEMORYTYPE_DEVICE}; }

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

CUresult cuArray3DCreate_v2(CUarray* handle, const CUDA_ARRAY3D_DESCRIPTOR* what) {
  Entered e;
  TIDE_TRY(enter(&e));
  if (handle == nullptr || what == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Array* array = nullptr;
  TIDE_TRY(make_array(*e.process, *e.context, *what, &array));
  *handle = handle_of<CUarray>(*array);
  return CUDA_SUCCESS;
}

CUresult cuArrayCreate_v2(CUarray* handle, const CUDA_ARRAY_DESCRIPTOR* what) {
  if (what == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const CUDA_ARRAY3D_DESCRIPTOR same{what->Width, what->Height, 0, what->Format, what->NumChannels, 0};
  return cuArray3DCreate_v2(handle, &same);
}

CUresult cuArrayGetDescriptor_v2(CUDA_ARRAY_DESCRIPTOR* what, CUarray handle) {
  Array* array = nullptr;
  TIDE_TRY(look_up(handle, &array));
  if (what == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *what = {array->what.Width, array->what.Height, array->what.Format, array->what.NumChannels};
  return CUDA_SUCCESS;
}

CUresult cuArray3DGetDescriptor_v2(CUDA_ARRAY3D_DESCRIPTOR* what, CUarray handle) {
  Array* array = nullptr;
  TIDE_TRY(look_up(handle, &array));
  if (what == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *what = array->what;
  return CUDA_SUCCESS;
}

CUresult cuArrayGetSparseProperties(CUDA_ARRAY_SPARSE_PROPERTIES*, CUarray handle) { return none_of_that(handle); }
CUresult cuMipmappedArrayGetSparseProperties(CUDA_ARRAY_SPARSE_PROPERTIES*, CUmipmappedArray handle) {
  return none_of_that(handle);
}
CUresult cuArrayGetMemoryRequirements(CUDA_ARRAY_MEMORY_REQUIREMENTS*, CUarray handle, CUdevice) {
  return none_of_that(handle);
}
CUresult cuMipmappedArrayGetMemoryRequirements(CUDA_ARRAY_MEMORY_REQUIREMENTS*, CUmipmappedArray handle, CUdevice) {
  return none_of_that(handle);
}
CUresult cuArrayGetPlane(CUarray*, CUarray handle, unsigned int) { return none_of_that(handle); }

CUresult cuArrayDestroy(CUarray handle) {
  Entered e;
  TIDE_TRY(enter(&e));
  Array* array = e.process->arrays.find(handle);
  return array == nullptr ? CUDA_ERROR_INVALID_HANDLE : drop_array(*e.process, *array);
}

CUresult cuMipmappedArrayCreate(CUmipmappedArray* handle, const CUDA_ARRAY3D_DESCRIPTOR* what, unsigned int levels) {
  Entered e;
  TIDE_TRY(enter(&e));
  if (handle == nullptr || what == nullptr) return CUDA_ERROR_INVALID_VALUE;
  MipmappedArray* mipmap = nullptr;
  TIDE_TRY(make_mipmap(*e.process, *e.context, *what, levels, &mipmap));
  *handle = handle_of<CUmipmappedArray>(*mipmap);
  return CUDA_SUCCESS;
}

CUresult cuMipmappedArrayGetLevel(CUarray* array, CUmipmappedArray handle, unsigned int level) {
  MipmappedArray* mipmap = nullptr;
  TIDE_TRY(look_up(handle, &mipmap));
  if (array == nullptr || level >= mipmap->levels.size()) return CUDA_ERROR_INVALID_VALUE;
  *array = handle_of<CUarray>(*mipmap->levels[level]);
  return CUDA_SUCCESS;
}

CUresult cuMipmappedArrayDestroy(CUmipmappedArray handle) {
  Entered e;
  TIDE_TRY(enter(&e));
  MipmappedArray* mipmap = e.process->mipmaps.find(handle);
  return mipmap == nullptr ? CUDA_ERROR_INVALID_HANDLE : drop_mipmap(*e.process, *mipmap);
}

CUresult cuMemcpy3D_v2(const CUDA_MEMCPY3D* c) { return copy_3d(c, true, nullptr); }
CUresult cuMemcpy3DAsync_v2(const CUDA_MEMCPY3D* c, CUstream stream) { return copy_3d(c, false, stream); }
CUresult cuMemcpy3DPeer(const CUDA_MEMCPY3D_PEER* c) { return copy_peer(c, true, nullptr); }
CUresult cuMemcpy3DPeerAsync(const CUDA_MEMCPY3D_PEER* c, CUstream stream) { return copy_peer(c, false, stream); }

CUresult cuMemcpyDtoA_v2(CUarray to, size_t offset, CUdeviceptr from, size_t bytes) {
  return copy_linear(at(to, offset), at(from), bytes, true, nullptr);
}
CUresult cuMemcpyAtoD_v2(CUdeviceptr to, CUarray from, size_t offset, size_t bytes) {
  return copy_linear(at(to), at(from, offset), bytes, true, nullptr);
}
CUresult cuMemcpyHtoA_v2(CUarray to, size_t offset, const void* from, size_t bytes) {
  return copy_linear(at(to, offset), at(from), bytes, true, nullptr);
}
CUresult cuMemcpyAtoH_v2(void* to, CUarray from, size_t offset, size_t bytes) {
  return copy_linear(at(to), at(from, offset), bytes, true, nullptr);
}
CUresult cuMemcpyAtoA_v2(CUarray to, size_t to_offset, CUarray from, size_t from_offset, size_t bytes) {
  return copy_linear(at(to, to_offset), at(from, from_offset), bytes, true, nullptr);
}
CUresult cuMemcpyHtoAAsync_v2(CUarray to, size_t offset, const void* from, size_t bytes, CUstream stream) {
  return copy_linear(at(to, offset), at(from), bytes, false, stream);
}
CUresult cuMemcpyAtoHAsync_v2(void* to, CUarray from, size_t offset, size_t bytes, CUstream stream) {
  return copy_linear(at(to), at(from, offset), bytes, false, stream);
}

}  // extern "C"
#pragma GCC visibility pop
