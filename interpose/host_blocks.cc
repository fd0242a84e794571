#include "interpose/host_blocks.h"

#include <sys/mman.h>
#include <unistd.h>

#include <iterator>

namespace tide {
namespace {

uint64_t whole_pages(uint64_t bytes) { return (bytes + 4095) / 4096 * 4096; }

}  // namespace

void* HostBlocks::allocate(uint64_t bytes, uint32_t flags, uint64_t context, uint64_t id) {
  if (bytes > uint64_t(1) << 46) return nullptr;
  void* p = mmap(nullptr, whole_pages(bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) return nullptr;
  const std::lock_guard lock(mu_);
  const auto base = reinterpret_cast<uint64_t>(p);
  blocks_[base] = {base, bytes, flags, false, context, id};
  return p;
}

bool HostBlocks::release(void* p) {
  uint64_t bytes;
  {
    const std::lock_guard lock(mu_);
    const auto it = blocks_.find(reinterpret_cast<uint64_t>(p));
    if (it == blocks_.end() || it->second.registered) return false;
    bytes = it->second.bytes;
    blocks_.erase(it);
  }
  munmap(p, whole_pages(bytes));
  return true;
}

bool HostBlocks::add(void* p, uint64_t bytes, uint32_t flags, uint64_t context, uint64_t id) {
  const auto base = reinterpret_cast<uint64_t>(p);
  const std::lock_guard lock(mu_);
  const auto next = blocks_.lower_bound(base);
  if (next != blocks_.end() && next->first < base + bytes) return false;
  if (look_up(base) != nullptr) return false;
  blocks_[base] = {base, bytes, flags, true, context, id};
  return true;
}

bool HostBlocks::remove(void* p) {
  const std::lock_guard lock(mu_);
  const auto it = blocks_.find(reinterpret_cast<uint64_t>(p));
  if (it == blocks_.end() || !it->second.registered) return false;
  blocks_.erase(it);
  return true;
}

bool HostBlocks::find(const void* p, HostBlock* block) const {
  const std::lock_guard lock(mu_);
  const HostBlock* found = look_up(reinterpret_cast<uint64_t>(p));
  if (found == nullptr) return false;
  *block = *found;
  return true;
}

const HostBlock* HostBlocks::look_up(uint64_t address) const {
  auto it = blocks_.upper_bound(address);
  if (it == blocks_.begin()) return nullptr;
  it = std::prev(it);
  return address - it->first < it->second.bytes ? &it->second : nullptr;
}

}  // namespace tide
