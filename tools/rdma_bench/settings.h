#pragma once

// What the command line of rdma-bench asks for.

#include <cstdint>
#include <string>
#include <vector>

#include "tools/rdma_bench/rails.h"

namespace tide::fabric {

enum class Mode { kClient, kServe, kDevices };

struct Settings {
  Mode mode = Mode::kClient;
  std::string host;  // of the other rdma-bench
  std::string listen = "127.0.0.1";
  uint32_t port = 7471;
  std::vector<std::string> paths;  // empty: all that exist
  std::vector<RailWish> devices;   // empty: those by which the two sides reach each other, and all rails
  std::vector<std::string> tests;  // empty: all
  uint32_t duration_ms = 300;      // of one measurement
  uint64_t bytes_max = 16 << 20;   // the largest message
  std::vector<uint64_t> sizes;     // empty: each test's own, up to bytes_max
  uint32_t timeout_ms = 10'000;    // of every wait for the other side
  std::string html, trace;         // files; empty: none
  bool spin = false;               // both sides wait without giving up their cores
  bool json = false;
};

// False: exit with *status; what was wrong, or the help, has been printed.
bool parse_settings(const std::vector<std::string>& words, Settings* settings, int* status);

}  // namespace tide::fabric
