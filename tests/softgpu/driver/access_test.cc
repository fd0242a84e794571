// Which memory kernels may touch: that of other devices, of pools, and what is mapped by hand.

#include <cstring>

#include "tests/softgpu/driver/driver_test.h"

namespace softgpu {
namespace {

constexpr size_t kMiB = 1 << 20;

class Access : public DriverTest {
 protected:
  void SetUp() override {
    DriverTest::SetUp();
    OK(cuCtxCreate(&other_, nullptr, 0, 1));
    OK(cuModuleLoadData(&module_, kKernels));  // the kernels run on device 1
  }
  void TearDown() override {
    EXPECT_EQ(cuCtxDestroy(other_), CUDA_SUCCESS);
    EXPECT_EQ(cuCtxSetCurrent(context_), CUDA_SUCCESS);
    DriverTest::TearDown();
  }

  // Multiplies one number at the address by three, on device 1.
  CUresult triple(CUdeviceptr address) {
    uint32_t count = 1, factor = 3;
    const CUresult launched = launch("scale", {&address, &count, &factor}, nullptr, 1, 32);
    return launched != CUDA_SUCCESS ? launched : cuCtxSynchronize();
  }

  uint32_t value_at(CUdeviceptr address) {
    uint32_t value = 0;
    EXPECT_EQ(cuMemcpyDtoH(&value, address, 4), CUDA_SUCCESS);
    return value;
  }

  CUmemAccessDesc for_device(int device, CUmemAccess_flags flags) {
    CUmemAccessDesc made{};
    made.location = {CU_MEM_LOCATION_TYPE_DEVICE, {device}};
    made.flags = flags;
    return made;
  }

  CUcontext other_ = nullptr;
};

TEST_F(Access, another_devices_memory_needs_peer_access) {
  OK(cuCtxSetCurrent(context_));
  const CUdeviceptr there = allocate(4);
  OK(cuMemsetD32(there, 5, 1));
  OK(cuCtxSynchronize());
  OK(cuCtxSetCurrent(other_));
  OK(cuCtxEnablePeerAccess(context_, 0));
  OK(triple(there));
  EXPECT_EQ(value_at(there), 15u);
  OK(cuCtxDisablePeerAccess(context_));
  EXPECT_EQ(cuCtxDisablePeerAccess(context_), CUDA_ERROR_PEER_ACCESS_NOT_ENABLED);
  EXPECT_EQ(value_at(there), 15u);  // copies need none
  EXPECT_EQ(triple(there), CUDA_ERROR_ILLEGAL_ADDRESS);
}

TEST_F(Access, memory_allocated_after_peer_access_was_enabled_is_reachable_too) {
  OK(cuCtxEnablePeerAccess(context_, 0));
  OK(cuCtxSetCurrent(context_));
  const CUdeviceptr small = allocate(4), large = allocate(4 * kMiB);
  OK(cuMemsetD32(small, 1, 1));
  OK(cuMemsetD32(large, 2, 1));
  OK(cuCtxSynchronize());
  OK(cuCtxSetCurrent(other_));
  OK(triple(small));
  OK(triple(large));
  EXPECT_EQ(value_at(small), 3u);
  EXPECT_EQ(value_at(large), 6u);
}

TEST_F(Access, a_mapping_is_for_the_devices_that_were_named) {
  CUmemAllocationProp properties{};
  properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.location = {CU_MEM_LOCATION_TYPE_DEVICE, {0}};
  CUmemGenericAllocationHandle handle = 0;
  CUdeviceptr place = 0;
  OK(cuMemAddressReserve(&place, 4 * kMiB, 0, 0, 0));
  OK(cuMemCreate(&handle, 4 * kMiB, &properties, 0));
  OK(cuMemMap(place, 2 * kMiB, 2 * kMiB, handle, 0));  // its second half
  CUmemAccessDesc mine = for_device(0, CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
  OK(cuMemSetAccess(place, 2 * kMiB, &mine, 1));
  OK(cuMemsetD32(place, 7, 1));
  unsigned long long flags = 9;
  const CUmemLocation theirs = {CU_MEM_LOCATION_TYPE_DEVICE, {1}};
  OK(cuMemGetAccess(&flags, &theirs, place));
  EXPECT_EQ(flags, CU_MEM_ACCESS_FLAGS_PROT_NONE);
  CUmemAccessDesc both = for_device(1, CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
  OK(cuMemSetAccess(place, 2 * kMiB, &both, 1));
  OK(triple(place));
  EXPECT_EQ(value_at(place), 21u);
  both.flags = CU_MEM_ACCESS_FLAGS_PROT_NONE;
  OK(cuMemSetAccess(place, 2 * kMiB, &both, 1));
  EXPECT_EQ(triple(place), CUDA_ERROR_ILLEGAL_ADDRESS);
  OK(cuMemUnmap(place, 2 * kMiB));
  OK(cuMemRelease(handle));
  OK(cuMemAddressFree(place, 4 * kMiB));
}

TEST_F(Access, a_pool_is_for_its_device_and_those_that_were_named) {
  CUmemPoolProps properties{};
  properties.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.location = {CU_MEM_LOCATION_TYPE_DEVICE, {0}};
  CUmemoryPool pool = nullptr;
  OK(cuMemPoolCreate(&pool, &properties));
  CUmemAccessDesc both = for_device(1, CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
  OK(cuMemPoolSetAccess(pool, &both, 1));
  CUdeviceptr address = 0;
  OK(cuMemAllocFromPoolAsync(&address, 4, pool, nullptr));
  OK(cuMemsetD32(address, 2, 1));
  OK(triple(address));
  EXPECT_EQ(value_at(address), 6u);
  both.flags = CU_MEM_ACCESS_FLAGS_PROT_NONE;
  OK(cuMemPoolSetAccess(pool, &both, 1));
  CUmemAccess_flags flags{};
  CUmemLocation theirs = {CU_MEM_LOCATION_TYPE_DEVICE, {1}};
  OK(cuMemPoolGetAccess(&flags, pool, &theirs));
  EXPECT_EQ(flags, CU_MEM_ACCESS_FLAGS_PROT_NONE);
  OK(cuMemPoolDestroy(pool));
  EXPECT_EQ(triple(address), CUDA_ERROR_ILLEGAL_ADDRESS);
}

}  // namespace
}  // namespace softgpu
