// What users say by environment variables, and processes: forked before and after the driver was used, many threads.

#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <functional>
#include <string>
#include <thread>

#include "fixture.h"

namespace conformance {
namespace {

// `body` in a child process; what it returns, at most 255, or -1 when it did not end by itself.
int in_child(const std::function<int()>& body) {
  const pid_t child = fork();
  if (child == 0) _exit(body());
  int status = 0;
  if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status)) return -1;
  return WEXITSTATUS(status);
}

// Each case starts without a driver, in a process of its own.
class Environment : public testing::Test {
 protected:
  // How many devices there are under CUDA_VISIBLE_DEVICES=`text`; 100 + N for the driver's error N.
  int devices(const char* text) {
    return in_child([=] {
      setenv("CUDA_VISIBLE_DEVICES", text, 1);
      int count = 0;
      if (const CUresult result = CU(cuInit)(0); result != CUDA_SUCCESS) return 100 + static_cast<int>(result);
      return CU(cuDeviceGetCount)(&count) == CUDA_SUCCESS ? count : 99;
    });
  }
  // PCI bus of device 0.
  int first_bus(const char* text) {
    return in_child([=] {
      if (text != nullptr) setenv("CUDA_VISIBLE_DEVICES", text, 1);
      int bus = 0;
      CUdevice device = 0;
      const bool known = CU(cuInit)(0) == CUDA_SUCCESS && CU(cuDeviceGet)(&device, 0) == CUDA_SUCCESS &&
                         CU(cuDeviceGetAttribute)(&bus, CU_DEVICE_ATTRIBUTE_PCI_BUS_ID, device) == CUDA_SUCCESS;
      return known ? bus : 99;
    });
  }
};

TEST_F(Environment, visible_devices_hide_others) {
  const int all = in_child([] {
    int count = 0;
    return CU(cuInit)(0) == CUDA_SUCCESS && CU(cuDeviceGetCount)(&count) == CUDA_SUCCESS ? count : 99;
  });
  ASSERT_LT(all, 99);
  EXPECT_EQ(devices("0"), 1);
  EXPECT_EQ(devices(""), 100 + CUDA_ERROR_NO_DEVICE);
  EXPECT_EQ(devices("-1"), 100 + CUDA_ERROR_NO_DEVICE);
  EXPECT_EQ(devices("63"), 100 + CUDA_ERROR_NO_DEVICE);
  EXPECT_EQ(devices("0,63"), 1);  // the list ends at what is not there
  if (all < 2) return;
  EXPECT_EQ(devices("1,0"), 2);
  EXPECT_EQ(devices("-1,0"), 100 + CUDA_ERROR_NO_DEVICE);
  EXPECT_EQ(first_bus("0"), first_bus(nullptr));
  EXPECT_NE(first_bus("1"), first_bus(nullptr));
  EXPECT_EQ(first_bus("1,0"), first_bus("1"));
}

struct Identity {
  CUuuid uuid = {};
  int bus = 0;
};

bool identity_of(CUdevice device, Identity* identity) {
  return CU(cuDeviceGetUuid_v2)(&identity->uuid, device) == CUDA_SUCCESS &&
         CU(cuDeviceGetAttribute)(&identity->bus, CU_DEVICE_ATTRIBUTE_PCI_BUS_ID, device) == CUDA_SUCCESS;
}

TEST_F(Environment, visible_devices_by_uuid) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  EXPECT_EQ(in_child([&] {  // asks, so that this process can still begin
              int count = 0;
              Identity last;
              const bool known = CU(cuInit)(0) == CUDA_SUCCESS && CU(cuDeviceGetCount)(&count) == CUDA_SUCCESS &&
                                 identity_of(count - 1, &last);
              return known && write(ends[1], &last, sizeof last) == sizeof last ? 0 : 1;
            }),
            0);
  Identity last, seen;
  ASSERT_EQ(read(ends[0], &last, sizeof last), static_cast<ssize_t>(sizeof last));
  std::string text = "GPU-";
  for (int i = 0; i < 16; ++i) {
    char digits[3];
    snprintf(digits, sizeof digits, "%02x", static_cast<unsigned char>(last.uuid.bytes[i]));
    text += std::string(i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "") + digits;
  }
  setenv("CUDA_VISIBLE_DEVICES", text.c_str(), 1);
  int count = 0;
  OK(CU(cuInit)(0));
  OK(CU(cuDeviceGetCount)(&count));
  EXPECT_EQ(count, 1);
  EXPECT_TRUE(identity_of(0, &seen));
  EXPECT_EQ(seen.bus, last.bus);
  EXPECT_EQ(memcmp(&seen.uuid, &last.uuid, sizeof seen.uuid), 0);
}

TEST_F(Environment, device_order_by_bus) {
  setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID", 1);
  OK(CU(cuInit)(0));
  int count = 0, before = -1;
  OK(CU(cuDeviceGetCount)(&count));
  for (CUdevice device = 0; device < count; ++device) {
    int domain = 0, bus = 0;
    OK(CU(cuDeviceGetAttribute)(&domain, CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID, device));
    OK(CU(cuDeviceGetAttribute)(&bus, CU_DEVICE_ATTRIBUTE_PCI_BUS_ID, device));
    EXPECT_GT(domain * 256 + bus, before);
    before = domain * 256 + bus;
  }
}

TEST_F(Environment, module_loading) {
  const auto mode = [](const char* text) {
    return in_child([=] {
      setenv("CUDA_MODULE_LOADING", text, 1);
      CUmoduleLoadingMode got{};
      if (CU(cuInit)(0) != CUDA_SUCCESS || CU(cuModuleGetLoadingMode)(&got) != CUDA_SUCCESS) return 99;
      return static_cast<int>(got);
    });
  };
  EXPECT_EQ(mode("EAGER"), CU_MODULE_EAGER_LOADING);
  EXPECT_EQ(mode("LAZY"), CU_MODULE_LAZY_LOADING);
}

class Blocking : public Conformance {
 protected:
  void SetUp() override {
    setenv("CUDA_LAUNCH_BLOCKING", "1", 1);
    Conformance::SetUp();
  }
};

TEST_F(Blocking, launches_wait_for_their_kernels) {
  const CUdeviceptr word = words({1});
  const CUstream made = stream();
  CUdeviceptr argument = word;
  for (int i = 0; i < 4; ++i) {
    OK(launch(function("add_one"), {&argument}, made));
    GIVES(CUDA_SUCCESS, CU(cuStreamQuery)(made));
  }
  EXPECT_EQ(read(word, 1)[0], 5u);
}

TEST_F(Blocking, launches_say_what_became_of_their_kernels) {
  const CUfunction wild = function("wild");
  GIVES(CUDA_ERROR_ILLEGAL_ADDRESS, launch(wild, {}));
}

// A launch on another stream is no question about the captured one.
TEST_F(Blocking, captures_of_others_go_on) {
  const CUdeviceptr word = words({1});
  const CUstream captured = stream(), other = stream();
  CUdeviceptr argument = word;
  CUgraph graph = nullptr;
  const CUfunction add = function("add_one");
  OK(CU(cuStreamBeginCapture_v2)(captured, CU_STREAM_CAPTURE_MODE_GLOBAL));
  OK(launch(add, {&argument}, captured));
  OK(launch(add, {&argument}, other));
  OK(CU(cuStreamEndCapture)(captured, &graph));
  EXPECT_EQ(read(word, 1)[0], 2u);
}

TEST_F(Blocking, captures_do_not_wait) {
  const CUdeviceptr word = words({1});
  const CUstream made = stream();
  CUdeviceptr argument = word;
  CUgraph graph = nullptr;
  OK(CU(cuStreamBeginCapture_v2)(made, CU_STREAM_CAPTURE_MODE_GLOBAL));
  OK(launch(function("add_one"), {&argument}, made));
  OK(CU(cuStreamEndCapture)(made, &graph));
  EXPECT_EQ(read(word, 1)[0], 1u);
}

class Processes : public Conformance {};

TEST_F(Processes, child_of_a_user_cannot_go_on) {
  const CUdeviceptr word = words({7});
  const int answer = in_child([=] {
    CUdeviceptr made = 0;
    CUcontext current = nullptr;
    int count = 0;
    uint32_t value = 0;
    if (CU(cuMemAlloc_v2)(&made, 4) != CUDA_ERROR_NOT_INITIALIZED) return 1;
    if (CU(cuMemcpyDtoH_v2)(&value, word, 4) != CUDA_ERROR_NOT_INITIALIZED) return 2;
    if (CU(cuCtxGetCurrent)(&current) != CUDA_ERROR_NOT_INITIALIZED) return 3;
    if (CU(cuDeviceGetCount)(&count) != CUDA_ERROR_NOT_INITIALIZED) return 4;
    if (CU(cuCtxSynchronize)() != CUDA_ERROR_NOT_INITIALIZED) return 5;
    return CU(cuInit)(0) == CUDA_ERROR_NOT_INITIALIZED ? 0 : 6;
  });
  EXPECT_EQ(answer, 0);
  EXPECT_EQ(read(word, 1)[0], 7u);  // and the parent does not notice
}

// Children that are first to use the driver have sessions of their own.
TEST_F(Environment, children_begin_for_themselves) {
  const auto use = [] {
    CUdevice device = 0;
    CUcontext context = nullptr;
    CUdeviceptr address = 0;
    uint32_t value = 0;
    const bool good = CU(cuInit)(0) == CUDA_SUCCESS && CU(cuDeviceGet)(&device, 0) == CUDA_SUCCESS &&
                      CU(cuCtxCreate_v4)(&context, nullptr, 0, device) == CUDA_SUCCESS &&
                      CU(cuMemAlloc_v2)(&address, 4096) == CUDA_SUCCESS &&
                      CU(cuMemsetD32_v2)(address, 42, 1024) == CUDA_SUCCESS &&
                      CU(cuMemcpyDtoH_v2)(&value, address, 4) == CUDA_SUCCESS;
    return good && value == 42 ? 0 : 1;
  };
  std::array<pid_t, 4> children{};
  for (pid_t& child : children) {
    child = fork();
    if (child == 0) _exit(use());
  }
  for (const pid_t child : children) {
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  }
  EXPECT_EQ(use(), 0);  // the parent has not used it yet
}

TEST_F(Processes, fork_under_traffic) {
  const CUdeviceptr word = words({0});
  const CUfunction add = function("add_one");
  std::atomic<bool> done{false};
  std::atomic<int> launched{0}, failed{0};
  std::thread traffic([&] {
    if (CU(cuCtxSetCurrent)(context) != CUDA_SUCCESS) failed = 1;
    CUdeviceptr argument = word;
    while (!done) {
      if (launch(add, {&argument}) != CUDA_SUCCESS) failed = 2;
      ++launched;
      uint32_t value = 0;
      if (CU(cuMemcpyDtoH_v2)(&value, word, 4) != CUDA_SUCCESS || value != static_cast<uint32_t>(launched)) failed = 3;
    }
  });
  for (int i = 0; i < 200; ++i) EXPECT_EQ(in_child([] { return 5; }), 5);
  done = true;
  traffic.join();
  EXPECT_EQ(failed, 0);
  EXPECT_EQ(read(word, 1)[0], static_cast<uint32_t>(launched));
}

TEST_F(Processes, many_threads_on_one_device) {
  constexpr int kThreads = 64, kRounds = 10;
  const CUfunction add = function("add_one"), fill = function("fill");
  const CUdeviceptr counters = words(std::vector<uint32_t>(kThreads, 0));
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      CUstream own = nullptr;
      CUdeviceptr mine = 0, counter = counters + static_cast<CUdeviceptr>(t) * 4;
      unsigned count = 256, value = static_cast<unsigned>(t);
      std::vector<uint32_t> got(count);
      bool good = CU(cuCtxSetCurrent)(context) == CUDA_SUCCESS &&
                  CU(cuStreamCreate)(&own, CU_STREAM_NON_BLOCKING) == CUDA_SUCCESS &&
                  CU(cuMemAlloc_v2)(&mine, count * 4) == CUDA_SUCCESS;
      for (int round = 0; round < kRounds && good; ++round) {
        good = launch(add, {&counter}, own) == CUDA_SUCCESS &&
               launch(fill, {&mine, &count, &value}, own, 2, 128) == CUDA_SUCCESS &&
               CU(cuMemcpyDtoHAsync_v2)(got.data(), mine, count * 4, own) == CUDA_SUCCESS &&
               CU(cuStreamSynchronize)(own) == CUDA_SUCCESS && got == std::vector<uint32_t>(count, value);
      }
      good = good && CU(cuMemFree_v2)(mine) == CUDA_SUCCESS && CU(cuStreamDestroy_v2)(own) == CUDA_SUCCESS;
      if (!good) ++wrong;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(read(counters, kThreads), std::vector<uint32_t>(kThreads, kRounds));
}

}  // namespace
}  // namespace conformance
