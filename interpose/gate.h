#pragma once

// Where calls of the program begin. While a worker holds the program (WorkerPage::held) they wait here: what the
// program has begun goes on, and all its vGPUs come to rest together, though streams of one wait for another. Threads
// of the library do not pass here.

#include <atomic>
#include <cstdint>

#include "interpose/thread.h"

namespace tide {

extern constinit std::atomic<bool> gate_shut;

// Any thread; the service thread does it.
void shut_gate(bool shut);
void wait_at_gate();

// At each exported function. Host functions that the program is held up by must come to their end.
inline void begin_call(unsigned function) {
  thread_state.call = function;
  if (gate_shut.load(std::memory_order_relaxed) && thread_state.in_callback == 0) [[unlikely]]
    wait_at_gate();
}

}  // namespace tide
