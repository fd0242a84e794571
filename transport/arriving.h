#pragma once

// The records of the ring that the far side fills, as their bytes come. What is a copy's goes to where the copy belongs
// (Landings), if that is known, and not into the ring. The carrier's, one thread at a time.

#include <cstddef>
#include <cstdint>

#include "transport/frame.h"

namespace tide {

inline constexpr uint32_t kLandedBytesLeast = 32u << 10;  // of a record's payload, to be worth asking

// The client's memory of copies from the GPU that are under way.
class Landings {
 public:
  virtual ~Landings() = default;
  // From byte `at` of this record's payload on, `bytes` are at `from`; they may have been put before, over a connection
  // that broke. Puts them where they belong. False: nowhere, they stay in the ring. Whoever carries calls this, under
  // the link's lock.
  virtual bool put(const AnswerHeader& header, uint64_t at, const std::byte* from, uint64_t bytes) = 0;
};

class ArrivingRecords {
 public:
  // `cursor`: where a record begins.
  void begin(std::byte* ring, uint64_t size, uint64_t cursor);
  // From the next record on. Without, all go into the ring.
  void set_landings(Landings* landings) { landings_ = landings; }
  // The next bytes of the ring, which lie together in it. `from` null: they are in their place already.
  const char* take(const std::byte* from, uint64_t bytes);
  // The same, of a payload that the far side has written to its place itself: all of it or nothing.
  const char* take_landed(uint64_t bytes);
  // Both: null, or why that cannot be.

 private:
  enum class Part { kLength, kHeader, kPayload, kRest, kUnknown };

  void put(const std::byte* from, uint64_t bytes);
  void enter();
  void measure();
  std::byte* place(uint64_t cursor) const { return ring_ + cursor % size_; }

  Landings* landings_ = nullptr;
  std::byte* ring_ = nullptr;
  uint64_t size_ = 1;
  Part part_ = Part::kLength;  // of which the next byte is
  uint64_t record_ = 0;        // cursor of its record
  uint64_t next_ = 0;          // of the next byte
  uint64_t until_ = 0;         // where this part ends
  AnswerHeader header_;        // from kPayload on
  bool lands_ = false;         // its payload
  bool far_lands_ = false;     // likewise, by the far side
};

}  // namespace tide
