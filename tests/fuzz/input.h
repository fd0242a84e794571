#pragma once

// The bytes of one run, taken from the front; zeroes when they are used up.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace tide::fuzz {

class Input {
 public:
  Input(const uint8_t* data, size_t bytes) : left_(reinterpret_cast<const std::byte*>(data), bytes) {}

  bool any() const { return !left_.empty(); }
  template <class T>
  T take() {
    T value{};
    const std::span<const std::byte> from = bytes(sizeof value);
    if (!from.empty()) memcpy(static_cast<void*>(&value), from.data(), from.size());
    return value;
  }
  // At most so many.
  std::span<const std::byte> bytes(size_t most) {
    const auto taken = left_.first(std::min(most, left_.size()));
    left_ = left_.subspan(taken.size());
    return taken;
  }
  // With their number before them.
  std::span<const std::byte> counted() {
    const auto most = take<uint16_t>();
    return bytes(most);
  }
  std::span<const std::byte> rest() { return bytes(left_.size()); }

 private:
  std::span<const std::byte> left_;
};

}  // namespace tide::fuzz
