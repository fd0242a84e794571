#include "server/busy.h"

#include <gtest/gtest.h>

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

}  // namespace
}  // namespace tide
