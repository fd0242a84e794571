#pragma once

// One command as it came over the wire, read front to back by the generated code (api/payload.h says the layout).
// Everything is checked; what does not fit makes ok() false. The payload lies in memory that the client can still
// change, so what is looked at is copied first; only tail() is not, and its bytes mean nothing to us.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "driver.h"
#include "transport/frame.h"

namespace tide {

class Session;

class Received {
 public:
  Received(const CommandHeader& header, const std::byte* payload) : header_(header), payload_(payload) {}

  const CommandHeader& header() const { return header_; }
  bool ok() const { return ok_; }
  std::span<const std::byte> payload() const { return {payload_, header_.payload_bytes}; }

  template <class T>
  T value() {
    static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8);
    T value{};
    const uint64_t item = next_item();
    memcpy(&value, &item, sizeof(T));
    return value;
  }
  // The driver's handle of what the client's number names.
  template <class H>
  H handle(Session& session);
  // An address inside the vGPU's memory and how many bytes behind it may be touched.
  CUdeviceptr device(Session& session, uint64_t& bytes);
  // `count` values that the client sent; null (and not ok) where it sent another number.
  template <class T>
  const T* in(uint64_t count) {
    return count > header_.payload_bytes ? reinterpret_cast<const T*>(refuse())
                                         : reinterpret_cast<const T*>(array(count * sizeof(T)));
  }
  const char* string();

  // The fixed struct at the start of an internal command, as a copy; null when the payload is shorter.
  template <class C>
  const C* fixed() {
    static_assert(std::is_trivially_copyable_v<C> && sizeof(C) <= sizeof(fixed_));
    if (header_.payload_bytes < sizeof(C)) return nullptr;
    memcpy(fixed_, payload_, sizeof(C));
    return reinterpret_cast<const C*>(fixed_);
  }
  bool take_tail(uint64_t offset, uint64_t bytes);
  std::span<const std::byte> tail() const { return tail_; }
  // The library that a handle of this command is part of, and 0 where none is.
  uint64_t library() const { return library_; }

 private:
  uint64_t next_item();
  const std::byte* array(uint64_t bytes);
  const std::byte* refuse() {
    ok_ = false;
    return nullptr;
  }

  const CommandHeader header_;
  const std::byte* const payload_;
  uint64_t at_ = 0;
  bool ok_ = true;
  uint64_t library_ = 0;
  std::span<const std::byte> tail_;
  std::vector<std::unique_ptr<uint64_t[]>> copies_;
  alignas(16) std::byte fixed_[128];
};

// Text from the wire, up to its first NUL.
std::string text_of(std::span<const std::byte> bytes);

template <>
CUstream Received::handle<CUstream>(Session& session);
template <>
CUevent Received::handle<CUevent>(Session& session);
template <>
CUlibrary Received::handle<CUlibrary>(Session& session);
template <>
CUkernel Received::handle<CUkernel>(Session& session);
template <>
CUfunction Received::handle<CUfunction>(Session& session);
template <>
CUdevice Received::handle<CUdevice>(Session& session);

}  // namespace tide
