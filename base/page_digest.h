#pragma once

// Tells whether two pages are the same without having both.

#include <cstddef>
#include <cstdint>

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace tide {

inline constexpr uint64_t kDigestedPage = 4096;

// Of kDigestedPage bytes; never 0.
inline uint64_t page_digest(const std::byte* page) {
  const uint64_t digest = XXH3_64bits(page, kDigestedPage);
  return digest != 0 ? digest : 1;
}

}  // namespace tide
