// NVML over a pool that says what a test wants, and beside the CUDA library in one process.

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "api/uuid.h"
#include "base/clock.h"
#include "fake_pool.h"
#include "interpose/entry/entry.h"
#include "interpose/nvml/types.h"
#include "interpose/thread.h"

using namespace tide::nvml;

extern "C" {
nvmlReturn_t nvmlInit_v2();
nvmlReturn_t nvmlInitWithFlags(unsigned flags);
nvmlReturn_t nvmlShutdown();
const char* nvmlErrorString(nvmlReturn_t result);
nvmlReturn_t nvmlSystemGetCudaDriverVersion(int* version);
nvmlReturn_t nvmlSystemGetDriverVersion(char* text, unsigned length);
nvmlReturn_t nvmlDeviceGetCount_v2(unsigned* count);
nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice_t* device);
nvmlReturn_t nvmlDeviceGetHandleByUUID(const char* uuid, nvmlDevice_t* device);
nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char* text, nvmlDevice_t* device);
nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char* name, unsigned length);
nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char* uuid, unsigned length);
nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t device, unsigned* index);
nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t* pci);
nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t* memory);
nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t* memory);
nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t* utilization);
nvmlReturn_t nvmlDeviceGetComputeRunningProcesses(nvmlDevice_t device, unsigned* count, nvmlProcessInfo_v1_t* infos);
nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t device, unsigned* count, nvmlProcessInfo_v2_t* infos);
nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses_v3(nvmlDevice_t device, unsigned* count, void* infos);
nvmlReturn_t nvmlDeviceGetP2PStatus(nvmlDevice_t one, nvmlDevice_t other, nvmlGpuP2PCapsIndex_t index,
                                    nvmlGpuP2PStatus_t* status);
nvmlReturn_t nvmlDeviceGetNvLinkState(nvmlDevice_t device, unsigned link, nvmlEnableState_t* active);
nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t device, int count, nvmlFieldValue_t* values);
nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, int sensor, unsigned* celsius);
}

namespace tide {
namespace {

struct Nvml : testing::Test {
  FakePool* pool = new FakePool(2);
  nvmlDevice_t device[2] = {};

  void SetUp() override {
    pool->usage.vgpus = {{.resident_bytes = 64 << 20, .busy_permille = 374, .known = 1},
                         {.resident_bytes = 0, .busy_permille = 0, .known = 1}};
    pool->usage.clients = {{.vgpu = 0, .pid = 41, .resident_bytes = 40 << 20},
                           {.vgpu = 0, .pid = 42, .resident_bytes = 24 << 20}};
    pool->join();
    ASSERT_EQ(nvmlInit_v2(), NVML_SUCCESS);
    for (unsigned i = 0; i < 2; ++i) ASSERT_EQ(nvmlDeviceGetHandleByIndex_v2(i, &device[i]), NVML_SUCCESS);
  }
  void TearDown() override {
    while (nvmlShutdown() == NVML_SUCCESS) {
    }
    pool->leave();
    delete pool;
  }
};

TEST(NvmlOutside, without_a_job_there_is_no_driver_and_nothing_is_printed) {
  testing::internal::CaptureStderr();
  EXPECT_EQ(nvmlInit_v2(), NVML_ERROR_DRIVER_NOT_LOADED);
  EXPECT_EQ(nvmlInitWithFlags(1), NVML_ERROR_DRIVER_NOT_LOADED);
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

TEST(NvmlOutside, before_init_nothing_is_answered) {
  unsigned number = 7;
  nvmlDevice_t device = nullptr;
  EXPECT_EQ(nvmlDeviceGetCount_v2(&number), NVML_ERROR_UNINITIALIZED);
  EXPECT_EQ(nvmlDeviceGetHandleByIndex_v2(0, &device), NVML_ERROR_UNINITIALIZED);
  EXPECT_EQ(nvmlDeviceGetTemperature(device, 0, &number), NVML_ERROR_UNINITIALIZED);
  EXPECT_EQ(nvmlShutdown(), NVML_ERROR_UNINITIALIZED);
  EXPECT_EQ(number, 7u);
  EXPECT_STREQ(nvmlErrorString(NVML_ERROR_UNINITIALIZED), "Uninitialized");
}

TEST(NvmlOutside, a_pool_that_is_not_there_is_said_once) {
  setenv("TIDE_JOB", "1", 1);
  setenv("TIDE_DOOR", "/nonexistent/door", 1);
  setenv("TIDE_TOKEN", std::string(64, '0').c_str(), 1);
  testing::internal::CaptureStderr();
  EXPECT_EQ(nvmlInit_v2(), NVML_ERROR_DRIVER_NOT_LOADED);
  EXPECT_EQ(nvmlInit_v2(), NVML_ERROR_DRIVER_NOT_LOADED);
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_NE(said.find("cannot reach the pool"), std::string::npos);
  EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 1);
  for (const char* name : {"TIDE_DOOR", "TIDE_JOB", "TIDE_TOKEN"}) unsetenv(name);
}

TEST_F(Nvml, shows_all_vgpus_as_cuda_names_them) {
  setenv("CUDA_VISIBLE_DEVICES", "1", 1);
  thread_state = {};
  ASSERT_EQ(cuInit(0), CUDA_SUCCESS);
  unsetenv("CUDA_VISIBLE_DEVICES");
  unsigned count = 0, index = 7;
  EXPECT_EQ(nvmlDeviceGetCount_v2(&count), NVML_SUCCESS);
  EXPECT_EQ(count, 2u);
  CUuuid uuid;
  char pci[32], name[256], text[96], nvml_name[256];
  ASSERT_EQ(cuDeviceGetUuid_v2(&uuid, 0), CUDA_SUCCESS);  // CUDA's device 0 is vGPU 1
  ASSERT_EQ(cuDeviceGetPCIBusId(pci, sizeof pci, 0), CUDA_SUCCESS);
  ASSERT_EQ(cuDeviceGetName(name, sizeof name, 0), CUDA_SUCCESS);
  nvmlDevice_t by_uuid = nullptr, by_pci = nullptr;
  const std::string wanted = uuid_text(reinterpret_cast<const uint8_t*>(uuid.bytes));
  EXPECT_EQ(nvmlDeviceGetHandleByUUID(wanted.c_str(), &by_uuid), NVML_SUCCESS);
  EXPECT_EQ(nvmlDeviceGetHandleByPciBusId_v2(pci, &by_pci), NVML_SUCCESS);
  EXPECT_EQ(by_uuid, device[1]);
  EXPECT_EQ(by_pci, device[1]);
  EXPECT_EQ(nvmlDeviceGetUUID(device[1], text, sizeof text), NVML_SUCCESS);
  EXPECT_EQ(text, wanted);
  EXPECT_EQ(nvmlDeviceGetName(device[1], nvml_name, sizeof nvml_name), NVML_SUCCESS);
  EXPECT_STREQ(nvml_name, name);
  EXPECT_EQ(nvmlDeviceGetIndex(device[1], &index), NVML_SUCCESS);
  EXPECT_EQ(index, 1u);
  nvmlPciInfo_t info;
  EXPECT_EQ(nvmlDeviceGetPciInfo_v3(device[1], &info), NVML_SUCCESS);
  EXPECT_EQ(strlen(info.busId), strlen("00000000:00:00.0"));
  EXPECT_EQ(nvmlDeviceGetHandleByPciBusId_v2(info.busId, &by_pci), NVML_SUCCESS);
  EXPECT_EQ(by_pci, device[1]);
  EXPECT_EQ(nvmlDeviceGetHandleByUUID("GPU-0", &by_uuid), NVML_ERROR_NOT_FOUND);
  live_process.store(nullptr);
}

TEST_F(Nvml, memory_is_the_quota_and_what_is_mapped) {
  nvmlMemory_t memory;
  ASSERT_EQ(nvmlDeviceGetMemoryInfo(device[0], &memory), NVML_SUCCESS);
  EXPECT_EQ(memory.total, 256u << 20);
  EXPECT_EQ(memory.used, 64u << 20);
  EXPECT_EQ(memory.free, 192u << 20);
  nvmlMemory_v2_t second{};
  EXPECT_EQ(nvmlDeviceGetMemoryInfo_v2(device[0], &second), NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
  second.version = struct_version<nvmlMemory_v2_t>(2);
  ASSERT_EQ(nvmlDeviceGetMemoryInfo_v2(device[0], &second), NVML_SUCCESS);
  EXPECT_EQ(second.used, 64u << 20);
}

TEST_F(Nvml, processes_that_share_a_vgpu_never_use_more_than_there_is) {
  pool->usage.vgpus[0].resident_bytes = 300 << 20;
  nvmlMemory_t memory;
  ASSERT_EQ(nvmlDeviceGetMemoryInfo(device[0], &memory), NVML_SUCCESS);
  EXPECT_EQ(memory.used, memory.total);
  EXPECT_EQ(memory.free, 0u);
}

TEST_F(Nvml, utilisation_is_what_the_pool_measured_and_is_asked_for_once_in_a_moment) {
  nvmlUtilization_t utilization;
  for (int i = 0; i < 5; ++i) {
    for (const nvmlDevice_t each : device) {
      ASSERT_EQ(nvmlDeviceGetUtilizationRates(each, &utilization), NVML_SUCCESS);
      EXPECT_EQ(utilization.gpu, each == device[0] ? 37u : 0u);
    }
  }
  EXPECT_EQ(pool->measures, 1);
  pool->usage.vgpus[1].busy_permille = 1000;
  sleep_us(150'000);
  ASSERT_EQ(nvmlDeviceGetUtilizationRates(device[1], &utilization), NVML_SUCCESS);
  EXPECT_EQ(utilization.gpu, 100u);
}

TEST_F(Nvml, processes_are_listed_into_enough_room_only) {
  unsigned count = 0;
  EXPECT_EQ(nvmlDeviceGetComputeRunningProcesses_v3(device[0], &count, nullptr), NVML_ERROR_INSUFFICIENT_SIZE);
  EXPECT_EQ(count, 2u);
  EXPECT_EQ(nvmlDeviceGetComputeRunningProcesses_v3(device[0], &count, nullptr), NVML_ERROR_INVALID_ARGUMENT);
  nvmlProcessInfo_v2_t infos[8];
  count = 8;
  ASSERT_EQ(nvmlDeviceGetComputeRunningProcesses_v3(device[0], &count, infos), NVML_SUCCESS);
  ASSERT_EQ(count, 2u);
  EXPECT_EQ(infos[1].pid, 42u);
  EXPECT_EQ(infos[1].usedGpuMemory, 24u << 20);
  EXPECT_EQ(infos[1].gpuInstanceId, 0xffffffffu);
  nvmlProcessInfo_v1_t old[2];
  ASSERT_EQ(nvmlDeviceGetComputeRunningProcesses(device[0], &count, old), NVML_SUCCESS);
  EXPECT_EQ(old[1].pid, 42u);
  count = 0;
  EXPECT_EQ(nvmlDeviceGetComputeRunningProcesses_v3(device[1], &count, nullptr), NVML_SUCCESS);
  EXPECT_EQ(count, 0u);
  count = 8;
  EXPECT_EQ(nvmlDeviceGetGraphicsRunningProcesses_v3(device[0], &count, infos), NVML_SUCCESS);
  EXPECT_EQ(count, 0u);
}

TEST_F(Nvml, initialisation_is_counted) {
  unsigned count = 0;
  EXPECT_EQ(nvmlInitWithFlags(0), NVML_SUCCESS);
  EXPECT_EQ(nvmlInitWithFlags(0x80), NVML_ERROR_INVALID_ARGUMENT);
  EXPECT_EQ(nvmlShutdown(), NVML_SUCCESS);
  EXPECT_EQ(nvmlDeviceGetCount_v2(&count), NVML_SUCCESS);
  EXPECT_EQ(nvmlShutdown(), NVML_SUCCESS);
  EXPECT_EQ(nvmlDeviceGetCount_v2(&count), NVML_ERROR_UNINITIALIZED);
  EXPECT_EQ(nvmlInit_v2(), NVML_SUCCESS);
  EXPECT_EQ(nvmlDeviceGetIndex(device[1], &count), NVML_SUCCESS) << "a handle outlives a restart";
  EXPECT_EQ(pool->hellos, 2);
  EXPECT_EQ(pool->opens, 0) << "no vGPU is occupied";
}

TEST_F(Nvml, wrong_arguments_are_refused) {
  char text[80];
  nvmlDevice_t none = reinterpret_cast<nvmlDevice_t>(text), found = nullptr;
  unsigned number = 0;
  EXPECT_EQ(nvmlDeviceGetCount_v2(nullptr), NVML_ERROR_INVALID_ARGUMENT);
  EXPECT_EQ(nvmlDeviceGetHandleByIndex_v2(2, &found), NVML_ERROR_INVALID_ARGUMENT);
  EXPECT_EQ(nvmlDeviceGetHandleByPciBusId_v2("rubbish", &found), NVML_ERROR_INVALID_ARGUMENT);
  EXPECT_EQ(nvmlDeviceGetHandleByPciBusId_v2("0000:7f:00.0", &found), NVML_ERROR_NOT_FOUND);
  EXPECT_EQ(nvmlDeviceGetIndex(none, &number), NVML_ERROR_INVALID_ARGUMENT);
  EXPECT_EQ(nvmlDeviceGetIndex(nullptr, &number), NVML_ERROR_INVALID_ARGUMENT);
  EXPECT_EQ(nvmlDeviceGetName(device[0], text, 2), NVML_ERROR_INSUFFICIENT_SIZE);
  EXPECT_EQ(nvmlDeviceGetMemoryInfo(device[0], nullptr), NVML_ERROR_INVALID_ARGUMENT);
  EXPECT_EQ(nvmlSystemGetDriverVersion(text, sizeof text), NVML_SUCCESS);
}

TEST_F(Nvml, what_nobody_counts_is_not_supported) {
  unsigned celsius = 7;
  nvmlEnableState_t active;
  EXPECT_EQ(nvmlDeviceGetTemperature(device[0], 0, &celsius), NVML_ERROR_NOT_SUPPORTED);
  EXPECT_EQ(celsius, 7u);
  EXPECT_EQ(nvmlDeviceGetNvLinkState(device[0], 0, &active), NVML_ERROR_NOT_SUPPORTED);
  EXPECT_EQ(nvmlDeviceGetNvLinkState(device[0], 18, &active), NVML_ERROR_INVALID_ARGUMENT);
  nvmlFieldValue_t fields[2] = {};
  EXPECT_EQ(nvmlDeviceGetFieldValues(device[0], 2, fields), NVML_SUCCESS);
  EXPECT_EQ(fields[1].nvmlReturn, NVML_ERROR_NOT_SUPPORTED);
  nvmlGpuP2PStatus_t status;
  EXPECT_EQ(nvmlDeviceGetP2PStatus(device[0], device[1], NVML_P2P_CAPS_INDEX_READ, &status), NVML_SUCCESS);
  EXPECT_EQ(status, NVML_P2P_STATUS_NOT_SUPPORTED);
}

TEST_F(Nvml, a_vgpu_whose_server_is_silent_is_lost_and_the_others_are_not) {
  pool->usage.vgpus[1].known = 0;
  nvmlUtilization_t utilization;
  EXPECT_EQ(nvmlDeviceGetUtilizationRates(device[1], &utilization), NVML_ERROR_GPU_IS_LOST);
  EXPECT_EQ(nvmlDeviceGetUtilizationRates(device[0], &utilization), NVML_SUCCESS);
}

TEST_F(Nvml, a_pool_that_ends_is_an_error_and_no_hang) {
  nvmlMemory_t memory;
  ASSERT_EQ(nvmlDeviceGetMemoryInfo(device[0], &memory), NVML_SUCCESS);
  delete pool;
  sleep_us(150'000);
  const uint64_t begin = now_ns();
  for (int i = 0; i < 100; ++i) EXPECT_EQ(nvmlDeviceGetMemoryInfo(device[0], &memory), NVML_ERROR_GPU_IS_LOST);
  EXPECT_LT(now_ns() - begin, 2'000'000'000u);
  char name[256];
  EXPECT_EQ(nvmlDeviceGetName(device[0], name, sizeof name), NVML_SUCCESS) << "what never changes is still known";
  pool = new FakePool(1);
}

TEST_F(Nvml, a_forked_child_goes_on_with_a_line_of_its_own) {
  nvmlMemory_t memory;
  ASSERT_EQ(nvmlDeviceGetMemoryInfo(device[0], &memory), NVML_SUCCESS);
  const pid_t child = fork();
  if (child == 0) _exit(nvmlDeviceGetMemoryInfo(device[0], &memory) == NVML_SUCCESS ? int(memory.used >> 20) : 255);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status), 64);
  EXPECT_EQ(pool->hellos, 2);
  sleep_us(150'000);
  EXPECT_EQ(nvmlDeviceGetMemoryInfo(device[0], &memory), NVML_SUCCESS);
  EXPECT_EQ(pool->hellos, 2);
}

}  // namespace
}  // namespace tide
