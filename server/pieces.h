#pragma once

// Bytes in pieces, each behind its length, until one of 0 bytes: so that who only keeps what passes (server/kept.h) can
// tell where it ends without knowing what it says. Both are streams on top of a stream, which outlives them.

#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/limits.h"
#include "transport/stream.h"

namespace tide {

inline constexpr uint32_t kPieceBytesMax = 1u << 20;

// What is small is gathered; what is larger than a piece goes from where it lies.
class PieceWriter final : public ByteStream {
 public:
  explicit PieceWriter(ByteStream& to);
  Outcome send(const void* data, size_t bytes, uint32_t timeout_ms = 30'000) override;
  Outcome receive(void* data, size_t bytes, uint32_t timeout_ms) override;
  // Nothing is gathered any more.
  Outcome flush(uint32_t timeout_ms = 30'000) override;
  void cancel() override { to_.cancel(); }
  void close() override {}
  // The last word. Nothing is sent after it.
  Outcome end();

 private:
  ByteStream& to_;
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
// `room`: for kPieceBytesMax.
Outcome receive_piece(ByteStream& from, std::byte* room, uint32_t* bytes);

}  // namespace tide
