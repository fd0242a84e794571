// Which symbol a name means at a version: the answer to cuGetProcAddress.

#include <cstring>

#include "api/handshake/handshake.h"

namespace tide::handshake {
namespace {

const Entry* first_with_name(const Entry* entries, size_t count, const char* name) {
  while (count > 0) {
    const size_t half = count / 2;
    if (std::strcmp(entries[half].name, name) < 0) {
      entries += half + 1;
      count -= half + 1;
    } else {
      count = half;
    }
  }
  return entries;
}

// True when `candidate` is a better answer than `best` for a caller that does or does not want per-thread forms.
bool better(const Entry& candidate, const Entry* best, bool per_thread) {
  if (best == nullptr) return true;
  if (candidate.per_thread != best->per_thread) return candidate.per_thread == per_thread;
  return candidate.version > best->version;
}

}  // namespace

CUresult get_proc_address(const Entry* entries, size_t count, int driver_version, const char* name, void** function,
                          int cuda_version, cuuint64_t flags, CUdriverProcAddressQueryResult* status) {
  constexpr cuuint64_t kKnownFlags = CU_GET_PROC_ADDRESS_LEGACY_STREAM | CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM;
  if (name == nullptr || function == nullptr || *name == 0 || (flags & ~kKnownFlags) != 0 || flags == kKnownFlags ||
      cuda_version > driver_version) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  const bool per_thread = (flags & CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM) != 0;
  const Entry* const end = entries + count;
  const Entry* best = nullptr;
  bool name_known = false;
  for (const Entry* e = first_with_name(entries, count, name); e != end && std::strcmp(e->name, name) == 0; ++e) {
    if (e->per_thread && !per_thread) continue;
    name_known = true;
    if (e->version <= cuda_version && better(*e, best, per_thread)) best = e;
  }
  const bool served = best != nullptr && best->function != best->refusal;
  *function = served ? best->function : nullptr;
  if (status != nullptr) {
    *status = served                          ? CU_GET_PROC_ADDRESS_SUCCESS
              : name_known && best == nullptr ? CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT
                                              : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
  }
  return CUDA_SUCCESS;
}

}  // namespace tide::handshake
