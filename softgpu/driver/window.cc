#include "softgpu/driver/window.h"

#include <sys/mman.h>

#include <algorithm>
#include <iterator>

#include "base/log.h"

namespace softgpu {
namespace {

bool hold_addresses(uint64_t address, uint64_t bytes) {
  void* at = reinterpret_cast<void*>(address);
  void* got = mmap(at, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
  if (got == at) return true;
  if (got != MAP_FAILED) munmap(got, bytes);
  return false;
}

}  // namespace

Window::Window() : held_(hold_addresses(kWindowBase, kWindowBytes)) {}

uint64_t Window::take(uint64_t bytes, const Wish& wish) {
  const bool chosen = wish.address != 0;
  uint64_t address = chosen ? wish.address : round_up(wish.from, wish.alignment);
  auto next = parts_.lower_bound(address);
  if (next != parts_.begin()) {
    const auto& [start, length] = *std::prev(next);
    if (start + length > address) {
      if (chosen) return 0;
      address = round_up(start + length, wish.alignment);
    }
  }
  while (next != parts_.end() && next->first < address + bytes) {
    if (chosen) return 0;
    address = round_up(std::max(address, next->first + next->second), wish.alignment);
    ++next;
  }
  if (!chosen && (bytes > wish.to - wish.from || address > wish.to - bytes)) return 0;
  if (!held_ && !hold_addresses(address, bytes)) {
    tide::log(
        tide::LogLevel::kError,
        "the device addresses from %#llx on are in use in this process; the software GPU cannot place memory there",
        static_cast<unsigned long long>(address));
    return 0;
  }
  parts_[address] = bytes;
  return address;
}

void Window::give(uint64_t address) {
  const auto found = parts_.find(address);
  if (found == parts_.end()) return;
  if (!held_) munmap(reinterpret_cast<void*>(address), found->second);
  parts_.erase(found);
}

bool Window::taken(uint64_t address, uint64_t bytes) const {
  auto after = parts_.upper_bound(address);
  if (after == parts_.begin()) return false;
  const auto& [start, length] = *std::prev(after);
  return address - start < length && bytes <= length - (address - start);
}

uint64_t Window::bytes_of(uint64_t address) const {
  const auto found = parts_.find(address);
  return found == parts_.end() ? 0 : found->second;
}

}  // namespace softgpu
