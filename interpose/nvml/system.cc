// Starting and ending, versions, errors, and what is said of the machine.

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "interpose/nvml/entry.h"

using namespace tide;
using namespace tide::nvml;

namespace {

struct ErrorText {
  int code;
  const char* text;
};

constexpr ErrorText kErrors[] = {
    {0, "Success"},
    {1, "Uninitialized"},
    {2, "Invalid Argument"},
    {3, "Not Supported"},
    {4, "Insufficient Permissions"},
    {5, "Already Initialized"},
    {6, "Not Found"},
    {7, "Insufficient Size"},
    {8, "Insufficient External Power"},
    {9, "Driver Not Loaded"},
    {10, "Timeout"},
    {11, "Interrupt Request Issue"},
    {12, "NVML Shared Library Not Found"},
    {13, "Function Not Found"},
    {14, "Corrupted infoROM"},
    {15, "GPU is lost"},
    {16, "GPU requires reset"},
    {17, "GPU access blocked by the operating system"},
    {18, "Driver/library version mismatch"},
    {19, "In use by another client"},
    {20, "Insufficient Memory"},
    {21, "No data"},
    {22, "Not available on a virtual GPU with ECC"},
    {23, "Insufficient resources"},
    {24, "Frequency not supported"},
    {25, "Argument version mismatch"},
    {26, "Deprecated"},
    {27, "Not ready"},
    {28, "No GPUs were found"},
    {29, "Invalid state"},
};

// The driver that brought a version of CUDA: the pool says only the latter.
struct Branch {
  int cuda;
  const char* driver;
};
constexpr Branch kBranches[] = {{13000, "580.00"}, {12090, "575.00"}, {12080, "570.00"}, {12060, "560.00"},
                                {12040, "550.00"}, {12020, "535.00"}, {12000, "525.00"}};

const char* driver_version() {
  for (const Branch& branch : kBranches) {
    if (cuda_version() >= branch.cuda) return branch.driver;
  }
  return "520.00";
}

template <class T>
nvmlReturn_t about_machine(T* output, T value) {
  if (!joined()) return NVML_ERROR_UNINITIALIZED;
  if (output == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  *output = value;
  return NVML_SUCCESS;
}

// The program's name as the kernel's table of processes has it.
nvmlReturn_t read_command(unsigned pid, char* text, size_t size) {
  char path[32];
  snprintf(path, sizeof path, "/proc/%u/cmdline", pid);
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return NVML_ERROR_NOT_FOUND;
  const ssize_t n = read(file, text, size - 1);
  close(file);
  text[n < 0 ? 0 : n] = 0;  // arguments end with NULs: what is left is the program
  return NVML_SUCCESS;
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

nvmlReturn_t nvmlInit_v2() { return join(); }
nvmlReturn_t nvmlInit() { return join(); }
nvmlReturn_t nvmlInitWithFlags(unsigned flags) {
  const unsigned known = NVML_INIT_FLAG_NO_GPUS | NVML_INIT_FLAG_NO_ATTACH;
  return (flags & ~known) != 0 ? NVML_ERROR_INVALID_ARGUMENT : join();
}
nvmlReturn_t nvmlShutdown() { return leave(); }

const char* nvmlErrorString(nvmlReturn_t result) {
  for (const ErrorText& error : kErrors) {
    if (error.code == result) return error.text;
  }
  return "Unknown Error";
}

// Versions are told before init, too.
nvmlReturn_t nvmlSystemGetCudaDriverVersion(int* cuda) {
  if (cuda == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  *cuda = cuda_version();
  return NVML_SUCCESS;
}
nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int* cuda) { return nvmlSystemGetCudaDriverVersion(cuda); }

nvmlReturn_t nvmlSystemGetDriverVersion(char* text, unsigned length) {
  return joined() ? copy_text(driver_version(), text, length) : NVML_ERROR_UNINITIALIZED;
}

nvmlReturn_t nvmlSystemGetNVMLVersion(char* text, unsigned length) {
  char all[32];
  snprintf(all, sizeof all, "%d.%s", cuda_version() / 1000, driver_version());
  return copy_text(all, text, length);
}

nvmlReturn_t nvmlSystemGetProcessName(unsigned pid, char* name, unsigned length) {
  if (!joined()) return NVML_ERROR_UNINITIALIZED;
  if (name == nullptr || length == 0) return NVML_ERROR_INVALID_ARGUMENT;
  char command[1024];
  if (const nvmlReturn_t r = read_command(pid, command, sizeof command); r != NVML_SUCCESS) return r;
  snprintf(name, length, "%s", command);
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlUnitGetCount(unsigned* units) { return about_machine(units, 0u); }
nvmlReturn_t nvmlGetExcludedDeviceCount(unsigned* devices) { return about_machine(devices, 0u); }

// Confidential computing is off.
nvmlReturn_t nvmlSystemGetConfComputeState(nvmlConfComputeSystemState_t* state) {
  return about_machine(state, nvmlConfComputeSystemState_t{});
}
nvmlReturn_t nvmlSystemGetConfComputeSettings(nvmlSystemConfComputeSettings_v1_t* settings) {
  if (!joined()) return NVML_ERROR_UNINITIALIZED;
  if (settings == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  const unsigned wanted = struct_version<nvmlSystemConfComputeSettings_v1_t>(1);
  if (settings->version != wanted) return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
  *settings = {.version = wanted, .environment = 0, .ccFeature = 0, .devToolsMode = 0, .multiGpuMode = 0};
  return NVML_SUCCESS;
}

}  // extern "C"
#pragma GCC visibility pop
