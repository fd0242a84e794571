// Joining a pool, moves, and losses, over the shm transport and real sockets.

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>

#include "base/clock.h"
#include "fake_pool.h"
#include "interpose/entry/entry.h"
#include "interpose/gate.h"
#include "interpose/thread.h"

namespace tide {
namespace {

struct InAPool : testing::Test {
  FakePool* pool = new FakePool(2);  // outlives the process's service thread
  CUcontext context = nullptr;

  void SetUp() override {
    pool->kernels = {{"add", {{0, 8}}, 8, 256}};
    pool->join();
    thread_state = {};
    ASSERT_EQ(cuInit(0), CUDA_SUCCESS);
    EXPECT_EQ(pool->opens, 0) << "no channel before a context is used";
    ASSERT_EQ(cuDevicePrimaryCtxRetain(&context, 0), CUDA_SUCCESS);
    ASSERT_EQ(cuCtxSetCurrent(context), CUDA_SUCCESS);
  }
  void TearDown() override {
    pool->leave();
    live_process.store(nullptr);
    for (uint32_t i = 0; i < 2; ++i)
      munmap(reinterpret_cast<void*>(vgpu_range_base(i)), kVgpuRangeBytes);  // for the next test
  }
};

TEST_F(InAPool, startup_is_one_message_and_queries_are_local) {
  EXPECT_EQ(cuInit(0), CUDA_SUCCESS);
  int count = 0, version = 0;
  size_t bytes = 0;
  CUuuid first, second;
  EXPECT_EQ(cuDeviceGetCount(&count), CUDA_SUCCESS);
  EXPECT_EQ(count, 2);
  EXPECT_EQ(cuDriverGetVersion(&version), CUDA_SUCCESS);
  EXPECT_EQ(version, 13000);
  EXPECT_EQ(cuDeviceTotalMem_v2(&bytes, 1), CUDA_SUCCESS);
  EXPECT_EQ(bytes, 256u << 20);
  EXPECT_EQ(cuDeviceGetUuid_v2(&first, 0), CUDA_SUCCESS);
  EXPECT_EQ(cuDeviceGetUuid_v2(&second, 1), CUDA_SUCCESS);
  EXPECT_NE(memcmp(&first, &second, sizeof first), 0);
  int value = 7;
  EXPECT_EQ(cuDeviceGetAttribute(&value, CU_DEVICE_ATTRIBUTE_CONCURRENT_MANAGED_ACCESS, 0), CUDA_SUCCESS);
  EXPECT_EQ(value, 0);
  EXPECT_EQ(cuDeviceGet(&value, 2), CUDA_ERROR_INVALID_DEVICE);
  EXPECT_EQ(pool->hellos, 1);
  EXPECT_EQ(pool->opens, 1);
}

TEST_F(InAPool, work_goes_on_through_moves) {
  CUdeviceptr a = 0;
  ASSERT_EQ(cuMemAlloc_v2(&a, 1 << 20), CUDA_SUCCESS);
  std::vector<int> out(1 << 18), in(out.size());
  std::atomic<bool> stop{false};
  std::thread mover([&] {
    for (int i = 0; i < 5 && !stop; ++i) {
      sleep_us(20'000);
      pool->move(0);
      while (pool->worker(0) == nullptr && !stop) sleep_us(500);
    }
    stop = true;
  });
  for (int i = 0; !stop; ++i) {
    std::fill(out.begin(), out.end(), i);
    ASSERT_EQ(cuMemcpyHtoD_v2(a, out.data(), out.size() * 4), CUDA_SUCCESS);
    ASSERT_EQ(cuMemcpyDtoH_v2(in.data(), a, in.size() * 4), CUDA_SUCCESS);
    ASSERT_EQ(in, out);
  }
  mover.join();
  EXPECT_EQ(pool->opens, 6);
  EXPECT_EQ(process()->device(0)->channel().counters().reconnects.load(), 5u);
}

TEST_F(InAPool, an_idle_program_follows_a_move_as_well) {
  pool->move(0);
  for (int i = 0; i < 200 && pool->worker(0) == nullptr; ++i) sleep_us(5'000);
  EXPECT_NE(pool->worker(0), nullptr);
  EXPECT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
}

TEST_F(InAPool, a_lost_worker_that_lives_elsewhere_is_found_there) {
  CUdeviceptr a = 0;
  ASSERT_EQ(cuMemAlloc_v2(&a, 100), CUDA_SUCCESS);
  ASSERT_EQ(cuMemsetD8_v2(a, 0, 100), CUDA_SUCCESS);
  ASSERT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
  pool->kill(0, true);
  ASSERT_EQ(cuMemsetD8_v2(a, 0, 100), CUDA_SUCCESS);
  EXPECT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
}

TEST_F(InAPool, a_lost_worker_that_lives_nowhere_is_an_error_for_ever_and_no_hang) {
  CUdeviceptr a = 0;
  ASSERT_EQ(cuMemAlloc_v2(&a, 100), CUDA_SUCCESS);
  pool->kill(0, false);
  cuMemsetD8_v2(a, 0, 100);
  EXPECT_EQ(cuCtxSynchronize(), CUDA_ERROR_DEVICE_UNAVAILABLE);
  EXPECT_EQ(cuCtxSynchronize(), CUDA_ERROR_DEVICE_UNAVAILABLE);
}

TEST_F(InAPool, a_refused_channel_is_an_error_with_a_reason) {
  pool->refuse_opens = true;
  CUcontext other = nullptr;
  testing::internal::CaptureStderr();
  EXPECT_EQ(cuDevicePrimaryCtxRetain(&other, 1), CUDA_ERROR_DEVICE_UNAVAILABLE);
  EXPECT_NE(testing::internal::GetCapturedStderr().find("this epoch is over"), std::string::npos);
}

TEST_F(InAPool, a_vgpu_that_moved_before_its_first_use_is_found) {
  CUcontext other = nullptr;
  pool->reassign(1);
  ASSERT_EQ(cuDevicePrimaryCtxRetain(&other, 1), CUDA_SUCCESS);
  ASSERT_EQ(cuCtxSetCurrent(other), CUDA_SUCCESS);
  EXPECT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
  EXPECT_EQ(pool->opens, 3);
}

TEST_F(InAPool, a_vgpu_that_moves_during_its_first_use_is_waited_for) {
  CUcontext other = nullptr;
  pool->refuse_opens = true;
  pool->refusal = CUDA_ERROR_NO_DEVICE;
  std::thread mover([&] {
    sleep_us(250'000);
    pool->reassign(1);
    pool->refuse_opens = false;
  });
  EXPECT_EQ(cuDevicePrimaryCtxRetain(&other, 1), CUDA_SUCCESS);
  mover.join();
  ASSERT_EQ(cuCtxSetCurrent(other), CUDA_SUCCESS);
  EXPECT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
}

TEST_F(InAPool, a_vgpu_that_moved_on_before_the_client_came_is_found) {
  CUdeviceptr a = 0;
  ASSERT_EQ(cuMemAlloc_v2(&a, 100), CUDA_SUCCESS);
  pool->move(0, 2);
  ASSERT_EQ(cuMemsetD8_v2(a, 0, 100), CUDA_SUCCESS);
  EXPECT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
  EXPECT_NE(pool->worker(0), nullptr);
}

// A call of the program, as its exported function begins it.
struct HeldCall {
  std::atomic<bool> over{false};
  CUresult result = CUDA_SUCCESS;
  std::thread thread;

  explicit HeldCall(CUcontext context) {
    thread = std::thread([this, context] {
      begin_call(1);
      result = cuCtxSetCurrent(context);
      if (result == CUDA_SUCCESS) result = cuCtxSynchronize();
      over = true;
    });
  }
  CUresult join() {
    thread.join();
    return result;
  }
};

struct Held : InAPool {
  void SetUp() override {
    InAPool::SetUp();
    ASSERT_EQ(cuStreamCreate(&stream, 0), CUDA_SUCCESS);
    ASSERT_EQ(cuStreamSynchronize(stream), CUDA_SUCCESS);
  }
  void hold(bool on) {
    pool->worker(0)->region().worker().held.store(on ? 1 : 0);
    for (int i = 0; i < 2'000 && gate_shut.load() != on; ++i) sleep_us(1'000);
    EXPECT_EQ(gate_shut.load(), on);
  }
  CUstream stream = nullptr;
};

TEST_F(Held, a_held_program_begins_nothing_new_until_it_is_let_go) {
  hold(true);
  HeldCall call(context);
  sleep_us(50'000);
  EXPECT_FALSE(call.over.load());
  hold(false);
  EXPECT_EQ(call.join(), CUDA_SUCCESS);
}

TEST_F(Held, what_it_has_begun_comes_to_its_end) {
  std::atomic<int> calls{0};
  static std::atomic<bool> begun, go;
  begun = go = false;
  const auto slow = [](void* counter) {
    begun = true;
    while (!go) sleep_us(1'000);
    static_cast<std::atomic<int>*>(counter)->fetch_add(1);
  };
  ASSERT_EQ(cuLaunchHostFunc(stream, slow, &calls), CUDA_SUCCESS);
  ASSERT_EQ(cuLaunchHostFunc(stream, slow, &calls), CUDA_SUCCESS);
  while (!begun) sleep_us(1'000);
  hold(true);
  go = true;
  for (int i = 0; i < 5'000 && calls < 2; ++i) sleep_us(1'000);
  EXPECT_EQ(calls, 2);
  hold(false);
  EXPECT_EQ(cuStreamSynchronize(stream), CUDA_SUCCESS);
}

TEST_F(Held, a_vgpu_that_is_lost_holds_nobody) {
  hold(true);
  HeldCall call(context);
  pool->kill(0, false);
  EXPECT_EQ(call.join(), CUDA_ERROR_DEVICE_UNAVAILABLE);
  EXPECT_FALSE(gate_shut.load());
}

TEST_F(Held, a_child_of_a_held_program_is_not_held) {
  hold(true);
  const pid_t child = fork();
  if (child == 0) _exit((begin_call(1), cuCtxSynchronize() == CUDA_ERROR_NOT_INITIALIZED) ? 0 : 1);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  hold(false);
}

TEST_F(InAPool, a_forked_child_closes_the_lines_and_leaves_the_rest_alone) {
  const pid_t child = fork();
  if (child == 0)
    _exit(cuCtxSynchronize() == CUDA_ERROR_NOT_INITIALIZED && cuInit(0) == CUDA_ERROR_NOT_INITIALIZED ? 0 : 1);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
}

}  // namespace
}  // namespace tide
