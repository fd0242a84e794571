#pragma once

// A GPU's UUID as people, CUDA_VISIBLE_DEVICES and NVML write it.

#include <cstdint>
#include <string>

namespace tide {

// "GPU-xxxxxxxx-xxxx-..." of 16 bytes.
inline std::string uuid_text(const uint8_t uuid[16]) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text = "GPU-";
  for (int i = 0; i < 16; ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    text += kDigits[uuid[i] >> 4];
    text += kDigits[uuid[i] & 15];
  }
  return text;
}

}  // namespace tide
