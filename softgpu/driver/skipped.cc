#include "softgpu/driver/skipped.h"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <unordered_map>

#include "base/log.h"

namespace softgpu {
namespace {

std::mutex g_mu;
std::atomic<unsigned long long> g_launches{0};

// How often each kernel was skipped; guarded by g_mu, and never destroyed.
std::unordered_map<std::string, unsigned long long>& counts() {
  static auto* const the = new std::unordered_map<std::string, unsigned long long>;
  return *the;
}

void say_how_many() {
  const std::lock_guard lock(g_mu);
  tide::log(tide::LogLevel::kWarning,
            "SOFTGPU_SASS=skip: %llu launches of %zu kernels were skipped; everything computed with them is garbage",
            g_launches.load(), counts().size());
}

bool read_environment() {
  const char* value = std::getenv("SOFTGPU_SASS");
  if (value == nullptr || *value == 0) return false;
  if (std::strcmp(value, "skip") == 0) return true;
  tide::log(tide::LogLevel::kWarning, "SOFTGPU_SASS=%s is not known; the only value is \"skip\"", value);
  return false;
}

}  // namespace

bool skips_machine_code() {
  static const bool the = read_environment();
  return the;
}

CUresult launch_machine_code(const std::string& kernel) {
  if (!skips_machine_code()) {
    tide::log(tide::LogLevel::kWarning, "kernel %s exists only as machine code, not as PTX: it cannot run here",
              kernel.c_str());
    return CUDA_ERROR_NO_BINARY_FOR_GPU;
  }
  if (g_launches.fetch_add(1) == 0) std::atexit(say_how_many);
  const std::lock_guard lock(g_mu);
  if (counts()[kernel]++ == 0) {
    tide::log(tide::LogLevel::kWarning, "SOFTGPU_SASS=skip: kernel %s is skipped, its results are garbage",
              kernel.c_str());
  }
  return CUDA_SUCCESS;
}

}  // namespace softgpu
