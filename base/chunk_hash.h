#pragma once

// By what a chunk of memory is known to be what it was: 128 bits, XXH3 in a tree of two levels. A leaf is XXH3's
// 128-bit hash of 4 KiB with a secret; the chunk's hash is the same of its 512 leaves, each as 16 bytes, the low half
// first. A CPU has it from <xxhash.h>, a GPU from four lanes for each leaf (server/hash_chunks.cu), and of a chunk in
// which some pages were written only their leaves are computed again.
//
// That two contents have one hash is left out of account: by chance it is rarer than memory that errs unnoticed. XXH3
// is not cryptographic, so the secret is random, and never leaves the workers of one job; and who found such contents
// all the same would harm nobody else: of its own memory a change would be overlooked.

#include <bit>
#include <cstddef>
#include <cstdint>

#include "base/limits.h"

namespace tide {

inline constexpr uint64_t kLeafBytes = 4096;
inline constexpr uint64_t kLeavesOfChunk = kChunkBytes / kLeafBytes;

struct ChunkHash {
  uint64_t low = 0, high = 0;
  bool operator==(const ChunkHash&) const = default;
};
static_assert(sizeof(ChunkHash) == 16 && std::endian::native == std::endian::little);

// XXH3 reads its secret at places that no word begins at, too.
struct ChunkSecret {
  static constexpr uint64_t kBytes = 192;
  uint8_t bytes[kBytes] = {};
  bool operator==(const ChunkSecret&) const = default;
};

// The secret as the kernel wants it: words of 64 bits.
struct ChunkKeys {
  uint64_t stripes[24];  // stripe s of a block takes eight of them, from s on; what follows a block those from 16 on
  uint64_t last[8];      // of the last stripe of all
  uint64_t low[8], high[8];
};

// False: the system has no random numbers.
bool make_secret(ChunkSecret* secret);
ChunkKeys keys_of(const ChunkSecret& secret);

// Of kLeafBytes.
ChunkHash hash_leaf(const ChunkSecret& secret, const void* leaf);
// Of a chunk, from the hashes of its kLeavesOfChunk leaves.
ChunkHash hash_leaves(const ChunkSecret& secret, const ChunkHash* leaves);
// Of kChunkBytes.
ChunkHash hash_chunk(const ChunkSecret& secret, const void* chunk);

}  // namespace tide
