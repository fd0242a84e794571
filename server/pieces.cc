#include "server/pieces.h"

#include <algorithm>
#include <cstring>

namespace tide {
namespace {

Outcome receive_length(ByteStream& from, uint32_t timeout_ms, uint32_t* bytes) {
  if (Outcome outcome = from.receive(bytes, sizeof(*bytes), timeout_ms); !outcome.ok()) return outcome;
  return *bytes <= kPieceBytesMax ? Outcome() : Outcome::fail("the source sent a piece that is too large");
}

}  // namespace

Outcome send_piece(ByteStream& to, const std::byte* data, uint32_t bytes) {
  const Outcome outcome = to.send(&bytes, sizeof(bytes));
  return outcome.ok() && bytes != 0 ? to.send(data, bytes) : outcome;
}

Outcome receive_piece(ByteStream& from, std::byte* room, uint32_t* bytes) {
  const Outcome outcome = receive_length(from, 30'000, bytes);
  return outcome.ok() && *bytes != 0 ? from.receive(room, *bytes) : outcome;
}

PieceWriter::PieceWriter(ByteStream& to) : to_(to), gathered_(std::make_unique<std::byte[]>(kPieceBytesMax)) {}

Outcome PieceWriter::send(const void* data, size_t bytes, uint32_t) {
  const auto* at = static_cast<const std::byte*>(data);
  if (bytes > kPieceBytesMax - used_) {
    if (Outcome outcome = flush(); !outcome.ok()) return outcome;
  }
  for (; bytes > kPieceBytesMax; at += kPieceBytesMax, bytes -= kPieceBytesMax) {
    if (Outcome outcome = send_piece(to_, at, kPieceBytesMax); !outcome.ok()) return outcome;
  }
  if (bytes != 0) memcpy(gathered_.get() + used_, at, bytes);
  used_ += uint32_t(bytes);
  return {};
}

Outcome PieceWriter::receive(void*, size_t, uint32_t) { return Outcome::fail("nothing is read here"); }

Outcome PieceWriter::flush(uint32_t) {
  if (used_ == 0) return {};
  const uint32_t bytes = used_;
  used_ = 0;
  return send_piece(to_, gathered_.get(), bytes);
}

Outcome PieceWriter::end() {
  const Outcome outcome = flush();
  return outcome.ok() ? send_piece(to_, nullptr, 0) : outcome;
}

Outcome PieceReader::send(const void*, size_t, uint32_t) { return Outcome::fail("nothing is written here"); }

Outcome PieceReader::receive(void* data, size_t bytes, uint32_t timeout_ms) {
  for (auto* at = static_cast<std::byte*>(data); bytes != 0;) {
    if (left_ == 0) {
      if (Outcome outcome = receive_length(from_, timeout_ms, &left_); !outcome.ok()) return outcome;
      if (left_ == 0) return Outcome::fail("what the source sent ends too early");
    }
    const size_t part = std::min<size_t>(bytes, left_);
    if (Outcome outcome = from_.receive(at, part, timeout_ms); !outcome.ok()) return outcome;
    at += part, bytes -= part, left_ -= uint32_t(part);
  }
  return {};
}

Outcome PieceReader::end() {
  uint32_t bytes = 0;
  if (left_ == 0) {
    if (Outcome outcome = receive_length(from_, 30'000, &bytes); !outcome.ok()) return outcome;
  }
  return left_ == 0 && bytes == 0 ? Outcome() : Outcome::fail("the source sent more than belongs to the vGPU");
}

}  // namespace tide
