#include "transport/arriving.h"

#include <algorithm>
#include <cstring>

#include "transport/layout.h"

namespace tide {
namespace {

constexpr uint64_t kShortBytes = 16;  // length and kind; padding may have no more
constexpr uint64_t kNever = ~uint64_t{0};

bool may_land(const AnswerHeader& header) {
  return header.kind == uint16_t(AnswerKind::kData) && header.flags == 0 && header.payload_bytes >= kLandedBytesLeast;
}

}  // namespace

void ArrivingRecords::begin(std::byte* ring, uint64_t size, uint64_t cursor) {
  ring_ = ring;
  size_ = size;
  record_ = next_ = cursor;
  const bool sound = cursor % kRecordAlign == 0;  // a worker may have said otherwise
  part_ = sound ? Part::kLength : Part::kUnknown;
  until_ = sound ? cursor + kShortBytes : kNever;
  lands_ = far_lands_ = false;
}

const char* ArrivingRecords::take(const std::byte* from, uint64_t bytes) {
  while (bytes > 0) {
    if (far_lands_) return "a part of a payload is missing in its place";
    const uint64_t n = std::min(bytes, until_ - next_);
    if (from != nullptr) {
      put(from, n);
      from += n;
    }
    next_ += n;
    bytes -= n;
    while (next_ == until_) enter();
  }
  return nullptr;
}

const char* ArrivingRecords::take_landed(uint64_t bytes) {
  const bool begins = next_ == record_ + sizeof(AnswerHeader);
  if (part_ != Part::kPayload || bytes > until_ - next_ || !may_land(header_) || (!begins && !far_lands_))
    return "data in their place that are none";
  if (begins) reinterpret_cast<AnswerHeader*>(place(record_))->flags = kAnswerLanded;
  far_lands_ = true;
  next_ += bytes;
  if (next_ == until_) far_lands_ = false;
  while (next_ == until_) enter();
  return nullptr;
}

// The mark is made when the first byte has found its place; if a later one does not, then nobody waits for any of them.
void ArrivingRecords::put(const std::byte* from, uint64_t bytes) {
  if (lands_) {
    const uint64_t at = next_ - record_ - sizeof(AnswerHeader);
    lands_ = landings_ != nullptr && landings_->put(header_, at, from, bytes);
    if (lands_ && at == 0) reinterpret_cast<AnswerHeader*>(place(record_))->flags = kAnswerLanded;
  }
  if (!lands_) memcpy(place(next_), from, bytes);
}

// What comes next. Whoever reads the ring checks the records; where they make no sense, all stays in the ring.
void ArrivingRecords::enter() {
  switch (part_) {
    case Part::kLength:
      return measure();
    case Part::kHeader:
      memcpy(static_cast<void*>(&header_), place(record_), sizeof header_);
      part_ = Part::kPayload;
      until_ = std::min(next_ + header_.payload_bytes, record_ + header_.bytes);
      // One that says it has more than its record is for the reader of the ring to refuse.
      lands_ = landings_ != nullptr && may_land(header_) && record_ + header_.bytes - next_ >= header_.payload_bytes;
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

void ArrivingRecords::measure() {
  memcpy(static_cast<void*>(&header_), place(record_), kShortBytes);
  const bool padding = header_.kind == uint16_t(AnswerKind::kPad);
  const uint64_t room = size_ - record_ % size_;
  const bool sound = header_.bytes >= (padding ? kShortBytes : sizeof header_) && header_.bytes % kRecordAlign == 0 &&
                     header_.bytes <= room;
  part_ = !sound ? Part::kUnknown : padding ? Part::kRest : Part::kHeader;
  until_ = !sound ? kNever : record_ + (padding ? header_.bytes : sizeof header_);
}

}  // namespace tide
