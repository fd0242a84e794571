// Allocations, copies, what is known of pointers, and memory at chosen addresses.

#include <cstring>
#include <numeric>
#include <set>

#include "tests/softgpu/driver/driver_test.h"

namespace softgpu {
namespace {

constexpr size_t kMiB = 1 << 20;
constexpr CUdeviceptr kChosen = 0x2000'4000'0000;

class MemoryCalls : public DriverTest {
 protected:
  size_t free_bytes() {
    size_t free = 0, total = 0;
    EXPECT_EQ(cuMemGetInfo(&free, &total), CUDA_SUCCESS);
    return free;
  }

  CUmemAllocationProp properties() {
    CUmemAllocationProp made{};
    made.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    made.location = {CU_MEM_LOCATION_TYPE_DEVICE, {device_}};
    return made;
  }

  CUresult allow(CUdeviceptr address, size_t bytes) {
    CUmemAccessDesc access{};
    access.location = {CU_MEM_LOCATION_TYPE_DEVICE, {device_}};
    access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
    return cuMemSetAccess(address, bytes, &access, 1);
  }
};

TEST_F(MemoryCalls, allocations_are_aligned_distinct_and_given_back) {
  const size_t before = free_bytes();
  std::set<CUdeviceptr> addresses;
  for (size_t bytes : {1, 4, 511, 512, 513, 100000}) {
    const CUdeviceptr address = allocate(bytes);
    EXPECT_EQ(address % 512, 0u);
    EXPECT_TRUE(addresses.insert(address).second);
  }
  EXPECT_LT(free_bytes(), before);
  for (const CUdeviceptr address : addresses) OK(cuMemFree(address));
  EXPECT_EQ(free_bytes(), before);
  EXPECT_EQ(cuMemFree(*addresses.begin()), CUDA_ERROR_INVALID_VALUE);
  CUdeviceptr none = 0;
  EXPECT_EQ(cuMemAlloc(&none, 0), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(cuMemAlloc(nullptr, 4), CUDA_ERROR_INVALID_VALUE);
}

TEST_F(MemoryCalls, memory_ends_at_the_configured_size) {
  const size_t all = free_bytes();
  ASSERT_LE(all, 64 * kMiB);  // the test's environment says so
  CUdeviceptr most = 0, more = 0;
  OK(cuMemAlloc(&most, all));
  EXPECT_EQ(cuMemAlloc(&more, 1), CUDA_ERROR_OUT_OF_MEMORY);
  OK(cuMemFree(most));
  EXPECT_EQ(cuMemAlloc(&more, all + 1), CUDA_ERROR_OUT_OF_MEMORY);
  OK(cuMemAlloc(&more, 1));
}

TEST_F(MemoryCalls, copies_round_trip_through_every_kind_of_memory) {
  std::vector<uint32_t> source(700000), result(source.size());
  std::iota(source.begin(), source.end(), 1u);
  const size_t bytes = source.size() * 4;
  void* pinned = nullptr;
  OK(cuMemHostAlloc(&pinned, bytes, 0));
  const CUdeviceptr a = allocate(bytes), b = allocate(bytes);
  OK(cuMemcpyHtoD(a, source.data(), bytes));
  OK(cuMemcpyDtoD(b, a, bytes));
  OK(cuMemcpyDtoHAsync(pinned, b, bytes, nullptr));
  OK(cuCtxSynchronize());
  EXPECT_EQ(std::memcmp(pinned, source.data(), bytes), 0);
  OK(cuMemcpy(reinterpret_cast<CUdeviceptr>(result.data()), b, bytes));
  EXPECT_EQ(result, source);
}

TEST_F(MemoryCalls, pageable_memory_has_been_read_when_an_asynchronous_copy_returns) {
  Holding holding;
  CUstream s = stream(CU_STREAM_NON_BLOCKING);
  const CUdeviceptr address = allocate(4);
  OK(launch("hold", {holding.param()}, s));
  uint32_t value = 11;
  OK(cuMemcpyHtoDAsync(address, &value, 4, s));
  value = 12;
  holding.let_go();
  OK(cuStreamSynchronize(s));
  OK(cuMemcpyDtoH(&value, address, 4));
  EXPECT_EQ(value, 11u);
}

TEST_F(MemoryCalls, pinned_copies_do_not_wait) {
  Holding holding;
  CUstream s = stream(CU_STREAM_NON_BLOCKING);
  void* pinned = nullptr;
  OK(cuMemHostAlloc(&pinned, 4, 0));
  std::memset(pinned, 0, 4);
  const CUdeviceptr address = allocate(4);
  OK(cuMemsetD32(address, 9, 1));
  OK(cuCtxSynchronize());
  OK(launch("hold", {holding.param()}, s));
  OK(cuMemcpyDtoHAsync(pinned, address, 4, s));
  EXPECT_EQ(*static_cast<volatile uint32_t*>(pinned), 0u);
  holding.let_go();
  OK(cuStreamSynchronize(s));
  EXPECT_EQ(*static_cast<uint32_t*>(pinned), 9u);
}

TEST_F(MemoryCalls, rectangles_are_copied_and_filled_by_rows) {
  CUdeviceptr image = 0;
  size_t pitch = 0;
  OK(cuMemAllocPitch(&image, &pitch, 12, 3, 4));
  EXPECT_EQ(pitch % 512, 0u);
  OK(cuMemsetD2D8(image, pitch, 0xee, 12, 3));
  const uint8_t rows[2][4] = {{1, 2, 3, 4}, {5, 6, 7, 8}};
  CUDA_MEMCPY2D copy{};
  copy.srcMemoryType = CU_MEMORYTYPE_HOST;
  copy.srcHost = rows;
  copy.srcPitch = 4;
  copy.dstMemoryType = CU_MEMORYTYPE_DEVICE;
  copy.dstDevice = image;
  copy.dstPitch = pitch;
  copy.dstXInBytes = 8;
  copy.dstY = 1;
  copy.WidthInBytes = 4;
  copy.Height = 2;
  OK(cuMemcpy2D(&copy));
  uint8_t got[12];
  OK(cuMemcpyDtoH(got, image + 2 * pitch, 12));
  const uint8_t expected[12] = {0xee, 0xee, 0xee, 0xee, 0xee, 0xee, 0xee, 0xee, 5, 6, 7, 8};
  EXPECT_EQ(std::memcmp(got, expected, 12), 0);
  copy.WidthInBytes = pitch;
  EXPECT_EQ(cuMemcpy2D(&copy), CUDA_ERROR_INVALID_VALUE);
}

TEST_F(MemoryCalls, addresses_that_belong_to_nobody_are_refused_at_the_call) {
  uint32_t value = 0;
  EXPECT_EQ(cuMemcpyDtoH(&value, 0x2fff'0000'0000, 4), CUDA_ERROR_INVALID_VALUE);
  const CUdeviceptr address = allocate(1024);
  EXPECT_EQ(cuMemcpyDtoH(&value, address + 4 * kMiB, 4), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(cuMemsetD32(address + 1, 0, 1), CUDA_ERROR_INVALID_VALUE);
  OK(cuCtxSynchronize());  // and nothing is poisoned
}

TEST_F(MemoryCalls, copies_between_devices_need_no_more_than_two_contexts) {
  int devices = 0;
  OK(cuDeviceGetCount(&devices));
  ASSERT_EQ(devices, 2);
  const CUdeviceptr here = allocate(4096);
  OK(cuMemsetD32(here, 0x1234, 1024));
  CUcontext other = nullptr;
  OK(cuCtxCreate(&other, nullptr, 0, 1));
  const CUdeviceptr there = allocate(4096);
  OK(cuMemcpyPeer(there, other, here, context_, 4096));
  uint32_t value = 0;
  OK(cuMemcpyDtoH(&value, there + 4092, 4));
  EXPECT_EQ(value, 0x1234u);
  int can = 0;
  OK(cuDeviceCanAccessPeer(&can, 1, 0));
  EXPECT_EQ(can, 1);
  OK(cuCtxEnablePeerAccess(context_, 0));
  EXPECT_EQ(cuCtxEnablePeerAccess(context_, 0), CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED);
  OK(cuCtxDestroy(other));
  OK(cuCtxSetCurrent(context_));
}

TEST_F(MemoryCalls, pointers_tell_what_they_are) {
  const CUdeviceptr address = allocate(1000);
  CUmemorytype type{};
  OK(cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, address + 10));
  EXPECT_EQ(type, CU_MEMORYTYPE_DEVICE);
  CUdeviceptr base = 0;
  size_t bytes = 0;
  OK(cuMemGetAddressRange(&base, &bytes, address + 999));
  EXPECT_EQ(base, address);
  EXPECT_EQ(bytes, 1000u);
  int host = 0, ordinal = 0;
  EXPECT_EQ(cuPointerGetAttribute(&ordinal, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, reinterpret_cast<CUdeviceptr>(&host)),
            CUDA_ERROR_INVALID_VALUE);
  CUpointer_attribute asked[] = {CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, CU_POINTER_ATTRIBUTE_MEMORY_TYPE};
  void* answers[] = {&ordinal, &type};
  OK(cuPointerGetAttributes(2, asked, answers, reinterpret_cast<CUdeviceptr>(&host)));
  EXPECT_EQ(ordinal, -2);
  EXPECT_EQ(static_cast<int>(type), 0);
  std::vector<char> registered(5000);
  OK(cuMemHostRegister(registered.data(), registered.size(), 0));
  EXPECT_EQ(cuMemHostRegister(registered.data() + 8, 8, 0), CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED);
  OK(cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, reinterpret_cast<CUdeviceptr>(registered.data())));
  EXPECT_EQ(type, CU_MEMORYTYPE_HOST);
  OK(cuMemHostUnregister(registered.data()));
  EXPECT_EQ(cuMemHostUnregister(registered.data()), CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED);
}

TEST_F(MemoryCalls, memory_can_be_placed_at_a_chosen_address_and_keeps_it) {
  CUdeviceptr place = 0;
  OK(cuMemAddressReserve(&place, 8 * kMiB, 0, kChosen, 0));
  ASSERT_EQ(place, kChosen);
  CUdeviceptr again = 0;
  EXPECT_NE(cuMemAddressReserve(&again, 2 * kMiB, 0, kChosen + 2 * kMiB, 0), CUDA_SUCCESS);
  const CUmemAllocationProp props = properties();
  CUmemGenericAllocationHandle handle = 0;
  OK(cuMemCreate(&handle, 2 * kMiB, &props, 0));
  OK(cuMemMap(kChosen + 2 * kMiB, 2 * kMiB, 0, handle, 0));
  EXPECT_EQ(cuMemsetD32(kChosen + 2 * kMiB, 6, 1), CUDA_ERROR_INVALID_VALUE);  // not accessible yet
  OK(allow(kChosen + 2 * kMiB, 2 * kMiB));
  OK(cuMemsetD32(kChosen + 2 * kMiB, 6, 4));
  CUdeviceptr data = kChosen + 2 * kMiB;
  uint32_t count = 4, factor = 7, result = 0;
  OK(launch("scale", {&data, &count, &factor}, nullptr, 1, 32));
  OK(cuMemcpyDtoH(&result, data + 12, 4));
  EXPECT_EQ(result, 42u);
  EXPECT_EQ(cuMemAddressFree(kChosen, 8 * kMiB), CUDA_ERROR_INVALID_VALUE);  // still mapped
  OK(cuMemRelease(handle));
  OK(cuMemcpyDtoH(&result, data, 4));  // the mapping keeps the memory
  OK(cuMemUnmap(data, 2 * kMiB));
  OK(cuMemAddressFree(kChosen, 8 * kMiB));
}

TEST_F(MemoryCalls, one_physical_allocation_can_be_seen_at_two_addresses) {
  CUdeviceptr place = 0;
  OK(cuMemAddressReserve(&place, 4 * kMiB, 0, 0, 0));
  const CUmemAllocationProp props = properties();
  CUmemGenericAllocationHandle handle = 0;
  OK(cuMemCreate(&handle, 2 * kMiB, &props, 0));
  OK(cuMemMap(place, 2 * kMiB, 0, handle, 0));
  OK(cuMemMap(place + 2 * kMiB, 2 * kMiB, 0, handle, 0));
  OK(allow(place, 4 * kMiB));
  OK(cuMemsetD32(place + 64, 123, 1));
  uint32_t result = 0;
  OK(cuMemcpyDtoH(&result, place + 2 * kMiB + 64, 4));
  EXPECT_EQ(result, 123u);
  OK(cuMemUnmap(place, 4 * kMiB));
  OK(cuMemRelease(handle));
  OK(cuMemAddressFree(place, 4 * kMiB));
}

TEST_F(MemoryCalls, a_copy_may_cross_separately_mapped_chunks) {
  CUdeviceptr place = 0;
  OK(cuMemAddressReserve(&place, 6 * kMiB, 0, 0, 0));
  const CUmemAllocationProp props = properties();
  for (size_t i = 0; i < 3; ++i) {
    CUmemGenericAllocationHandle handle = 0;
    OK(cuMemCreate(&handle, 2 * kMiB, &props, 0));
    OK(cuMemMap(place + i * 2 * kMiB, 2 * kMiB, 0, handle, 0));
    OK(cuMemRelease(handle));
  }
  OK(allow(place, 6 * kMiB));
  std::vector<uint32_t> source(5 * kMiB / 4), result(source.size());
  std::iota(source.begin(), source.end(), 3u);
  OK(cuMemcpyHtoD(place + 1000, source.data(), 5 * kMiB));
  OK(cuMemcpyDtoH(result.data(), place + 1000, 5 * kMiB));
  EXPECT_EQ(result, source);
  OK(cuMemUnmap(place, 6 * kMiB));
  OK(cuMemAddressFree(place, 6 * kMiB));
}

TEST_F(MemoryCalls, the_host_cannot_touch_device_addresses) {
  const CUdeviceptr address = allocate(64);
  EXPECT_DEATH(*reinterpret_cast<volatile int*>(address) = 1, "");
}

TEST_F(MemoryCalls, stream_ordered_memory_is_freed_in_stream_order) {
  const size_t before = free_bytes();
  Holding holding;
  CUstream s = stream();
  CUdeviceptr address = 0;
  OK(cuMemAllocAsync(&address, 8 * kMiB, s));
  OK(launch("hold", {holding.param()}, s));
  OK(cuMemFreeAsync(address, s));
  EXPECT_LT(free_bytes(), before);
  holding.let_go();
  OK(cuStreamSynchronize(s));
  EXPECT_EQ(free_bytes(), before);
}

}  // namespace
}  // namespace softgpu
