#include "base/chunk_hash.h"

#define XXH_INLINE_ALL
#include <sys/random.h>
#include <xxhash.h>

#include <cstring>

namespace tide {
namespace {

// Where XXH3 takes its keys from in a secret of this length.
constexpr uint64_t kLastAt = ChunkSecret::kBytes - 64 - 7;
constexpr uint64_t kLowAt = 11;
constexpr uint64_t kHighAt = ChunkSecret::kBytes - 64 - 11;

static_assert(ChunkSecret::kBytes >= XXH3_SECRET_SIZE_MIN);

ChunkHash hash_of(const ChunkSecret& secret, const void* data, uint64_t bytes) {
  const XXH128_hash_t hash = XXH3_128bits_withSecret(data, bytes, secret.bytes, ChunkSecret::kBytes);
  return {hash.low64, hash.high64};
}

}  // namespace

bool make_secret(ChunkSecret* secret) { return getentropy(secret->bytes, ChunkSecret::kBytes) == 0; }

ChunkKeys keys_of(const ChunkSecret& secret) {
  ChunkKeys keys;
  memcpy(keys.stripes, secret.bytes, sizeof keys.stripes);
  memcpy(keys.last, secret.bytes + kLastAt, sizeof keys.last);
  memcpy(keys.low, secret.bytes + kLowAt, sizeof keys.low);
  memcpy(keys.high, secret.bytes + kHighAt, sizeof keys.high);
  return keys;
}

ChunkHash hash_leaf(const ChunkSecret& secret, const void* leaf) { return hash_of(secret, leaf, kLeafBytes); }

ChunkHash hash_leaves(const ChunkSecret& secret, const ChunkHash* leaves) {
  return hash_of(secret, leaves, kLeavesOfChunk * sizeof(ChunkHash));
}

ChunkHash hash_chunk(const ChunkSecret& secret, const void* chunk) {
  ChunkHash leaves[kLeavesOfChunk];
  const auto* const bytes = static_cast<const std::byte*>(chunk);
  for (uint64_t i = 0; i < kLeavesOfChunk; ++i) leaves[i] = hash_leaf(secret, bytes + i * kLeafBytes);
  return hash_leaves(secret, leaves);
}

}  // namespace tide
