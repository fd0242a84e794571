#pragma once

// What the client sent packed, unpacked; and pieces that it may name instead of sending them again. The client chooses
// the slots (interpose/content_index.h), so nothing here can be of another mind. Travels with the session when it
// moves, because commands that are sent again may name what was sent long before. One thread.

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/pack.h"

namespace tide {

class Contents {
 public:
  struct Kept {
    uint32_t slot = kNoContent;
    ContentKey key = {};
  };

  Contents() = default;
  ~Contents();
  Contents(const Contents&) = delete;
  Contents& operator=(const Contents&) = delete;

  // By TIDE_CONTENT_CACHE, in MiB; kContentSlots where it is not set.
  static uint32_t slots_wanted();
  // How many slots a client may use; what is kept is forgotten. None, where there is no memory for them: slots() says.
  void allow(uint32_t slots);
  uint32_t slots() const { return uint32_t(slots_.size()); }

  // The piece's `bytes` of content (at most kPackedPieceMax) into `to`, where that is not null, and into its slot.
  // False: what came is damaged, or names what is not here.
  bool unpack(PackForm form, const Kept& kept, std::span<const std::byte> data, std::byte* to, uint64_t bytes);

  // For moves. What slot `slot` keeps; empty where it keeps nothing.
  std::span<const std::byte> kept(uint32_t slot, ContentKey* key) const;
  // Room in which such a piece is put; null where there is no such slot.
  std::byte* put(const Kept& kept, uint64_t bytes);

 private:
  struct Slot {
    uint32_t bytes = 0;  // 0: nothing
    ContentKey key;
  };

  void release();
  bool decode(PackForm form, std::span<const std::byte> data, std::byte* to, uint64_t bytes);

  Unpacker unpacker_;
  std::vector<Slot> slots_;
  std::byte* memory_ = nullptr;  // of all slots, kPackedPieceMax each; what was never used takes none
};

}  // namespace tide
