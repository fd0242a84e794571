#include "server/busy.h"

#include <gtest/gtest.h>

#include "server/link_meter.h"
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

// Seconds of a worker's life, each of which a program waits for some milliseconds of, as it says.
struct Life {
  LinkMeter meter;
  uint64_t now = kStart, waited_ns = 0, carried = 0;

  void go_on(int seconds, uint64_t wait_ms, uint64_t busy_ms, uint64_t starved_ms, uint64_t bytes = 0) {
    for (int i = 0; i < seconds; ++i) {
      for (uint64_t ms = 0; ms < 1000; ++ms) {
        meter.at(now += kMs, ms < busy_ms, ms >= 1000 - starved_ms);
        waited_ns += ms < wait_ms ? kMs : 0;
      }
      carried += bytes;
      if (meter.due(now)) meter.take(now, waited_ns, carried);
    }
  }
};

TEST(LinkMeter, knows_nothing_at_first) {
  Life life;
  EXPECT_EQ(life.meter.wait().window_ns, 0u);
  life.go_on(1, 1000, 0, 0);
  EXPECT_EQ(life.meter.wait().window_ns, 0u);
}

TEST(LinkMeter, waits_while_the_worker_works_are_not_the_networks) {
  Life life;
  life.go_on(8, 900, 900, 0);
  EXPECT_EQ(life.meter.wait().wait_ns, 0u);
}

TEST(LinkMeter, waits_while_the_worker_has_nothing_are) {
  Life life;
  life.go_on(6, 900, 200, 0, 1000);
  const LinkMeter::Wait wait = life.meter.wait();
  EXPECT_EQ(wait.window_ns, 5'000 * kMs);
  EXPECT_EQ(wait.wait_ns, 3'500 * kMs);
  EXPECT_EQ(wait.bytes, 5'000u);
}

TEST(LinkMeter, so_is_the_time_in_which_the_rest_of_a_command_does_not_come) {
  Life life;
  life.go_on(6, 0, 0, 800);
  EXPECT_EQ(life.meter.wait().wait_ns, 4'000 * kMs);
}

TEST(LinkMeter, what_several_threads_wait_is_at_most_the_time) {
  Life life;
  life.go_on(2, 0, 400, 0);
  life.waited_ns += 50'000 * kMs;
  life.go_on(2, 0, 400, 0);
  EXPECT_EQ(life.meter.wait().wait_ns, life.meter.wait().window_ns * 6 / 10);
}

TEST(LinkMeter, what_was_long_ago_is_forgotten) {
  Life life;
  life.go_on(20, 900, 0, 0);
  EXPECT_EQ(life.meter.wait().wait_ns, 9'000 * kMs);
  life.go_on(11, 0, 0, 0);
  EXPECT_EQ(life.meter.wait().wait_ns, 0u);
  EXPECT_EQ(life.meter.wait().window_ns, 10'000 * kMs);
}

}  // namespace
}  // namespace tide
