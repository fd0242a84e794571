#include "tools/tide/places.h"

#include <dlfcn.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>

namespace tide::cli {
namespace {

bool exists(const std::string& path) { return access(path.c_str(), F_OK) == 0; }

std::string own_directory() {
  char path[PATH_MAX];
  const ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
  if (n <= 0) return ".";
  const std::string text(path, size_t(n));
  return text.substr(0, text.rfind('/'));
}

std::string resolved(const std::string& path) {
  char full[PATH_MAX];
  return realpath(path.c_str(), full) == nullptr ? path : full;
}

}  // namespace

std::string find_program(const std::string& name) {
  const std::string here = own_directory();
  std::vector<std::string> candidates = {here + "/" + name, here + "/../../scheduler/" + name,
                                         here + "/../../server/" + name};
  if (name == "tide-agent" && getenv("TIDE_AGENT") != nullptr)
    candidates.insert(candidates.begin(), getenv("TIDE_AGENT"));
  for (const std::string& path : candidates) {
    if (access(path.c_str(), X_OK) == 0) return resolved(path);
  }
  return "";
}

std::string find_library_directory(std::string* looked_in) {
  const std::string here = own_directory();
  std::vector<std::string> candidates = {here + "/../lib", here + "/../../interpose", here};
  if (const char* chosen = getenv("TIDE_LIB"); chosen != nullptr && *chosen != 0)
    candidates.insert(candidates.begin(), chosen);
  for (const std::string& directory : candidates) {
    if (looked_in != nullptr) *looked_in += (looked_in->empty() ? "" : ", ") + resolved(directory);
    if (exists(directory + "/libtidecuda.so")) return resolved(directory);
  }
  return "";
}

std::string find_alias_directory(const std::string& library_directory, const char* name) {
  const std::string alias = library_directory + "/" + name;
  return exists(alias + "/libcuda.so.1") ? alias : "";
}

std::string find_trace_library(const std::string& library_directory) {
  for (const char* name : {"/libtidetrace.so", "/trace/libtidetrace.so"}) {
    const std::string path = library_directory + name;
    if (!library_directory.empty() && exists(path)) return resolved(path);
  }
  return "";
}

int real_gpu_count() {
  struct stat s;
  // Without its device node the driver library has nothing to drive; do not load what may not be there.
  if (stat("/dev/nvidiactl", &s) != 0) return 0;
  void* driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (driver == nullptr) return 0;
  const auto init = reinterpret_cast<int (*)(unsigned)>(dlsym(driver, "cuInit"));
  const auto count = reinterpret_cast<int (*)(int*)>(dlsym(driver, "cuDeviceGetCount"));
  int gpus = 0;
  if (init == nullptr || count == nullptr || init(0) != 0 || count(&gpus) != 0) return 0;
  return gpus;
}

}  // namespace tide::cli
