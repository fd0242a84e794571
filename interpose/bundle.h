#pragma once

// Makes a bundle (api/bundle.h) of several images.

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "api/bundle.h"

namespace tide {

class Bundle {
 public:
  explicit Bundle(BundleKind kind);
  void add(uint32_t type, std::string_view name, const void* data, uint64_t bytes);
  bool empty() const { return count_ == 0; }
  // The whole; `this` is empty afterwards.
  std::vector<std::byte> take();

 private:
  BundleKind kind_;
  uint32_t count_ = 0;
  std::vector<std::byte> bytes_;
};

// Of a fat binary wrapper that find_image() calls kSeveralFatbins. Empty when one of them is none.
std::vector<std::byte> bundle_of_wrapper(const void* wrapper);

}  // namespace tide
