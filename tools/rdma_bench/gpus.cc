#include "tools/rdma_bench/gpus.h"

#include <dlfcn.h>
#include <unistd.h>

#include <filesystem>

#include "base/log.h"

namespace tide::fabric {
namespace {

// Of cuda.h, which need not be there to build this.
constexpr int kDmaBufSupported = 124, kGpuDirectSupported = 116;  // CUdevice_attribute

struct Cuda {
  std::string why_not;  // empty: the driver works
  int (*init)(unsigned flags) = nullptr;
  int (*driver_version)(int* version) = nullptr;
  int (*device_count)(int* count) = nullptr;
  int (*device_name)(char* name, int bytes, int device) = nullptr;
  int (*device_attribute)(int* value, int attribute, int device) = nullptr;

  Cuda() { load(); }

 private:
  void load();
};

// The name of the file that has it, behind all symbolic links.
std::string file_of(void* function) {
  Dl_info info{};
  if (dladdr(function, &info) == 0 || info.dli_fname == nullptr) return "";
  std::error_code ignored;
  return std::filesystem::canonical(info.dli_fname, ignored).filename();
}

void Cuda::load() {
  void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    why_not = "there is no CUDA driver (libcuda.so.1)";
    return;
  }
  const auto find = [&](auto* function, const char* name) {
    *reinterpret_cast<void**>(function) = dlsym(library, name);
    if (*function == nullptr) why_not = format("the CUDA driver has no %s", name);
  };
  find(&init, "cuInit");
  find(&driver_version, "cuDriverGetVersion");
  find(&device_count, "cuDeviceGetCount");
  find(&device_name, "cuDeviceGetName");
  find(&device_attribute, "cuDeviceGetAttribute");
  if (!why_not.empty()) return;
  const std::string file = file_of(reinterpret_cast<void*>(init));
  // Neither is asked for more: a stand-in would connect to a pool.
  if (file.rfind("libtidecuda", 0) == 0) {
    why_not =
        "the CUDA driver here is Tidepool's stand-in, and a vGPU's memory is not this machine's: no card reaches it";
  } else if (file.rfind("libsoftgpu", 0) == 0) {
    why_not = "the CUDA driver here is the software GPU, whose memory is the host's";
  } else if (const int error = init(0); error != 0) {
    why_not = format("the CUDA driver does not start (cuInit: error %d)", error);
  }
}

// Empty: a card can.
std::string why_no_way(const Cuda& cuda, int device, bool peermem, std::string* way) {
  int dma_buf = 0, direct = 0;
  cuda.device_attribute(&dma_buf, kDmaBufSupported, device);
  cuda.device_attribute(&direct, kGpuDirectSupported, device);
  if (direct == 0) return "its driver says that this GPU cannot";
  if (dma_buf == 0 && !peermem) return "no dma-buf (needs the open kernel modules), and nvidia-peermem is not loaded";
  *way = dma_buf != 0 ? "dma-buf" : "nvidia-peermem";
  return "";
}

Gpu gpu_of(const Cuda& cuda, int device, const Machine& machine) {
  Gpu gpu;
  char name[256] = {};
  if (cuda.device_name(name, sizeof name - 1, device) == 0) gpu.name = name;
  std::string way;
  const std::string why_not = why_no_way(cuda, device, access("/sys/module/nvidia_peermem", F_OK) == 0, &way);
  gpu.way = way;
  if (!why_not.empty()) {
    gpu.gpudirect = "no, because " + why_not;
  } else if (!machine.has_active_rdma()) {
    gpu.gpudirect = "no, because there is no active RDMA port; the GPU could, by " + way;
  } else {
    gpu.gpudirect = "yes, by " + way;
  }
  return gpu;
}

}  // namespace

void look_at_gpus(Machine* machine) {
  const Cuda cuda;
  int version = 0, count = 0;
  if (!cuda.why_not.empty()) {
    machine->gpudirect = "no, because " + cuda.why_not;
    return;
  }
  cuda.driver_version(&version);
  if (const int error = cuda.device_count(&count); error != 0 || count == 0) {
    machine->gpudirect = format("no, because the CUDA driver finds no GPU (error %d)", error);
    return;
  }
  machine->cuda = format("%d.%d", version / 1000, version % 1000 / 10);
  for (int device = 0; device < count; ++device) {
    machine->gpus.push_back(gpu_of(cuda, device, *machine));
    if (machine->gpudirect.empty() || machine->gpus.back().direct())
      machine->gpudirect = machine->gpus.back().gpudirect;
  }
}

}  // namespace tide::fabric
