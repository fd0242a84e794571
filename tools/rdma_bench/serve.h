#pragma once

// The side that waits for a client, and does what it asks.

#include "tools/rdma_bench/settings.h"

namespace tide::fabric {

struct Hello {
  std::string name;          // of the client's machine
  uint32_t duration_ms = 0;  // of its measurements
  template <class F>
  void fields(F& f) {
    f("name", name), f("duration_ms", duration_ms);
  }
};

// Until it is killed; the exit status.
int serve(const Settings& settings);

}  // namespace tide::fabric
