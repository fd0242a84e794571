// What every refused symbol does (client_refusals.cc, generated).

#include "base/log.h"
#include "interpose/entry/entry.h"

namespace tide {

int refuse(const char* name, std::atomic<bool>* logged) noexcept;

int refuse(const char* name, std::atomic<bool>* logged) noexcept {
  if (!logged->exchange(true)) log(LogLevel::kWarning, "%s is not served", name);
  return CUDA_ERROR_NOT_SUPPORTED;
}

}  // namespace tide
