#pragma once

// Memory that somebody else may be looking at, or writing beside, while it is written: another processor, a GPU.

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace tide {

// Which bytes of a piece of memory are meant: a bit for each, the first byte's the lowest, in words of 64.
inline constexpr uint64_t kMaskedBlock = 64;
inline uint64_t mask_words(uint64_t bytes) { return (bytes + kMaskedBlock - 1) / kMaskedBlock; }

// Eight bits of a mask, from bit `at` on. Requires: they are all there.
inline uint8_t masked_bytes(const uint64_t* mask, uint64_t at) {
  const uint64_t shift = at % kMaskedBlock, low = mask[at / kMaskedBlock] >> shift;
  return uint8_t(shift > kMaskedBlock - 8 ? low | mask[at / kMaskedBlock + 1] << (kMaskedBlock - shift) : low);
}

// Of an aligned word the bytes that are named, all at once; the others stay as they are, whoever writes them.
inline void store_bytes(std::byte* to, const std::byte* from, uint8_t named) {
  auto* const word = reinterpret_cast<uint64_t*>(to);
  uint64_t value = 0, bytes = 0;
  memcpy(&value, from, sizeof value);
  for (int i = 0; i < 8; ++i) bytes |= (named >> i & 1) != 0 ? uint64_t{0xff} << 8 * i : 0;
  uint64_t is = __atomic_load_n(word, __ATOMIC_RELAXED);
  while (!__atomic_compare_exchange_n(word, &is, (is & ~bytes) | (value & bytes), false, __ATOMIC_RELEASE,
                                      __ATOMIC_RELAXED)) {
  }
}

// Of these bytes only those that the mask names. Aligned words of 8 bytes change at once, and in order.
inline void store_masked(std::byte* to, const std::byte* from, uint64_t bytes, const uint64_t* mask) {
  for (uint64_t at = 0; at < bytes;) {
    if (at % kMaskedBlock == 0 && mask[at / kMaskedBlock] == 0) {
      at += kMaskedBlock;
    } else if (reinterpret_cast<uint64_t>(to + at) % 8 == 0 && bytes - at >= 8) {
      if (const uint8_t named = masked_bytes(mask, at); named != 0) store_bytes(to + at, from + at, named);
      at += 8;
    } else {
      if ((mask[at / kMaskedBlock] >> at % kMaskedBlock & 1) != 0) to[at] = from[at];
      ++at;
    }
  }
}

}  // namespace tide
