#include "server/pages_told.h"

namespace tide {

PagesTold::PagesTold(uint64_t pages, bool zeros) {
  static constexpr std::byte kZeros[kPage] = {};
  digests_.assign(pages, zeros ? page_digest(kZeros) : 0);
}

bool PagesTold::knows(uint64_t page, const std::byte* bytes) const {
  return page < digests_.size() && digests_[page] == page_digest(bytes);
}

void PagesTold::told(uint64_t first_page, std::span<const std::byte> bytes) {
  for (uint64_t i = 0; i < bytes.size() / kPage; ++i) told(first_page + i, page_digest(bytes.data() + i * kPage));
}

void PagesTold::told(uint64_t page, uint64_t digest) {
  if (page < digests_.size()) digests_[page] = digest;
}

}  // namespace tide
