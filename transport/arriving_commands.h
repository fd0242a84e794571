#pragma once

// The commands of the ring that the client fills, as their bytes come. The bytes of a copy to the GPU go to where the
// worker wants them (CommandLandings), and not into the ring. The carrier's, one thread at a time.

#include <cstddef>
#include <cstdint>

#include "transport/frame.h"

namespace tide {

class CommandLandings {
 public:
  virtual ~CommandLandings() = default;
  // The header of a command has come. So many bytes of its payload, at the front, are to be in the ring before the rest
  // can land; 0: all of it stays in the ring. What it says was not checked.
  virtual uint64_t head_bytes(const CommandHeader& header) = 0;
  // They have come, and are at `head`. Where a connection broke, the same command may begin again. False: the rest
  // stays in the ring, too; else put() gets all of it.
  virtual bool begin(const CommandHeader& header, const std::byte* head) = 0;
  // `bytes` more are at `from`, `at` of them are there already. Whoever carries calls all of this, under the link's
  // lock.
  virtual void put(uint64_t at, const std::byte* from, uint64_t bytes) = 0;
};

class ArrivingCommands {
 public:
  // `cursor`: where a record begins.
  void begin(std::byte* ring, uint64_t size, uint64_t cursor);
  // From the next record on. Without, all go into the ring.
  void set_landings(CommandLandings* landings) { landings_ = landings; }
  // The next bytes of the ring, which lie together in it. `from` null: they are in their place already, and none lands.
  void take(const std::byte* from, uint64_t bytes);
  // Where the record begins of which not all has come, or the next one will.
  uint64_t record() const { return part_ == Part::kUnknown ? next_ : record_; }

 private:
  enum class Part { kLength, kHeader, kHead, kPayload, kRest, kUnknown };

  void enter();
  void measure();
  void begin_payload();
  std::byte* place(uint64_t cursor) const { return ring_ + cursor % size_; }

  CommandLandings* landings_ = nullptr;
  std::byte* ring_ = nullptr;
  uint64_t size_ = 1;
  Part part_ = Part::kLength;  // of which the next byte is
  uint64_t record_ = 0;        // cursor of its record
  uint64_t next_ = 0;          // of the next byte
  uint64_t until_ = 0;         // where this part ends
  CommandHeader header_;       // from kHead on
  uint64_t payload_ = 0;       // cursor of what lands
  bool in_place_ = false;      // bytes come into the ring by themselves
  bool lands_ = false;         // this part
};

}  // namespace tide
