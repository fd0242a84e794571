#pragma once

// Bytes in pieces, each behind its length, until one of 0 bytes: so that who only keeps what passes (server/kept.h) can
// tell where it ends without knowing what it says. Both are streams on top of a stream, which outlives them.

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <utility>

#include "base/limits.h"
#include "transport/stream.h"

namespace tide {

inline constexpr uint32_t kPieceBytesMax = 1u << 20;

// What a guard has of the pieces of the checkpoint before (server/guard.h): they are named and not sent again. So
// images, which never change, cost a pause their hashes only.
class PiecesThere {
 public:
  // All that was sent since the last call is there.
  void begin();
  Outcome send(ByteStream& to, const std::byte* data, uint32_t bytes);
  // Sent since begin().
  uint64_t bytes() const { return bytes_; }

 private:
  using Key = std::pair<uint64_t, uint64_t>;
  std::map<Key, uint32_t> before_, now_;  // by hash, which of them it is
  uint32_t count_ = 0;
  uint64_t bytes_ = 0;
};

// What is small is gathered; what is larger than a piece goes from where it lies.
class PieceWriter final : public ByteStream {
 public:
  // `there`: of a destination that keeps what comes; null: all is sent.
  explicit PieceWriter(ByteStream& to, PiecesThere* there = nullptr);
  Outcome send(const void* data, size_t bytes, uint32_t timeout_ms = 30'000) override;
  Outcome receive(void* data, size_t bytes, uint32_t timeout_ms) override;
  // Nothing is gathered any more.
  Outcome flush(uint32_t timeout_ms = 30'000) override;
  void cancel() override { to_.cancel(); }
  void close() override {}
  // The last word. Nothing is sent after it.
  Outcome end();

 private:
  Outcome put(const std::byte* data, uint32_t bytes);

  ByteStream& to_;
  PiecesThere* const there_;
  const std::unique_ptr<std::byte[]> gathered_;
  uint32_t used_ = 0;
};

class PieceReader final : public ByteStream {
 public:
  explicit PieceReader(ByteStream& from) : from_(from) {}
  Outcome send(const void* data, size_t bytes, uint32_t timeout_ms) override;
  Outcome receive(void* data, size_t bytes, uint32_t timeout_ms = 30'000) override;
  Outcome flush(uint32_t) override { return {}; }
  void cancel() override { from_.cancel(); }
  void close() override {}
  // Fails unless all has been read.
  Outcome end();

 private:
  ByteStream& from_;
  uint32_t left_ = 0;  // of the present piece
};

// One piece as it is, without looking into it. At most kPieceBytesMax; 0: it was the last.
Outcome send_piece(ByteStream& to, const std::byte* data, uint32_t bytes);
// `room`: for kPieceBytesMax. *same: which piece of the time before it is, and nothing is in the room; else kNotSame.
inline constexpr uint32_t kNotSame = ~uint32_t{0};
Outcome receive_piece(ByteStream& from, std::byte* room, uint32_t* bytes, uint32_t* same);

}  // namespace tide
