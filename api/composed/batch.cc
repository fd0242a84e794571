// Batches of copies and hints.

#include "api/composed/composed.h"

namespace {

constexpr size_t kMostOperations = size_t{1} << 24;

// Indexes of attributes begin with 0 and ascend; every one is a copy of the batch.
bool well_formed(const size_t* indexes, size_t indexes_count, size_t count) {
  if (indexes_count == 0 || indexes_count > count || indexes == nullptr || indexes[0] != 0) return false;
  for (size_t i = 1; i < indexes_count; i++) {
    if (indexes[i] <= indexes[i - 1] || indexes[i] >= count) return false;
  }
  return true;
}

// The legacy default stream takes no batch.
bool is_default(CUstream stream) { return stream == nullptr || stream == CU_STREAM_LEGACY; }

// One side of a 3D copy of a batch, for both kinds of operand.
struct Side {
  CUmemorytype type;
  CUdeviceptr address;
  CUarray array;
  size_t pitch, height, x, y, z;
};

Side side_of(const CUmemcpy3DOperand& operand, size_t width) {
  Side side = {};
  if (operand.type == CU_MEMCPY_OPERAND_TYPE_POINTER) {
    const auto& p = operand.op.ptr;
    side.type = CU_MEMORYTYPE_UNIFIED;
    side.address = p.ptr;
    side.pitch = p.rowLength != 0 ? p.rowLength : width;
    side.height = p.layerHeight;
  } else {
    const auto& a = operand.op.array;
    side.type = CU_MEMORYTYPE_ARRAY;
    side.array = a.array;
    side.x = a.offset.x;
    side.y = a.offset.y;
    side.z = a.offset.z;
  }
  return side;
}

// Bytes of an element of the array that an operation touches; without one extents are in bytes.
CUresult element_bytes(const CUmemcpy3DOperand& operand, size_t* bytes) {
  if (operand.type != CU_MEMCPY_OPERAND_TYPE_ARRAY) return CUDA_SUCCESS;
  CUDA_ARRAY3D_DESCRIPTOR shape = {};
  const CUresult result = cuArray3DGetDescriptor_v2(&shape, operand.op.array.array);
  if (result != CUDA_SUCCESS) return result;
  switch (shape.Format) {
    case CU_AD_FORMAT_UNSIGNED_INT8:
    case CU_AD_FORMAT_SIGNED_INT8:
      *bytes = shape.NumChannels;
      break;
    case CU_AD_FORMAT_UNSIGNED_INT16:
    case CU_AD_FORMAT_SIGNED_INT16:
    case CU_AD_FORMAT_HALF:
      *bytes = 2 * size_t{shape.NumChannels};
      break;
    case CU_AD_FORMAT_UNSIGNED_INT32:
    case CU_AD_FORMAT_SIGNED_INT32:
    case CU_AD_FORMAT_FLOAT:
      *bytes = 4 * size_t{shape.NumChannels};
      break;
    default:
      return CUDA_ERROR_NOT_SUPPORTED;
  }
  return CUDA_SUCCESS;
}

CUresult copy_box(const CUDA_MEMCPY3D_BATCH_OP& op, CUstream stream) {
  size_t element = 1;
  for (const CUmemcpy3DOperand* operand : {&op.src, &op.dst}) {
    const CUresult result = element_bytes(*operand, &element);
    if (result != CUDA_SUCCESS) return result;
  }
  const size_t width = op.extent.width * element;
  Side from = side_of(op.src, op.extent.width), to = side_of(op.dst, op.extent.width);
  CUDA_MEMCPY3D box = {};
  box.srcMemoryType = from.type;
  box.srcDevice = from.address;
  box.srcArray = from.array;
  box.srcPitch = from.pitch * element;
  box.srcHeight = from.height != 0 ? from.height : op.extent.height;
  box.srcXInBytes = from.x * element;
  box.srcY = from.y;
  box.srcZ = from.z;
  box.dstMemoryType = to.type;
  box.dstDevice = to.address;
  box.dstArray = to.array;
  box.dstPitch = to.pitch * element;
  box.dstHeight = to.height != 0 ? to.height : op.extent.height;
  box.dstXInBytes = to.x * element;
  box.dstY = to.y;
  box.dstZ = to.z;
  box.WidthInBytes = width;
  box.Height = op.extent.height;
  box.Depth = op.extent.depth;
  return cuMemcpy3DAsync_v2(&box, stream);
}

struct Batch {
  CUdeviceptr* to;
  CUdeviceptr* from;
  size_t* sizes;
  size_t count;
  CUmemcpyAttributes* attributes;
  size_t* indexes;
  size_t attribute_count;
};

// *failed: the copy that was refused, SIZE_MAX where it was none in particular.
CUresult copy_batch(const Batch& b, size_t* failed, CUstream stream) {
  *failed = SIZE_MAX;
  if (b.count == 0 || b.count > kMostOperations || b.to == nullptr || b.from == nullptr || b.sizes == nullptr ||
      b.attributes == nullptr || is_default(stream) || !well_formed(b.indexes, b.attribute_count, b.count)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  for (size_t i = 0; i < b.attribute_count; i++) {
    const auto order = b.attributes[i].srcAccessOrder;
    if (order < CU_MEMCPY_SRC_ACCESS_ORDER_STREAM || order > CU_MEMCPY_SRC_ACCESS_ORDER_ANY) {
      return CUDA_ERROR_INVALID_VALUE;
    }
  }
  for (size_t i = 0; i < b.count; i++) {
    const CUresult result = cuMemcpyAsync(b.to[i], b.from[i], b.sizes[i], stream);
    if (result == CUDA_SUCCESS) continue;
    *failed = i;
    return result;
  }
  return CUDA_SUCCESS;
}

CUresult copy_boxes(const CUDA_MEMCPY3D_BATCH_OP* operations, size_t count, unsigned long long flags, size_t* failed,
                    CUstream stream) {
  *failed = SIZE_MAX;
  if (count == 0 || count > kMostOperations || operations == nullptr || flags != 0 || is_default(stream)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  for (size_t i = 0; i < count; i++) {
    const CUresult result = copy_box(operations[i], stream);
    if (result == CUDA_SUCCESS) continue;
    *failed = i;
    return result;
  }
  return CUDA_SUCCESS;
}

CUresult prefetch(CUdeviceptr* addresses, size_t* sizes, size_t count, CUmemLocation* places, size_t* indexes,
                  size_t place_count, unsigned long long flags, CUstream stream) {
  if (count == 0 || count > kMostOperations || addresses == nullptr || sizes == nullptr || places == nullptr ||
      flags != 0 || !well_formed(indexes, place_count, count)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  for (size_t i = 0, at = 0; i < count; i++) {
    if (at + 1 < place_count && indexes[at + 1] == i) at++;
    const CUresult result = cuMemPrefetchAsync_v2(addresses[i], sizes[i], places[at], 0, stream);
    if (result != CUDA_SUCCESS) return result;
  }
  return CUDA_SUCCESS;
}

// Contents may be forgotten; keeping them is allowed.
CUresult discard(CUdeviceptr* addresses, size_t* sizes, size_t count, unsigned long long flags) {
  if (count == 0 || addresses == nullptr || sizes == nullptr || flags != 0) return CUDA_ERROR_INVALID_VALUE;
  for (size_t i = 0; i < count; i++) {
    unsigned managed = 0;
    const CUresult result = cuPointerGetAttribute(&managed, CU_POINTER_ATTRIBUTE_IS_MANAGED, addresses[i]);
    if (result != CUDA_SUCCESS || managed == 0 || sizes[i] == 0) return CUDA_ERROR_INVALID_VALUE;
  }
  return CUDA_SUCCESS;
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

CUresult cuMemcpyBatchAsync_v2(CUdeviceptr* to, CUdeviceptr* from, size_t* sizes, size_t count,
                               CUmemcpyAttributes* attributes, size_t* indexes, size_t attribute_count,
                               CUstream stream) {
  size_t failed = 0;
  return copy_batch({to, from, sizes, count, attributes, indexes, attribute_count}, &failed, stream);
}
CUresult cuMemcpy3DBatchAsync_v2(size_t count, CUDA_MEMCPY3D_BATCH_OP* operations, unsigned long long flags,
                                 CUstream stream) {
  size_t failed = 0;
  return copy_boxes(operations, count, flags, &failed, stream);
}

// Versions before 13 had a place for the number of the operation that was refused.
CUresult cuMemcpyBatchAsync(CUdeviceptr* to, CUdeviceptr* from, size_t* sizes, size_t count,
                            CUmemcpyAttributes* attributes, size_t* indexes, size_t attribute_count, size_t* failed,
                            CUstream stream) {
  size_t unwanted = 0;
  return copy_batch({to, from, sizes, count, attributes, indexes, attribute_count},
                    failed == nullptr ? &unwanted : failed, stream);
}
CUresult cuMemcpy3DBatchAsync(size_t count, CUDA_MEMCPY3D_BATCH_OP* operations, size_t* failed,
                              unsigned long long flags, CUstream stream) {
  size_t unwanted = 0;
  return copy_boxes(operations, count, flags, failed == nullptr ? &unwanted : failed, stream);
}

CUresult cuMemPrefetchBatchAsync(CUdeviceptr* addresses, size_t* sizes, size_t count, CUmemLocation* places,
                                 size_t* indexes, size_t place_count, unsigned long long flags, CUstream stream) {
  return prefetch(addresses, sizes, count, places, indexes, place_count, flags, stream);
}
CUresult cuMemDiscardBatchAsync(CUdeviceptr* addresses, size_t* sizes, size_t count, unsigned long long flags,
                                CUstream) {
  return discard(addresses, sizes, count, flags);
}
CUresult cuMemDiscardAndPrefetchBatchAsync(CUdeviceptr* addresses, size_t* sizes, size_t count, CUmemLocation* places,
                                           size_t* indexes, size_t place_count, unsigned long long flags,
                                           CUstream stream) {
  const CUresult result = discard(addresses, sizes, count, flags);
  return result != CUDA_SUCCESS ? result
                                : prefetch(addresses, sizes, count, places, indexes, place_count, flags, stream);
}

}  // extern "C"
#pragma GCC visibility pop
