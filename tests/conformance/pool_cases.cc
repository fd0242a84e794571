// Pools by place, and batches of hints about managed memory.
#include "fixture.h"

namespace conformance {
namespace {

class Pools : public Conformance {
 protected:
  static constexpr auto kPinned = CU_MEM_ALLOCATION_TYPE_PINNED;
  CUmemLocation here_ = {CU_MEM_LOCATION_TYPE_DEVICE, 0};
};

TEST_F(Pools, by_place) {
  CUmemoryPool first = nullptr, same = nullptr, own = nullptr;
  OK(CU(cuMemGetDefaultMemPool)(&first, &here_, kPinned));
  OK(CU(cuDeviceGetDefaultMemPool)(&same, device));
  EXPECT_EQ(first, same);
  OK(CU(cuMemGetMemPool)(&same, &here_, kPinned));
  EXPECT_EQ(first, same);
  CUmemPoolProps properties{};
  properties.allocType = kPinned;
  properties.location = here_;
  OK(CU(cuMemPoolCreate)(&own, &properties));
  OK(CU(cuMemSetMemPool)(&here_, kPinned, own));
  OK(CU(cuDeviceGetMemPool)(&same, device));
  EXPECT_EQ(same, own);
  OK(CU(cuMemGetMemPool)(&same, &here_, kPinned));
  EXPECT_EQ(same, own);
  CUdeviceptr address = 0;
  OK(CU(cuMemAllocAsync)(&address, 4096, nullptr));
  CUmemoryPool of = nullptr;
  OK(CU(cuPointerGetAttribute)(&of, CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE, address));
  EXPECT_EQ(of, own);
  OK(CU(cuMemFreeAsync)(address, nullptr));
  OK(CU(cuMemPoolDestroy)(own));  // the device falls back to its default
  OK(CU(cuMemGetMemPool)(&same, &here_, kPinned));
  EXPECT_EQ(same, first);
}

TEST_F(Pools, of_no_place) {
  CUmemoryPool pool = nullptr;
  OK(CU(cuMemGetDefaultMemPool)(&pool, &here_, kPinned));
  CUmemLocation nowhere = {CU_MEM_LOCATION_TYPE_DEVICE, 99};
  GIVES(CUDA_ERROR_INVALID_DEVICE, CU(cuMemGetDefaultMemPool)(&pool, &nowhere, kPinned));
  GIVES(CUDA_ERROR_INVALID_DEVICE, CU(cuMemGetMemPool)(&pool, &nowhere, kPinned));
  GIVES(CUDA_ERROR_INVALID_DEVICE, CU(cuMemSetMemPool)(&nowhere, kPinned, pool));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemGetDefaultMemPool)(nullptr, &here_, kPinned));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemGetDefaultMemPool)(&pool, nullptr, kPinned));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemGetMemPool)(nullptr, &here_, kPinned));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemGetMemPool)(&pool, nullptr, kPinned));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemSetMemPool)(nullptr, kPinned, pool));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemSetMemPool)(&here_, kPinned, nullptr));
  CUmemLocation odd = {static_cast<CUmemLocationType>(77), 0};
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemGetDefaultMemPool)(&pool, &odd, kPinned));
  if (device_count() < 2) return;
  CUmemLocation other = {CU_MEM_LOCATION_TYPE_DEVICE, 1};
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemSetMemPool)(&other, kPinned, pool));  // memory of device 0
}

class Hints : public Conformance {
 protected:
  static constexpr size_t kBytes = 1 << 20;
  void SetUp() override {
    Conformance::SetUp();
    for (CUdeviceptr& address : blocks_) OK(CU(cuMemAllocManaged)(&address, kBytes, CU_MEM_ATTACH_GLOBAL));
  }
  int last_place(CUdeviceptr address) {
    int place = -7;
    EXPECT_EQ(CU(cuMemRangeGetAttribute)(&place, 4, CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION, address, kBytes),
              CUDA_SUCCESS);
    return place;
  }
  CUdeviceptr blocks_[2] = {};
  size_t sizes_[2] = {kBytes, kBytes};
  CUmemLocation places_[2] = {{CU_MEM_LOCATION_TYPE_DEVICE, 0}, {CU_MEM_LOCATION_TYPE_HOST, 0}};
  size_t begins_[2] = {0, 1};
};

TEST_F(Hints, prefetching_in_batches) {
  auto* first = reinterpret_cast<volatile uint32_t*>(blocks_[0]);
  first[0] = 77;
  const CUstream work = stream();
  OK(CU(cuMemPrefetchBatchAsync)(blocks_, sizes_, 2, places_, begins_, 2, 0, work));
  OK(CU(cuStreamSynchronize)(work));
  EXPECT_EQ(last_place(blocks_[0]), 0);
  EXPECT_EQ(last_place(blocks_[1]), CU_DEVICE_CPU);
  EXPECT_EQ(first[0], 77u);
  OK(CU(cuMemPrefetchBatchAsync)(blocks_, sizes_, 2, places_, begins_, 1, 0, work));  // one place for both
  OK(CU(cuStreamSynchronize)(work));
  EXPECT_EQ(last_place(blocks_[1]), 0);
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemPrefetchBatchAsync)(blocks_, sizes_, 0, places_, begins_, 1, 0, work));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemPrefetchBatchAsync)(nullptr, sizes_, 2, places_, begins_, 1, 0, work));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemPrefetchBatchAsync)(blocks_, nullptr, 2, places_, begins_, 1, 0, work));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemPrefetchBatchAsync)(blocks_, sizes_, 2, nullptr, begins_, 1, 0, work));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemPrefetchBatchAsync)(blocks_, sizes_, 2, places_, begins_, 1, 4, work));
  begins_[0] = 1;  // the first place must be the first block's
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemPrefetchBatchAsync)(blocks_, sizes_, 2, places_, begins_, 1, 0, work));
  begins_[0] = 0;
  CUdeviceptr plain[] = {allocate(64)};
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemPrefetchBatchAsync)(plain, sizes_, 1, places_, begins_, 1, 0, work));
}

TEST_F(Hints, discarding) {
  const CUstream work = stream();
  OK(CU(cuMemDiscardBatchAsync)(blocks_, sizes_, 2, 0, work));
  OK(CU(cuMemsetD32Async)(blocks_[0], 5, 4, work));  // what is written afterwards stays
  OK(CU(cuStreamSynchronize)(work));
  EXPECT_EQ(*reinterpret_cast<volatile uint32_t*>(blocks_[0]), 5u);
  OK(CU(cuMemDiscardAndPrefetchBatchAsync)(blocks_, sizes_, 2, places_, begins_, 2, 0, work));
  OK(CU(cuStreamSynchronize)(work));
  EXPECT_EQ(last_place(blocks_[0]), 0);
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemDiscardBatchAsync)(blocks_, sizes_, 0, 0, work));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemDiscardBatchAsync)(nullptr, sizes_, 2, 0, work));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemDiscardBatchAsync)(blocks_, nullptr, 2, 0, work));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemDiscardBatchAsync)(blocks_, sizes_, 2, 1, work));
  GIVES(CUDA_ERROR_INVALID_VALUE,
        CU(cuMemDiscardAndPrefetchBatchAsync)(blocks_, sizes_, 2, nullptr, begins_, 1, 0, work));
  CUdeviceptr plain[] = {allocate(64)};
  size_t size[] = {64};
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemDiscardBatchAsync)(plain, size, 1, 0, work));
}

}  // namespace
}  // namespace conformance
