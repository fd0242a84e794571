#include "base/histogram.h"

#include <gtest/gtest.h>

namespace tide {
namespace {

TEST(Histogram, quantiles_are_right_within_a_hundredth) {
  Histogram histogram;
  for (uint64_t ns = 1; ns <= 1'000'000; ns += 7) histogram.add(ns);
  EXPECT_EQ(histogram.count(), 142'858u);
  EXPECT_EQ(histogram.min(), 1u);
  EXPECT_EQ(histogram.max(), 1'000'000u);
  for (const double part : {0.01, 0.5, 0.9, 0.999}) EXPECT_NEAR(histogram.quantile(part), part * 1e6, part * 1e4);
  EXPECT_EQ(histogram.quantile(1), 1e6);
}

TEST(Histogram, what_is_short_is_exact) {
  Histogram histogram;
  for (const uint64_t ns : {3, 100, 100, 100, 127}) histogram.add(ns);
  EXPECT_EQ(histogram.quantile(0.5), 100);
  EXPECT_EQ(histogram.between(100, 127), 3u);
  EXPECT_EQ(histogram.between(0, 128), 5u);
}

TEST(Histogram, what_is_very_long_is_kept) {
  Histogram histogram;
  histogram.add(uint64_t(1) << 60);
  EXPECT_EQ(histogram.quantile(0.5), double(uint64_t(1) << 60));
}

}  // namespace
}  // namespace tide
