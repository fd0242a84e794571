// A program whose worker dies, and goes on with another one from a checkpoint, over the entry points and real sockets.

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "fake_pool.h"
#include "interpose/entry/entry.h"
#include "interpose/gate.h"
#include "interpose/thread.h"
#include "tests/transport/peer.h"

namespace tide {
namespace {

constexpr uint64_t kBytes = 300'000;

void add_one(void* count) { static_cast<std::atomic<int>*>(count)->fetch_add(1); }

struct Protected : testing::Test {
  FakePool* pool = new FakePool(1);  // outlives the process's service thread
  CUcontext context = nullptr;

  void SetUp() override {
    pool->kernels = {{"add", {{0, 8}}, 8, 256}};
    pool->protects = true;
    pool->join();
    thread_state = {};
    ASSERT_EQ(cuInit(0), CUDA_SUCCESS);
    ASSERT_EQ(cuDevicePrimaryCtxRetain(&context, 0), CUDA_SUCCESS);
    ASSERT_EQ(cuCtxSetCurrent(context), CUDA_SUCCESS);
    ASSERT_TRUE(channel().is_protected());
  }
  void TearDown() override {
    pool->leave();
    live_process.store(nullptr);
    munmap(reinterpret_cast<void*>(vgpu_range_base(0)), kVgpuRangeBytes);  // for the next test
  }
  static Channel& channel() { return process()->device(0)->channel(); }
  // A worker that has done everything so far.
  void await_worker() {
    for (int i = 0; i < 10'000 && pool->worker(0) == nullptr; ++i) sleep_us(500);
    ASSERT_NE(pool->worker(0), nullptr);
    const Region region = channel().region();
    for (int i = 0; i < 10'000 && region.worker().acknowledged != region.client().counters.commands; ++i) sleep_us(500);
    ASSERT_EQ(region.worker().acknowledged, region.client().counters.commands);
  }
  // Perhaps before it has done again what the one before had done.
  void die() {
    for (int i = 0; i < 10'000 && pool->worker(0) == nullptr; ++i) sleep_us(500);
    ASSERT_NE(pool->worker(0), nullptr);
    pool->kill_and_recover(0);
  }
  void checkpoint() {
    await_worker();
    ASSERT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
    while (channel().copies_pending()) sleep_us(200);
    channel().drain();
    pool->checkpoint(0);
  }
  // A kernel's launch would be work; the fake worker has none, so the streams copy.
  std::vector<unsigned char> read(CUdeviceptr from) {
    std::vector<unsigned char> bytes(kBytes);
    EXPECT_EQ(cuMemcpyDtoH_v2(bytes.data(), from, kBytes), CUDA_SUCCESS);
    return bytes;
  }
};

std::vector<unsigned char> some(uint64_t seed) {
  std::vector<unsigned char> bytes(kBytes);
  peer::fill(peer::Numbers{seed}, bytes.data(), kBytes);
  return bytes;
}

TEST_F(Protected, does_not_notice_that_its_worker_dies) {
  constexpr int kBlocks = 4;
  CUdeviceptr blocks[kBlocks] = {};
  CUstream streams[2] = {};
  std::vector<unsigned char> model[kBlocks];
  std::atomic<int> called{0};
  int calls = 0, deaths = 0;
  for (auto& stream : streams) ASSERT_EQ(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING), CUDA_SUCCESS);
  for (int i = 0; i < kBlocks; ++i) {
    ASSERT_EQ(cuMemAlloc_v2(&blocks[i], kBytes), CUDA_SUCCESS);
    model[i] = some(i);
    ASSERT_EQ(cuMemcpyHtoD_v2(blocks[i], model[i].data(), kBytes), CUDA_SUCCESS);
  }
  peer::Numbers numbers{7};
  for (int step = 0; step < 300 && !HasFailure(); ++step) {
    const uint64_t to = numbers.next() % kBlocks, from = numbers.next() % kBlocks;
    CUstream stream = streams[numbers.next() % 2];
    switch (numbers.next() % 8) {
      case 0:
        model[to] = some(step + 100);
        ASSERT_EQ(cuMemcpyHtoDAsync_v2(blocks[to], model[to].data(), kBytes, stream), CUDA_SUCCESS);
        break;
      case 1:
      case 2:
      case 3:
        model[to] = model[from];
        ASSERT_EQ(cuMemcpyDtoDAsync_v2(blocks[to], blocks[from], kBytes, stream), CUDA_SUCCESS);
        break;
      case 4:
        ++calls;
        ASSERT_EQ(cuLaunchHostFunc(stream, add_one, &called), CUDA_SUCCESS);
        break;
      case 5:
        ASSERT_EQ(read(blocks[to]), model[to]) << step;
        break;
      case 6:
        checkpoint();
        break;
      default:
        if (numbers.next() % 2 == 0) continue;
        ++deaths;
        die();
        break;
    }
    // The other stream relies on it: seen by the host, and by nobody else.
    ASSERT_EQ(cuStreamSynchronize(stream), CUDA_SUCCESS);
  }
  for (int i = 0; i < kBlocks; ++i) EXPECT_EQ(read(blocks[i]), model[i]);
  EXPECT_EQ(called, calls);
  EXPECT_GT(deaths, 10);
  EXPECT_EQ(channel().counters().reconnects.load(), uint64_t(deaths));
  EXPECT_TRUE(channel().is_protected());
}

TEST_F(Protected, is_lost_with_one_error_where_another_answer_comes) {
  CUdeviceptr a = 0;
  ASSERT_EQ(cuMemAlloc_v2(&a, kBytes), CUDA_SUCCESS);
  checkpoint();
  ASSERT_EQ(read(a), std::vector<unsigned char>(kBytes));
  testing::internal::CaptureStderr();
  die();
  await_worker();
  EXPECT_EQ(cuCtxSynchronize(), CUDA_SUCCESS) << "equal so far";
  ASSERT_EQ(read(a), std::vector<unsigned char>(kBytes));
  pool->worker(0)->memory(a) = std::byte(1);  // a GPU that computes otherwise
  checkpoint();
  pool->worker(0)->memory(a) = std::byte(2);
  ASSERT_EQ(read(a)[0], 2);
  die();
  CUresult result = CUDA_SUCCESS;
  for (int i = 0; i < 10'000 && result == CUDA_SUCCESS; ++i, sleep_us(500)) result = cuCtxSynchronize();
  EXPECT_EQ(result, CUDA_ERROR_DEVICE_UNAVAILABLE);
  EXPECT_EQ(cuMemsetD8_v2(a, 0, 10), CUDA_ERROR_DEVICE_UNAVAILABLE) << "it stays";
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_NE(said.find("gave another answer than the one that the program has seen"), std::string::npos) << said;
}

TEST_F(Protected, prints_once_what_its_kernels_print) {
  testing::internal::CaptureStdout();
  checkpoint();
  pool->worker(0)->print("one\n");
  ASSERT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
  channel().drain();
  die();
  await_worker();
  CUdeviceptr a = 0;
  ASSERT_EQ(cuMemAlloc_v2(&a, kBytes), CUDA_SUCCESS);
  ASSERT_EQ(read(a), std::vector<unsigned char>(kBytes));
  pool->worker(0)->print("one\ntwo\n");
  for (int i = 0; i < 100; ++i, sleep_us(1'000)) channel().drain();
  fflush(stdout);
  EXPECT_EQ(testing::internal::GetCapturedStdout(), "one\ntwo\n");
}

TEST_F(Protected, ends_where_kernels_reach_memory_of_the_program) {
  testing::internal::CaptureStderr();
  void* pinned = nullptr;
  ASSERT_EQ(cuMemAllocHost_v2(&pinned, 4096), CUDA_SUCCESS);
  EXPECT_TRUE(channel().is_protected()) << "nobody but copies has to do with it";
  void* mapped = nullptr;
  ASSERT_EQ(cuMemHostAlloc(&mapped, 4096, CU_MEMHOSTALLOC_DEVICEMAP), CUDA_SUCCESS);
  EXPECT_FALSE(channel().is_protected());
  EXPECT_EQ(channel().region().client().unprotected.load(), uint64_t(Unprotected::kHostMemory));
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_NE(said.find("vGPU 0 is not protected any more, because kernels may reach memory of the program"),
            std::string::npos)
      << said;
  CUdeviceptr a = 0;
  EXPECT_EQ(cuMemAlloc_v2(&a, kBytes), CUDA_SUCCESS) << "the program goes on";
  EXPECT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
  die();
  EXPECT_EQ(cuMemcpyDtoH_v2(pinned, a, 4096), CUDA_ERROR_DEVICE_UNAVAILABLE) << "as if it had never been protected";
}

TEST_F(Protected, ends_with_a_command_that_fails) {
  pool->worker(0)->set_error(CUDA_ERROR_INVALID_VALUE, false);
  EXPECT_EQ(cuCtxSynchronize(), CUDA_ERROR_INVALID_VALUE);
  for (int i = 0; i < 2'000 && channel().is_protected(); ++i) sleep_us(500);
  EXPECT_EQ(channel().region().client().unprotected.load(), uint64_t(Unprotected::kError));
  EXPECT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
}

struct WithALittleLog : Protected {
  void SetUp() override {
    setenv("TIDE_PROTECT_LOG_MIB", "16", 1);
    Protected::SetUp();
    unsetenv("TIDE_PROTECT_LOG_MIB");
  }
};

TEST_F(WithALittleLog, asks_for_a_checkpoint_and_then_waits_for_one) {
  CUdeviceptr a = 0;
  ASSERT_EQ(cuMemAlloc_v2(&a, kBytes), CUDA_SUCCESS);
  const auto bytes = some(3);
  std::atomic<int> copied{0};
  std::thread program([&] {
    begin_call(1);
    ASSERT_EQ(cuCtxSetCurrent(context), CUDA_SUCCESS);
    for (int i = 0; i < 100; ++i, ++copied) ASSERT_EQ(cuMemcpyHtoD_v2(a, bytes.data(), kBytes), CUDA_SUCCESS);
  });
  const ClientPage& client = channel().region().client();
  for (int i = 0; i < 4'000 && client.checkpoint_wanted.load() == 0; ++i) sleep_us(500);
  EXPECT_GT(client.checkpoint_wanted.load(), 0u);
  sleep_us(300'000);
  const int stopped = copied;
  EXPECT_LT(stopped, 80);
  EXPECT_GT(stopped, 30);
  sleep_us(100'000);
  EXPECT_EQ(copied, stopped) << "it waits";
  for (int i = 0, before = stopped; i < 40 && copied < 100; ++i, sleep_us(50'000)) {
    if (const int now = copied; std::exchange(before, now) == now) pool->checkpoint(0);
  }
  program.join();
  EXPECT_EQ(copied, 100);
  EXPECT_TRUE(channel().is_protected());
}

}  // namespace
}  // namespace tide
