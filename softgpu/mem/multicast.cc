#include "softgpu/mem/multicast.h"

#include <mutex>

namespace softgpu {

void Multicast::bind(uint64_t address, uint64_t bytes, std::vector<std::byte*> members) {
  if (members.size() > kMost) members.resize(kMost);
  const std::lock_guard lock(mu_);
  ranges_[address] = {bytes, std::move(members)};
}

void Multicast::unbind(uint64_t address) {
  const std::lock_guard lock(mu_);
  ranges_.erase(address);
}

size_t Multicast::find(uint64_t address, uint64_t bytes, std::byte* (&out)[kMost]) const {
  const std::shared_lock lock(mu_);
  auto at = ranges_.upper_bound(address);
  if (at == ranges_.begin()) return 0;
  --at;
  const uint64_t within = address - at->first;
  if (within > at->second.bytes || bytes > at->second.bytes - within) return 0;
  size_t count = 0;
  for (std::byte* member : at->second.members) out[count++] = member + within;
  return count;
}

}  // namespace softgpu
