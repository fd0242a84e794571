#include "server/pieces.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <cstring>

namespace tide {
namespace {

constexpr uint32_t kSamePiece = ~uint32_t{0};  // for a length: which one of the time before follows
constexpr uint32_t kNamedLeast = 64;           // what is smaller is sent

Outcome receive_length(ByteStream& from, uint32_t timeout_ms, uint32_t* bytes) {
  if (Outcome outcome = from.receive(bytes, sizeof(*bytes), timeout_ms); !outcome.ok()) return outcome;
  return *bytes <= kPieceBytesMax ? Outcome() : Outcome::fail("the source sent a piece that is too large");
}

}  // namespace

Outcome send_piece(ByteStream& to, const std::byte* data, uint32_t bytes) {
  const Outcome outcome = to.send(&bytes, sizeof(bytes));
  return outcome.ok() && bytes != 0 ? to.send(data, bytes) : outcome;
}

Outcome receive_piece(ByteStream& from, std::byte* room, uint32_t* bytes, uint32_t* same) {
  *same = kNotSame;
  if (Outcome outcome = from.receive(bytes, sizeof(*bytes)); !outcome.ok()) return outcome;
  if (*bytes == kSamePiece) return from.receive(same, sizeof(*same));
  if (*bytes > kPieceBytesMax) return Outcome::fail("the source sent a piece that is too large");
  return *bytes != 0 ? from.receive(room, *bytes) : Outcome();
}

void PiecesThere::begin() {
  before_ = std::exchange(now_, {});
  count_ = 0;
  bytes_ = 0;
}

Outcome PiecesThere::send(ByteStream& to, const std::byte* data, uint32_t bytes) {
  const XXH128_hash_t hash = XXH3_128bits_withSeed(data, bytes, bytes);
  const Key key(hash.low64, hash.high64);
  now_[key] = count_++;
  const auto found = bytes < kNamedLeast ? before_.end() : before_.find(key);
  if (found != before_.end()) {
    const uint32_t name[] = {kSamePiece, found->second};
    return to.send(name, sizeof(name));
  }
  bytes_ += bytes;
  return send_piece(to, data, bytes);
}

PieceWriter::PieceWriter(ByteStream& to, PiecesThere* there)
    : to_(to), there_(there), gathered_(std::make_unique<std::byte[]>(kPieceBytesMax)) {}

Outcome PieceWriter::put(const std::byte* data, uint32_t bytes) {
  return there_ != nullptr ? there_->send(to_, data, bytes) : send_piece(to_, data, bytes);
}

Outcome PieceWriter::send(const void* data, size_t bytes, uint32_t) {
  const auto* at = static_cast<const std::byte*>(data);
  if (bytes > kPieceBytesMax - used_) {
    if (Outcome outcome = flush(); !outcome.ok()) return outcome;
  }
  for (; bytes > kPieceBytesMax; at += kPieceBytesMax, bytes -= kPieceBytesMax) {
    if (Outcome outcome = put(at, kPieceBytesMax); !outcome.ok()) return outcome;
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
  return put(gathered_.get(), bytes);
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
