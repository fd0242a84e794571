#include "server/busy.h"

#include <gtest/gtest.h>

#include "server/rate.h"

namespace tide {
namespace {

constexpr uint64_t kMs = 1'000'000;
constexpr uint64_t kStart = 77'000 * kMs + 12'345;

// Turns of `step` milliseconds; the work of a turn is what the next call is told.
void run(BusyMeter* meter, uint64_t* now, uint64_t ms, uint64_t step, bool worked) {
  for (const uint64_t end = *now + ms * kMs; *now < end;) {
    *now += step * kMs;
    meter->at(*now, worked);
  }
}

TEST(BusyMeter, work_for_a_quarter_of_a_second_is_a_quarter) {
  BusyMeter meter;
  uint64_t now = kStart;
  meter.at(now, false);
  run(&meter, &now, 250, 1, true);
  EXPECT_GE(meter.permille(), 220u);
  EXPECT_LE(meter.permille(), 250u);
}

TEST(BusyMeter, always_is_all) {
  BusyMeter meter;
  uint64_t now = kStart;
  meter.at(now, false);
  run(&meter, &now, 5000, 1, true);
  EXPECT_EQ(meter.permille(), 1000u);
}

TEST(BusyMeter, a_second_later_it_is_forgotten) {
  BusyMeter meter;
  uint64_t now = kStart;
  meter.at(now, false);
  run(&meter, &now, 700, 1, true);
  run(&meter, &now, 500, 1, false);
  EXPECT_GT(meter.permille(), 100u);
  run(&meter, &now, 800, 1, false);
  EXPECT_EQ(meter.permille(), 0u);
}

TEST(BusyMeter, one_long_turn_fills_the_second_and_a_long_sleep_empties_it) {
  BusyMeter meter;
  meter.at(kStart, false);
  meter.at(kStart + 30'000 * kMs, true);
  EXPECT_EQ(meter.permille(), 1000u);
  meter.at(kStart + 60'000 * kMs, false);
  EXPECT_EQ(meter.permille(), 0u);
}

TEST(BusyMeter, nothing_is_counted_before_the_first_call) {
  BusyMeter meter;
  meter.at(kStart, true);
  EXPECT_EQ(meter.permille(), 0u);
}

// A worker that looks every `step` milliseconds while something happens `each` times a millisecond.
uint64_t count_on(RateMeter* meter, uint64_t* now, uint64_t count, uint64_t ms, uint64_t step, uint64_t each) {
  for (const uint64_t end = *now + ms * kMs; *now < end;) {
    *now += step * kMs;
    count += step * each;
    if (meter->due(*now)) meter->take(*now, count);
  }
  return count;
}

TEST(RateMeter, is_of_the_last_second) {
  RateMeter meter;
  uint64_t now = kStart, count = 1000;
  EXPECT_EQ(meter.per_second(now, count), 0);
  meter.take(now, count);
  EXPECT_EQ(meter.per_second(now, count), 0) << "what was before counts for nothing";
  count = count_on(&meter, &now, count, 500, 1, 3);
  EXPECT_NEAR(meter.per_second(now, count), 3000, 10);
  count = count_on(&meter, &now, count, 5000, 1, 3);
  EXPECT_NEAR(meter.per_second(now, count), 3000, 10);
  count = count_on(&meter, &now, count, 500, 1, 0);
  EXPECT_NEAR(meter.per_second(now, count), 1600, 250);
  count = count_on(&meter, &now, count, 700, 100, 0);
  EXPECT_EQ(meter.per_second(now, count), 0);
}

TEST(RateMeter, a_counter_that_began_again_is_no_rate) {
  RateMeter meter;
  meter.take(kStart, 100);
  EXPECT_EQ(meter.per_second(kStart + kMs, 50), 0);
}

}  // namespace
}  // namespace tide
