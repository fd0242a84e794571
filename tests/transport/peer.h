#pragma once

// What the tests' worker understands. It is a small calculator: enough to see every byte, every order and every end.

#include <cstdint>

namespace tide::peer {

enum Call : uint16_t {
  kEcho = 1,         // answers with the payload
  kHash = 2,         // adds the payload to the running hash; no answer
  kReport = 3,       // answers with Report
  kBurst = 4,        // payload Burst: that many kData answers of pseudo-random bytes, then a kResult
  kWords = 5,        // payload Burst: per step one kData answer, then stream_progress[7], then event_done[last], noted
  kStop = 6,         // consumes this command, says kMoved with an endpoint, and exits
  kStopWithout = 7,  // exits before this command without consuming it
  kSleep = 8,        // payload uint32_t: milliseconds without looking at the channel
};

struct Burst {
  uint32_t count = 0;
  uint32_t bytes_max = 0;
  uint64_t seed = 0;
};

struct Report {
  uint64_t hash = 0;
  uint64_t commands = 0;    // executed by this worker
  uint64_t first = 0;       // sequence number of the first
  uint64_t violations = 0;  // how often a signal came before the command that was published before it
};

inline constexpr uint32_t kProgressSlot = 7;
inline constexpr uint32_t kSignalSlot = 5;
inline constexpr int kExitMalformed = 3;

// A small generator with the same numbers on both sides.
struct Numbers {
  uint64_t state;
  uint64_t next() {
    state += 0x9e3779b97f4a7c15;
    uint64_t z = state;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
};

inline void fill(Numbers numbers, unsigned char* bytes, uint64_t n) {
  for (uint64_t i = 0; i < n; ++i)
    bytes[i] = static_cast<unsigned char>(i % 8 == 0 ? numbers.next() : bytes[i - 1] + i);
}

inline uint64_t mix(uint64_t hash, const void* data, uint64_t n) {
  const auto* bytes = static_cast<const unsigned char*>(data);
  for (uint64_t i = 0; i < n; ++i) hash = (hash ^ bytes[i]) * 0x100000001b3;
  return hash;
}

}  // namespace tide::peer
