// Allocation, addresses and their attributes, fills.
#include "fixture.h"

namespace conformance {
namespace {

class Memory : public Conformance {};

TEST_F(Memory, sizes) {
  CUdeviceptr address = 0;
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemAlloc_v2)(&address, 0));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemAlloc_v2)(nullptr, 16));
  GIVES(CUDA_ERROR_OUT_OF_MEMORY, CU(cuMemAlloc_v2)(&address, SIZE_MAX));
  GIVES(CUDA_ERROR_OUT_OF_MEMORY, CU(cuMemAlloc_v2)(&address, SIZE_MAX / 2));
  GIVES(CUDA_ERROR_OUT_OF_MEMORY, CU(cuMemAlloc_v2)(&address, 1ull << 46));
  GIVES(CUDA_SUCCESS, CU(cuMemAlloc_v2)(&address, 1));
  EXPECT_EQ(address % 256, 0u);
  GIVES(CUDA_SUCCESS, CU(cuMemFree_v2)(address));
}

TEST_F(Memory, frees) {
  const CUdeviceptr address = allocate(1000);
  GIVES(CUDA_SUCCESS, CU(cuMemFree_v2)(0));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemFree_v2)(address + 16));
  GIVES(CUDA_SUCCESS, CU(cuMemFree_v2)(address));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemFree_v2)(address));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemFree_v2)(0x123456000));
}

TEST_F(Memory, is_counted) {
  size_t before = 0, during = 0, after = 0, total = 0;
  OK(CU(cuMemGetInfo_v2)(&before, &total));
  const CUdeviceptr address = allocate(64 << 20);
  OK(CU(cuMemGetInfo_v2)(&during, &total));
  EXPECT_GE(before, during + (64 << 20));
  OK(CU(cuMemFree_v2)(address));
  OK(CU(cuMemGetInfo_v2)(&after, &total));
  EXPECT_EQ(after, before);
  GIVES(CUDA_SUCCESS, CU(cuMemGetInfo_v2)(&after, &total));
}

TEST_F(Memory, ranges) {
  const CUdeviceptr address = allocate(1000);
  CUdeviceptr base = 0;
  size_t size = 0;
  GIVES(CUDA_SUCCESS, CU(cuMemGetAddressRange_v2)(&base, &size, address + 500));
  EXPECT_EQ(base, address);
  EXPECT_EQ(size, 1000u);
  GIVES(CUDA_SUCCESS, CU(cuMemGetAddressRange_v2)(nullptr, &size, address));
  GIVES(CUDA_SUCCESS, CU(cuMemGetAddressRange_v2)(&base, nullptr, address));
  GIVES(CUDA_ERROR_NOT_FOUND, CU(cuMemGetAddressRange_v2)(&base, &size, 0x10));
}

TEST_F(Memory, pitched) {
  CUdeviceptr address = 0;
  size_t pitch = 0;
  GIVES(CUDA_SUCCESS, CU(cuMemAllocPitch_v2)(&address, &pitch, 1001, 10, 4));
  EXPECT_GE(pitch, 1001u);
  EXPECT_EQ(pitch % 32, 0u);
  GIVES(CUDA_SUCCESS, CU(cuMemsetD8_v2)(address, 1, pitch * 10));
  GIVES(CUDA_SUCCESS, CU(cuMemFree_v2)(address));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemAllocPitch_v2)(&address, &pitch, 100, 10, 5));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemAllocPitch_v2)(&address, &pitch, 0, 10, 4));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemAllocPitch_v2)(&address, nullptr, 100, 10, 4));
}

TEST_F(Memory, fills) {
  const CUdeviceptr address = allocate(64);
  OK(CU(cuMemsetD32_v2)(address, 0xAABBCCDD, 16));
  OK(CU(cuMemsetD16_v2)(address + 4, 0x1122, 2));
  OK(CU(cuMemsetD8_v2)(address + 8, 0x7F, 3));
  const auto values = read(address, 16);
  EXPECT_EQ(values[0], 0xAABBCCDDu);
  EXPECT_EQ(values[1], 0x11221122u);
  EXPECT_EQ(values[2], 0xAA7F7F7Fu);
  EXPECT_EQ(values[15], 0xAABBCCDDu);
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemsetD32_v2)(address + 2, 0, 1));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemsetD16_v2)(address + 1, 0, 1));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemsetD8_v2)(0x40, 0, 1));
  GIVES(CUDA_SUCCESS, CU(cuMemsetD8_v2)(address, 0, 0));
}

TEST_F(Memory, fills_of_rectangles) {
  const CUdeviceptr address = allocate(64 * 4);
  OK(CU(cuMemsetD8_v2)(address, 0, 256));
  OK(CU(cuMemsetD2D32_v2)(address, 64, 7, 2, 3));
  OK(CU(cuMemsetD2D16_v2)(address + 16, 64, 9, 2, 2));
  OK(CU(cuMemsetD2D8_v2)(address + 32, 64, 5, 4, 1));
  const auto values = read(address, 64);
  EXPECT_EQ(values[0], 7u);
  EXPECT_EQ(values[1], 7u);
  EXPECT_EQ(values[2], 0u);
  EXPECT_EQ(values[33], 7u);
  EXPECT_EQ(values[48], 0u);
  EXPECT_EQ(values[4], 0x00090009u);
  EXPECT_EQ(values[20], 0x00090009u);
  EXPECT_EQ(values[8], 0x05050505u);
  EXPECT_EQ(values[24], 0u);
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemsetD2D32_v2)(address, 3, 7, 2, 3));
}

TEST_F(Memory, fills_in_streams) {
  const CUdeviceptr address = allocate(256);
  const CUstream work = stream();
  OK(CU(cuMemsetD32Async)(address, 1, 64, work));
  OK(CU(cuMemsetD16Async)(address, 2, 2, work));
  OK(CU(cuMemsetD8Async)(address + 4, 3, 4, work));
  OK(CU(cuMemsetD2D32Async)(address + 64, 64, 4, 1, 2, work));
  OK(CU(cuMemsetD2D16Async)(address + 68, 64, 5, 2, 2, work));
  OK(CU(cuMemsetD2D8Async)(address + 72, 64, 6, 4, 2, work));
  OK(CU(cuStreamSynchronize)(work));
  const auto values = read(address, 64);
  EXPECT_EQ(values[0], 0x00020002u);
  EXPECT_EQ(values[1], 0x03030303u);
  EXPECT_EQ(values[2], 1u);
  EXPECT_EQ(values[16], 4u);
  EXPECT_EQ(values[33], 0x00050005u);
  EXPECT_EQ(values[34], 0x06060606u);
}

TEST_F(Memory, pointer_attributes) {
  const CUdeviceptr address = allocate(1000);
  CUmemorytype kind{};
  OK(CU(cuPointerGetAttribute)(&kind, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, address + 8));
  EXPECT_EQ(kind, CU_MEMORYTYPE_DEVICE);
  CUcontext of = nullptr;
  GIVES(CUDA_SUCCESS, CU(cuPointerGetAttribute)(&of, CU_POINTER_ATTRIBUTE_CONTEXT, address));
  EXPECT_EQ(of, context);
  CUdeviceptr start = 0;
  GIVES(CUDA_SUCCESS, CU(cuPointerGetAttribute)(&start, CU_POINTER_ATTRIBUTE_RANGE_START_ADDR, address + 8));
  EXPECT_EQ(start, address);
  size_t size = 0;
  GIVES(CUDA_SUCCESS, CU(cuPointerGetAttribute)(&size, CU_POINTER_ATTRIBUTE_RANGE_SIZE, address));
  EXPECT_EQ(size, 1000u);
  int ordinal = -1;
  GIVES(CUDA_SUCCESS, CU(cuPointerGetAttribute)(&ordinal, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, address));
  EXPECT_EQ(ordinal, 0);
  int managed = -1;
  GIVES(CUDA_SUCCESS, CU(cuPointerGetAttribute)(&managed, CU_POINTER_ATTRIBUTE_IS_MANAGED, address));
  EXPECT_EQ(managed, 0);
  unsigned long long id = 0, other_id = 0;
  GIVES(CUDA_SUCCESS, CU(cuPointerGetAttribute)(&id, CU_POINTER_ATTRIBUTE_BUFFER_ID, address));
  GIVES(CUDA_SUCCESS, CU(cuPointerGetAttribute)(&other_id, CU_POINTER_ATTRIBUTE_BUFFER_ID, allocate(8)));
  EXPECT_NE(id, other_id);
  CUdeviceptr on_device = 0;
  GIVES(CUDA_SUCCESS, CU(cuPointerGetAttribute)(&on_device, CU_POINTER_ATTRIBUTE_DEVICE_POINTER, address + 8));
  EXPECT_EQ(on_device, address + 8);
  void* on_host = nullptr;
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuPointerGetAttribute)(&on_host, CU_POINTER_ATTRIBUTE_HOST_POINTER, address));
}

TEST_F(Memory, pointer_attributes_of_nothing) {
  CUmemorytype kind{};
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuPointerGetAttribute)(&kind, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, 0x1000));
  int on_stack = 0;
  GIVES(CUDA_ERROR_INVALID_VALUE,
        CU(cuPointerGetAttribute)(&kind, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, reinterpret_cast<CUdeviceptr>(&on_stack)));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuPointerGetAttribute)(nullptr, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, allocate(8)));
}

TEST_F(Memory, several_pointer_attributes) {
  const CUdeviceptr address = allocate(1000);
  CUmemorytype kind{};
  int managed = -1;
  CUpointer_attribute which[] = {CU_POINTER_ATTRIBUTE_MEMORY_TYPE, CU_POINTER_ATTRIBUTE_IS_MANAGED};
  void* into[] = {&kind, &managed};
  GIVES(CUDA_SUCCESS, CU(cuPointerGetAttributes)(2, which, into, address));
  EXPECT_EQ(kind, CU_MEMORYTYPE_DEVICE);
  EXPECT_EQ(managed, 0);
  // Memory that the driver does not know is no error here.
  int on_stack = 0;
  kind = CU_MEMORYTYPE_DEVICE;
  GIVES(CUDA_SUCCESS, CU(cuPointerGetAttributes)(2, which, into, reinterpret_cast<CUdeviceptr>(&on_stack)));
  EXPECT_EQ(static_cast<int>(kind), 0);
}

// --- host memory
// ------------------------------------------------------------------------------------------------------

TEST_F(Memory, page_locked) {
  void* host = nullptr;
  OK(CU(cuMemAllocHost_v2)(&host, 4096));
  memset(host, 1, 4096);
  CUmemorytype kind{};
  GIVES(CUDA_SUCCESS,
        CU(cuPointerGetAttribute)(&kind, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, reinterpret_cast<CUdeviceptr>(host)));
  EXPECT_EQ(kind, CU_MEMORYTYPE_HOST);
  unsigned flags = 99;
  GIVES(CUDA_SUCCESS, CU(cuMemHostGetFlags)(&flags, host));
  GIVES(CUDA_SUCCESS, CU(cuMemFreeHost)(host));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemFreeHost)(host));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemAllocHost_v2)(nullptr, 4096));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemAllocHost_v2)(&host, 0));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemHostAlloc)(&host, 16, 0x800));
}

TEST_F(Memory, old_page_locked) {
  void* host = nullptr;
  OK(CU(cuMemAllocHost)(&host, 4096));
  memset(host, 1, 4096);
  GIVES(CUDA_SUCCESS, CU(cuMemFreeHost)(host));
}

TEST_F(Memory, mapped) {
  void* host = nullptr;
  OK(CU(cuMemHostAlloc)(&host, 4096, CU_MEMHOSTALLOC_DEVICEMAP | CU_MEMHOSTALLOC_PORTABLE));
  CUdeviceptr seen = 0;
  OK(CU(cuMemHostGetDevicePointer_v2)(&seen, host, 0));
  EXPECT_EQ(seen, reinterpret_cast<CUdeviceptr>(host));  // unified addresses
  auto* values = static_cast<volatile uint32_t*>(host);
  values[0] = 20;
  values[1] = 21;
  unsigned count = 2, factor = 3;
  OK(launch(function("scale"), {&seen, &count, &factor}, nullptr, 1, 32));
  OK(CU(cuCtxSynchronize)());
  EXPECT_EQ(values[0], 60u);
  EXPECT_EQ(values[1], 63u);
  unsigned flags = 0;
  GIVES(CUDA_SUCCESS, CU(cuMemHostGetFlags)(&flags, host));
  EXPECT_EQ(flags & CU_MEMHOSTALLOC_DEVICEMAP, static_cast<unsigned>(CU_MEMHOSTALLOC_DEVICEMAP));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemHostGetDevicePointer_v2)(&seen, host, 1));
  GIVES(CUDA_SUCCESS, CU(cuMemFreeHost)(host));
}

TEST_F(Memory, page_locked_is_seen_by_kernels) {
  void* host = nullptr;
  OK(CU(cuMemAllocHost_v2)(&host, 4096));
  auto* values = static_cast<volatile uint32_t*>(host);
  values[0] = 20;
  unsigned count = 1, factor = 3;
  CUdeviceptr seen = reinterpret_cast<CUdeviceptr>(host);
  OK(launch(function("scale"), {&seen, &count, &factor}, nullptr, 1, 32));
  OK(CU(cuCtxSynchronize)());
  EXPECT_EQ(values[0], 60u);
}

TEST_F(Memory, registered) {
  alignas(4096) static char buffer[8192];
  OK(CU(cuMemHostRegister_v2)(buffer, sizeof buffer, CU_MEMHOSTREGISTER_DEVICEMAP));
  GIVES(CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED, CU(cuMemHostRegister_v2)(buffer, sizeof buffer, 0));
  CUdeviceptr seen = 0;
  OK(CU(cuMemHostGetDevicePointer_v2)(&seen, buffer, 0));
  auto* values = reinterpret_cast<volatile uint32_t*>(buffer);
  values[5] = 4;
  unsigned count = 8, factor = 5;
  OK(launch(function("scale"), {&seen, &count, &factor}, nullptr, 1, 32));
  OK(CU(cuCtxSynchronize)());
  EXPECT_EQ(values[5], 20u);
  GIVES(CUDA_SUCCESS, CU(cuMemHostUnregister)(buffer));
  GIVES(CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED, CU(cuMemHostUnregister)(buffer));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemHostRegister_v2)(nullptr, 4096, 0));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemHostRegister_v2)(buffer, 0, 0));
}

TEST_F(Memory, old_register) {
  alignas(4096) static char buffer[4096];
  OK(CU(cuMemHostRegister)(buffer, sizeof buffer, 0));
  GIVES(CUDA_SUCCESS, CU(cuMemHostUnregister)(buffer));
}

// --- managed memory
// ---------------------------------------------------------------------------------------------------

TEST_F(Memory, managed) {
  CUdeviceptr address = 0;
  OK(CU(cuMemAllocManaged)(&address, 4096, CU_MEM_ATTACH_GLOBAL));
  auto* values = reinterpret_cast<volatile uint32_t*>(address);
  for (uint32_t i = 0; i < 64; i++) values[i] = i;
  unsigned count = 64, factor = 7;
  OK(launch(function("scale"), {&address, &count, &factor}, nullptr, 2, 32));
  OK(CU(cuCtxSynchronize)());
  for (uint32_t i = 0; i < 64; i++) EXPECT_EQ(values[i], 7 * i);
  int is_managed = 0;
  GIVES(CUDA_SUCCESS, CU(cuPointerGetAttribute)(&is_managed, CU_POINTER_ATTRIBUTE_IS_MANAGED, address));
  EXPECT_EQ(is_managed, 1);
  GIVES(CUDA_SUCCESS, CU(cuMemFree_v2)(address));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemAllocManaged)(&address, 0, CU_MEM_ATTACH_GLOBAL));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemAllocManaged)(&address, 16, 0));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemAllocManaged)(nullptr, 16, CU_MEM_ATTACH_GLOBAL));
}

TEST_F(Memory, managed_hints) {
  CUdeviceptr address = 0;
  OK(CU(cuMemAllocManaged)(&address, 1 << 20, CU_MEM_ATTACH_GLOBAL));
  const CUmemLocation here = {CU_MEM_LOCATION_TYPE_DEVICE, 0};
  GIVES(CUDA_SUCCESS, CU(cuMemAdvise_v2)(address, 1 << 20, CU_MEM_ADVISE_SET_READ_MOSTLY, here));
  GIVES(CUDA_SUCCESS, CU(cuMemAdvise)(address, 1 << 20, CU_MEM_ADVISE_SET_PREFERRED_LOCATION, 0));
  GIVES(CUDA_SUCCESS, CU(cuMemPrefetchAsync_v2)(address, 1 << 20, here, 0, nullptr));
  GIVES(CUDA_SUCCESS, CU(cuMemPrefetchAsync)(address, 1 << 20, CU_DEVICE_CPU, nullptr));
  OK(CU(cuStreamSynchronize)(nullptr));
  GIVES(CUDA_SUCCESS, CU(cuStreamAttachMemAsync)(stream(), address, 0, CU_MEM_ATTACH_GLOBAL));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemAdvise_v2)(0x1000, 4096, CU_MEM_ADVISE_SET_READ_MOSTLY, here));
  int read_mostly = -1;
  GIVES(CUDA_SUCCESS,
        CU(cuMemRangeGetAttribute)(&read_mostly, 4, CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY, address, 1 << 20));
  EXPECT_EQ(read_mostly, 1);
  int preferred = -1, last = -5;
  void* into[] = {&preferred, &last};
  size_t sizes[] = {4, 4};
  CUmem_range_attribute which[] = {CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION,
                                   CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION};
  GIVES(CUDA_SUCCESS, CU(cuMemRangeGetAttributes)(into, sizes, which, 2, address, 1 << 20));
  EXPECT_EQ(preferred, 0);
  EXPECT_EQ(last, CU_DEVICE_CPU);
}

// --- pools
// ------------------------------------------------------------------------------------------------------------

TEST_F(Memory, in_stream_order) {
  const CUstream work = stream();
  CUdeviceptr address = 0;
  OK(CU(cuMemAllocAsync)(&address, 1 << 16, work));
  OK(CU(cuMemsetD32Async)(address, 3, 1 << 14, work));
  uint32_t value = 0;
  OK(CU(cuMemcpyDtoHAsync_v2)(&value, address + 1024, 4, work));
  OK(CU(cuMemFreeAsync)(address, work));
  OK(CU(cuStreamSynchronize)(work));
  EXPECT_EQ(value, 3u);
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemAllocAsync)(nullptr, 16, work));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemFreeAsync)(0x1234, work));
}

TEST_F(Memory, own_pool) {
  CUmemPoolProps properties{};
  properties.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.location = {CU_MEM_LOCATION_TYPE_DEVICE, 0};
  CUmemoryPool pool = nullptr;
  OK(CU(cuMemPoolCreate)(&pool, &properties));
  CUdeviceptr address = 0;
  const CUstream work = stream();
  OK(CU(cuMemAllocFromPoolAsync)(&address, 1 << 20, pool, work));
  OK(CU(cuStreamSynchronize)(work));
  cuuint64_t used = 0, threshold = 1 << 20;
  GIVES(CUDA_SUCCESS, CU(cuMemPoolGetAttribute)(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT, &used));
  EXPECT_GE(used, 1u << 20);
  GIVES(CUDA_SUCCESS, CU(cuMemPoolSetAttribute)(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &threshold));
  threshold = 0;
  GIVES(CUDA_SUCCESS, CU(cuMemPoolGetAttribute)(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &threshold));
  EXPECT_EQ(threshold, 1u << 20);
  CUmemoryPool of = nullptr;
  GIVES(CUDA_SUCCESS, CU(cuPointerGetAttribute)(&of, CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE, address));
  EXPECT_EQ(of, pool);
  CUmemAccess_flags access{};
  CUmemLocation here = {CU_MEM_LOCATION_TYPE_DEVICE, 0};
  GIVES(CUDA_SUCCESS, CU(cuMemPoolGetAccess)(&access, pool, &here));
  EXPECT_EQ(access, CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
  const CUmemAccessDesc wanted = {here, CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
  GIVES(CUDA_SUCCESS, CU(cuMemPoolSetAccess)(pool, &wanted, 1));
  OK(CU(cuMemFreeAsync)(address, work));
  OK(CU(cuStreamSynchronize)(work));
  GIVES(CUDA_SUCCESS, CU(cuMemPoolTrimTo)(pool, 0));
  GIVES(CUDA_SUCCESS, CU(cuMemPoolDestroy)(pool));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemPoolDestroy)(nullptr));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemPoolCreate)(&pool, nullptr));
}

// --- virtual memory
// ---------------------------------------------------------------------------------------------------

TEST_F(Memory, mapped_by_hand) {
  CUmemAllocationProp properties{};
  properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.location = {CU_MEM_LOCATION_TYPE_DEVICE, 0};
  size_t unit = 0;
  OK(CU(cuMemGetAllocationGranularity)(&unit, &properties, CU_MEM_ALLOC_GRANULARITY_MINIMUM));
  EXPECT_GE(unit, 4096u);
  CUmemGenericAllocationHandle handle = 0, same = 0;
  OK(CU(cuMemCreate)(&handle, unit, &properties, 0));
  CUdeviceptr address = 0;
  OK(CU(cuMemAddressReserve)(&address, 2 * unit, 0, 0, 0));
  OK(CU(cuMemMap)(address, unit, 0, handle, 0));
  const CUmemAccessDesc access = {{CU_MEM_LOCATION_TYPE_DEVICE, 0}, CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
  OK(CU(cuMemSetAccess)(address, unit, &access, 1));
  OK(CU(cuMemsetD32_v2)(address, 11, unit / 4));
  EXPECT_EQ(read(address + unit - 4, 1)[0], 11u);
  unsigned long long flags = 0;
  GIVES(CUDA_SUCCESS, CU(cuMemGetAccess)(&flags, &access.location, address));
  EXPECT_EQ(flags, static_cast<unsigned long long>(CU_MEM_ACCESS_FLAGS_PROT_READWRITE));
  CUmemAllocationProp of{};
  GIVES(CUDA_SUCCESS, CU(cuMemGetAllocationPropertiesFromHandle)(&of, handle));
  EXPECT_EQ(of.location.id, 0);
  GIVES(CUDA_SUCCESS, CU(cuMemRetainAllocationHandle)(&same, reinterpret_cast<void*>(address)));
  GIVES(CUDA_SUCCESS, CU(cuMemRelease)(same));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemRetainAllocationHandle)(&same, &same));
  GIVES(CUDA_SUCCESS, CU(cuMemUnmap)(address, unit));
  GIVES(CUDA_SUCCESS, CU(cuMemRelease)(handle));
  GIVES(CUDA_SUCCESS, CU(cuMemAddressFree)(address, 2 * unit));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemCreate)(&handle, unit + 1, &properties, 0));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemAddressReserve)(&address, unit + 1, 0, 0, 0));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemRelease)(0xDEAD));
}

}  // namespace
}  // namespace conformance
