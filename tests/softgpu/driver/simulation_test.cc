// Devices with faults, models of time and checks, as a program and the control socket see them.

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>

#include "base/clock.h"
#include "driver_test.h"

namespace softgpu {
namespace {

std::string socket_path() {
  std::string path = std::getenv("SOFTGPU_CONTROL");
  path.replace(path.find("%p"), 2, std::to_string(getpid()));
  return path;
}

// The answer to one line.
std::string ask(const std::string& line) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, socket_path().c_str(), sizeof(address.sun_path) - 1);
  const int control = socket(AF_UNIX, SOCK_STREAM, 0);
  std::string answer;
  if (connect(control, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0) {
    const std::string text = line + "\n";
    EXPECT_EQ(write(control, text.data(), text.size()), static_cast<ssize_t>(text.size()));
    char c = 0;
    while (read(control, &c, 1) == 1 && c != '\n') answer += c;
  }
  close(control);
  return answer;
}

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

void order(const std::string& line) { ASSERT_EQ(ask(line), "{\"ok\":true}") << line; }

class Simulated : public DriverTest {
 protected:
  void TearDown() override {
    order("clear");
    order("time off");
    order("resume 0");
    cuCtxDestroy(context_);
    order("repair 0");
  }
  CUresult scale(CUstream stream = nullptr) {
    CUdeviceptr data = data_;
    uint32_t count = 4, factor = 3;
    return launch("scale", {&data, &count, &factor}, stream, 1, 32);
  }
  void SetUp() override {
    DriverTest::SetUp();
    data_ = allocate(4096);
    OK(cuMemsetD32(data_, 7, 1024));
    OK(cuCtxSynchronize());
  }
  // The first planned fault among three kernels.
  CUresult outcome(const std::string& fault) {
    order("inject " + fault);
    EXPECT_EQ(scale(), CUDA_SUCCESS);
    EXPECT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
    EXPECT_EQ(scale(), CUDA_SUCCESS);
    return cuCtxSynchronize();
  }
  CUdeviceptr data_ = 0;
};

TEST_F(Simulated, the_socket_is_the_owners_and_answers) {
  struct stat status = {};
  ASSERT_EQ(stat(socket_path().c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u);
  EXPECT_TRUE(has(ask("devices"), "\"index\":1,"));
  EXPECT_TRUE(has(ask("help"), "inject"));
  EXPECT_TRUE(has(ask("dance"), "{\"ok\":false,\"error\":\"no command is named 'dance'"));
  EXPECT_TRUE(has(ask("pause 7"), "not the number of a device"));
  EXPECT_TRUE(has(ask("inject 0/ecc:after=x"), "character 13: expected a number"));
  EXPECT_TRUE(has(ask("time never"), "expected off, virtual"));
}

TEST_F(Simulated, an_uncorrectable_error_poisons_the_context) {
  EXPECT_EQ(outcome("0/ecc:after=2"), CUDA_ERROR_ECC_UNCORRECTABLE);
  EXPECT_EQ(cuCtxSynchronize(), CUDA_ERROR_ECC_UNCORRECTABLE);
  EXPECT_TRUE(has(ask("faults"), "{\"fault\":\"0/ecc:after=2\",\"seen\":2,\"done\":1}"));
}

TEST_F(Simulated, an_illegal_access_is_reported_as_one) {
  EXPECT_EQ(outcome("illegal:after=2,kernel=scale"), CUDA_ERROR_ILLEGAL_ADDRESS);
}

TEST_F(Simulated, a_device_off_the_bus_stays_away) {
  EXPECT_EQ(outcome("0/bus:after=2"), CUDA_ERROR_UNKNOWN);
  EXPECT_TRUE(has(ask("devices"), "\"lost\":true"));
  CUcontext other = nullptr;
  CUdeviceptr address = 0;
  cuCtxCreate(&other, nullptr, 0, device_);
  EXPECT_EQ(cuMemAlloc(&address, 64), CUDA_ERROR_DEVICE_UNAVAILABLE);
  cuCtxDestroy(other);
  CUcontext neighbour = nullptr;
  OK(cuCtxCreate(&neighbour, nullptr, 0, 1));
  OK(cuMemAlloc(&address, 64));
  OK(cuCtxDestroy(neighbour));
}

TEST_F(Simulated, a_kernel_hangs_is_seen_and_released) {
  order("inject 0/hang");
  const CUstream one = stream();
  OK(scale(one));
  tide::sleep_us(20000);
  EXPECT_EQ(cuStreamQuery(one), CUDA_ERROR_NOT_READY);
  EXPECT_TRUE(has(ask("kernels 0"), "\"kernel\":\"scale\",\"paused\":true,\"blocks\":1,\"started\":0"));
  EXPECT_EQ(ask("kernels 1"), "{\"ok\":true,\"kernels\":[]}");
  order("release 0");
  OK(cuStreamSynchronize(one));
}

TEST_F(Simulated, a_hanging_kernel_ends_with_its_context) {
  order("inject 0/hang");
  const CUstream one = stream();
  OK(scale(one));
}

TEST_F(Simulated, a_running_kernel_is_looked_at_and_paused) {
  Holding holding;
  const CUstream one = stream();
  OK(launch("hold", {holding.param()}, one));
  std::string seen;
  for (int i = 0; i < 2000 && !has(seen, "\"state\":\"ready\""); ++i) seen = ask("kernels 0");
  EXPECT_TRUE(has(seen, "\"block\":[0,0,0]")) << seen;
  EXPECT_TRUE(has(seen, "\"mask\":\"00000001\"")) << seen;
  order("pause 0");
  holding.let_go();
  tide::sleep_us(20000);
  EXPECT_EQ(cuStreamQuery(one), CUDA_ERROR_NOT_READY);
  order("resume 0");
  OK(cuStreamSynchronize(one));
}

TEST_F(Simulated, the_second_allocation_fails) {
  order("inject 0/oom:after=2");
  CUdeviceptr address = 0;
  OK(cuMemAlloc(&address, 64));
  EXPECT_EQ(cuMemAlloc(&address, 64), CUDA_ERROR_OUT_OF_MEMORY);
  OK(cuMemAlloc(&address, 64));
}

TEST_F(Simulated, a_copy_gets_lost) {
  uint32_t value = 99;
  order("inject 0/lostcopy");
  OK(cuMemcpyHtoD(data_, &value, 4));
  OK(cuMemcpyDtoH(&value, data_, 4));
  EXPECT_EQ(value, 7u);
}

TEST_F(Simulated, a_copy_is_slow) {
  uint32_t value = 99;
  order("inject 0/slowcopy:ms=60");
  const uint64_t began = tide::now_ns();
  OK(cuMemcpyHtoD(data_, &value, 4));
  EXPECT_GE(tide::now_ns() - began, 60'000'000u);
}

TEST_F(Simulated, a_bit_flips) {
  order("inject 0/flip:bit=4,address=" + std::to_string(data_ + 404));
  OK(scale());
  uint32_t value = 0;
  OK(cuMemcpyDtoH(&value, data_ + 404, 4));
  EXPECT_EQ(value, 7u ^ 16u);
  order("inject 0/flip:seed=5");
  OK(scale());
  std::vector<uint32_t> values(1024);
  OK(cuMemcpyDtoH(values.data(), data_, 4096));
  int wrong = 0;
  for (size_t i = 4; i < 1024; ++i) wrong += i != 101 && values[i] != 7 ? 1 : 0;
  EXPECT_LE(wrong, 1);
}

float milliseconds(CUstream stream, const std::function<void()>& work) {
  CUevent from = nullptr, to = nullptr;
  cuEventCreate(&from, 0);
  cuEventCreate(&to, 0);
  cuEventRecord(from, stream);
  work();
  cuEventRecord(to, stream);
  cuEventSynchronize(to);
  float out = -1;
  EXPECT_EQ(cuEventElapsedTime(&out, from, to), CUDA_SUCCESS);
  cuEventDestroy(from);
  cuEventDestroy(to);
  return out;
}

TEST_F(Simulated, virtual_time_is_that_of_the_model_and_the_same_again) {
  order("time virtual");
  const CUstream one = stream();
  const CUdeviceptr large = allocate(16 << 20);
  void* pinned = nullptr;
  OK(cuMemHostAlloc(&pinned, 16 << 20, 0));
  const auto copy = [&] { cuMemcpyHtoDAsync(large, pinned, 16 << 20, one); };
  const float first = milliseconds(one, copy);
  EXPECT_NEAR(first, 0.006 + (16 << 20) / 25e6, 0.001);
  EXPECT_EQ(milliseconds(one, copy), first);
  const float kernel = milliseconds(one, [&] { scale(one); });
  EXPECT_GT(kernel, 0.0029);
  EXPECT_LT(kernel, 0.01);
  order("inject 0/slow:factor=1000");
  EXPECT_GT(milliseconds(one, [&] { scale(one); }), kernel);
  OK(cuMemFreeHost(pinned));
}

TEST_F(Simulated, scaled_time_waits) {
  order("time scaled:1000");
  const CUstream one = stream();
  const uint64_t began = tide::now_ns();
  const float took = milliseconds(one, [&] { scale(one); });
  EXPECT_GE(tide::now_ns() - began, 3'000'000u);
  EXPECT_LT(took, 1.0);
}

TEST(Settings, what_cannot_be_read_leaves_no_device) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto initialise_with = [](const char* name, const char* value) {
    setenv(name, value, 1);
    std::exit(cuInit(0) == CUDA_ERROR_INVALID_VALUE ? 0 : 1);
  };
  EXPECT_EXIT(initialise_with("SOFTGPU_FAULTS", "0/exx"), testing::ExitedWithCode(0), "character 3: no fault is named");
  EXPECT_EXIT(initialise_with("SOFTGPU_TIME", "slow"), testing::ExitedWithCode(0), "SOFTGPU_TIME=slow");
  EXPECT_EXIT(initialise_with("SOFTGPU_CHECK", "some"), testing::ExitedWithCode(0), "expected off, page or exact");
  EXPECT_EXIT(initialise_with("SOFTGPU_QUANTUM", "0"), testing::ExitedWithCode(0), "number of instructions");
}

}  // namespace
}  // namespace softgpu
