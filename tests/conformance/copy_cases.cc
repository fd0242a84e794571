// Copies between host, device and arrays.
#include <numeric>

#include "fixture.h"

namespace conformance {
namespace {

class Copies : public Conformance {
 protected:
  std::vector<uint32_t> numbers(size_t count) {
    std::vector<uint32_t> values(count);
    std::iota(values.begin(), values.end(), 100u);
    return values;
  }
};

TEST_F(Copies, there_and_back) {
  const auto values = numbers(1000);
  const CUdeviceptr first = words(values), second = allocate(4000);
  OK(CU(cuMemcpyDtoD_v2)(second, first, 4000));
  EXPECT_EQ(read(second, 1000), values);
  std::vector<uint32_t> back(1000);
  OK(CU(cuMemcpy)(reinterpret_cast<CUdeviceptr>(back.data()), second, 4000));
  EXPECT_EQ(back, values);
  OK(CU(cuMemcpy)(first + 4, reinterpret_cast<CUdeviceptr>(back.data()), 4));
  EXPECT_EQ(read(first, 2)[1], 100u);
}

TEST_F(Copies, in_streams) {
  const auto values = numbers(1000);
  const CUstream work = stream();
  const CUdeviceptr first = allocate(4000), second = allocate(4000), third = allocate(4000);
  std::vector<uint32_t> back(1000);
  OK(CU(cuMemcpyHtoDAsync_v2)(first, values.data(), 4000, work));
  OK(CU(cuMemcpyDtoDAsync_v2)(second, first, 4000, work));
  OK(CU(cuMemcpyAsync)(third, second, 4000, work));
  OK(CU(cuMemcpyDtoHAsync_v2)(back.data(), third, 4000, work));
  OK(CU(cuStreamSynchronize)(work));
  EXPECT_EQ(back, values);
}

TEST_F(Copies, pageable_source_may_change_at_once) {
  std::vector<uint32_t> values = numbers(100000);
  const auto before = values;
  const CUdeviceptr address = allocate(400000);
  const CUstream work = stream();
  OK(CU(cuMemcpyHtoDAsync_v2)(address, values.data(), 400000, work));
  std::fill(values.begin(), values.end(), 0);
  OK(CU(cuStreamSynchronize)(work));
  EXPECT_EQ(read(address, 100000), before);
}

TEST_F(Copies, wrong_addresses) {
  uint32_t value = 0;
  const CUdeviceptr address = allocate(64);
  GIVES(CUDA_SUCCESS, CU(cuMemcpyHtoD_v2)(address, &value, 0));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemcpyHtoD_v2)(0, &value, 4));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemcpyHtoD_v2)(address, nullptr, 4));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemcpyDtoH_v2)(nullptr, address, 4));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemcpyDtoH_v2)(&value, 0x20, 4));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemcpyDtoD_v2)(address, 0x20, 4));
  // The context still works.
  GIVES(CUDA_SUCCESS, CU(cuMemcpyDtoH_v2)(&value, address, 4));
}

TEST_F(Copies, between_devices) {
  if (device_count() < 2) GTEST_SKIP() << "one device only";
  const auto values = numbers(5000);
  const CUdeviceptr here = words(values);
  CUcontext other = nullptr;
  OK(CU(cuCtxCreate_v4)(&other, nullptr, 0, 1));
  const CUdeviceptr there = allocate(20000);
  const CUstream work = stream();
  OK(CU(cuMemcpyPeer)(there, other, here, context, 20000));
  EXPECT_EQ(read(there, 5000), values);
  OK(CU(cuMemsetD8_v2)(there, 0, 20000));
  OK(CU(cuCtxSynchronize)());  // `work` does not wait for the default stream
  OK(CU(cuMemcpyPeerAsync)(there, other, here, context, 20000, work));
  OK(CU(cuStreamSynchronize)(work));
  EXPECT_EQ(read(there, 5000), values);
  CUDA_MEMCPY3D_PEER box{};
  box.srcMemoryType = box.dstMemoryType = CU_MEMORYTYPE_DEVICE;
  box.srcContext = context;
  box.dstContext = other;
  box.srcDevice = here;
  box.dstDevice = there;
  box.srcPitch = box.dstPitch = 400;
  box.srcHeight = box.dstHeight = 10;
  box.WidthInBytes = 200;
  box.Height = 5;
  box.Depth = 2;
  OK(CU(cuMemsetD8_v2)(there, 0, 20000));
  OK(CU(cuMemcpy3DPeer)(&box));
  EXPECT_EQ(read(there, 51)[49], values[49]);
  EXPECT_EQ(read(there, 51)[50], 0u);
  OK(CU(cuMemcpy3DPeerAsync)(&box, work));
  OK(CU(cuStreamSynchronize)(work));
}

TEST_F(Copies, rectangles) {
  const auto values = numbers(64);
  const CUdeviceptr address = allocate(1024);
  OK(CU(cuMemsetD8_v2)(address, 0, 1024));
  CUDA_MEMCPY2D box{};
  box.srcMemoryType = CU_MEMORYTYPE_HOST;
  box.srcHost = values.data();
  box.srcPitch = 32;
  box.dstMemoryType = CU_MEMORYTYPE_DEVICE;
  box.dstDevice = address;
  box.dstPitch = 128;
  box.dstXInBytes = 8;
  box.dstY = 1;
  box.WidthInBytes = 16;
  box.Height = 3;
  OK(CU(cuMemcpy2D_v2)(&box));
  auto seen = read(address, 256);
  EXPECT_EQ(seen[34], values[0]);
  EXPECT_EQ(seen[37], values[3]);
  EXPECT_EQ(seen[38], 0u);
  EXPECT_EQ(seen[66], values[8]);
  OK(CU(cuMemsetD8_v2)(address, 0, 1024));
  OK(CU(cuMemcpy2DUnaligned_v2)(&box));
  EXPECT_EQ(read(address, 256), seen);
  OK(CU(cuMemsetD8_v2)(address, 0, 1024));
  OK(CU(cuMemcpy2DAsync_v2)(&box, nullptr));
  OK(CU(cuStreamSynchronize)(nullptr));
  EXPECT_EQ(read(address, 256), seen);
  box.dstPitch = 4;  // narrower than a row
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemcpy2D_v2)(&box));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemcpy2D_v2)(nullptr));
}

TEST_F(Copies, boxes) {
  const auto values = numbers(4 * 4 * 4);
  const CUdeviceptr address = words(values), other = allocate(256);
  OK(CU(cuMemsetD8_v2)(other, 0, 256));
  CUDA_MEMCPY3D box{};
  box.srcMemoryType = box.dstMemoryType = CU_MEMORYTYPE_DEVICE;
  box.srcDevice = address;
  box.dstDevice = other;
  box.srcPitch = box.dstPitch = 16;
  box.srcHeight = box.dstHeight = 4;
  box.srcZ = 1;
  box.WidthInBytes = 8;
  box.Height = 2;
  box.Depth = 2;
  OK(CU(cuMemcpy3D_v2)(&box));
  const auto seen = read(other, 64);
  EXPECT_EQ(seen[0], values[16]);
  EXPECT_EQ(seen[5], values[21]);
  EXPECT_EQ(seen[16], values[32]);
  EXPECT_EQ(seen[2], 0u);
  OK(CU(cuMemsetD8_v2)(other, 0, 256));
  OK(CU(cuMemcpy3DAsync_v2)(&box, nullptr));
  OK(CU(cuStreamSynchronize)(nullptr));
  EXPECT_EQ(read(other, 64), seen);
}

TEST_F(Copies, arrays) {
  CUDA_ARRAY_DESCRIPTOR shape{8, 4, CU_AD_FORMAT_UNSIGNED_INT32, 1};
  CUarray array = nullptr, second = nullptr;
  OK(CU(cuArrayCreate_v2)(&array, &shape));
  OK(CU(cuArrayCreate_v2)(&second, &shape));
  CUDA_ARRAY_DESCRIPTOR read_back{};
  GIVES(CUDA_SUCCESS, CU(cuArrayGetDescriptor_v2)(&read_back, array));
  EXPECT_EQ(read_back.Width, 8u);
  EXPECT_EQ(read_back.Height, 4u);
  const auto values = numbers(8);
  OK(CU(cuMemcpyHtoA_v2)(array, 0, values.data(), 32));
  OK(CU(cuMemcpyAtoA_v2)(second, 0, array, 0, 32));
  std::vector<uint32_t> back(8);
  OK(CU(cuMemcpyAtoH_v2)(back.data(), second, 0, 32));
  EXPECT_EQ(back, values);
  const CUdeviceptr address = allocate(32);
  OK(CU(cuMemcpyAtoD_v2)(address, second, 8, 16));
  EXPECT_EQ(read(address, 1)[0], values[2]);
  OK(CU(cuMemcpyDtoA_v2)(array, 0, address, 16));
  OK(CU(cuMemcpyAtoHAsync_v2)(back.data(), array, 0, 16, nullptr));
  OK(CU(cuStreamSynchronize)(nullptr));
  EXPECT_EQ(back[0], values[2]);
  OK(CU(cuMemcpyHtoAAsync_v2)(array, 0, values.data(), 32, nullptr));
  OK(CU(cuStreamSynchronize)(nullptr));
  GIVES(CUDA_SUCCESS, CU(cuArrayDestroy)(array));
  GIVES(CUDA_SUCCESS, CU(cuArrayDestroy)(second));
  shape.NumChannels = 3;
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuArrayCreate_v2)(&array, &shape));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuArrayCreate_v2)(&array, nullptr));
  GIVES(CUDA_ERROR_INVALID_HANDLE, CU(cuArrayDestroy)(nullptr));
}

TEST_F(Copies, batches) {
  const auto values = numbers(32);
  const CUdeviceptr first = allocate(64), second = allocate(64);
  CUdeviceptr to[] = {first, second};
  CUdeviceptr from[] = {reinterpret_cast<CUdeviceptr>(values.data()),
                        reinterpret_cast<CUdeviceptr>(values.data() + 16)};
  size_t sizes[] = {64, 64};
  CUmemcpyAttributes how{};
  how.srcAccessOrder = CU_MEMCPY_SRC_ACCESS_ORDER_STREAM;
  size_t begins[] = {0};
  const CUstream work = stream();
  OK(CU(cuMemcpyBatchAsync_v2)(to, from, sizes, 2, &how, begins, 1, work));
  OK(CU(cuStreamSynchronize)(work));
  EXPECT_EQ(read(second, 1)[0], values[16]);
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemcpyBatchAsync_v2)(to, from, sizes, 0, &how, begins, 1, work));
}

}  // namespace
}  // namespace conformance
