// Stream-ordered memory: what pools keep, count and give back.

#include "tests/softgpu/driver/driver_test.h"

namespace softgpu {
namespace {

constexpr size_t kMiB = 1 << 20;

class Pools : public DriverTest {
 protected:
  uint64_t read(CUmemoryPool pool, CUmemPool_attribute attribute) {
    uint64_t value = 0;
    EXPECT_EQ(cuMemPoolGetAttribute(pool, attribute, &value), CUDA_SUCCESS);
    return value;
  }
  CUmemoryPool create(size_t bytes_max = 0) {
    CUmemPoolProps properties{};
    properties.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.location = {CU_MEM_LOCATION_TYPE_DEVICE, {device_}};
    properties.maxSize = bytes_max;
    CUmemoryPool pool = nullptr;
    EXPECT_EQ(cuMemPoolCreate(&pool, &properties), CUDA_SUCCESS);
    return pool;
  }
};

TEST_F(Pools, a_device_has_a_default_pool_and_another_may_take_its_place) {
  CUmemoryPool first = nullptr, current = nullptr;
  OK(cuDeviceGetDefaultMemPool(&first, device_));
  OK(cuDeviceGetMemPool(&current, device_));
  EXPECT_EQ(current, first);
  EXPECT_EQ(cuMemPoolDestroy(first), CUDA_ERROR_INVALID_VALUE);
  const CUmemoryPool mine = create();
  OK(cuDeviceSetMemPool(device_, mine));
  EXPECT_EQ(cuDeviceSetMemPool(1, mine), CUDA_ERROR_INVALID_VALUE);
  CUdeviceptr address = 0;
  OK(cuMemAllocAsync(&address, 1000, nullptr));
  CUmemoryPool of = nullptr;
  OK(cuPointerGetAttribute(&of, CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE, address));
  EXPECT_EQ(of, mine);
  EXPECT_EQ(read(mine, CU_MEMPOOL_ATTR_USED_MEM_CURRENT), 1024u);
  OK(cuMemFreeAsync(address, nullptr));
  OK(cuCtxSynchronize());
  OK(cuMemPoolDestroy(mine));
  OK(cuDeviceGetMemPool(&current, device_));
  EXPECT_EQ(current, first);
}

TEST_F(Pools, memory_stays_up_to_the_threshold_and_goes_when_trimmed) {
  const CUmemoryPool pool = create();
  uint64_t threshold = ~uint64_t{0};
  OK(cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &threshold));
  CUdeviceptr a = 0, b = 0;
  OK(cuMemAllocFromPoolAsync(&a, 6 * kMiB, pool, nullptr));
  OK(cuMemAllocFromPoolAsync(&b, 100, pool, nullptr));
  EXPECT_EQ(a % 512, 0u);
  EXPECT_EQ(b % 512, 0u);
  const uint64_t reserved = read(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT);
  EXPECT_GE(reserved, 6 * kMiB + 512);
  EXPECT_EQ(read(pool, CU_MEMPOOL_ATTR_USED_MEM_HIGH), 6 * kMiB + 512);
  OK(cuMemFreeAsync(a, nullptr));
  OK(cuMemFreeAsync(b, nullptr));
  OK(cuCtxSynchronize());
  EXPECT_EQ(read(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT), 0u);
  EXPECT_EQ(read(pool, CU_MEMPOOL_ATTR_USED_MEM_HIGH), 6 * kMiB + 512);
  EXPECT_EQ(read(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT), reserved);
  uint64_t value = 1;
  EXPECT_EQ(cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_USED_MEM_HIGH, &value), CUDA_ERROR_INVALID_VALUE);
  value = 0;
  OK(cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_USED_MEM_HIGH, &value));
  EXPECT_EQ(read(pool, CU_MEMPOOL_ATTR_USED_MEM_HIGH), 0u);
  OK(cuMemPoolTrimTo(pool, 0));
  EXPECT_EQ(read(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT), 0u);
  OK(cuMemPoolDestroy(pool));
  EXPECT_EQ(cuMemPoolTrimTo(pool, 0), CUDA_ERROR_INVALID_VALUE);
}

TEST_F(Pools, other_allocations_get_what_a_pool_only_keeps) {
  const CUmemoryPool pool = create();
  uint64_t threshold = ~uint64_t{0};
  OK(cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &threshold));
  size_t free = 0, total = 0;
  OK(cuMemGetInfo(&free, &total));
  CUdeviceptr address = 0, more = 0;
  OK(cuMemAllocFromPoolAsync(&address, free, pool, nullptr));
  EXPECT_EQ(cuMemAllocAsync(&more, 4 * kMiB, nullptr), CUDA_ERROR_OUT_OF_MEMORY);
  OK(cuMemFreeAsync(address, nullptr));
  OK(cuCtxSynchronize());
  OK(cuMemAlloc(&more, free));
  OK(cuMemFree(more));
  OK(cuMemPoolDestroy(pool));
}

TEST_F(Pools, a_pool_is_no_larger_than_it_was_made) {
  const CUmemoryPool pool = create(4 * kMiB);
  CUdeviceptr a = 0, b = 0;
  OK(cuMemAllocFromPoolAsync(&a, 3 * kMiB, pool, nullptr));
  EXPECT_EQ(cuMemAllocFromPoolAsync(&b, 3 * kMiB, pool, nullptr), CUDA_ERROR_OUT_OF_MEMORY);
  OK(cuMemFree(a));
  OK(cuMemAllocFromPoolAsync(&b, 3 * kMiB, pool, nullptr));
  OK(cuMemPoolDestroy(pool));  // what is in use stays until it is freed
  OK(cuMemsetD32(b, 1, 4));
  OK(cuMemFreeAsync(b, nullptr));
  OK(cuCtxSynchronize());
}

}  // namespace
}  // namespace softgpu
