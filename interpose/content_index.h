#pragma once

// Which contents the worker keeps, and in which slots: the client decides, and names slot and key with each piece.
// A slot that is taken (by use or claim) is nobody else's until it is given back, which is done when the command is in
// the ring: so the commands that name a slot are in the order in which this index lent it. Any thread.

#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "base/pack.h"
#include "interpose/spin_lock.h"

namespace tide {

class ContentIndex {
 public:
  explicit ContentIndex(uint32_t slots);

  // What this index knows a content by.
  ContentKey key_of(const std::byte* data, uint64_t bytes) const { return hash_.key(data, bytes); }

  // The slot that keeps this content, taken; kNoContent: none does.
  uint32_t use(const ContentKey& key);
  // A slot for new content, taken: an empty one, else the one that was longest of no use. Its content is forgotten.
  // kNoContent: all are taken.
  uint32_t claim();
  // Of use(): its command is in the ring, or will never be.
  void give_back(uint32_t slot);
  // Of claim(): the content is under way. Or it is not, and the slot keeps nothing.
  void keep(uint32_t slot, const ContentKey& key);
  void drop(uint32_t slot);

  uint32_t slots() const { return count_; }

 private:
  struct Slot {
    ContentKey key;
    uint32_t before = 0, after = 0;  // in the order of use
    uint32_t takers = 0;
    bool full = false;
  };
  struct Hash {
    size_t operator()(const ContentKey& key) const { return key.low; }
  };
  void unlink(uint32_t slot);
  void link_behind(uint32_t slot, uint32_t other);
  void forget(uint32_t slot);

  const ContentHash hash_;
  const uint32_t count_;  // 0 where contents cannot be told apart
  SpinLock lock_;
  std::vector<Slot> slots_;  // and one more, the ring's anchor: behind it the newest, before it the oldest
  std::unordered_map<ContentKey, uint32_t, Hash> by_key_;
};

}  // namespace tide
