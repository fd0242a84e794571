#pragma once

// A digest of bytes that come in pieces, however they are cut: 128 bits, XXH3.

#include <cstddef>
#include <cstdint>
#include <memory>

namespace tide {

struct Digest {
  uint64_t low = 0, high = 0;
  bool operator==(const Digest&) const = default;
};

// One thread at a time. Has half a KiB of memory from the first piece on.
class StreamDigest {
 public:
  StreamDigest();
  ~StreamDigest();
  StreamDigest(StreamDigest&&) noexcept;
  StreamDigest& operator=(StreamDigest&&) noexcept;

  void add(const void* piece, uint64_t bytes);
  uint64_t bytes() const { return bytes_; }
  // Of what was added so far.
  Digest digest() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
  uint64_t bytes_ = 0;
};

}  // namespace tide
