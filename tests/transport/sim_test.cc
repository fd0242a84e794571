// What only the simulated network does: delays, bandwidth and faults, as set.

#include <sys/un.h>

#include <cstddef>

#include "tests/transport/channel.h"
#include "transport/replica.h"

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

// A frame's lengths are looked at before its bytes are waited for.
TEST(Sim, a_frame_that_cannot_be_ends_the_connection_at_once) {
  constexpr uint32_t kHead = sizeof(ParcelHeader);
  const std::pair<uint32_t, uint32_t> lengths[] = {{kHead, 0xffffffff},
                                                   {0xffffffff, 0},
                                                   {0x80000000, 0x80000000},
                                                   {kHead, kParcelRingBytes + 1},
                                                   {kHead - 1, 0},
                                                   {0, 0},
                                                   {kHead + kParcelEntriesMax * sizeof(ParcelEntry) + 1, 0}};
  for (const auto& [head_bytes, ring_bytes] : lengths) {
    int pair[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    std::string data;
    std::unique_ptr<Link> worker;
    ASSERT_TRUE(find_transport("sim")->accept(pair[1], -1, &data, &worker).ok());
    const int socket = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    memcpy(address.sun_path + 1, data.data(), data.size());
    const auto bytes = socklen_t(offsetof(sockaddr_un, sun_path) + 1 + data.size());
    ASSERT_EQ(connect(socket, reinterpret_cast<const sockaddr*>(&address), bytes), 0);
    const struct {
      uint64_t due_ns = 0;
      uint32_t head_bytes, ring_bytes;
    } frame{0, head_bytes, ring_bytes};
    ASSERT_EQ(write(socket, &frame, sizeof frame), ssize_t(sizeof frame));
    const uint64_t end = now_ns() + 1'000'000'000;
    while (worker->alive() && now_ns() < end) worker->progress();
    EXPECT_FALSE(worker->alive()) << head_bytes << " " << ring_bytes;
    worker.reset();
    close(socket);
    close(pair[0]);
  }
}

}  // namespace
}  // namespace tide
