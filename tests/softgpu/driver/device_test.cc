// Devices, contexts and entry points.

#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <string>

#include "tests/softgpu/driver/driver_test.h"

namespace softgpu {
namespace {

class Devices : public DriverTest {};

TEST_F(Devices, say_what_the_profile_says) {
  char name[256];
  OK(cuDeviceGetName(name, sizeof(name), 0));
  EXPECT_STREQ(name, "Tidepool Software GPU (A100 profile)");
  int value = 0;
  OK(cuDeviceGetAttribute(&value, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, 0));
  EXPECT_EQ(value, 8);
  OK(cuDeviceGetAttribute(&value, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 0));
  EXPECT_EQ(value, 108);
  EXPECT_EQ(cuDeviceGetAttribute(&value, static_cast<CUdevice_attribute>(100000), 0), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(cuDeviceGetAttribute(&value, CU_DEVICE_ATTRIBUTE_WARP_SIZE, 2), CUDA_ERROR_INVALID_DEVICE);
  EXPECT_EQ(cuDeviceGetAttribute(nullptr, CU_DEVICE_ATTRIBUTE_WARP_SIZE, 0), CUDA_ERROR_INVALID_VALUE);
}

TEST_F(Devices, have_identities_of_their_own) {
  CUuuid first{}, again{}, second{};
  OK(cuDeviceGetUuid(&first, 0));
  OK(cuDeviceGetUuid(&again, 0));
  OK(cuDeviceGetUuid(&second, 1));
  EXPECT_EQ(std::memcmp(&first, &again, 16), 0);
  EXPECT_NE(std::memcmp(&first, &second, 16), 0);
  char bus[32];
  OK(cuDeviceGetPCIBusId(bus, sizeof(bus), 1));
  CUdevice found = -1;
  OK(cuDeviceGetByPCIBusId(&found, bus));
  EXPECT_EQ(found, 1);
  EXPECT_EQ(cuDeviceGetByPCIBusId(&found, "0000:77:00.0"), CUDA_ERROR_INVALID_DEVICE);
}

TEST_F(Devices, contexts_are_a_stack_per_thread) {
  CUcontext other = nullptr, popped = nullptr, current = nullptr;
  OK(cuCtxCreate(&other, nullptr, 0, 1));
  OK(cuCtxGetCurrent(&current));
  EXPECT_EQ(current, other);
  CUdevice device = -1;
  OK(cuCtxGetDevice(&device));
  EXPECT_EQ(device, 1);
  OK(cuCtxPopCurrent(&popped));
  EXPECT_EQ(popped, other);
  OK(cuCtxGetCurrent(&current));
  EXPECT_EQ(current, context_);
  std::thread([] {
    CUcontext none = reinterpret_cast<CUcontext>(1);
    EXPECT_EQ(cuCtxGetCurrent(&none), CUDA_SUCCESS);
    EXPECT_EQ(none, nullptr);
    CUdeviceptr address = 0;
    EXPECT_EQ(cuMemAlloc(&address, 4), CUDA_ERROR_INVALID_CONTEXT);
  }).join();
  OK(cuCtxDestroy(other));
  EXPECT_EQ(cuCtxPushCurrent(reinterpret_cast<CUcontext>(0x1230)), CUDA_ERROR_INVALID_CONTEXT);
}

TEST_F(Devices, a_context_destroyed_elsewhere_is_recognised) {
  CUcontext other = nullptr;
  OK(cuCtxCreate(&other, nullptr, 0, 0));
  std::thread([other] { EXPECT_EQ(cuCtxDestroy(other), CUDA_SUCCESS); }).join();
  CUdeviceptr address = 0;
  EXPECT_EQ(cuMemAlloc(&address, 4), CUDA_ERROR_CONTEXT_IS_DESTROYED);
  OK(cuCtxPopCurrent(&other));
}

TEST_F(Devices, primary_contexts_are_counted_and_reset) {
  CUcontext first = nullptr, second = nullptr;
  OK(cuDevicePrimaryCtxRetain(&first, 1));
  OK(cuDevicePrimaryCtxRetain(&second, 1));
  EXPECT_EQ(first, second);
  OK(cuCtxPushCurrent(first));
  CUdeviceptr address = 0;
  OK(cuMemAlloc(&address, 4));
  OK(cuDevicePrimaryCtxReset(1));
  EXPECT_EQ(cuMemFree(address), CUDA_ERROR_INVALID_VALUE);  // it went with the reset
  OK(cuMemAlloc(&address, 4));
  OK(cuCtxPopCurrent(&first));
  OK(cuDevicePrimaryCtxRelease(1));
  unsigned flags = 0;
  int active = 0;
  OK(cuDevicePrimaryCtxGetState(1, &flags, &active));
  EXPECT_EQ(active, 0);  // until somebody wants it anew
  OK(cuDevicePrimaryCtxRetain(&second, 1));
  OK(cuDevicePrimaryCtxRelease(1));
  OK(cuDevicePrimaryCtxGetState(1, &flags, &active));
  EXPECT_EQ(active, 1);
  OK(cuDevicePrimaryCtxRelease(1));
  OK(cuDevicePrimaryCtxGetState(1, &flags, &active));
  EXPECT_EQ(active, 0);
  EXPECT_EQ(cuDevicePrimaryCtxRelease(1), CUDA_ERROR_INVALID_CONTEXT);
}

TEST_F(Devices, entry_points_are_found_by_version_and_missing_ones_are_null) {
  void* function = nullptr;
  CUdriverProcAddressQueryResult status{};
  OK(cuGetProcAddress("cuMemAlloc", &function, 13000, 0, &status));
  EXPECT_EQ(function, reinterpret_cast<void*>(&cuMemAlloc));
  OK(cuGetProcAddress("cuGraphicsUnregisterResource", &function, 13000, 0, &status));
  EXPECT_EQ(function, nullptr);
  OK(cuGetProcAddress("cuLaunchKernel", &function, 13000, CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM, &status));
  EXPECT_NE(function, nullptr);
  EXPECT_NE(function, reinterpret_cast<void*>(&cuLaunchKernel));
  EXPECT_EQ(cuGraphicsUnregisterResource(nullptr), CUDA_ERROR_NOT_SUPPORTED);
}

TEST_F(Devices, a_forked_child_is_told_that_nothing_is_initialised) {
  const pid_t child = fork();
  if (child == 0) {
    size_t free = 0, total = 0;
    const bool refused = cuMemGetInfo(&free, &total) == CUDA_ERROR_NOT_INITIALIZED;
    _exit(refused && cuInit(0) == CUDA_ERROR_NOT_INITIALIZED ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace softgpu
