// A driver whose kernels are checked, with SOFTGPU_CHECK=exact and what else meson.build says.

#include "driver_test.h"

namespace softgpu {
namespace {

class Checked : public DriverTest {
 protected:
  void TearDown() override { cuCtxDestroy(context_); }
  CUresult scale(CUdeviceptr data, uint32_t count) {
    uint32_t factor = 3;
    const CUresult result = launch("scale", {&data, &count, &factor}, nullptr, 1, 64);
    return result != CUDA_SUCCESS ? result : cuCtxSynchronize();
  }
};

TEST_F(Checked, the_last_byte_of_an_allocation_is_the_last) {
  const CUdeviceptr data = allocate(40);
  OK(cuMemsetD8(data, 1, 40));
  OK(scale(data, 10));
  EXPECT_EQ(scale(data, 11), CUDA_ERROR_ILLEGAL_ADDRESS);
}

TEST_F(Checked, freed_memory_is_nobodys) {
  const CUdeviceptr data = allocate(400);
  OK(cuMemsetD8(data, 1, 400));
  OK(cuMemFree(data));
  EXPECT_EQ(cuMemFree(data), CUDA_ERROR_INVALID_VALUE);
  const CUdeviceptr next = allocate(400);
  EXPECT_NE(next, data) << "freed memory is kept for a while";
  EXPECT_NE(cuMemsetD8(data, 1, 4), CUDA_SUCCESS);
  EXPECT_EQ(scale(data, 100), CUDA_ERROR_ILLEGAL_ADDRESS);
}

TEST_F(Checked, kept_memory_is_given_when_there_is_no_other) {
  for (int i = 0; i < 40; ++i) OK(cuMemFree(allocate(24 << 20)));
}

TEST_F(Checked, a_read_of_what_nobody_wrote_ends_the_kernel) {
  const CUdeviceptr data = allocate(400), copy = allocate(400);
  OK(cuMemsetD8(data, 1, 200));
  OK(scale(data, 50));
  OK(cuMemcpyDtoD(copy, data, 400));
  OK(scale(copy, 50));
  EXPECT_EQ(scale(copy, 51), CUDA_ERROR_LAUNCH_FAILED);
}

}  // namespace
}  // namespace softgpu
