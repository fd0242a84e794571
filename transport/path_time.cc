#include "transport/path_time.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>

namespace tide {
namespace {

constexpr uint64_t kResendLeastUs = 200'000;  // Linux's
constexpr uint64_t kPeerTimeoutLeastMs = 1'900, kPeerTimeoutMostMs = 30'000;
constexpr uint64_t kLate = 10;

}  // namespace

bool PathTime::measure(int socket) {
  tcp_info info{};
  socklen_t bytes = sizeof info;
  if (getsockopt(socket, IPPROTO_TCP, TCP_INFO, &info, &bytes) != 0) return false;
  rtt_us = info.tcpi_rtt;
  deviation_us = info.tcpi_rttvar;
  unacknowledged = info.tcpi_unacked;
  return true;
}

uint64_t PathTime::resend_us() const { return rtt_us + std::max(4 * deviation_us, kResendLeastUs); }

uint32_t PathTime::peer_timeout_ms() const {
  const uint64_t thrice_us = (1 + 2 + 4) * resend_us() + rtt_us;  // it waits twice as long each time
  return uint32_t(std::clamp(thrice_us / 1000, kPeerTimeoutLeastMs, kPeerTimeoutMostMs));
}

uint64_t PathTime::silence_us(uint32_t patience_ms) const {
  return std::max(patience_ms * uint64_t{1000}, resend_us() + kLate * rtt_us);
}

}  // namespace tide
