#include "transport/arriving_commands.h"

#include <algorithm>
#include <cstring>

namespace tide {
namespace {

constexpr uint64_t kShortBytes = 16;  // length and call; padding may have no more
constexpr uint64_t kNever = ~uint64_t{0};

}  // namespace

void ArrivingCommands::begin(std::byte* ring, uint64_t size, uint64_t cursor) {
  ring_ = ring;
  size_ = size;
  record_ = next_ = cursor;
  part_ = Part::kLength;
  until_ = cursor + kShortBytes;
  lands_ = false;
}

void ArrivingCommands::take(const std::byte* from, uint64_t bytes) {
  in_place_ = from == nullptr;
  while (bytes > 0) {
    const uint64_t n = std::min(bytes, until_ - next_);
    if (lands_) {
      landings_->put(next_ - payload_, from, n);
    } else if (from != nullptr) {
      memcpy(place(next_), from, n);
    }
    if (from != nullptr) from += n;
    next_ += n;
    bytes -= n;
    while (next_ == until_) enter();
  }
}

// What comes next. Whoever reads the ring checks the records; where they make no sense, all stays in the ring.
void ArrivingCommands::enter() {
  switch (part_) {
    case Part::kLength:
      return measure();
    case Part::kHeader:
      memcpy(static_cast<void*>(&header_), place(record_), sizeof header_);
      return begin_payload();
    case Part::kHead:
      part_ = Part::kPayload;
      payload_ = next_;
      until_ = record_ + sizeof header_ + header_.payload_bytes;
      lands_ = landings_->begin(header_, place(record_) + sizeof header_);
      return;
    case Part::kPayload:
      part_ = Part::kRest;
      until_ = record_ + header_.bytes;
      lands_ = false;
      return;
    case Part::kRest:
      record_ = next_;
      part_ = Part::kLength;
      until_ = next_ + kShortBytes;
      return;
    case Part::kUnknown:
      return;
  }
}

void ArrivingCommands::measure() {
  memcpy(static_cast<void*>(&header_), place(record_), kShortBytes);
  const bool padding = header_.call == 0;
  const uint64_t room = size_ - record_ % size_;
  const bool sound = header_.bytes >= (padding ? kShortBytes : sizeof header_) && header_.bytes % kRecordAlign == 0 &&
                     header_.bytes <= room;
  part_ = !sound ? Part::kUnknown : padding ? Part::kRest : Part::kHeader;
  until_ = !sound ? kNever : record_ + (padding ? header_.bytes : sizeof header_);
}

void ArrivingCommands::begin_payload() {
  const uint64_t head = landings_ == nullptr || in_place_ ? 0 : landings_->head_bytes(header_);
  const bool sound = header_.payload_bytes <= header_.bytes - sizeof header_ && head < header_.payload_bytes;
  part_ = head != 0 && sound ? Part::kHead : Part::kRest;
  until_ = part_ == Part::kHead ? next_ + head : record_ + header_.bytes;
}

}  // namespace tide
