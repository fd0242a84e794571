#pragma once

// Tells whether two pages are the same without having both.

#include <cstddef>
#include <cstdint>

namespace tide {

inline constexpr uint64_t kDigestedPage = 4096;

// Of kDigestedPage bytes (XXH3); never 0.
uint64_t page_digest(const std::byte* page);

}  // namespace tide
