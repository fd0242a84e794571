#include "interpose/content_index.h"

#include <mutex>

namespace tide {

ContentIndex::ContentIndex(uint32_t slots) : count_(hash_ ? slots : 0), slots_(count_ + 1) {
  slots_[count_].before = slots_[count_].after = count_;
  for (uint32_t slot = 0; slot < count_; ++slot) link_behind(slot, count_);
  by_key_.reserve(count_);
}

void ContentIndex::unlink(uint32_t slot) {
  slots_[slots_[slot].before].after = slots_[slot].after;
  slots_[slots_[slot].after].before = slots_[slot].before;
}

void ContentIndex::link_behind(uint32_t slot, uint32_t other) {
  slots_[slot].before = other;
  slots_[slot].after = slots_[other].after;
  slots_[slots_[other].after].before = slot;
  slots_[other].after = slot;
}

void ContentIndex::forget(uint32_t slot) {
  if (!slots_[slot].full) return;
  by_key_.erase(slots_[slot].key);
  slots_[slot].full = false;
}

uint32_t ContentIndex::use(const ContentKey& key) {
  const std::lock_guard lock(lock_);
  const auto it = by_key_.find(key);
  if (it == by_key_.end()) return kNoContent;
  const uint32_t slot = it->second;
  ++slots_[slot].takers;
  unlink(slot);
  link_behind(slot, count_);
  return slot;
}

uint32_t ContentIndex::claim() {
  const std::lock_guard lock(lock_);
  uint32_t slot = slots_[count_].before;
  while (slot != count_ && slots_[slot].takers != 0) slot = slots_[slot].before;
  if (slot == count_) return kNoContent;
  forget(slot);
  ++slots_[slot].takers;
  unlink(slot);
  link_behind(slot, count_);
  return slot;
}

void ContentIndex::give_back(uint32_t slot) {
  const std::lock_guard lock(lock_);
  --slots_[slot].takers;
}

void ContentIndex::keep(uint32_t slot, const ContentKey& key) {
  const std::lock_guard lock(lock_);
  --slots_[slot].takers;
  // Another thread may have sent the same meanwhile: this one is the next to be claimed then.
  if (by_key_.emplace(key, slot).second) {
    slots_[slot].key = key;
    slots_[slot].full = true;
    return;
  }
  unlink(slot);
  link_behind(slot, slots_[count_].before);
}

void ContentIndex::drop(uint32_t slot) {
  const std::lock_guard lock(lock_);
  --slots_[slot].takers;
  unlink(slot);
  link_behind(slot, slots_[count_].before);
}

}  // namespace tide
