#pragma once

// Writing and reading the records of a channel's rings (layout.h, frame.h). Plain memory: nothing here makes a system
// call, allocates or waits. After publishing, call notify() (wait.h).
//
// A record is contiguous. One that would cross the ring's end is preceded by a padding record up to the end, which has
// only the first 16 bytes of a header. Every reader checks every field before it uses it: the far side may be hostile,
// so headers are copied out once and never read again from shared memory. Payloads stay in the ring: read each field
// of them once.
//
// Threads: an object is used by one thread at a time; several producers share a lock from reserve() to publish().

#include <cstdint>
#include <cstring>

#include "transport/frame.h"
#include "transport/layout.h"

namespace tide {

// A writer may begin again at the ring's start, behind padding up to the end, from here on, if the reader is close
// behind. So where both sides keep up, they use a few pages that stay in the caches, and not the whole ring in turn.
inline constexpr uint64_t kReuseFrom = 256u << 10;
inline constexpr uint64_t kReuseBehind = 32u << 10;

// What both directions share. Cursors count bytes since the channel began.
struct RingView {
  std::byte* bytes = nullptr;
  uint64_t size = 0;     // a multiple of kRecordAlign
  Word* head = nullptr;  // of the producer
  Word* tail = nullptr;  // of the consumer
};
RingView command_ring(Region region);
RingView answer_ring(Region region);

inline constexpr uint64_t record_bytes(uint64_t header, uint64_t payload) {
  return align_up(header + payload, kRecordAlign);
}
inline constexpr uint32_t kCommandPayloadMax = uint32_t(kRecordBytesMax - sizeof(CommandHeader));
inline constexpr uint32_t kAnswerPayloadMax = uint32_t(kRecordBytesMax - sizeof(AnswerHeader));

// Where the payload of a record begins.
template <class Header>
std::byte* payload_of(Header* header) {
  return reinterpret_cast<std::byte*>(header) + sizeof(Header);
}

template <class Header>
class RingWriter {
 public:
  RingWriter() = default;
  explicit RingWriter(RingView ring) : ring_(ring), head_(ring.head->load(std::memory_order_relaxed)), tail_(head_) {
    tail_ = ring.tail->load(std::memory_order_acquire);
  }

  // Only where both sides see the same memory: a replica would carry the padding.
  void reuse_start(bool on) { look_ = on ? head_ : kNever; }

  // Whether reserve() would succeed now.
  bool fits(uint32_t payload_bytes) {
    const uint64_t bytes = record_bytes(sizeof(Header), payload_bytes);
    return bytes <= kRecordBytesMax && has_space(span_of(bytes));
  }
  uint64_t head() const { return head_; }    // cursor behind the last record
  uint64_t start() const { return start_; }  // of the record that is being written

 protected:
  // Place for a record, behind padding where needed; null when the ring is full at present, or the record too large.
  Header* place(uint32_t payload_bytes, uint64_t sequence) {
    const uint64_t bytes = record_bytes(sizeof(Header), payload_bytes);
    if (bytes > kRecordBytesMax || !has_space(span_of(bytes))) return nullptr;
    start_ = head_;
    const uint64_t room = ring_.size - head_ % ring_.size;
    if (bytes > room || (head_ >= look_ && may_begin_again(room + bytes))) {
      pad(room, sequence);
      start_ += room;
    }
    auto* header = reinterpret_cast<Header*>(ring_.bytes + start_ % ring_.size);
    *header = Header{};
    header->bytes = uint32_t(bytes);
    header->sequence = sequence;
    header->payload_bytes = payload_bytes;
    return header;
  }
  void commit(Header* header) {
    const uint64_t bytes = record_bytes(sizeof(Header), header->payload_bytes);
    header->bytes = uint32_t(bytes);
    head_ = start_ + bytes;
    ring_.head->store(head_, std::memory_order_release);
  }

 private:
  static constexpr uint64_t kNever = ~uint64_t{0};

  bool may_begin_again(uint64_t span) {
    const uint64_t at = head_ % ring_.size;
    look_ = at < kReuseFrom ? head_ - at + kReuseFrom : head_ + kReuseBehind;
    if (at < kReuseFrom) return false;
    const uint64_t tail = ring_.tail->load(std::memory_order_acquire);
    if (head_ - tail > kReuseBehind) return false;
    tail_ = tail;
    return has_space(span);
  }
  uint64_t span_of(uint64_t bytes) const {
    const uint64_t room = ring_.size - head_ % ring_.size;
    return bytes <= room ? bytes : room + bytes;
  }
  // A tail beyond the head, which only a broken far side writes, counts as a full ring.
  bool has_space(uint64_t span) {
    if (head_ + span - tail_ <= ring_.size) return true;
    const uint64_t tail = ring_.tail->load(std::memory_order_acquire);
    if (head_ - tail > ring_.size) return false;
    tail_ = tail;
    return head_ + span - tail_ <= ring_.size;
  }
  void pad(uint64_t room, uint64_t sequence) {
    Header header{};
    header.bytes = uint32_t(room);
    header.sequence = sequence;
    memcpy(ring_.bytes + head_ % ring_.size, &header, 16);
  }

  RingView ring_;
  uint64_t head_ = 0;       // published
  uint64_t start_ = 0;      // of the record being written
  uint64_t tail_ = 0;       // as last seen
  uint64_t look_ = kNever;  // cursor from which on to look whether to begin again
};

// The client's producer of commands. Numbers them 1, 2, 3 ...
class CommandWriter : public RingWriter<CommandHeader> {
 public:
  CommandWriter() = default;
  // Of a region in which `last_sequence` commands have been published (0: a new one).
  explicit CommandWriter(Region region, uint64_t last_sequence = 0)
      : RingWriter(command_ring(region)), next_(last_sequence + 1) {}

  // Zeroed but for bytes, sequence and payload_bytes; the payload follows (payload_of), uninitialised. The caller
  // sets the other fields, may lower payload_bytes, and publishes; or does nothing, and the place is free again.
  CommandHeader* reserve(uint32_t payload_bytes) { return place(payload_bytes, next_); }
  // Returns the command's sequence number.
  uint64_t publish(CommandHeader* header) {
    commit(header);
    return next_++;
  }
  uint64_t last_sequence() const { return next_ - 1; }

 private:
  uint64_t next_ = 1;
};

// The worker's producer of answers. The caller sets kind, sequence, result, offset.
class AnswerWriter : public RingWriter<AnswerHeader> {
 public:
  AnswerWriter() = default;
  explicit AnswerWriter(Region region) : RingWriter(answer_ring(region)) {}
  AnswerHeader* reserve(uint32_t payload_bytes) { return place(payload_bytes, 0); }
  void publish(AnswerHeader* header) { commit(header); }
};

enum class ReadState { kRecord, kEmpty, kMalformed };

struct Command {
  CommandHeader header;                // a copy
  const std::byte* payload = nullptr;  // header.payload_bytes, in the ring until consume()
  uint64_t end = 0;                    // cursor behind the record
};

struct Answer {
  AnswerHeader header;
  const std::byte* payload = nullptr;
  uint64_t end = 0;
};

// The worker's consumer. Begins at the region's command_tail and expects the sequence number after `acknowledged`, so
// that a second worker goes on where the first stopped.
class CommandReader {
 public:
  CommandReader() = default;
  explicit CommandReader(Region region);
  // The next record, and moves past it; it stays in the ring until it is consumed. After kMalformed the channel is of
  // no use; reason() says why.
  ReadState next(Command* command);
  // This command and all before it have been executed: acknowledges, and frees their space.
  void consume(const Command& command);
  // Goes back to the first command that is not consumed.
  void rewind();
  // Whether next() would find something; for waiting.
  bool ready() const { return ring_.head->load(std::memory_order_acquire) != read_; }
  const char* reason() const { return reason_; }

 private:
  RingView ring_;
  WorkerPage* page_ = nullptr;
  uint64_t read_ = 0;
  uint64_t expected_ = 1;
  const char* reason_ = "";
};

// The client's consumer.
class AnswerReader {
 public:
  AnswerReader() = default;
  explicit AnswerReader(Region region);
  ReadState next(Answer* answer);
  // Frees the space of this answer and of all before it.
  void consume(const Answer& answer) { ring_.tail->store(answer.end, std::memory_order_release); }
  bool ready() const { return ring_.head->load(std::memory_order_acquire) != read_; }
  const char* reason() const { return reason_; }

 private:
  RingView ring_;
  uint64_t read_ = 0;
  const char* reason_ = "";
};

}  // namespace tide
