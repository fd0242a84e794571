#pragma once

// The pieces of one's own ring whose bytes lie elsewhere (Link::lend), from when they are lent until the far side has
// consumed them. Fixed room, no lock: who publishes adds, who carries looks and drops, each one thread at a time.

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "transport/layout.h"

namespace tide {

inline constexpr uint64_t kLentBytesLeast = 32u << 10;  // a lent piece makes a parcel more

// Memory of the far side's program that its link lets us write, over one connection.
struct RemotePlace {
  uint64_t address = 0;
  uint32_t key = 0;
  uint32_t connection = 0;  // a number that it drew for it; 0: there is no such place
  explicit operator bool() const { return connection != 0; }
  RemotePlace at(uint64_t offset) const { return {address + offset, key, connection}; }
};

class LentPieces {
 public:
  struct Piece {
    uint64_t begin = 0, end = 0;  // cursors
    const std::byte* from = nullptr;
    RemotePlace to = {};  // in place of the far side's ring
  };

  // The publisher's. False: there is no room.
  bool add(const Piece& piece) {
    const uint64_t added = added_.load(std::memory_order_relaxed);
    if (added - dropped_.load(std::memory_order_acquire) == kMost) return false;
    pieces_[added % kMost] = piece;
    added_.store(added + 1, std::memory_order_release);
    return true;
  }

  // The carrier's: what ends at or before this cursor will not be asked for again.
  void drop_to(uint64_t cursor) {
    uint64_t first = dropped_.load(std::memory_order_relaxed);
    const uint64_t added = added_.load(std::memory_order_acquire);
    while (first != added && pieces_[first % kMost].end <= cursor) ++first;
    dropped_.store(first, std::memory_order_release);
  }
  // The carrier's: the first piece that ends behind this cursor, or null. Cursors only grow.
  const Piece* behind(uint64_t cursor) {
    const uint64_t first = dropped_.load(std::memory_order_relaxed), added = added_.load(std::memory_order_acquire);
    if (next_ < first) next_ = first;
    while (next_ != added && pieces_[next_ % kMost].end <= cursor) ++next_;
    return next_ == added ? nullptr : &pieces_[next_ % kMost];
  }
  // The carrier's: the first piece that was not dropped, or null. For who drops each in turn.
  const Piece* first() const {
    const uint64_t first = dropped_.load(std::memory_order_relaxed);
    return first == added_.load(std::memory_order_acquire) ? nullptr : &pieces_[first % kMost];
  }

 private:
  // As many as a ring can hold, and as many again that are consumed already and not dropped.
  static constexpr uint64_t kMost = 2 * kCommandRingBytes / kLentBytesLeast;

  std::array<Piece, kMost> pieces_;
  std::atomic<uint64_t> added_{0}, dropped_{0};
  uint64_t next_ = 0;  // the carrier's: all before it end before the cursor it asked for
};

}  // namespace tide
