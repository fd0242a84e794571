#include "server/pages_told.h"

#include <algorithm>

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace tide {
namespace {

uint64_t digest(const std::byte* page) { return std::max<uint64_t>(XXH3_64bits(page, PagesTold::kPage), 1); }

}  // namespace

PagesTold::PagesTold(uint64_t pages, bool zeros) {
  static constexpr std::byte kZeros[kPage] = {};
  digests_.assign(pages, zeros ? digest(kZeros) : 0);
}

bool PagesTold::knows(uint64_t page, const std::byte* bytes) const {
  return page < digests_.size() && digests_[page] == digest(bytes);
}

void PagesTold::told(uint64_t first_page, std::span<const std::byte> bytes) {
  for (uint64_t i = 0; i < bytes.size() / kPage && first_page + i < digests_.size(); ++i) {
    digests_[first_page + i] = digest(bytes.data() + i * kPage);
  }
}

}  // namespace tide
