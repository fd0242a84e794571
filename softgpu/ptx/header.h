#pragma once

// What a PTX text says of itself before anything else.

#include <cstdint>
#include <string>
#include <string_view>

namespace softgpu::ptx {

// Of all CUDA 13: libraries built with a later 13.x carry newer PTX, and each instruction is checked by itself.
inline constexpr uint32_t kNewestVersion = 99;

struct Header {
  uint32_t version = 0;  // 83 for 8.3; 0: none
  uint32_t version_line = 0;
  std::string version_text;  // as written
  uint32_t target = 0;       // 80 for sm_80; 0: none
  uint32_t target_line = 0;
  std::string target_text;
};

// Reads comments and directives up to the first that is none of .version, .target, .address_size.
Header read_header(std::string_view text);

// Whether ptxas has ever known a GPU of that name ("sm_80", "sm_90a").
bool is_known_target(std::string_view name);

}  // namespace softgpu::ptx
