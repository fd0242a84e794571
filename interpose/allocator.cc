#include "interpose/allocator.h"

#include <algorithm>
#include <iterator>

#include "base/limits.h"

namespace tide {
namespace {

uint64_t round_up(uint64_t n, uint64_t to) { return (n + to - 1) / to * to; }

}  // namespace

Allocator::Allocator(uint64_t base, uint64_t bytes, uint64_t quota) : quota_(quota / kChunkBytes * kChunkBytes) {
  unmapped_.add(base, bytes / kChunkBytes * kChunkBytes);
}

uint64_t Allocator::chunks_of(uint64_t bytes) { return round_up(bytes, kChunkBytes); }

void Allocator::unmap(uint64_t address, uint64_t bytes, std::vector<Mapping>* todo) {
  todo->push_back({address, bytes, false});
  unmapped_.add(address, bytes);
  mapped_ -= bytes;
}

void Allocator::unmap_largest(std::vector<Mapping>* todo) {
  const auto [kept, kept_bytes] = kept_.largest();
  kept_.remove(kept, kept_bytes);
  unmap(kept, kept_bytes, todo);
}

bool Allocator::make_room(uint64_t bytes, std::vector<Mapping>* todo) {
  if (bytes > available()) return false;
  while (mapped_ + bytes > quota_) unmap_largest(todo);
  return true;
}

void Allocator::keep_at_most(uint64_t bytes, std::vector<Mapping>* todo) {
  kept_most_ = bytes;
  while (kept_.total() > bytes) unmap_largest(todo);
}

bool Allocator::charge(uint64_t bytes, std::vector<Mapping>* todo) {
  if (!make_room(bytes, todo)) return false;
  mapped_ += bytes;
  return true;
}

bool Allocator::take_chunks(uint64_t bytes, uint64_t* address, std::vector<Mapping>* todo) {
  if (kept_.take(bytes, kChunkBytes, address)) return true;
  if (!make_room(bytes, todo)) return false;
  if (!unmapped_.take(bytes, kChunkBytes, address)) return false;
  todo->push_back({*address, bytes, true});
  mapped_ += bytes;
  return true;
}

void Allocator::return_chunks(uint64_t address, uint64_t bytes, std::vector<Mapping>* todo) {
  if (kept_.total() + bytes <= kept_most_) {
    kept_.add(address, bytes);
  } else {
    unmap(address, bytes, todo);
  }
}

bool Allocator::allocate(uint64_t bytes, uint32_t context, uint64_t id, uint64_t* address, std::vector<Mapping>* todo) {
  if (bytes == 0 || bytes > quota_) return false;
  uint64_t at = 0;
  if (bytes <= kSmallBytesMax) {
    const uint64_t taken = round_up(bytes, kAllocationAlign);
    if (!small_.take(taken, kAllocationAlign, &at)) {
      uint64_t chunk = 0;
      if (!take_chunks(kChunkBytes, &chunk, todo)) return false;
      small_.add(chunk, kChunkBytes);
      if (!small_.take(taken, kAllocationAlign, &at)) return false;
    }
  } else if (!take_chunks(round_up(bytes, kChunkBytes), &at, todo)) {
    return false;
  }
  live_.emplace(at, Allocation{at, bytes, context, id});
  *address = at;
  return true;
}

bool Allocator::release(uint64_t address, std::vector<Mapping>* todo) {
  const auto it = live_.find(address);
  if (it == live_.end() || it->second.mapped) return false;
  const uint64_t bytes = it->second.bytes;
  live_.erase(it);
  if (bytes > kSmallBytesMax) {
    return_chunks(address, round_up(bytes, kChunkBytes), todo);
    return true;
  }
  const auto [begin, size] = small_.add(address, round_up(bytes, kAllocationAlign));
  // Neighbouring chunks may have merged: give back every chunk that this allocation touched and that is free now.
  const uint64_t end = address + bytes;
  for (uint64_t chunk = address / kChunkBytes * kChunkBytes; chunk < end; chunk += kChunkBytes) {
    if (begin > chunk || begin + size < chunk + kChunkBytes) continue;
    small_.remove(chunk, kChunkBytes);
    return_chunks(chunk, kChunkBytes, todo);
  }
  return true;
}

void Allocator::release_context(uint32_t context, std::vector<Mapping>* todo) {
  std::vector<uint64_t> bases;
  for (const auto& [base, allocation] : live_) {
    if (allocation.context == context && !allocation.mapped) bases.push_back(base);
  }
  for (const uint64_t base : bases) release(base, todo);
}

const Allocation* Allocator::find(uint64_t address) const {
  auto it = live_.upper_bound(address);
  if (it == live_.begin()) return nullptr;
  it = std::prev(it);
  return address - it->first < it->second.bytes ? &it->second : nullptr;
}

}  // namespace tide
