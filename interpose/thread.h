#pragma once

// What the library keeps for each thread of the program. Plain data: no constructors, no destructors, so that nothing
// of ours runs when a thread ends.

#include <cuda.h>

#include <cstdint>

#include "api/travel.h"

namespace tide {

inline constexpr int kContextStackMax = 64;  // cuCtxPushCurrent without pop

struct ThreadState {
  uint64_t contexts[kContextStackMax];  // handles; the top is current
  int depth;
  int per_thread_default;  // > 0: in a _ptsz or _ptds form
  int in_callback;         // > 0: in a host function, where CUDA calls are refused
  unsigned call;           // number of the function that the program called last; 0: none, a thread of ours
  void* own_streams;       // of this thread, see stream_objects.cc
  TravelCounters travel;
};
extern constinit thread_local ThreadState thread_state __attribute__((tls_model("initial-exec")));

inline uint64_t current_context_handle() {
  return thread_state.depth == 0 ? 0 : thread_state.contexts[thread_state.depth - 1];
}

// While it lives, the thread's default stream is the per-thread one.
class PerThreadDefault {
 public:
  PerThreadDefault() { ++thread_state.per_thread_default; }
  ~PerThreadDefault() { --thread_state.per_thread_default; }
  PerThreadDefault(const PerThreadDefault&) = delete;
  PerThreadDefault& operator=(const PerThreadDefault&) = delete;
};

}  // namespace tide
