#pragma once

// What belongs to one thread of the program: its stack of current contexts, its default streams and what the next load
// shall do.

#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "softgpu/driver/stream.h"

namespace softgpu {

struct ThreadState {
  std::vector<std::shared_ptr<Context>> stack;
  std::unordered_map<uint64_t, std::shared_ptr<Stream>> default_streams;  // per-thread ones, by context id
  unsigned per_thread_default = 0;  // > 0: a null stream means the thread's, not the legacy one
  bool in_callback = false;         // a host function of a stream runs; it may not call us
  CUdeviceptr image_base = 0;       // for the next load; 0: none
};

// Lives until the thread ends, and in the main thread for ever, since libraries call us while the process exits.
ThreadState& this_thread();

}  // namespace softgpu
