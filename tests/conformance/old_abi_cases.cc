// The first version of the ABI: addresses and sizes of 32 bits. Where devices lie above 4 GiB, what such a call can
// still reach is host memory below it: page-locked, it has one address for everybody.
#include <sys/mman.h>

#include <numeric>

#include "fixture.h"

namespace conformance {
namespace {

class OldAbi : public Conformance {
 protected:
  static constexpr size_t kBytes = 64 << 10;

  void SetUp() override {
    Conformance::SetUp();
    base_ = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    ASSERT_NE(base_, MAP_FAILED);
    OK(CU(cuMemHostRegister_v2)(base_, kBytes, CU_MEMHOSTREGISTER_PORTABLE));
  }

  uint32_t* low(size_t bytes) { return reinterpret_cast<uint32_t*>(static_cast<char*>(base_) + bytes); }
  CUdeviceptr_v1 address(size_t bytes) { return static_cast<CUdeviceptr_v1>(reinterpret_cast<uintptr_t>(low(bytes))); }

  // Words from 100 on, at the beginning.
  void number(size_t count) { std::iota(low(0), low(0) + count, 100u); }

  CUarray array(size_t width, size_t height) {
    const CUDA_ARRAY_DESCRIPTOR_v1 shape{static_cast<unsigned>(width), static_cast<unsigned>(height),
                                         CU_AD_FORMAT_UNSIGNED_INT32, 1};
    CUarray made = nullptr;
    EXPECT_EQ(CU(cuArrayCreate)(&made, &shape), CUDA_SUCCESS);
    return made;
  }

  void* base_ = nullptr;
};

TEST_F(OldAbi, allocation_gives_what_fits) {
  const CUdeviceptr wide = allocate(64);
  const bool fits = wide <= UINT32_MAX;
  const CUresult expected = fits ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
  size_t before = 0, after = 0, total = 0;
  OK(CU(cuMemGetInfo_v2)(&before, &total));
  CUdeviceptr_v1 narrow = 77;
  unsigned pitch = 78;
  GIVES(expected, CU(cuMemAlloc)(&narrow, 64));
  if (fits) GIVES(CUDA_SUCCESS, CU(cuMemFree)(narrow));
  GIVES(expected, CU(cuMemAllocPitch)(&narrow, &pitch, 100, 4, 4));
  if (fits) GIVES(CUDA_SUCCESS, CU(cuMemFree)(narrow));
  if (!fits) {
    EXPECT_EQ(narrow, 77u);  // outputs are set on success only
    EXPECT_EQ(pitch, 78u);
  }
  OK(CU(cuMemGetInfo_v2)(&after, &total));
  EXPECT_EQ(after, before);  // what did not fit was given back
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemAlloc)(nullptr, 64));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemAlloc)(&narrow, 0));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemAllocPitch)(&narrow, &pitch, 100, 4, 3));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemAllocPitch)(&narrow, nullptr, 100, 4, 4));
  GIVES(CUDA_SUCCESS, CU(cuMemFree)(0));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemFree)(0x1000));
}

TEST_F(OldAbi, sizes_are_clamped) {
  size_t wide_free = 0, wide_total = 0;
  unsigned narrow_free = 0, narrow_total = 0;
  OK(CU(cuMemGetInfo_v2)(&wide_free, &wide_total));
  OK(CU(cuMemGetInfo)(&narrow_free, &narrow_total));
  EXPECT_EQ(narrow_total, std::min<size_t>(wide_total, UINT32_MAX));
  EXPECT_EQ(narrow_free, std::min<size_t>(wide_free, UINT32_MAX));
}

TEST_F(OldAbi, ranges) {
  CUdeviceptr_v1 begin = 0;
  unsigned bytes = 0;
  GIVES(CUDA_ERROR_NOT_FOUND, CU(cuMemGetAddressRange)(&begin, &bytes, 0x1000));
  CUdeviceptr wide_begin = 0;
  size_t wide_bytes = 0;
  const CUresult expected = CU(cuMemGetAddressRange_v2)(&wide_begin, &wide_bytes, address(16));
  GIVES(expected, CU(cuMemGetAddressRange)(&begin, &bytes, address(16)));
  EXPECT_EQ(begin, wide_begin);
  EXPECT_EQ(bytes, wide_bytes);
}

TEST_F(OldAbi, addresses_of_host_memory) {
  CUdeviceptr wide = 0;
  OK(CU(cuMemHostGetDevicePointer_v2)(&wide, low(64), 0));
  CUdeviceptr_v1 narrow = 0;
  const bool fits = wide <= UINT32_MAX;
  GIVES(fits ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE, CU(cuMemHostGetDevicePointer)(&narrow, low(64), 0));
  EXPECT_EQ(narrow, fits ? wide : 0u);
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemHostGetDevicePointer)(&narrow, &narrow, 0));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemHostGetDevicePointer)(nullptr, low(64), 0));
}

TEST_F(OldAbi, globals) {
  load();
  CUdeviceptr wide = 0;
  OK(CU(cuModuleGetGlobal_v2)(&wide, nullptr, module, "counter"));
  CUdeviceptr_v1 narrow = 0;
  unsigned bytes = 0;
  const bool fits = wide <= UINT32_MAX;
  GIVES(fits ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE, CU(cuModuleGetGlobal)(&narrow, &bytes, module, "counter"));
  GIVES(CUDA_SUCCESS, CU(cuModuleGetGlobal)(nullptr, &bytes, module, "counter"));
  EXPECT_EQ(bytes, 4u);
  GIVES(CUDA_ERROR_NOT_FOUND, CU(cuModuleGetGlobal)(nullptr, &bytes, module, "missing"));
}

TEST_F(OldAbi, copies) {
  number(64);
  OK(CU(cuMemcpyDtoD)(address(4096), address(0), 256));
  OK(CU(cuStreamSynchronize)(nullptr));
  EXPECT_EQ(low(4096)[63], 163u);
  uint32_t words[4] = {};
  OK(CU(cuMemcpyDtoH)(words, address(8), 16));
  EXPECT_EQ(words[1], 103u);
  words[1] = 7;
  OK(CU(cuMemcpyHtoD)(address(4096), words, 16));
  OK(CU(cuStreamSynchronize)(nullptr));
  EXPECT_EQ(low(4096)[1], 7u);
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemcpyHtoD)(0, words, 16));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemcpyDtoH)(nullptr, address(0), 16));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemcpyDtoD)(address(0), 0, 16));
}

TEST_F(OldAbi, copies_in_streams) {
  number(64);
  const CUstream work = stream();
  uint32_t words[4] = {1, 2, 3, 4}, back[4] = {};
  OK(CU(cuMemcpyHtoDAsync)(address(0), words, 16, work));
  OK(CU(cuMemcpyDtoDAsync)(address(4096), address(0), 64, work));
  OK(CU(cuMemcpyDtoHAsync)(back, address(4096), 16, work));
  OK(CU(cuStreamSynchronize)(work));
  EXPECT_EQ(back[3], 4u);
  EXPECT_EQ(low(4096)[4], 104u);
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemcpyHtoDAsync)(0, words, 16, work));
}

TEST_F(OldAbi, rectangles) {
  number(64);
  CUDA_MEMCPY2D_v1 flat{};
  flat.srcMemoryType = CU_MEMORYTYPE_HOST;
  flat.srcHost = low(0);
  flat.srcPitch = 32;
  flat.dstMemoryType = CU_MEMORYTYPE_DEVICE;
  flat.dstDevice = address(4096);
  flat.dstPitch = 64;
  flat.dstXInBytes = 4;
  flat.dstY = 1;
  flat.WidthInBytes = 8;
  flat.Height = 2;
  const auto arrived = [&] {
    const bool there = low(4096)[17] == 100 && low(4096)[18] == 101 && low(4096)[33] == 108 && low(4096)[19] == 0;
    memset(low(4096), 0, 4096);
    return there;
  };
  OK(CU(cuMemcpy2D)(&flat));
  OK(CU(cuStreamSynchronize)(nullptr));
  EXPECT_TRUE(arrived());
  OK(CU(cuMemcpy2DUnaligned)(&flat));
  OK(CU(cuStreamSynchronize)(nullptr));
  EXPECT_TRUE(arrived());
  const CUstream work = stream();
  OK(CU(cuMemcpy2DAsync)(&flat, work));
  OK(CU(cuStreamSynchronize)(work));
  EXPECT_TRUE(arrived());
  flat.dstPitch = 4;
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemcpy2D)(&flat));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemcpy2D)(nullptr));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemcpy2DUnaligned)(nullptr));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemcpy2DAsync)(nullptr, work));
}

TEST_F(OldAbi, boxes) {
  number(64);
  CUDA_MEMCPY3D_v1 box{};
  box.srcMemoryType = CU_MEMORYTYPE_DEVICE;
  box.srcDevice = address(0);
  box.srcPitch = 16;
  box.srcHeight = 4;
  box.srcZ = 1;
  box.dstMemoryType = CU_MEMORYTYPE_HOST;
  box.dstHost = low(4096);
  box.dstPitch = 8;
  box.dstHeight = 2;
  box.WidthInBytes = 8;
  box.Height = box.Depth = 2;
  const std::vector<uint32_t> expected = {116, 117, 120, 121, 132, 133, 136, 137};
  OK(CU(cuMemcpy3D)(&box));
  EXPECT_EQ(std::vector<uint32_t>(low(4096), low(4096) + 8), expected);
  memset(low(4096), 0, 64);
  const CUstream work = stream();
  OK(CU(cuMemcpy3DAsync)(&box, work));
  OK(CU(cuStreamSynchronize)(work));
  EXPECT_EQ(std::vector<uint32_t>(low(4096), low(4096) + 8), expected);
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemcpy3D)(nullptr));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemcpy3DAsync)(nullptr, work));
}

TEST_F(OldAbi, fills) {
  OK(CU(cuMemsetD32)(address(0), 0xAABBCCDD, 16));
  OK(CU(cuMemsetD16)(address(4), 0x1122, 2));
  OK(CU(cuMemsetD8)(address(8), 0x7F, 3));
  OK(CU(cuMemsetD2D32)(address(1024), 64, 7, 2, 3));
  OK(CU(cuMemsetD2D16)(address(1040), 64, 9, 2, 2));
  OK(CU(cuMemsetD2D8)(address(1056), 64, 5, 4, 1));
  OK(CU(cuCtxSynchronize)());
  EXPECT_EQ(low(0)[0], 0xAABBCCDDu);
  EXPECT_EQ(low(0)[1], 0x11221122u);
  EXPECT_EQ(low(0)[2], 0xAA7F7F7Fu);
  EXPECT_EQ(low(1024)[33], 7u);
  EXPECT_EQ(low(1024)[48], 0u);
  EXPECT_EQ(low(1024)[20], 0x00090009u);
  EXPECT_EQ(low(1024)[8], 0x05050505u);
  EXPECT_EQ(low(1024)[24], 0u);
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemsetD32)(address(2), 0, 1));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemsetD16)(address(1), 0, 1));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemsetD8)(0x40, 0, 1));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemsetD2D32)(address(0), 3, 7, 2, 3));
}

TEST_F(OldAbi, arrays) {
  number(64);
  const CUarray first = array(16, 4), second = array(16, 4);
  CUDA_ARRAY_DESCRIPTOR_v1 shape{};
  OK(CU(cuArrayGetDescriptor)(&shape, first));
  EXPECT_EQ(shape.Width, 16u);
  EXPECT_EQ(shape.Height, 4u);
  EXPECT_EQ(shape.Format, CU_AD_FORMAT_UNSIGNED_INT32);
  OK(CU(cuMemcpyHtoA)(first, 0, low(0), 256));
  OK(CU(cuMemcpyAtoA)(second, 64, first, 0, 64));
  OK(CU(cuMemcpyAtoD)(address(4096), second, 64, 64));
  OK(CU(cuMemcpyDtoA)(second, 0, address(128), 64));
  uint32_t back[16] = {};
  OK(CU(cuMemcpyAtoH)(back, second, 0, 64));
  EXPECT_EQ(back[0], 132u);
  EXPECT_EQ(low(4096)[15], 115u);
  const CUstream work = stream();
  OK(CU(cuMemcpyHtoAAsync)(second, 0, low(0), 64, work));
  OK(CU(cuMemcpyAtoHAsync)(back, second, 0, 64, work));
  OK(CU(cuStreamSynchronize)(work));
  EXPECT_EQ(back[15], 115u);
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemcpyHtoA)(first, 0, low(0), 260));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemcpyAtoH)(back, first, 2, 8));
  GIVES(CUDA_ERROR_INVALID_HANDLE, CU(cuMemcpyAtoH)(back, nullptr, 0, 8));
  GIVES(CUDA_ERROR_INVALID_HANDLE, CU(cuArrayGetDescriptor)(&shape, nullptr));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuArrayGetDescriptor)(nullptr, first));
  CUarray none = nullptr;
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuArrayCreate)(&none, nullptr));
  GIVES(CUDA_SUCCESS, CU(cuArrayDestroy)(first));
}

TEST_F(OldAbi, solid_arrays) {
  CUDA_ARRAY3D_DESCRIPTOR_v1 shape{4, 3, 2, CU_AD_FORMAT_FLOAT, 2, 0}, back{};
  CUarray made = nullptr;
  OK(CU(cuArray3DCreate)(&made, &shape));
  OK(CU(cuArray3DGetDescriptor)(&back, made));
  EXPECT_EQ(back.Depth, 2u);
  EXPECT_EQ(back.Height, 3u);
  EXPECT_EQ(back.NumChannels, 2u);
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuArray3DGetDescriptor)(nullptr, made));
  GIVES(CUDA_ERROR_INVALID_HANDLE, CU(cuArray3DGetDescriptor)(&back, nullptr));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuArray3DCreate)(&made, nullptr));
  shape.NumChannels = 3;
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuArray3DCreate)(&made, &shape));
}

// Version 12 said which copy was refused; SIZE_MAX: none in particular.
TEST_F(OldAbi, batches_say_what_failed) {
  number(8);
  const CUdeviceptr target = allocate(32);
  CUdeviceptr to[] = {target, target + 16};
  CUdeviceptr from[] = {address(0), address(16)};
  size_t sizes[] = {16, 16}, begins[] = {0}, failed = 9;
  CUmemcpyAttributes how{};
  how.srcAccessOrder = CU_MEMCPY_SRC_ACCESS_ORDER_STREAM;
  const CUstream work = stream();
  OK(CU(cuMemcpyBatchAsync)(to, from, sizes, 2, &how, begins, 1, &failed, work));
  OK(CU(cuStreamSynchronize)(work));
  EXPECT_EQ(read(target, 8)[7], 107u);
  how.srcAccessOrder = CU_MEMCPY_SRC_ACCESS_ORDER_INVALID;
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemcpyBatchAsync)(to, from, sizes, 2, &how, begins, 1, &failed, work));
  EXPECT_EQ(failed, SIZE_MAX);
  how.srcAccessOrder = CU_MEMCPY_SRC_ACCESS_ORDER_STREAM;
  to[1] = 0x20;
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemcpyBatchAsync)(to, from, sizes, 2, &how, begins, 1, &failed, work));
  EXPECT_EQ(failed, 1u);
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemcpyBatchAsync)(to, from, sizes, 2, &how, begins, 0, nullptr, work));
}

TEST_F(OldAbi, batches_of_boxes) {
  number(8);
  const CUdeviceptr target = allocate(32);
  CUDA_MEMCPY3D_BATCH_OP operation{};
  operation.src.type = operation.dst.type = CU_MEMCPY_OPERAND_TYPE_POINTER;
  operation.src.op.ptr.ptr = address(0);
  operation.dst.op.ptr.ptr = target;
  operation.extent = {16, 2, 1};
  operation.srcAccessOrder = CU_MEMCPY_SRC_ACCESS_ORDER_STREAM;
  const CUstream work = stream();
  size_t failed = 9;
  OK(CU(cuMemcpy3DBatchAsync)(1, &operation, &failed, 0, work));
  OK(CU(cuStreamSynchronize)(work));
  EXPECT_EQ(read(target, 8)[7], 107u);
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemcpy3DBatchAsync)(0, &operation, &failed, 0, work));
  EXPECT_EQ(failed, SIZE_MAX);
  operation.dst.op.ptr.ptr = 0x20;
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemcpy3DBatchAsync)(1, &operation, &failed, 0, work));
  EXPECT_EQ(failed, 0u);
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemcpy3DBatchAsync)(1, nullptr, nullptr, 0, work));
}

// Kernels' preference for 4- or 8-byte banks: devices since Maxwell have none, and say so.
TEST_F(OldAbi, banks_of_shared_memory) {
  const CUfunction kernel = function("shared_sum");
  GIVES(CUDA_SUCCESS, CU(cuFuncSetSharedMemConfig)(kernel, CU_SHARED_MEM_CONFIG_EIGHT_BYTE_BANK_SIZE));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuFuncSetSharedMemConfig)(kernel, static_cast<CUsharedconfig>(7)));
  GIVES(CUDA_ERROR_INVALID_HANDLE, CU(cuFuncSetSharedMemConfig)(nullptr, CU_SHARED_MEM_CONFIG_DEFAULT_BANK_SIZE));
  CUdeviceptr out = words({0});
  OK(launch(kernel, {&out}));
  EXPECT_EQ(read(out, 1)[0], 7u);
}

}  // namespace
}  // namespace conformance
