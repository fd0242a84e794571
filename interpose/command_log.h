#pragma once

// What a protected session has sent since its last checkpoint, whole and in order: commands as they are in the ring,
// and between them what they rely on besides each other. A *mark*: the program had seen this stream, or event, get so
// far before it sent what comes next. A *signal*: the client had stored it by then. Another worker, at the checkpoint,
// does the same again when it is given the log and each mark is waited for.
//
// One thread at a time (the channel's lock). Allocates a block for some thousand commands.

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "transport/frame.h"
#include "transport/layout.h"

namespace tide {

class CommandLog {
 public:
  enum class Kind : uint8_t { kCommand, kStreamMark, kEventMark, kSignal };
  struct Entry {
    Kind kind{};
    // kCommand: its record, header first.
    const CommandHeader* command = nullptr;
    // The others: a slot, and what it had come to.
    uint32_t slot = 0;
    uint64_t value = 0;
  };

  // `last_sequence`: of the last command that is not in it.
  explicit CommandLog(uint64_t last_sequence) : begin_(last_sequence), end_(last_sequence) {}

  // Each: false if there is no memory; the log is then of no use. A command's number is the next one; `payload` has its
  // payload_bytes.
  [[nodiscard]] bool add(const CommandHeader& header, const std::byte* payload);
  [[nodiscard]] bool add(Kind kind, uint32_t slot, uint64_t value);

  // A checkpoint contains all commands up to `sequence`: they go. At most `most` entries in one call; true when there
  // are more to go.
  bool drop_to(uint64_t sequence, size_t most);
  // It reaches back to the command behind begin(); end() is the last.
  uint64_t begin() const { return begin_; }
  uint64_t end() const { return end_; }
  uint64_t bytes() const { return bytes_; }  // of memory
  // What the client had stored in this slot before the first entry.
  uint64_t signal(uint32_t slot) const { return slot < signals_.size() ? signals_[slot] : 0; }

  // To read from the first entry on.
  void rewind() { next_ = {dropped_blocks_, first_at_}; }
  // The next entry, valid until something is dropped; again until pass(). False: there is none.
  bool look(Entry* entry) const;
  void pass();

 private:
  static constexpr size_t kBlockBytes = 4u << 20;
  static constexpr size_t kSpareMost = 8;
  static_assert(kBlockBytes >= kRecordBytesMax);

  struct Block {
    std::unique_ptr<std::byte[]> bytes;
    size_t used = 0;
  };
  struct Place {
    uint64_t block = 0;  // counted from the beginning
    size_t at = 0;
  };

  std::byte* room_for(size_t bytes);
  const CommandHeader* at(Place place) const;
  Place settled(Place place) const;
  Place behind(Place place) const;
  void drop_empty_block();
  void drop_first();

  std::deque<Block> blocks_;
  std::vector<std::unique_ptr<std::byte[]>> spare_;
  uint64_t dropped_blocks_ = 0;
  size_t first_at_ = 0;  // in the first block
  uint64_t begin_, end_;
  uint64_t bytes_ = 0;
  std::vector<uint64_t> signals_;
  Place next_;  // to be read
};

}  // namespace tide
