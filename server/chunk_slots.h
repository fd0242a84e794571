#pragma once

// Memory that two workers of one machine share while a vGPU moves: the source's GPU copies chunks into its slots, and
// the destination's GPU out of them, so that a chunk's bytes are touched by those two copies and its hash only, and by
// no network. The destination makes them and says in its greeting where they are; a source on another machine, or that
// cannot reach them, sends chunks over the stream, and so does one that does not know of slots.
//
// Each slot is the source's until it has told the destination of a chunk in it, and then the destination's until
// give_back(). One thread on each side.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "base/limits.h"
#include "base/outcome.h"
#include "transport/stream.h"

namespace tide {

class ChunkSlots {
 public:
  static constexpr uint32_t kSlots = 6;
  static constexpr uint64_t kBytes = kSlots * kChunkBytes;

  // The destination's. Nothing is backed by memory until it is written.
  static Outcome make(std::unique_ptr<ChunkSlots>* slots);
  // What tells a source of this machine where they are; at most 300 bytes.
  std::string offer() const;
  // The source's. Fails where the offer is none, or of another machine, or they are out of reach.
  static Outcome take(const std::string& offer, std::unique_ptr<ChunkSlots>* slots);
  ~ChunkSlots();
  ChunkSlots(const ChunkSlots&) = delete;
  ChunkSlots& operator=(const ChunkSlots&) = delete;

  std::byte* at(uint32_t slot) const { return data_ + slot * kChunkBytes; }

  // Source: one that is its own and not `but`, waiting until there is one; fails when the stream does, or the
  // destination gives nothing back for 30 s.
  Outcome find_free(uint32_t but, ByteStream& stream, uint32_t* slot);
  // Source: the destination is told next that the slot is its own.
  void hand_over(uint32_t slot);
  // Destination. False: the slot is not its own.
  bool is_ours(uint32_t slot) const;
  void give_back(uint32_t slot);

 private:
  // In the page behind the slots.
  struct Page {
    uint8_t nonce[32];
    std::atomic<uint32_t> given_back;  // how often; the source sleeps on it
    std::atomic<uint32_t> asleep;      // 1: it does
    std::atomic<uint32_t> full[kSlots];
  };

  ChunkSlots() = default;
  Outcome map();
  Page& page() const { return *reinterpret_cast<Page*>(data_ + kBytes); }

  int fd_ = -1;
  std::byte* data_ = nullptr;
  uint32_t next_ = 0;  // source: where to look first
};

inline constexpr uint32_t kNoSlot = ~uint32_t{0};

}  // namespace tide
