#pragma once

// Memory that somebody else may be looking at while it is written: another processor, a GPU.

#include <cstdint>
#include <cstring>

namespace tide {

// Aligned words of 8 and 4 bytes change at once, and in order.
inline void store_words(std::byte* to, const std::byte* from, uint64_t bytes) {
  while (bytes != 0) {
    const uint64_t step = reinterpret_cast<uint64_t>(to) % 8 == 0 && bytes >= 8   ? 8
                          : reinterpret_cast<uint64_t>(to) % 4 == 0 && bytes >= 4 ? 4
                                                                                  : 1;
    if (step == 8) {
      uint64_t word = 0;
      memcpy(&word, from, sizeof word);
      __atomic_store_n(reinterpret_cast<uint64_t*>(to), word, __ATOMIC_RELEASE);
    } else if (step == 4) {
      uint32_t word = 0;
      memcpy(&word, from, sizeof word);
      __atomic_store_n(reinterpret_cast<uint32_t*>(to), word, __ATOMIC_RELEASE);
    } else {
      *to = *from;
    }
    to += step, from += step, bytes -= step;
  }
}

// Which words of 4 bytes of a piece of memory are meant: a bit for each, the first word's the lowest.
inline constexpr uint64_t kMaskedWord = 4, kMaskedPerByte = 8 * kMaskedWord;
inline uint64_t mask_bytes(uint64_t bytes) { return (bytes + 8 * kMaskedPerByte - 1) / (8 * kMaskedPerByte) * 8; }

// Of these bytes only the words that the mask names.
inline void store_masked(std::byte* to, const std::byte* from, uint64_t bytes, const uint64_t* mask) {
  const uint64_t words = (bytes + kMaskedWord - 1) / kMaskedWord;
  const auto named = [&](uint64_t word) { return (mask[word / 64] >> word % 64 & 1) != 0; };
  for (uint64_t word = 0; word < words; ++word) {
    if (!named(word)) continue;
    const uint64_t first = word * kMaskedWord;
    while (word < words && named(word)) ++word;
    const uint64_t end = word * kMaskedWord < bytes ? word * kMaskedWord : bytes;
    store_words(to + first, from + first, end - first);
  }
}

}  // namespace tide
