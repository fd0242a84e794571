#pragma once

// Writing and reading the bytes of a vGPU's state. The reader checks every length.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

namespace tide {

class BlobWriter {
 public:
  template <class T>
  void put(const T& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    raw(&value, sizeof(T));
  }
  void put_bytes(std::span<const std::byte> bytes) {
    put(uint64_t(bytes.size()));
    raw(bytes.data(), bytes.size());
  }
  void put_text(const std::string& text) { put_bytes(std::as_bytes(std::span(text))); }
  const std::vector<std::byte>& bytes() const { return bytes_; }

 private:
  void raw(const void* data, size_t n) {
    const auto* from = static_cast<const std::byte*>(data);
    bytes_.insert(bytes_.end(), from, from + n);
  }
  std::vector<std::byte> bytes_;
};

class BlobReader {
 public:
  explicit BlobReader(std::span<const std::byte> bytes) : bytes_(bytes) {}
  template <class T>
  T get() {
    T value{};
    if (const std::byte* from = raw(sizeof(T)); from != nullptr) memcpy(static_cast<void*>(&value), from, sizeof(T));
    return value;
  }
  std::vector<std::byte> get_bytes() {
    const auto n = get<uint64_t>();
    const std::byte* from = raw(n);
    return from == nullptr ? std::vector<std::byte>() : std::vector<std::byte>(from, from + n);
  }
  std::string get_text() {
    const std::vector<std::byte> bytes = get_bytes();
    return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
  // A count of things of at least `least` bytes each; 0 (and not ok) when they cannot be there.
  uint64_t count(size_t least) {
    const auto n = get<uint64_t>();
    if (n <= (bytes_.size() - at_) / least) return n;
    ok_ = false;
    return 0;
  }
  bool ok() const { return ok_; }

 private:
  const std::byte* raw(uint64_t n) {
    if (!ok_ || n > bytes_.size() - at_) {
      ok_ = false;
      return nullptr;
    }
    const std::byte* from = bytes_.data() + at_;
    at_ += n;
    return from;
  }
  std::span<const std::byte> bytes_;
  size_t at_ = 0;
  bool ok_ = true;
};

}  // namespace tide
