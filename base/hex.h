#pragma once

// Bytes as hexadecimal digits, in lower case.

#include <cstddef>
#include <cstdint>
#include <string>

namespace tide {

inline std::string hex(const uint8_t* bytes, size_t count) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (size_t i = 0; i < count; ++i) {
    text += kDigits[bytes[i] >> 4];
    text += kDigits[bytes[i] & 15];
  }
  return text;
}

// False: the text is not that of exactly `count` bytes.
inline bool parse_hex(const std::string& text, uint8_t* bytes, size_t count) {
  const auto digit = [](char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1; };
  if (text.size() != 2 * count) return false;
  for (size_t i = 0; i < count; ++i) {
    const int high = digit(text[2 * i]), low = digit(text[2 * i + 1]);
    if (high < 0 || low < 0) return false;
    bytes[i] = uint8_t(high * 16 + low);
  }
  return true;
}

}  // namespace tide
