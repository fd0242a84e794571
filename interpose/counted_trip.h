#pragma once

// A question to the scheduler or an agent, for as long as it lives: counts as a round trip of the calling thread.

#include "base/clock.h"
#include "interpose/thread.h"

namespace tide {

class CountedTrip {
 public:
  CountedTrip() : begin_(now_ns()) {}
  ~CountedTrip() {
    ++thread_state.travel.round_trips;
    thread_state.travel.wait_ns += now_ns() - begin_;
  }
  CountedTrip(const CountedTrip&) = delete;
  CountedTrip& operator=(const CountedTrip&) = delete;

 private:
  const uint64_t begin_;
};

}  // namespace tide
