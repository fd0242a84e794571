#pragma once

// How long the path to the far side of a TCP connection takes, as the system has measured it, and how long one may
// therefore wait for a sign of life.

#include <cstdint>

namespace tide {

struct PathTime {
  uint64_t rtt_us = 0, deviation_us = 0;
  uint64_t unacknowledged = 0;  // segments

  // False where it is no TCP connection.
  bool measure(int socket);
  // When the system sends again what was not confirmed, the first time (RFC 6298, with Linux's least).
  uint64_t resend_us() const;
  // So long may a live far side leave unconfirmed what was lost three times; the system then ends the connection.
  // 1.9 s where the path is shorter than some 60 ms.
  uint32_t peer_timeout_ms() const;
  // A shorter time, after which another connection is worth trying: what was lost once, or is ten times as late as
  // usual, has been confirmed by then. At least patience_ms.
  uint64_t silence_us(uint32_t patience_ms) const;
};

}  // namespace tide
