// What a monitor sees of a job, by NVML alone, while another process of the job works:
//   nvml_view BYTES      a child allocates BYTES and keeps its GPU busy; the parent looks on, then ends it
// One line a check: "NAME: ok", or what was seen instead.

#include <cuda_runtime.h>
#include <dlfcn.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>

namespace {

struct Memory {
  unsigned long long total, free, used;
};
struct Utilization {
  unsigned gpu, memory;
};
struct ProcessInfo {
  unsigned pid;
  unsigned long long used;
  unsigned gpu_instance, compute_instance;
};

struct Nvml {
  void* library = dlopen("libnvidia-ml.so.1", RTLD_NOW);
  template <class... Args>
  int call(const char* name, Args... args) const {
    const auto function = reinterpret_cast<int (*)(Args...)>(dlsym(library, name));
    return function == nullptr ? -1 : function(args...);
  }
};

bool failed = false;

void check(const char* name, bool good, const std::string& seen) {
  printf("%s: %s\n", name, good ? "ok" : seen.c_str());
  failed |= !good;
}

__global__ void spin(float* x, int rounds) {
  float value = x[threadIdx.x];
  for (int i = 0; i < rounds; ++i) value = value * 0.999f + 0.5f;
  x[threadIdx.x] = value;
}

// Figures come a little later than what they tell of, on a busy machine much later.
template <class Condition>
void wait_until(Condition condition) {
  for (int i = 0; i < 600 && !condition(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(50));
}

// In the child: says its device's names, and works until the pipe's other end closes.
void work(int out, int in, size_t bytes) {
  cudaDeviceProp properties;
  char pci[32] = {}, line[256];
  float* x = nullptr;
  if (cudaGetDeviceProperties(&properties, 0) != cudaSuccess ||
      cudaDeviceGetPCIBusId(pci, sizeof pci, 0) != cudaSuccess || cudaMalloc(&x, bytes) != cudaSuccess) {
    _exit(1);
  }
  int n = snprintf(line, sizeof line, "%s ", pci);
  for (const char byte : properties.uuid.bytes) n += snprintf(line + n, sizeof line - n, "%02x", byte & 0xff);
  if (write(out, line, size_t(n) + 1) < 0) _exit(1);
  pollfd told = {in, POLLIN, 0};
  while (poll(&told, 1, 0) == 0) {
    for (int i = 0; i < 4; ++i) spin<<<1, 32>>>(x, 5000);
    if (cudaDeviceSynchronize() != cudaSuccess) _exit(1);
  }
  _exit(0);
}

void look_at_names(const Nvml& nvml, void* device, const char* said) {
  char pci[32], uuid[96] = {}, wanted[64] = {};
  sscanf(said, "%31s %63s", pci, wanted);
  void* by_pci = nullptr;
  check("found by CUDA's PCI address",
        nvml.call("nvmlDeviceGetHandleByPciBusId_v2", pci, &by_pci) == 0 && by_pci == device, pci);
  nvml.call("nvmlDeviceGetUUID", device, uuid, 96u);
  std::string digits(uuid);
  digits.erase(0, digits.size() < 4 ? 0 : 4);
  digits.erase(std::remove(digits.begin(), digits.end(), '-'), digits.end());
  check("CUDA's UUID", digits == wanted, uuid);
}

void look_at_work(const Nvml& nvml, void* device, unsigned child, size_t bytes) {
  Memory memory{};
  Utilization utilization{};
  ProcessInfo processes[8];
  unsigned count = 8;
  wait_until([&] {
    nvml.call("nvmlDeviceGetMemoryInfo", device, &memory);
    nvml.call("nvmlDeviceGetUtilizationRates", device, &utilization);
    return memory.used >= bytes && utilization.gpu >= 30;
  });
  check("memory in use", memory.used >= bytes && memory.used + memory.free == memory.total,
        std::to_string(memory.used));
  check("utilised", utilization.gpu >= 30 && utilization.gpu <= 100, std::to_string(utilization.gpu));
  const int result = nvml.call("nvmlDeviceGetComputeRunningProcesses_v3", device, &count, processes);
  check("the one process", result == 0 && count == 1 && processes[0].pid == child && processes[0].used >= bytes,
        std::to_string(count) + " processes, the first " + std::to_string(processes[0].pid));
}

void look_at_rest(const Nvml& nvml, void* device) {
  Memory memory{};
  Utilization utilization{};
  unsigned count = 0;
  int result = -1;
  wait_until([&] {
    nvml.call("nvmlDeviceGetMemoryInfo", device, &memory);
    nvml.call("nvmlDeviceGetUtilizationRates", device, &utilization);
    result = nvml.call("nvmlDeviceGetComputeRunningProcesses_v3", device, &count, static_cast<void*>(nullptr));
    return memory.used == 0 && utilization.gpu == 0 && count == 0;
  });
  check("nothing is left", memory.used == 0 && utilization.gpu == 0 && result == 0 && count == 0,
        std::to_string(memory.used) + " bytes, " + std::to_string(utilization.gpu) + " %, " + std::to_string(count));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const size_t bytes = strtoull(argv[1], nullptr, 10);
  int names[2], hold[2];
  if (pipe(names) != 0 || pipe(hold) != 0) return 2;
  const pid_t child = fork();
  if (child == 0) {
    close(hold[1]);
    work(names[1], hold[0], bytes);
  }
  close(names[1]);
  const Nvml nvml;
  unsigned count = 0;
  void* device = nullptr;
  check("init", nvml.call("nvmlInit_v2") == 0, "refused");
  check("count", nvml.call("nvmlDeviceGetCount_v2", &count) == 0 && count >= 1, std::to_string(count));
  printf("vGPUs: %u\n", count);
  nvml.call("nvmlDeviceGetHandleByIndex_v2", 0u, &device);
  char said[256] = {};
  check("the child works", read(names[0], said, sizeof said - 1) > 0, "it does not");
  look_at_names(nvml, device, said);
  look_at_work(nvml, device, unsigned(child), bytes);
  close(hold[1]);
  int status = 0;
  waitpid(child, &status, 0);
  check("the child ends", status == 0, std::to_string(status));
  look_at_rest(nvml, device);
  check("shutdown", nvml.call("nvmlShutdown") == 0 && nvml.call("nvmlShutdown") == 1, "refused");
  return failed ? 1 : 0;
}
