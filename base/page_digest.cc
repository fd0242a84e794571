#include "base/page_digest.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace tide {

uint64_t page_digest(const std::byte* page) {
  const uint64_t digest = XXH3_64bits(page, kDigestedPage);
  return digest != 0 ? digest : 1;
}

}  // namespace tide
