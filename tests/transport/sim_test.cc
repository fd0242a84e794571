// What only the simulated network does: delays, bandwidth and faults, as set.

#include "tests/transport/channel.h"

namespace tide {
namespace {

double round_trip_us(const char* transport, uint32_t bytes) {
  ClientRegion memory;
  Connection worker(memory, transport);
  EXPECT_TRUE(worker.connected()) << worker.failure();
  std::vector<unsigned char> payload(bytes), answer;
  double best = 1e9;
  for (int i = 0; i < 20; ++i) {
    const uint64_t begin = now_ns();
    EXPECT_TRUE(worker.round_trip(peer::kEcho, payload.data(), bytes, &answer));
    best = std::min(best, double(now_ns() - begin) / 1000);
  }
  return best;
}

TEST(Sim, a_round_trip_takes_what_was_set) {
  const double us = round_trip_us("sim:rtt_us=2000", 8);
  EXPECT_GE(us, 2000);
  EXPECT_LT(us, 20'000);  // the machine may be busy
}

TEST(Sim, bandwidth_is_what_was_set) {
  // 500,000 bytes each way at 1 Gbit/s are 8 ms.
  const double us = round_trip_us("sim:gbit=1", 500'000);
  EXPECT_GE(us, 8000);
  EXPECT_LT(us, 80'000);
}

TEST(Sim, the_connection_breaks_after_the_bytes_that_were_set_and_the_region_survives) {
  ClientRegion memory;
  std::vector<unsigned char> payload(10'000), answer;
  uint64_t sent = 0;
  {
    Connection worker(memory, "sim:drop_after_bytes=300000");
    ASSERT_TRUE(worker.connected()) << worker.failure();
    ASSERT_TRUE(worker.wait_for_state(ChannelState::kLive));
    for (int i = 0; i < 100; ++i) sent = worker.send(peer::kHash, payload.data(), 10'000);
    const auto done = [&] { return memory.region().worker().acknowledged.load() == sent; };
    EXPECT_EQ(wait_until(worker.link(), Side::kClient, done, kTestTimeoutUs), WaitResult::kGone);
    EXPECT_FALSE(worker.link().alive());
  }
  const uint64_t executed = memory.region().worker().acknowledged.load();
  EXPECT_LT(executed, sent);
  EXPECT_EQ(sent, 100u);
  // The client's copy says how far it is known that commands were executed; the rest is still in its ring.
  Connection second(memory, "sim");
  ASSERT_TRUE(second.connected()) << second.failure();
  const peer::Report report = second.report();
  EXPECT_EQ(report.first, executed + 1);
  EXPECT_EQ(report.commands, sent - executed + 1);
}

}  // namespace
}  // namespace tide
