// Arrays of every shape, mipmapped arrays, and copies of parts of them.
#include <numeric>

#include "fixture.h"

namespace conformance {
namespace {

class Arrays : public Conformance {
 protected:
  static CUDA_ARRAY3D_DESCRIPTOR shape(size_t width, size_t height, size_t depth, unsigned flags = 0) {
    return {width, height, depth, CU_AD_FORMAT_UNSIGNED_INT32, 1, flags};
  }
  CUarray make(const CUDA_ARRAY3D_DESCRIPTOR& what) {
    CUarray made = nullptr;
    EXPECT_EQ(CU(cuArray3DCreate_v2)(&made, &what), CUDA_SUCCESS);
    return made;
  }
  CUresult refused(const CUDA_ARRAY3D_DESCRIPTOR& what) {
    CUarray made = nullptr;
    return CU(cuArray3DCreate_v2)(&made, &what);
  }
  static std::vector<uint32_t> numbers(size_t count) {
    std::vector<uint32_t> values(count);
    std::iota(values.begin(), values.end(), 100u);
    return values;
  }
  // A whole array from or to dense host memory.
  CUDA_MEMCPY3D whole(const CUDA_ARRAY3D_DESCRIPTOR& what) {
    CUDA_MEMCPY3D box{};
    box.WidthInBytes = what.Width * 4;
    box.Height = std::max<size_t>(what.Height, 1);
    box.Depth = std::max<size_t>(what.Depth, 1);
    box.srcPitch = box.dstPitch = box.WidthInBytes;
    box.srcHeight = box.dstHeight = box.Height;
    return box;
  }
  void fill(CUarray array, const CUDA_ARRAY3D_DESCRIPTOR& what, const std::vector<uint32_t>& values) {
    CUDA_MEMCPY3D box = whole(what);
    box.srcMemoryType = CU_MEMORYTYPE_HOST;
    box.srcHost = values.data();
    box.dstMemoryType = CU_MEMORYTYPE_ARRAY;
    box.dstArray = array;
    GIVES(CUDA_SUCCESS, CU(cuMemcpy3D_v2)(&box));
  }
  std::vector<uint32_t> contents(CUarray array, const CUDA_ARRAY3D_DESCRIPTOR& what) {
    CUDA_MEMCPY3D box = whole(what);
    std::vector<uint32_t> values(what.Width * box.Height * box.Depth);
    box.srcMemoryType = CU_MEMORYTYPE_ARRAY;
    box.srcArray = array;
    box.dstMemoryType = CU_MEMORYTYPE_HOST;
    box.dstHost = values.data();
    GIVES(CUDA_SUCCESS, CU(cuMemcpy3D_v2)(&box));
    return values;
  }
};

TEST_F(Arrays, shapes) {
  constexpr unsigned kLayered = CUDA_ARRAY3D_LAYERED, kCube = CUDA_ARRAY3D_CUBEMAP;
  for (const auto& good : {shape(8, 0, 0), shape(8, 4, 0), shape(8, 4, 2), shape(8, 0, 3, kLayered),
                           shape(8, 4, 3, kLayered), shape(8, 8, 6, kCube), shape(8, 8, 12, kCube | kLayered)}) {
    const CUarray array = make(good);
    CUDA_ARRAY3D_DESCRIPTOR back{};
    GIVES(CUDA_SUCCESS, CU(cuArray3DGetDescriptor_v2)(&back, array));
    EXPECT_EQ(back.Height, good.Height);
    EXPECT_EQ(back.Depth, good.Depth);
    EXPECT_EQ(back.Flags, good.Flags);
    size_t count = good.Width;
    for (const size_t n : {good.Height, good.Depth}) count *= std::max<size_t>(n, 1);
    fill(array, good, numbers(count));
    EXPECT_EQ(contents(array, good), numbers(count));
    GIVES(CUDA_SUCCESS, CU(cuArrayDestroy)(array));
  }
  for (const auto& bad : {shape(0, 4, 0), shape(8, 0, 2), shape(8, 4, 0, kLayered), shape(8, 4, 6, kCube),
                          shape(8, 8, 5, kCube), shape(8, 4, 0, 0x8000), shape(size_t{1} << 40, 0, 0)}) {
    GIVES(CUDA_ERROR_INVALID_VALUE, refused(bad));
  }
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuArray3DCreate_v2)(nullptr, nullptr));
}

TEST_F(Arrays, elements) {
  struct Kind {
    CUarray_format format;
    unsigned channels;
  };
  for (const Kind& kind : {Kind{CU_AD_FORMAT_UNSIGNED_INT8, 1}, Kind{CU_AD_FORMAT_SIGNED_INT16, 2},
                           Kind{CU_AD_FORMAT_HALF, 4}, Kind{CU_AD_FORMAT_FLOAT, 4}}) {
    const CUDA_ARRAY_DESCRIPTOR what{16, 0, kind.format, kind.channels};
    CUarray array = nullptr;
    OK(CU(cuArrayCreate_v2)(&array, &what));
    CUDA_ARRAY_DESCRIPTOR back{};
    GIVES(CUDA_SUCCESS, CU(cuArrayGetDescriptor_v2)(&back, array));
    EXPECT_EQ(back.Format, kind.format);
    EXPECT_EQ(back.NumChannels, kind.channels);
    const std::vector<uint32_t> in = numbers(4);
    std::vector<uint32_t> out(4);
    GIVES(CUDA_SUCCESS, CU(cuMemcpyHtoA_v2)(array, 0, in.data(), 16));
    GIVES(CUDA_SUCCESS, CU(cuMemcpyAtoH_v2)(out.data(), array, 0, 16));
    EXPECT_EQ(out, in);
  }
  CUDA_ARRAY_DESCRIPTOR wrong{16, 0, static_cast<CUarray_format>(0x33), 1};
  CUarray none = nullptr;
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuArrayCreate_v2)(&none, &wrong));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuArrayGetDescriptor_v2)(nullptr, make(shape(4, 0, 0))));
  GIVES(CUDA_ERROR_INVALID_HANDLE, CU(cuArrayGetDescriptor_v2)(&wrong, nullptr));
  GIVES(CUDA_ERROR_INVALID_HANDLE, CU(cuArrayDestroy)(reinterpret_cast<CUarray>(0xDEAD0)));
}

TEST_F(Arrays, cost_memory) {
  size_t before = 0, during = 0, after = 0, total = 0;
  OK(CU(cuMemGetInfo_v2)(&before, &total));
  const CUarray array = make(shape(2048, 2048, 0));
  OK(CU(cuMemGetInfo_v2)(&during, &total));
  EXPECT_GE(before, during + (16 << 20));
  OK(CU(cuArrayDestroy)(array));
  GIVES(CUDA_ERROR_INVALID_HANDLE, CU(cuArrayDestroy)(array));
  OK(CU(cuMemGetInfo_v2)(&after, &total));
  EXPECT_EQ(after, before);
  if (total > size_t{1} << 30) return;  // the next one would fit
  GIVES(CUDA_ERROR_OUT_OF_MEMORY, refused(shape(16384, 16384, 0)));
}

// None is sparse, has its mapping deferred or has planes: what asks for that is refused.
TEST_F(Arrays, properties_of_other_kinds) {
  const CUarray array = make(shape(8, 4, 0));
  CUmipmappedArray mipmap = nullptr;
  const CUDA_ARRAY3D_DESCRIPTOR what = shape(8, 4, 0);
  OK(CU(cuMipmappedArrayCreate)(&mipmap, &what, 2));
  CUDA_ARRAY_SPARSE_PROPERTIES sparse{};
  CUDA_ARRAY_MEMORY_REQUIREMENTS needs{};
  CUarray plane = nullptr;
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuArrayGetSparseProperties)(&sparse, array));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMipmappedArrayGetSparseProperties)(&sparse, mipmap));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuArrayGetMemoryRequirements)(&needs, array, device));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMipmappedArrayGetMemoryRequirements)(&needs, mipmap, device));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuArrayGetPlane)(&plane, array, 0));
  GIVES(CUDA_ERROR_INVALID_HANDLE, CU(cuArrayGetSparseProperties)(&sparse, nullptr));
  GIVES(CUDA_ERROR_INVALID_HANDLE, CU(cuMipmappedArrayGetSparseProperties)(&sparse, nullptr));
  GIVES(CUDA_ERROR_INVALID_HANDLE, CU(cuArrayGetMemoryRequirements)(&needs, nullptr, device));
  GIVES(CUDA_ERROR_INVALID_HANDLE, CU(cuMipmappedArrayGetMemoryRequirements)(&needs, nullptr, device));
  GIVES(CUDA_ERROR_INVALID_HANDLE, CU(cuArrayGetPlane)(&plane, nullptr, 0));
  EXPECT_EQ(plane, nullptr);
  ASSERT_EQ(attribute(CU_DEVICE_ATTRIBUTE_SPARSE_CUDA_ARRAY_SUPPORTED), 0);
  GIVES(CUDA_ERROR_NOT_SUPPORTED, refused(shape(8, 4, 0, CUDA_ARRAY3D_SPARSE)));
}

TEST_F(Arrays, mipmaps) {
  const CUDA_ARRAY3D_DESCRIPTOR what = shape(8, 4, 0);
  CUmipmappedArray mipmap = nullptr;
  OK(CU(cuMipmappedArrayCreate)(&mipmap, &what, 9));  // more than there can be: clamped to 4
  CUarray level = nullptr, again = nullptr;
  for (unsigned i = 0; i < 4; i++) {
    OK(CU(cuMipmappedArrayGetLevel)(&level, mipmap, i));
    CUDA_ARRAY_DESCRIPTOR flat{};
    OK(CU(cuArrayGetDescriptor_v2)(&flat, level));
    EXPECT_EQ(flat.Width, 8u >> i);
    EXPECT_EQ(flat.Height, std::max(4u >> i, 1u));
    const CUDA_ARRAY3D_DESCRIPTOR its = shape(flat.Width, flat.Height, 0);
    fill(level, its, std::vector<uint32_t>(flat.Width * flat.Height, i + 1));
  }
  OK(CU(cuMipmappedArrayGetLevel)(&level, mipmap, 1));
  OK(CU(cuMipmappedArrayGetLevel)(&again, mipmap, 1));
  EXPECT_EQ(again, level);
  EXPECT_EQ(contents(level, shape(4, 2, 0)), std::vector<uint32_t>(8, 2));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMipmappedArrayGetLevel)(&level, mipmap, 4));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMipmappedArrayGetLevel)(nullptr, mipmap, 0));
  GIVES(CUDA_ERROR_INVALID_HANDLE, CU(cuMipmappedArrayGetLevel)(&level, nullptr, 0));
  GIVES(CUDA_ERROR_INVALID_HANDLE, CU(cuArrayDestroy)(again));  // it belongs to the mipmap
  GIVES(CUDA_SUCCESS, CU(cuMipmappedArrayDestroy)(mipmap));
  GIVES(CUDA_ERROR_INVALID_HANDLE, CU(cuMipmappedArrayDestroy)(mipmap));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMipmappedArrayCreate)(&mipmap, nullptr, 2));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMipmappedArrayCreate)(nullptr, &what, 2));
}

TEST_F(Arrays, parts_are_copied) {
  const CUDA_ARRAY3D_DESCRIPTOR what = shape(8, 4, 3);
  const CUarray first = make(what), second = make(what);
  const auto values = numbers(96);
  fill(first, what, values);
  fill(second, what, std::vector<uint32_t>(96));
  CUDA_MEMCPY3D box{};
  box.srcMemoryType = box.dstMemoryType = CU_MEMORYTYPE_ARRAY;
  box.srcArray = first;
  box.dstArray = second;
  box.srcXInBytes = 8;
  box.srcY = 1;
  box.srcZ = 1;
  box.dstXInBytes = 4;
  box.WidthInBytes = 12;
  box.Height = 2;
  box.Depth = 2;
  OK(CU(cuMemcpy3D_v2)(&box));
  const auto seen = contents(second, what);
  EXPECT_EQ(seen[1], values[42]);
  EXPECT_EQ(seen[3], values[44]);
  EXPECT_EQ(seen[4], 0u);
  EXPECT_EQ(seen[9], values[50]);
  EXPECT_EQ(seen[33], values[74]);
  box.dstXInBytes = 24;  // out of the row
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemcpy3D_v2)(&box));
  box.dstXInBytes = 4;
  box.srcZ = 2;
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemcpy3D_v2)(&box));
  box.srcZ = 1;
  box.srcArray = nullptr;
  EXPECT_NE(CU(cuMemcpy3D_v2)(&box), CUDA_SUCCESS);
}

TEST_F(Arrays, rectangles_between_device_and_array) {
  const CUDA_ARRAY3D_DESCRIPTOR what = shape(8, 4, 0);
  const CUarray array = make(what);
  fill(array, what, std::vector<uint32_t>(32));
  const auto values = numbers(64);
  const CUdeviceptr memory = words(values);
  CUDA_MEMCPY2D flat{};
  flat.srcMemoryType = CU_MEMORYTYPE_DEVICE;
  flat.srcDevice = memory;
  flat.srcPitch = 64;
  flat.srcY = 1;
  flat.dstMemoryType = CU_MEMORYTYPE_ARRAY;
  flat.dstArray = array;
  flat.dstXInBytes = 8;
  flat.dstY = 2;
  flat.WidthInBytes = 16;
  flat.Height = 2;
  const CUstream work = stream();
  OK(CU(cuMemcpy2DAsync_v2)(&flat, work));
  OK(CU(cuStreamSynchronize)(work));
  const auto seen = contents(array, what);
  EXPECT_EQ(seen[18], values[16]);
  EXPECT_EQ(seen[29], values[35]);
  EXPECT_EQ(seen[30], 0u);
  std::swap(flat.srcMemoryType, flat.dstMemoryType);
  flat.srcArray = array;
  flat.dstArray = nullptr;
  flat.dstDevice = memory;
  flat.dstPitch = 64;
  flat.dstXInBytes = flat.dstY = flat.srcXInBytes = 0;
  flat.srcY = 2;
  OK(CU(cuMemcpy2D_v2)(&flat));
  EXPECT_EQ(read(memory, 4)[2], values[16]);
}

// Offsets and sizes of batches are in elements where an array takes part.
TEST_F(Arrays, in_batches) {
  const CUDA_ARRAY3D_DESCRIPTOR what = shape(8, 4, 0);
  const CUarray array = make(what);
  fill(array, what, std::vector<uint32_t>(32));
  const auto values = numbers(16);
  const CUdeviceptr out = allocate(64);
  CUDA_MEMCPY3D_BATCH_OP operations[2] = {};
  for (auto& operation : operations) operation.srcAccessOrder = CU_MEMCPY_SRC_ACCESS_ORDER_STREAM;
  operations[0].src.type = CU_MEMCPY_OPERAND_TYPE_POINTER;
  operations[0].src.op.ptr.ptr = words(values);
  operations[0].src.op.ptr.rowLength = 8;
  operations[0].dst.type = CU_MEMCPY_OPERAND_TYPE_ARRAY;
  operations[0].dst.op.array = {array, {2, 1, 0}};
  operations[0].extent = {4, 2, 1};
  operations[1].src.type = CU_MEMCPY_OPERAND_TYPE_ARRAY;
  operations[1].src.op.array = {array, {0, 1, 0}};
  operations[1].dst.type = CU_MEMCPY_OPERAND_TYPE_POINTER;
  operations[1].dst.op.ptr.ptr = out;
  operations[1].extent = {8, 2, 1};
  const CUstream work = stream();
  OK(CU(cuMemcpy3DBatchAsync_v2)(2, operations, 0, work));
  OK(CU(cuStreamSynchronize)(work));
  const auto seen = read(out, 16);
  EXPECT_EQ(seen[1], 0u);
  EXPECT_EQ(seen[2], values[0]);
  EXPECT_EQ(seen[5], values[3]);
  EXPECT_EQ(seen[10], values[8]);
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemcpy3DBatchAsync_v2)(0, operations, 0, work));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemcpy3DBatchAsync_v2)(2, nullptr, 0, work));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemcpy3DBatchAsync_v2)(2, operations, 1, work));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemcpy3DBatchAsync_v2)(2, operations, 0, CU_STREAM_LEGACY));
  operations[0].dst.op.array.offset.x = 5;  // five and four are more than eight
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemcpy3DBatchAsync_v2)(2, operations, 0, work));
}

}  // namespace
}  // namespace conformance
