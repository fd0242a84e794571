#include "server/driver_library.h"

#include <dlfcn.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <vector>

#include "base/log.h"

namespace tide {
namespace {

// Absolute names only: a bare "libcuda.so.1" could find our own stand-in through LD_LIBRARY_PATH.
const char* const kUsualPlaces[] = {
    "/usr/lib/x86_64-linux-gnu/libcuda.so.1", "/usr/lib64/libcuda.so.1",
    "/lib/x86_64-linux-gnu/libcuda.so.1",     "/usr/local/nvidia/lib64/libcuda.so.1",
    "/usr/local/nvidia/lib/libcuda.so.1",     "/usr/lib/wsl/lib/libcuda.so.1",
};

// The linker's cache holds its paths as NUL-terminated strings.
std::vector<std::string> cached_places() {
  std::ifstream file("/etc/ld.so.cache", std::ios::binary);
  const std::string cache((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  std::vector<std::string> found;
  const std::string name = "/libcuda.so.1";
  for (size_t at = cache.find(name); at != std::string::npos; at = cache.find(name, at + 1)) {
    const size_t end = at + name.size();
    if (end < cache.size() && cache[end] != '\0') continue;
    size_t begin = cache.rfind('\0', at);
    begin = begin == std::string::npos ? 0 : begin + 1;
    if (cache[begin] == '/') found.push_back(cache.substr(begin, end - begin));
  }
  return found;
}

std::string own_folder() {
  char path[4096];
  const ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);
  if (n <= 0) return ".";
  path[n] = '\0';
  char* slash = strrchr(path, '/');
  if (slash == nullptr) return ".";
  *slash = '\0';
  return path;
}

std::vector<std::string> software_places() {
  std::vector<std::string> places;
  if (const char* path = getenv("TIDE_SOFTGPU"); path != nullptr && *path != '\0') places.push_back(path);
  const std::string here = own_folder();
  for (const char* relative :
       {"/libsoftgpu.so", "/../lib/libsoftgpu.so", "/../softgpu/libsoftgpu.so", "/../softgpu/driver/libsoftgpu.so"}) {
    places.push_back(here + relative);
  }
  return places;
}

Outcome try_open(const std::string& path, DriverLibrary* library) {
  void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) return Outcome::fail(dlerror());
  DriverLibrary found;
  found.path = path;
  load_driver(&found.calls, [handle](const char* name) { return dlsym(handle, name); });
  found.set_image_base = reinterpret_cast<decltype(found.set_image_base)>(dlsym(handle, "softgpuSetImageBase"));
  found.get_image_range = reinterpret_cast<decltype(found.get_image_range)>(dlsym(handle, "softgpuGetImageRange"));
  found.set_object_handle =
      reinterpret_cast<decltype(found.set_object_handle)>(dlsym(handle, "softgpuSetObjectHandle"));
  found.hash_chunks = reinterpret_cast<decltype(found.hash_chunks)>(dlsym(handle, "softgpuHashChunks"));
  found.forget_hashes = reinterpret_cast<decltype(found.forget_hashes)>(dlsym(handle, "softgpuForgetHashes"));
  found.write_now = reinterpret_cast<decltype(found.write_now)>(dlsym(handle, "softgpuWriteNow"));
  found.software = path.find("softgpu") != std::string::npos;
  const char* const claim = getenv("SOFTGPU_MEMORY_IS_NEW");  // for the test that shows what else would be seen
  found.memory_is_new = found.software && (getenv("SOFTGPU_KEEP_MEMORY") == nullptr || claim != nullptr);
  const Driver& calls = found.calls;
  if (calls.cuInit == nullptr || calls.cuDeviceGetCount == nullptr || calls.cuLaunchKernel == nullptr ||
      calls.cuLibraryLoadData == nullptr || calls.cuMemAddressReserve == nullptr) {
    return Outcome::fail(path + " is not a CUDA driver of version 12.0 or newer");
  }
  if (const CUresult result = calls.cuInit(0); result != CUDA_SUCCESS) {
    return Outcome::fail(path + ": cuInit: " + error_text(calls, result));
  }
  int devices = 0;
  if (calls.cuDeviceGetCount(&devices) != CUDA_SUCCESS || devices == 0) return Outcome::fail(path + " has no device");
  *library = found;
  return {};
}

}  // namespace

std::string error_text(const Driver& driver, CUresult result) {
  const char* name = nullptr;
  if (driver.cuGetErrorName != nullptr) driver.cuGetErrorName(result, &name);
  return format("%s (%d)", name == nullptr ? "CUDA error" : name, int(result));
}

Outcome open_driver(DriverLibrary* library) {
  const char* choice = getenv("TIDE_DRIVER");
  if (choice != nullptr && *choice == '/') return try_open(choice, library);
  std::vector<std::string> places;
  if (choice == nullptr || strcmp(choice, "software") != 0) {
    places.assign(std::begin(kUsualPlaces), std::end(kUsualPlaces));
    for (std::string& place : cached_places()) places.push_back(std::move(place));
  }
  for (std::string& place : software_places()) places.push_back(std::move(place));
  std::string reasons;
  for (const std::string& place : places) {
    if (access(place.c_str(), R_OK) != 0) continue;
    const Outcome outcome = try_open(place, library);
    if (outcome.ok()) return {};
    reasons += (reasons.empty() ? "" : "; ") + outcome.message();
  }
  if (reasons.empty())
    reasons = "neither libcuda.so.1 nor libsoftgpu.so was found; set TIDE_SOFTGPU to the latter's path";
  return Outcome::fail("no GPU driver: " + reasons);
}

}  // namespace tide
