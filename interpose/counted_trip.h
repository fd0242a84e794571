#pragma once

// A question to the scheduler or an agent: counts as a round trip of the calling thread.

#include "base/clock.h"
#include "interpose/thread.h"

namespace tide {

template <class Question>
auto counted_trip(Question ask) {
  const uint64_t begin = now_ns();
  auto answer = ask();
  ++thread_state.travel.round_trips;
  thread_state.travel.wait_ns += now_ns() - begin;
  return answer;
}

}  // namespace tide
