#include "transport/ring.h"

namespace tide {
namespace {

enum class Step { kEmpty, kRecord, kPadding, kMalformed };

struct Next {
  Step step = Step::kEmpty;
  uint64_t bytes = 0;
  const char* reason = "";
};

Next malformed(const char* reason) { return {Step::kMalformed, 0, reason}; }

// Looks at the record at `read` and copies its header out. Checks what is common to both directions: that the record
// lies within what was published, within the ring, and is as long as its payload asks for.
template <class Header>
Next look(const RingView& ring, uint64_t read, uint16_t Header::*kind, Header* header) {
  const uint64_t available = ring.head->load(std::memory_order_acquire) - read;
  if (available == 0) return {};
  if (available > ring.size) return malformed("the cursor is beyond the ring");
  if (available % kRecordAlign != 0) return malformed("the cursor is not aligned");
  const uint64_t at = read % ring.size;
  const uint64_t room = ring.size - at;
  // Padding may be shorter than a header; only its first 16 bytes exist.
  memcpy(static_cast<void*>(header), ring.bytes + at, 16);
  const uint64_t bytes = header->bytes;
  if (bytes == 0 || bytes % kRecordAlign != 0) return malformed("the record's length is not a multiple of 16");
  if (bytes > available || bytes > room) return malformed("the record is longer than what was published");
  if (header->*kind == 0) {
    return bytes == room ? Next{Step::kPadding, bytes, ""} : malformed("padding does not end at the ring's end");
  }
  if (bytes < sizeof(Header) || bytes > kRecordBytesMax) return malformed("the record's length is out of bounds");
  const Header first = *header;
  memcpy(static_cast<void*>(header), ring.bytes + at, sizeof(Header));
  memcpy(static_cast<void*>(header), &first, 16);  // what was checked is what is used
  if (record_bytes(sizeof(Header), header->payload_bytes) != bytes) {
    return malformed("the record's length does not fit its payload");
  }
  return {Step::kRecord, bytes, ""};
}

}  // namespace

RingView command_ring(Region region) {
  return {region.commands(), kCommandRingBytes, &region.client().command_head, &region.worker().command_tail};
}

RingView answer_ring(Region region) {
  return {region.answers(), kAnswerRingBytes, &region.worker().answer_head, &region.client().answer_tail};
}

CommandReader::CommandReader(Region region) : ring_(command_ring(region)), page_(&region.worker()) { rewind(); }

void CommandReader::rewind() {
  read_ = ring_.tail->load(std::memory_order_relaxed);
  expected_ = page_->acknowledged.load(std::memory_order_relaxed) + 1;
}

ReadState CommandReader::next(Command* command) {
  while (true) {
    const Next found = look(ring_, read_, &CommandHeader::call, &command->header);
    if (found.step == Step::kEmpty) return ReadState::kEmpty;
    const CommandHeader& header = command->header;
    reason_ = found.reason;
    if (found.step == Step::kMalformed) return ReadState::kMalformed;
    if (header.sequence != expected_) {
      reason_ = "the sequence number is not the next one";
      return ReadState::kMalformed;
    }
    if (found.step == Step::kRecord && ((header.flags & ~kCommandAnswer) != 0 || header.reserved != 0)) {
      reason_ = "a reserved field is not zero";
      return ReadState::kMalformed;
    }
    const std::byte* place = ring_.bytes + read_ % ring_.size;
    read_ += found.bytes;
    if (found.step == Step::kPadding) continue;
    command->payload = place + sizeof(CommandHeader);
    command->end = read_;
    ++expected_;
    return ReadState::kRecord;
  }
}

void CommandReader::consume(const Command& command) {
  page_->acknowledged.store(command.header.sequence, std::memory_order_release);
  ring_.tail->store(command.end, std::memory_order_release);
}

AnswerReader::AnswerReader(Region region)
    : ring_(answer_ring(region)), read_(ring_.tail->load(std::memory_order_relaxed)) {}

ReadState AnswerReader::next(Answer* answer) {
  while (true) {
    const Next found = look(ring_, read_, &AnswerHeader::kind, &answer->header);
    if (found.step == Step::kEmpty) return ReadState::kEmpty;
    reason_ = found.reason;
    if (found.step == Step::kMalformed) return ReadState::kMalformed;
    const AnswerHeader& header = answer->header;
    if (header.kind > uint16_t(AnswerKind::kPackedData)) {
      reason_ = "the kind of answer is unknown";
      return ReadState::kMalformed;
    }
    const std::byte* place = ring_.bytes + read_ % ring_.size;
    read_ += found.bytes;
    if (found.step == Step::kPadding) continue;
    answer->payload = place + sizeof(AnswerHeader);
    answer->end = read_;
    return ReadState::kRecord;
  }
}

}  // namespace tide
