#pragma once

// A slow network on one host, for tests and benchmarks: parcels travel over a unix socket and are held back until they
// are due.

#include "transport/link.h"

namespace tide {

struct SimSettings {
  uint32_t rtt_us = 0;            // round trip of the smallest parcel
  double gbit = 0;                // of each direction; 0: unlimited
  uint32_t jitter_us = 0;         // at most so much later, uniformly; order is kept
  uint64_t drop_after_bytes = 0;  // the connection breaks once a side has sent so much; 0: never
  uint64_t seed = 1;              // of the jitter

  // "rtt_us=100,gbit=10,jitter_us=5,drop_after_bytes=1000000,seed=7", each at most once; "" is all defaults.
  static Outcome parse(const std::string& text, SimSettings* settings);
};

// Null when the settings are wrong, or when this process has asked for more than 64 different ones.
const Transport* find_sim(const std::string& name);

}  // namespace tide
