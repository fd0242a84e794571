#pragma once

// The side that waits for a client, and does what it asks.

#include "tools/rdma_bench/settings.h"

namespace tide::fabric {

struct Hello {
  std::string name;          // of the client's machine
  uint32_t duration_ms = 0;  // of its measurements
  uint32_t timeout_ms = 0;   // --timeout; the longer one of both sides holds
  template <class F>
  void fields(F& f) {
    f("name", name), f("duration_ms", duration_ms), f("timeout_ms", timeout_ms);
  }
};

struct Opening {  // what kOpen has
  std::string path;
  std::vector<std::string> devices;  // of the server's; none: by which the two sides reach each other
  template <class F>
  void fields(F& f) {
    f("path", path), f("devices", devices);
  }
};

// Until it is killed; the exit status.
int serve(const Settings& settings);

}  // namespace tide::fabric
