#include "interpose/seen_answers.h"

#include <algorithm>

namespace tide {

void SeenAnswers::remember(uint64_t sequence, const AnswerDigest& answer, bool compared) {
  seen_[sequence] = {answer.digest(), answer.bytes(), answer.result(), compared};
}

SeenAnswers::Verdict SeenAnswers::take(const Part& part) {
  const auto found = seen_.find(part.sequence);
  if (found == seen_.end()) return Verdict::kNew;
  const Seen& seen = found->second;
  if (!seen.compared) return Verdict::kRepeated;
  AnswerDigest& again = repeated_[part.sequence];
  if (!again.add(part.offset, part.from, part.bytes) || again.bytes() > seen.bytes) return Verdict::kDiffers;
  const bool whole = part.data ? again.bytes() == seen.bytes : part.last;
  if (!whole) return Verdict::kRepeated;
  const bool same =
      again.bytes() == seen.bytes && again.digest() == seen.digest && (part.data || part.result == seen.result);
  repeated_.erase(part.sequence);
  return same ? Verdict::kRepeated : Verdict::kDiffers;
}

void SeenAnswers::drop_to(uint64_t sequence) {
  std::erase_if(seen_, [&](const auto& item) { return item.first <= sequence; });
  std::erase_if(repeated_, [&](const auto& item) { return item.first <= sequence; });
}

uint64_t SeenText::take(int descriptor, uint64_t bytes, uint64_t cursor) {
  const size_t which = descriptor == 2 ? 1 : 0;
  Place place = places_.empty() ? base_ : places_.back();
  const uint64_t before = place.said[which];
  place.cursor = cursor;
  place.said[which] += bytes;
  places_.push_back(place);
  const uint64_t again = std::min(bytes, printed_[which] - std::min(printed_[which], before));
  printed_[which] = std::max(printed_[which], before + bytes);
  return again;
}

void SeenText::drop_to(uint64_t cursor) {
  for (; !places_.empty() && places_.front().cursor <= cursor; places_.pop_front()) base_ = places_.front();
}

void SeenText::begin_again(uint64_t cursor) {
  drop_to(cursor);
  places_.clear();
}

}  // namespace tide
