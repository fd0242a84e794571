#pragma once

#include <cstddef>
#include <cstdint>

namespace tide {

// Compares in constant time what must not be guessed.
inline bool same_secret(const uint8_t* a, const uint8_t* b, size_t bytes) {
  uint8_t difference = 0;
  for (size_t i = 0; i < bytes; ++i) difference |= uint8_t(a[i] ^ b[i]);
  return difference == 0;
}

}  // namespace tide
