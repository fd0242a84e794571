// Other orders of execution: as late as possible, and drawn from a seed. Both are chosen by the environment before the
// driver starts.

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <set>
#include <string>

#include "base/clock.h"
#include "tests/softgpu/driver/driver_test.h"

namespace softgpu {
namespace {

class Late : public DriverTest {
 protected:
  void SetUp() override {
    const char* late = std::getenv("SOFTGPU_LATE");
    if (late == nullptr) GTEST_SKIP() << "SOFTGPU_LATE is not set";
    DriverTest::SetUp();
    void* pointer = nullptr;
    OK(cuMemHostAlloc(&pointer, 64, 0));
    values_ = static_cast<volatile uint32_t*>(pointer);
    for (int i = 0; i < 16; ++i) values_[i] = 0;
  }
  void TearDown() override {
    if (context_ != nullptr) DriverTest::TearDown();
  }
  CUdeviceptr address(int i) { return reinterpret_cast<CUdeviceptr>(values_ + i); }

  volatile uint32_t* values_ = nullptr;
};

TEST_F(Late, nothing_runs_before_somebody_waits_and_then_only_what_he_waits_for) {
  CUstream wanted = stream(CU_STREAM_NON_BLOCKING), other = stream(CU_STREAM_NON_BLOCKING);
  OK(cuMemsetD32Async(address(0), 1, 1, wanted));
  OK(cuMemsetD32Async(address(1), 1, 1, other));
  tide::sleep_us(50'000);
  EXPECT_EQ(values_[0], 0u);
  OK(cuStreamSynchronize(wanted));
  EXPECT_EQ(values_[0], 1u);
  EXPECT_EQ(values_[1], 0u);
  OK(cuCtxSynchronize());
  EXPECT_EQ(values_[1], 1u);
}

TEST_F(Late, a_wait_for_one_stream_runs_what_that_one_waits_for) {
  CUstream first = stream(CU_STREAM_NON_BLOCKING), second = stream(CU_STREAM_NON_BLOCKING);
  CUevent event = nullptr;
  OK(cuEventCreate(&event, CU_EVENT_DISABLE_TIMING));
  OK(cuMemsetD32Async(address(0), 1, 1, first));
  OK(cuEventRecord(event, first));
  OK(cuMemsetD32Async(address(1), 1, 1, first));
  OK(cuStreamWaitEvent(second, event, 0));
  OK(cuStreamSynchronize(second));
  EXPECT_EQ(values_[0], 1u);
  EXPECT_EQ(values_[1], 0u);
}

TEST_F(Late, who_keeps_asking_gets_an_answer) {
  CUstream s = stream(CU_STREAM_NON_BLOCKING);
  OK(cuMemsetD32Async(address(0), 1, 1, s));
  EXPECT_EQ(cuStreamQuery(s), CUDA_ERROR_NOT_READY);
  for (int i = 0; i < 10'000 && cuStreamQuery(s) != CUDA_SUCCESS; ++i) std::this_thread::yield();
  EXPECT_EQ(values_[0], 1u);
}

TEST_F(Late, who_polls_memory_is_noticed) {
  CUstream s = stream(CU_STREAM_NON_BLOCKING);
  OK(cuMemsetD32Async(address(0), 1, 1, s));
  for (int i = 0; i < 10'000 && values_[0] == 0; ++i) tide::sleep_us(1000);
  EXPECT_EQ(values_[0], 1u);
}

struct Letter {
  std::string* to;
  char letter;
};

// The body of a child process, see below.
TEST(DISABLED_Seeded, prints_the_order_of_its_tasks) {
  CUcontext context = nullptr;
  OK(cuInit(0));
  OK(cuCtxCreate(&context, nullptr, 0, 0));
  std::string order;
  std::vector<Letter> letters;
  for (char c = 'a'; c <= 'l'; ++c) letters.push_back({&order, c});
  CUstream streams[3] = {};
  for (CUstream& s : streams) OK(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
  for (size_t i = 0; i < letters.size(); ++i) {
    OK(cuLaunchHostFunc(
        streams[i % 3],
        [](void* data) {
          const auto* letter = static_cast<Letter*>(data);
          letter->to->push_back(letter->letter);
        },
        &letters[i]));
  }
  OK(cuCtxSynchronize());
  printf("order: %s\n", order.c_str());
}

std::string order_with(int seed) {
  const std::string command = "SOFTGPU_SEED=" + std::to_string(seed) + " /proc/" + std::to_string(getpid()) +
                              "/exe --gtest_also_run_disabled_tests --gtest_filter=DISABLED_Seeded.*";
  FILE* child = popen(command.c_str(), "r");
  std::string order;
  char line[256];
  while (fgets(line, sizeof line, child) != nullptr) {
    if (std::string(line).starts_with("order: ")) order = line;
  }
  EXPECT_EQ(pclose(child), 0);
  return order;
}

TEST(Seeds, give_one_order_each_and_not_all_the_same) {
  std::set<std::string> orders;
  for (int seed = 1; seed <= 4; ++seed) {
    const std::string order = order_with(seed);
    EXPECT_EQ(order.size(), 7u + 12 + 1) << order;
    EXPECT_LT(order.find('a', 7), order.find('d', 7)) << order;  // one stream's own order stays
    EXPECT_EQ(order_with(seed), order);
    orders.insert(order);
  }
  EXPECT_GT(orders.size(), 1u);
}

}  // namespace
}  // namespace softgpu
