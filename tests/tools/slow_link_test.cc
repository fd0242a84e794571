// When a job is told that it waits for a slow network.

#include "tools/tide/slow_link.h"

#include <capnp/message.h>
#include <gtest/gtest.h>

namespace tide::cli {
namespace {

// Of one virtual GPU on a server called far.
std::string said(uint64_t round_trip_us, uint64_t bytes_per_s, uint64_t wait_ms, uint64_t window_ms = 10'000) {
  capnp::MallocMessageBuilder message;
  auto stats = message.initRoot<control::VgpuStats>();
  auto link = stats.initLink();
  link.setRoundTripUs(round_trip_us);
  link.setBytesPerS(bytes_per_s);
  link.setWaitMs(wait_ms);
  link.setWindowMs(window_ms);
  link.setWindowBytes(1'000'000);
  return slow_link({stats.asReader()}, {"far"});
}

TEST(SlowLink, cause_and_cost_are_named) {
  EXPECT_EQ(said(214'300, 112'500, 9'120),
            "the link to far is slow: round trip 214 ms, 0.9 Mb/s; 9.1 s of the last 10.0 s were spent waiting for it");
}

TEST(SlowLink, a_rate_that_is_not_known_is_what_was_carried_while_it_was_waited_for) {
  EXPECT_NE(said(50'000, 0, 8'000).find("round trip 50 ms, 1.0 Mb/s;"), std::string::npos);
}

TEST(SlowLink, a_near_and_fast_one_is_not_blamed_however_much_it_is_waited_for) {
  EXPECT_EQ(said(150, 0, 9'900), "");
  EXPECT_EQ(said(150, 1'200'000'000, 9'900), "");
  EXPECT_EQ(said(0, 0, 9'900), "");
}

TEST(SlowLink, a_near_one_of_little_rate_is) {
  EXPECT_NE(said(300, 12'000'000, 6'000).find(" 96.0 Mb/s"), std::string::npos);
}

TEST(SlowLink, a_slow_one_that_costs_little_is_not_worth_a_word) {
  EXPECT_EQ(said(200'000, 100'000, 2'000), "");
  EXPECT_NE(said(200'000, 100'000, 2'500), "");
}

TEST(SlowLink, nothing_is_said_before_some_seconds_are_known) {
  EXPECT_EQ(said(200'000, 100'000, 2'000, 2'000), "");
  EXPECT_NE(said(200'000, 100'000, 3'000, 3'000), "");
}

}  // namespace
}  // namespace tide::cli
