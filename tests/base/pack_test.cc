// Packing of pieces: what comes back, what damaged input does, and when packing is tried at all.

#include "base/pack.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "base/mix.h"

namespace tide {
namespace {

using Bytes = std::vector<std::byte>;

constexpr uint64_t kMega = 1'000'000;
constexpr uint64_t kPiece = kPackedPieceMax;

Bytes noise(size_t bytes, uint64_t seed) {
  Bytes out(bytes);
  for (std::byte& b : out) b = std::byte(seed = mix(seed));
  return out;
}

// Words from a small vocabulary: shrinks to about a third.
Bytes tokens(size_t bytes, uint64_t seed) {
  Bytes out(bytes);
  for (size_t at = 0; at + 8 <= bytes; at += 8) {
    const uint64_t token = (seed = mix(seed)) % 500;
    memcpy(out.data() + at, &token, 8);
  }
  return out;
}

Bytes copy_of(std::span<const std::byte> bytes) { return {bytes.begin(), bytes.end()}; }

TEST(Pack, what_is_packed_comes_back) {
  Packer packer;
  Unpacker unpacker;
  for (const size_t bytes : {size_t{64}, size_t{4096}, size_t{4097}, size_t{100'000}, size_t{kPiece}}) {
    for (const Bytes& from : {Bytes(bytes), tokens(bytes, bytes)}) {
      const auto packed = packer.pack(from.data(), uint32_t(bytes));
      ASSERT_FALSE(packed.empty()) << bytes;
      EXPECT_LE(packed.size(), bytes - bytes / 8);
      Bytes to(bytes, std::byte{0xee});
      ASSERT_TRUE(unpacker.unpack(packed, to.data(), bytes));
      EXPECT_EQ(to, from);
    }
  }
}

TEST(Pack, what_does_not_shrink_by_an_eighth_is_not_packed) {
  Packer packer;
  EXPECT_TRUE(packer.pack(noise(kPiece, 1).data(), kPiece).empty());
  Bytes little = noise(kPiece, 2);
  std::fill(little.begin(), little.begin() + kPiece / 16, std::byte{0});
  EXPECT_TRUE(packer.pack(little.data(), kPiece).empty());
  std::fill(little.begin(), little.begin() + kPiece / 4, std::byte{0});
  EXPECT_FALSE(packer.pack(little.data(), kPiece).empty());
  EXPECT_TRUE(packer.pack(little.data(), 0).empty());
}

TEST(Pack, a_length_that_lies_is_refused) {
  Packer packer;
  Unpacker unpacker;
  const Bytes from = tokens(40'000, 3), packed = copy_of(packer.pack(from.data(), 40'000));
  for (const uint64_t bytes : {39'999, 40'001, 1, 0, int(kPackedPieceMax)}) {
    Bytes to(std::max<uint64_t>(bytes, 1));  // no byte more, so that a sanitizer sees the first one beyond
    EXPECT_FALSE(unpacker.unpack(packed, to.data(), bytes)) << bytes;
  }
  Bytes to(kPackedPieceMax + 1);
  EXPECT_FALSE(unpacker.unpack(packed, to.data(), kPackedPieceMax + 1));
  EXPECT_FALSE(unpacker.unpack({}, to.data(), 40'000));
  EXPECT_FALSE(unpacker.unpack(Bytes(kPackedPieceMax + 1), to.data(), 40'000));
  for (size_t cut = 0; cut < packed.size(); cut += 97) {
    EXPECT_FALSE(unpacker.unpack({packed.data(), cut}, to.data(), 40'000)) << cut;
  }
}

TEST(Pack, damaged_and_random_input_stays_in_its_bounds) {
  Packer packer;
  Unpacker unpacker;
  uint64_t random = 7;
  for (int round = 0; round < 4000; ++round) {
    const uint64_t bytes = 1 + (random = mix(random)) % 20'000;
    const Bytes from = tokens(bytes, random);
    Bytes packed =
        round % 4 == 0 ? noise(1 + random % 3000, random) : copy_of(packer.pack(from.data(), uint32_t(bytes)));
    for (int damage = 0; damage < round % 5 && !packed.empty(); ++damage) {
      random = mix(random);
      packed[random % packed.size()] ^= std::byte(1 << (random >> 32) % 8);
    }
    constexpr size_t kGuard = 64;
    Bytes to(bytes + kGuard, std::byte{0xa5});
    unpacker.unpack(packed, to.data(), bytes);
    EXPECT_EQ(std::count(to.end() - kGuard, to.end(), std::byte{0xa5}), int(kGuard));
  }
}

TEST(PackChoice, nothing_is_packed_for_a_path_that_is_fast_or_not_known) {
  PackChoice choice;
  for (int i = 0; i < 1000; ++i) {
    EXPECT_FALSE(choice.wants(PackMode::kAuto, kPiece, {0, 16 << 20}));
    EXPECT_FALSE(choice.wants(PackMode::kOff, kPiece, {10 * kMega, 16 << 20}));
    EXPECT_FALSE(choice.wants(PackMode::kOn, kPackedPieceMin - 1, {10 * kMega, 0}));
  }
  for (int i = 0; i < 1000; ++i) {
    EXPECT_FALSE(choice.wants(PackMode::kAuto, kPiece, {1200 * kMega, 16 << 20})) << "not even to see";
  }
}

TEST(PackChoice, bad_measurements_are_not_kept_for_ever) {
  PackChoice choice;
  const PackChoice::Path slow{119 * kMega, 4 * kPiece};
  ASSERT_TRUE(choice.wants(PackMode::kAuto, kPiece, slow));
  for (int i = 0; i < 50; ++i) choice.tried(kPiece, kPiece / 3, kPiece * 1000 / 10);  // 10 MB/s: it had no core
  int declined = 0;
  while (!choice.wants(PackMode::kAuto, kPiece, slow)) ++declined;
  EXPECT_EQ(declined, 64);
}

TEST(PackChoice, a_slow_path_is_packed_for_and_a_faster_one_not) {
  PackChoice choice;
  const PackChoice::Path slow{119 * kMega, 0}, behind{119 * kMega, 4 * kPiece}, fast{1200 * kMega, 0};
  EXPECT_FALSE(choice.wants(PackMode::kAuto, kPiece, slow)) << "a first try must cost nothing";
  for (int i = 0; i < 50; ++i) {
    ASSERT_TRUE(choice.wants(PackMode::kAuto, kPiece, behind)) << i;
    choice.tried(kPiece, kPiece / 3, kPiece * 1000 / 500);
  }
  EXPECT_FALSE(choice.wants(PackMode::kAuto, kPiece, fast));
  EXPECT_TRUE(choice.wants(PackMode::kAuto, kPiece, slow)) << "fast enough even when nothing waits";
}

TEST(PackChoice, a_fast_path_is_left_alone_however_well_it_packs) {
  PackChoice choice;
  for (int i = 0; i < 50; ++i) choice.tried(kPiece, kPiece / 200, kPiece / 10);  // nothing but zeros
  EXPECT_TRUE(choice.wants(PackMode::kAuto, kPiece, {400 * kMega, 0}));
  EXPECT_FALSE(choice.wants(PackMode::kAuto, kPiece, {1200 * kMega, 0}));
  EXPECT_FALSE(choice.wants(PackMode::kAuto, kPiece, {1200 * kMega, 16 << 20}));
}

TEST(PackChoice, while_others_wait_ahead_packing_may_take_its_time) {
  PackChoice choice;
  for (int i = 0; i < 50; ++i) choice.tried(kPiece, kPiece / 2, kPiece * 1000 / 300);  // 300 MB/s
  EXPECT_FALSE(choice.wants(PackMode::kAuto, kPiece, {280 * kMega, 0}));
  EXPECT_TRUE(choice.wants(PackMode::kAuto, kPiece, {280 * kMega, 8 * kPiece}));
}

TEST(PackChoice, what_never_shrinks_is_tried_less_and_less) {
  PackChoice choice;
  int tried = 0;
  for (int i = 0; i < 64 * 100; ++i) {
    if (!choice.wants(PackMode::kOn, kPiece, {})) continue;
    ++tried;
    choice.tried(kPiece, 0, 100'000);
  }
  EXPECT_GE(tried, 90);
  EXPECT_LE(tried, 110);
  int until_tried = 0;
  while (!choice.wants(PackMode::kOn, kPiece, {})) ++until_tried;
  EXPECT_LT(until_tried, 64);
  choice.tried(kPiece, kPiece / 4, 1'000'000);
  EXPECT_TRUE(choice.wants(PackMode::kOn, kPiece, {})) << "at once again, when something shrank";
}

TEST(PackMode, has_three_names) {
  PackMode mode = PackMode::kAuto;
  EXPECT_TRUE(parse_pack_mode("on", &mode));
  EXPECT_EQ(mode, PackMode::kOn);
  EXPECT_TRUE(parse_pack_mode("off", &mode));
  EXPECT_EQ(mode, PackMode::kOff);
  EXPECT_FALSE(parse_pack_mode("yes", &mode));
  EXPECT_EQ(mode, PackMode::kOff);
}

TEST(ContentHash, differs_where_one_bit_differs) {
  const ContentHash hash;
  ASSERT_TRUE(hash);
  Bytes bytes = noise(4096, 5);
  const ContentKey key = hash.key(bytes.data(), bytes.size());
  EXPECT_TRUE(key == hash.key(Bytes(bytes).data(), bytes.size()));
  bytes[4095] ^= std::byte{1};
  EXPECT_FALSE(key == hash.key(bytes.data(), bytes.size()));
  EXPECT_FALSE(key == hash.key(bytes.data(), bytes.size() - 1));
}

// Who knows the key of a content beforehand can make another one of the same key.
TEST(ContentHash, nobody_knows_a_key_beforehand) {
  const Bytes bytes = noise(kPiece, 6);
  const ContentKey key = ContentHash().key(bytes.data(), bytes.size());
  const ContentKey other = ContentHash().key(bytes.data(), bytes.size());
  EXPECT_NE(key.low, key.high) << "two hashes";
  EXPECT_NE(key.low, other.low);
  EXPECT_NE(key.high, other.high);
}

}  // namespace
}  // namespace tide
