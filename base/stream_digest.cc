#include "base/stream_digest.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace tide {

struct StreamDigest::State {
  XXH3_state_t xxh;
};

StreamDigest::StreamDigest() = default;
StreamDigest::~StreamDigest() = default;
StreamDigest::StreamDigest(StreamDigest&&) noexcept = default;
StreamDigest& StreamDigest::operator=(StreamDigest&&) noexcept = default;

void StreamDigest::add(const void* piece, uint64_t bytes) {
  if (state_ == nullptr) {
    state_ = std::make_unique<State>();
    XXH3_128bits_reset(&state_->xxh);
  }
  XXH3_128bits_update(&state_->xxh, piece, bytes);
  bytes_ += bytes;
}

Digest StreamDigest::digest() const {
  if (state_ == nullptr) return {};
  const XXH128_hash_t hash = XXH3_128bits_digest(&state_->xxh);
  return {hash.low64, hash.high64};
}

}  // namespace tide
