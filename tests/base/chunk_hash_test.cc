#include "base/chunk_hash.h"

#include <gtest/gtest.h>

#include <set>
#include <utility>
#include <vector>

#include "base/mix.h"

namespace tide {
namespace {

std::vector<uint64_t> words(uint64_t seed) {
  std::vector<uint64_t> made(kChunkBytes / 8);
  for (uint64_t i = 0; i < made.size(); ++i) made[i] = mix(seed + i);
  return made;
}

TEST(ChunkHash, every_bit_counts) {
  ChunkSecret secret;
  ASSERT_TRUE(make_secret(&secret));
  std::vector<uint64_t> chunk = words(1);
  std::set<std::pair<uint64_t, uint64_t>> seen;
  const auto note = [&] {
    const ChunkHash hash = hash_chunk(secret, chunk.data());
    return seen.emplace(hash.low, hash.high).second;
  };
  EXPECT_TRUE(note());
  EXPECT_FALSE(note()) << "the same contents";
  for (uint64_t bit = 0; bit < kChunkBytes * 8; bit += 261'121) {
    chunk[bit / 64] ^= uint64_t{1} << bit % 64;
    EXPECT_TRUE(note()) << "bit " << bit;
    chunk[bit / 64] ^= uint64_t{1} << bit % 64;
  }
}

TEST(ChunkHash, leaves_that_change_places_count) {
  ChunkSecret secret;
  ASSERT_TRUE(make_secret(&secret));
  std::vector<uint64_t> chunk = words(2);
  const ChunkHash before = hash_chunk(secret, chunk.data());
  std::swap_ranges(chunk.begin(), chunk.begin() + kLeafBytes / 8, chunk.begin() + 7 * kLeafBytes / 8);
  EXPECT_NE(hash_chunk(secret, chunk.data()), before);
}

TEST(ChunkHash, each_process_has_hashes_of_its_own) {
  ChunkSecret one, other;
  ASSERT_TRUE(make_secret(&one));
  ASSERT_TRUE(make_secret(&other));
  const std::vector<uint64_t> zeros(kChunkBytes / 8);
  EXPECT_NE(hash_chunk(one, zeros.data()), hash_chunk(other, zeros.data()));
}

TEST(ChunkHash, leaves_are_hashed_one_by_one) {
  ChunkSecret secret;
  ASSERT_TRUE(make_secret(&secret));
  const std::vector<uint64_t> chunk = words(3);
  std::vector<ChunkHash> leaves;
  for (uint64_t i = 0; i < kLeavesOfChunk; ++i) leaves.push_back(hash_leaf(secret, &chunk[i * kLeafBytes / 8]));
  EXPECT_EQ(hash_leaves(secret, leaves.data()), hash_chunk(secret, chunk.data()));
}

}  // namespace
}  // namespace tide
