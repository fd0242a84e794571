#include "softgpu/driver/heap.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace softgpu {
namespace {

uint64_t rounded(uint64_t bytes) {
  return std::max(Heap::kAlignment, (bytes + Heap::kAlignment - 1) / Heap::kAlignment * Heap::kAlignment);
}

}  // namespace

void Heap::add_slab(uint64_t address, std::shared_ptr<Backing> backing) {
  const uint64_t bytes = backing->bytes;
  slabs_[address] = {std::move(backing), 0};
  free_[address] = bytes;
  reserved_ += bytes;
}

const Heap::Slab& Heap::slab_of(uint64_t address, uint64_t* start) const {
  const auto slab = std::prev(slabs_.upper_bound(address));
  *start = slab->first;
  return slab->second;
}

uint64_t Heap::take(uint64_t bytes) {
  bytes = rounded(bytes);
  const auto fit = std::find_if(free_.begin(), free_.end(), [&](const auto& f) { return f.second >= bytes; });
  if (fit == free_.end()) return 0;
  const auto [address, length] = *fit;
  free_.erase(fit);
  if (length != bytes) free_.emplace(address + bytes, length - bytes);
  std::prev(slabs_.upper_bound(address))->second.used += bytes;
  used_ += bytes;
  return address;
}

void Heap::give(uint64_t address, uint64_t bytes) {
  bytes = rounded(bytes);
  const auto slab = std::prev(slabs_.upper_bound(address));
  slab->second.used -= bytes;
  used_ -= bytes;
  // Pieces of neighbouring slabs stay apart, so that a slab can go.
  const uint64_t slab_end = slab->first + slab->second.backing->bytes;
  auto next = free_.lower_bound(address);
  if (next != free_.end() && next->first == address + bytes && next->first != slab_end) {
    bytes += next->second;
    next = free_.erase(next);
  }
  if (next != free_.begin() && address != slab->first) {
    const auto before = std::prev(next);
    if (before->first + before->second == address) {
      before->second += bytes;
      return;
    }
  }
  free_.emplace(address, bytes);
}

uint64_t Heap::drop_unused() {
  for (auto slab = slabs_.begin(); slab != slabs_.end(); ++slab) {
    if (slab->second.used != 0) continue;
    const uint64_t address = slab->first;
    reserved_ -= slab->second.backing->bytes;
    free_.erase(address);  // one piece: all of it was given back
    slabs_.erase(slab);
    return address;
  }
  return 0;
}

}  // namespace softgpu
