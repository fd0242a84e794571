#include "softgpu/exec/conditionals.h"

#include <deque>
#include <mutex>

namespace softgpu {
namespace {

constexpr uint64_t kTag = 0x59ull << 40;  // so that a wild number is none of ours

struct Values {
  std::mutex mu;
  std::deque<uint32_t> all;  // guarded by mu
};

Values& values() {
  static Values* const the = new Values;
  return *the;
}

}  // namespace

uint64_t make_conditional(uint32_t value) {
  const std::lock_guard lock(values().mu);
  values().all.push_back(value);
  return kTag + values().all.size() - 1;
}

bool set_conditional(uint64_t handle, uint32_t value) {
  const std::lock_guard lock(values().mu);
  if (handle - kTag >= values().all.size()) return false;
  values().all[handle - kTag] = value;
  return true;
}

bool get_conditional(uint64_t handle, uint32_t* value) {
  const std::lock_guard lock(values().mu);
  if (handle - kTag >= values().all.size()) return false;
  *value = values().all[handle - kTag];
  return true;
}

}  // namespace softgpu
