#pragma once

// What the client knows of memory that it keeps equal to ours: a digest of each page as the client has it. What a GPU
// writes leaves no other trace, so pages are read to find out; only those that differ travel.

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/page_digest.h"

namespace tide {

class PagesTold {
 public:
  static constexpr uint64_t kPage = kDigestedPage;

  // `zeros`: the client has zeros, else it is not known what it has.
  PagesTold(uint64_t pages, bool zeros);

  // Whether the client has this page already.
  bool knows(uint64_t page, const std::byte* bytes) const;
  // These are what the client has from now on, in whole pages.
  void told(uint64_t first_page, std::span<const std::byte> bytes);
  // The same of one page, which is only known by its digest.
  void told(uint64_t page, uint64_t digest);

 private:
  std::vector<uint64_t> digests_;  // 0: not known
};

}  // namespace tide
