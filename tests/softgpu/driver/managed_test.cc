// Managed memory, and what is known of pointers of every kind.

#include <cstring>

#include "tests/softgpu/driver/driver_test.h"

namespace softgpu {
namespace {

constexpr size_t kPage = 4096;

const char* const kManagedProgram = R"(
.version 8.0
.target sm_80
.address_size 64
.global .attribute(.managed) .align 4 .u32 shared_count = 7;
.visible .entry twice()
{
  .reg .b32 %r<2>;
  ld.global.u32 %r1, [shared_count];
  add.u32 %r1, %r1, %r1;
  st.global.u32 [shared_count], %r1;
  ret;
}
)";

class Managed : public DriverTest {
 protected:
  CUdeviceptr allocate_managed(size_t bytes) {
    CUdeviceptr address = 0;
    EXPECT_EQ(cuMemAllocManaged(&address, bytes, CU_MEM_ATTACH_GLOBAL), CUDA_SUCCESS);
    return address;
  }
  int number(CUmem_range_attribute attribute, CUdeviceptr address, size_t bytes) {
    int value = -99;
    EXPECT_EQ(cuMemRangeGetAttribute(&value, sizeof(value), attribute, address, bytes), CUDA_SUCCESS);
    return value;
  }
};

TEST_F(Managed, host_and_kernels_find_the_same_bytes_at_one_address) {
  CUdeviceptr address = allocate_managed(3 << 20);
  auto* numbers = reinterpret_cast<uint32_t*>(address);
  for (uint32_t i = 0; i < 64; ++i) numbers[i] = i;
  uint32_t count = 64, factor = 5;
  OK(launch("scale", {&address, &count, &factor}, nullptr, 1, 64));
  OK(cuCtxSynchronize());
  EXPECT_EQ(numbers[63], 315u);
  uint32_t copied = 0;
  OK(cuMemcpyDtoH(&copied, address + 4 * 63, 4));
  EXPECT_EQ(copied, 315u);
  OK(cuMemFree(address));
  EXPECT_DEATH(*reinterpret_cast<volatile uint32_t*>(address) = 1, "");
}

TEST_F(Managed, a_managed_variable_is_there_before_any_context) {
  CUcontext none = nullptr;
  OK(cuCtxPopCurrent(&none));
  CUlibrary library = nullptr;
  OK(cuLibraryLoadData(&library, kManagedProgram, nullptr, nullptr, 0, nullptr, nullptr, 0));
  CUdeviceptr address = 0;
  size_t bytes = 0;
  OK(cuLibraryGetManaged(&address, &bytes, library, "shared_count"));
  EXPECT_EQ(bytes, 4u);
  EXPECT_EQ(cuLibraryGetManaged(&address, &bytes, library, "absent"), CUDA_ERROR_NOT_FOUND);
  auto* count = reinterpret_cast<uint32_t*>(address);
  EXPECT_EQ(*count, 7u);
  *count = 21;
  OK(cuCtxPushCurrent(context_));
  CUkernel kernel = nullptr;
  OK(cuLibraryGetKernel(&kernel, library, "twice"));
  OK(cuLaunchKernel(reinterpret_cast<CUfunction>(kernel), 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, nullptr));
  OK(cuCtxSynchronize());
  EXPECT_EQ(*count, 42u);
  OK(cuLibraryUnload(library));
}

TEST_F(Managed, advice_is_kept_by_page) {
  const CUdeviceptr address = allocate_managed(4 * kPage);
  const CUmemLocation device = {CU_MEM_LOCATION_TYPE_DEVICE, {1}};
  const CUmemLocation host = {CU_MEM_LOCATION_TYPE_HOST, {0}};
  EXPECT_EQ(number(CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION, address, 4 * kPage), CU_DEVICE_INVALID);
  OK(cuMemAdvise_v2(address + kPage, 2 * kPage, CU_MEM_ADVISE_SET_PREFERRED_LOCATION, device));
  EXPECT_EQ(number(CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION, address + kPage, 2 * kPage), 1);
  EXPECT_EQ(number(CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION, address, 2 * kPage), CU_DEVICE_INVALID);
  OK(cuMemAdvise_v2(address, 4 * kPage, CU_MEM_ADVISE_SET_READ_MOSTLY, device));
  OK(cuMemAdvise_v2(address, kPage, CU_MEM_ADVISE_UNSET_READ_MOSTLY, device));
  EXPECT_EQ(number(CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY, address, 4 * kPage), 0);
  EXPECT_EQ(number(CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY, address + kPage, 3 * kPage), 1);
  OK(cuMemAdvise_v2(address, 4 * kPage, CU_MEM_ADVISE_SET_ACCESSED_BY, device));
  OK(cuMemAdvise_v2(address, 4 * kPage, CU_MEM_ADVISE_SET_ACCESSED_BY, host));
  int devices[3] = {};
  OK(cuMemRangeGetAttribute(devices, sizeof(devices), CU_MEM_RANGE_ATTRIBUTE_ACCESSED_BY, address, 4 * kPage));
  EXPECT_EQ(devices[0], CU_DEVICE_CPU);
  EXPECT_EQ(devices[1], 1);
  EXPECT_EQ(devices[2], CU_DEVICE_INVALID);
  OK(cuMemPrefetchAsync_v2(address, 4 * kPage, host, 0, nullptr));
  OK(cuCtxSynchronize());
  EXPECT_EQ(number(CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION, address, 4 * kPage), CU_DEVICE_CPU);
  EXPECT_EQ(cuMemAdvise_v2(address, 5 * kPage, CU_MEM_ADVISE_SET_READ_MOSTLY, device), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(cuMemPrefetchAsync_v2(allocate(64), 64, host, 0, nullptr), CUDA_ERROR_INVALID_VALUE);
}

TEST_F(Managed, attaching_to_a_stream_is_checked_and_changes_nothing) {
  const CUdeviceptr address = allocate_managed(2 * kPage);
  CUstream stream = nullptr;
  OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  OK(cuStreamAttachMemAsync(stream, address, 0, CU_MEM_ATTACH_SINGLE));
  OK(cuStreamAttachMemAsync(stream, address, 2 * kPage, CU_MEM_ATTACH_HOST));
  OK(cuStreamAttachMemAsync(nullptr, address, 0, CU_MEM_ATTACH_GLOBAL));
  EXPECT_EQ(cuStreamAttachMemAsync(nullptr, address, 0, CU_MEM_ATTACH_SINGLE), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(cuStreamAttachMemAsync(stream, address, kPage, CU_MEM_ATTACH_SINGLE), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(cuStreamAttachMemAsync(stream, address, 0, 8), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(cuStreamAttachMemAsync(stream, allocate(64), 0, CU_MEM_ATTACH_SINGLE), CUDA_ERROR_INVALID_VALUE);
  OK(cuStreamDestroy(stream));
}

TEST_F(Managed, every_kind_of_pointer_says_what_it_is) {
  uint32_t type = 0, managed = 0, capable = 0;
  const CUdeviceptr device = allocate(100), both = allocate_managed(100);
  OK(cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, both));
  OK(cuPointerGetAttribute(&managed, CU_POINTER_ATTRIBUTE_IS_MANAGED, both + 50));
  EXPECT_EQ(type, static_cast<uint32_t>(CU_MEMORYTYPE_DEVICE));
  EXPECT_EQ(managed, 1u);
  void* host = nullptr;
  OK(cuPointerGetAttribute(&host, CU_POINTER_ATTRIBUTE_HOST_POINTER, both));
  EXPECT_EQ(reinterpret_cast<CUdeviceptr>(host), both);
  EXPECT_EQ(cuPointerGetAttribute(&host, CU_POINTER_ATTRIBUTE_HOST_POINTER, device), CUDA_ERROR_INVALID_VALUE);
  OK(cuPointerGetAttribute(&capable, CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE, device));
  EXPECT_EQ(capable, 1u);
  uint32_t on = 1, sync = 0;
  OK(cuPointerSetAttribute(&on, CU_POINTER_ATTRIBUTE_SYNC_MEMOPS, device));
  OK(cuPointerGetAttribute(&sync, CU_POINTER_ATTRIBUTE_SYNC_MEMOPS, device + 10));
  EXPECT_EQ(sync, 1u);
}

TEST_F(Managed, copies_with_host_memory_that_is_not_there_fail_and_nothing_else) {
  uint32_t values[4] = {1, 2, 3, 4};
  const CUdeviceptr address = allocate(sizeof(values));
  constexpr CUdeviceptr kNowhere = 0x1234560;
  EXPECT_EQ(cuMemcpyDtoH(values, kNowhere, 16), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(cuMemcpyHtoD(address, reinterpret_cast<void*>(kNowhere), 16), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(cuMemcpyDtoH(reinterpret_cast<void*>(kNowhere), address, 16), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(cuMemcpyHtoDAsync(address, reinterpret_cast<void*>(kNowhere), 16, nullptr), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(cuMemcpy(address, kNowhere, 16), CUDA_ERROR_INVALID_VALUE);
  OK(cuMemcpyHtoD(address, values, 16));
  OK(cuCtxSynchronize());
}

}  // namespace
}  // namespace softgpu
