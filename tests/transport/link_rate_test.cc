// The measured rate of a path, from made-up times and cursors.

#include "transport/link_rate.h"

#include <gtest/gtest.h>

namespace tide {
namespace {

constexpr uint64_t kPiece = 512u << 10, kMs = 1'000'000;

TEST(LinkRate, is_not_known_before_something_waited) {
  LinkRate rate;
  EXPECT_EQ(rate.bytes_per_s(0), 0u);
  // One piece at a time: the far side is never behind when the next one is published.
  uint64_t at = 0;
  for (int i = 0; i < 100; ++i) rate.delivered((at += 50 * kMs), (i + 1) * kPiece, (i + 1) * kPiece);
  EXPECT_EQ(rate.bytes_per_s(at), 0u);
}

TEST(LinkRate, of_a_full_ring_is_how_fast_the_tail_moves) {
  LinkRate rate;
  for (uint64_t i = 1; i <= 20; ++i) rate.delivered(i * 4 * kMs, i * kPiece, 20 * kPiece);
  EXPECT_NEAR(double(rate.bytes_per_s(80 * kMs)), double(kPiece) / 0.004, 1e6);
}

TEST(LinkRate, time_without_anything_to_carry_does_not_count) {
  LinkRate rate;
  uint64_t at = 0, tail = 0;
  for (int burst = 0; burst < 10; ++burst) {
    at += 3000 * kMs;
    const uint64_t head = tail + 8 * kPiece;
    for (int i = 0; i < 8; ++i) rate.delivered(at += 4 * kMs, tail += kPiece, head);
  }
  EXPECT_NEAR(double(rate.bytes_per_s(at)), double(kPiece) / 0.004, 1e6);
}

TEST(LinkRate, a_far_side_that_pauses_now_and_then_does_not_make_the_path_slow) {
  LinkRate rate;
  uint64_t at = 0, tail = 0;
  for (int i = 0; i < 64; ++i) {
    rate.delivered(at += i % 4 == 0 ? 400 * kMs : kMs, tail += 4 * kPiece, 1 << 30);
  }
  EXPECT_GT(rate.bytes_per_s(at), 2'000'000'000u);
}

TEST(LinkRate, what_came_quickly_is_known_without_a_queue) {
  LinkRate rate;
  EXPECT_EQ(rate.quick_bytes(), 0u);
  rate.delivered(1000 * kMs, kPiece, kPiece);
  EXPECT_EQ(rate.quick_bytes(), 0u) << "nobody knows since when that was under way";
  rate.delivered(1010 * kMs, 3 * kPiece, 3 * kPiece);
  EXPECT_EQ(rate.quick_bytes(), 2 * kPiece);
  EXPECT_EQ(rate.bytes_per_s(1010 * kMs), 0u);
  // Slow since: what was is not more than it was.
  for (uint64_t i = 1; i <= 10; ++i) rate.delivered((1010 + i * 201) * kMs, (3 + i) * kPiece, (3 + i) * kPiece);
  EXPECT_EQ(rate.quick_bytes(), 2 * kPiece);
}

TEST(LinkRate, on_a_narrow_path_little_comes_quickly) {
  LinkRate rate;
  constexpr uint64_t kBytesPerMs = 125;  // 1 Mb/s
  for (uint64_t at = 10; at <= 10'000; at += 10) rate.delivered(at * kMs, at * kBytesPerMs, at * kBytesPerMs + kPiece);
  EXPECT_LE(rate.quick_bytes(), 200 * kBytesPerMs);
}

TEST(LinkRate, follows_a_path_that_becomes_slower) {
  LinkRate rate;
  uint64_t at = 0, tail = 0;
  for (int i = 0; i < 16; ++i) rate.delivered(at += kMs, tail += 4 * kPiece, 1 << 30);
  EXPECT_GT(rate.bytes_per_s(at), 2'000'000'000u);
  for (int i = 0; i < 16; ++i) rate.delivered(at += 10 * kMs, tail += 4 * kPiece, 1 << 30);
  EXPECT_NEAR(double(rate.bytes_per_s(at)), double(kPiece) * 400, 1e6);
}

TEST(LinkRate, a_slow_beginning_is_no_slow_path) {
  LinkRate rate;
  uint64_t at = 0, tail = 0;
  for (int i = 0; i < 6; ++i) rate.delivered(at += 20 * kMs, tail += 2 * kPiece, 1 << 30);
  EXPECT_EQ(rate.bytes_per_s(at), 0u) << "too little to know";
  for (int i = 0; i < 8; ++i) rate.delivered(at += kMs, tail += 4 * kPiece, 1 << 30);
  EXPECT_GT(rate.bytes_per_s(at), 2'000'000'000u);
}

TEST(LinkRate, what_was_measured_long_ago_is_forgotten) {
  LinkRate rate;
  uint64_t at = 0, tail = 0;
  for (int i = 0; i < 20; ++i) rate.delivered(at += 20 * kMs, tail += 2 * kPiece, 1 << 30);
  EXPECT_NEAR(double(rate.bytes_per_s(at)), double(kPiece) * 100, 1e6);
  EXPECT_NE(rate.bytes_per_s(at += 1000 * kMs), 0u);
  EXPECT_EQ(rate.bytes_per_s(at += 10'000 * kMs), 0u);
  // Once more from the start: nothing of what was slow then counts.
  rate.delivered(at, tail, tail);
  for (int i = 0; i < 5; ++i) rate.delivered(at += kMs, tail += 4 * kPiece, 1 << 30);
  EXPECT_EQ(rate.bytes_per_s(at), 0u);
  for (int i = 0; i < 5; ++i) rate.delivered(at += kMs, tail += 4 * kPiece, 1 << 30);
  EXPECT_GT(rate.bytes_per_s(at), 2'000'000'000u);
}

}  // namespace
}  // namespace tide
