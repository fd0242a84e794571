#pragma once

// What the client knows of memory that it keeps equal to ours: a digest of each page as the client has it. What a GPU
// writes leaves no other trace, so pages are read to find out; only those that differ travel, when the client asks, or
// unasked where the block is told. Then a page on its way to the client may cross what the client writes on that page:
// from such a write on it is not known what the client has, until the page is told again (docs/wire.md).

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/page_digest.h"
#include "commands.h"
#include "transport/ring.h"

namespace tide {

class PagesTold {
 public:
  static constexpr uint64_t kPage = kDigestedPage;

  // `zeros`: the client has zeros, else it is not known what it has. `unasked`: tell() may be used.
  PagesTold(uint64_t pages, bool zeros, bool unasked);

  // Whether the client has this page already.
  bool knows(uint64_t page, const std::byte* bytes) const;
  // It asked, and these are what it has from now on, in whole pages.
  void answered(uint64_t first_page, std::span<const std::byte> bytes);
  // What it wrote, from page `first` on: `bytes` is what it has there.
  void written(uint64_t first, const command::WriteHost& write, std::span<const std::byte> bytes);
  // Tells the pages of the block at `address` that the client does not have, as they are after command `executed`.
  // False: there is no room for all of them.
  bool tell(uint64_t address, uint64_t executed, AnswerWriter& to);

 private:
  std::vector<uint64_t> digests_;  // 0: not known
  std::vector<uint64_t> told_at_;  // cursors behind what was told last; empty where nothing is told unasked
};

}  // namespace tide
