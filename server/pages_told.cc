#include "server/pages_told.h"

#include <cstring>

namespace tide {

// A client that is served again may not have taken in what the worker before told it: no cursor is good enough, until
// this worker has told.
PagesTold::PagesTold(uint64_t pages, bool zeros, bool unasked) {
  static constexpr std::byte kZeros[kPage] = {};
  digests_.assign(pages, zeros ? page_digest(kZeros) : 0);
  if (unasked) told_at_.assign(pages, zeros ? 0 : ~uint64_t{0});
}

bool PagesTold::knows(uint64_t page, const std::byte* bytes) const {
  return page < digests_.size() && digests_[page] == page_digest(bytes);
}

void PagesTold::answered(uint64_t first_page, std::span<const std::byte> bytes) {
  for (uint64_t i = 0; i < bytes.size() / kPage && first_page + i < digests_.size(); ++i)
    digests_[first_page + i] = page_digest(bytes.data() + i * kPage);
}

void PagesTold::written(uint64_t first, const command::WriteHost& write, std::span<const std::byte> bytes) {
  const uint64_t begin = write.address % kPage, pages = (begin + write.bytes + kPage - 1) / kPage;
  const bool whole = begin == 0 && write.bytes % kPage == 0;
  for (uint64_t i = 0; i < pages && first + i < digests_.size(); ++i) {
    const bool crossed = !told_at_.empty() && write.seen < told_at_[first + i];
    uint64_t digest = 0;
    if (!crossed && write.digest != 0) digest = write.digest;
    if (!crossed && write.digest == 0 && whole) digest = page_digest(bytes.data() + i * kPage);
    digests_[first + i] = digest;
  }
}

// A GPU may go on writing: what is sent is copied first, and remembered as it was copied.
bool PagesTold::tell(uint64_t address, uint64_t executed, AnswerWriter& to) {
  for (uint64_t i = 0; i < digests_.size(); ++i) {
    if (!to.fits(kPage)) return false;
    const auto* const page = reinterpret_cast<const std::byte*>(address) + i * kPage;
    if (knows(i, page)) continue;
    AnswerHeader* const header = to.reserve(kPage);
    header->kind = uint16_t(AnswerKind::kPage);
    header->sequence = executed;
    header->offset = address + i * kPage;
    memcpy(payload_of(header), page, kPage);
    digests_[i] = page_digest(payload_of(header));
    to.publish(header);
    told_at_[i] = to.head();
  }
  return true;
}

}  // namespace tide
