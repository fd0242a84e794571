#pragma once

// The table of benchmarks. Each is one function that both sides run at the same time over a channel.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tools/rdma_bench/report.h"

namespace tide::fabric {

struct Run {  // what the client tells the server to do with it
  std::string test;
  uint64_t bytes = 0;
  uint32_t duration_ms = 0;
  bool spin = false;  // never gives up the core
  template <class F>
  void fields(F& f) {
    f("test", test), f("bytes", bytes), f("duration_ms", duration_ms), f("spin", spin);
  }
};

struct Session {
  Control& control;
  Channel& channel;
  Run run;
  bool client() const { return control.is_client(); }
};

enum class Sizes { kLatency, kSmall, kSeries };

struct Benchmark {
  const char* name;
  const char* title;
  const char* unit;
  Sizes sizes;
  bool both_sides;  // false: the client alone, without the server
  bool bandwidth() const { return std::string_view(name).starts_with("bandwidth"); }
  // *row: the figures; the server's are not used. Outputs are set only on success.
  Outcome (*measure)(Session& session, Row* row);
};

Outcome measure_latency(Session& session, Row* row);
Outcome measure_to(Session& session, Row* row);
Outcome measure_back(Session& session, Row* row);
Outcome measure_both(Session& session, Row* row);
Outcome measure_registration(Session& session, Row* row);

inline constexpr Benchmark kBenchmarks[] = {
    {"latency", "half a round trip", "us", Sizes::kLatency, true, measure_latency},
    {"rate", "small messages to the other side, one way", "messages/s", Sizes::kSmall, true, measure_to},
    {"bandwidth", "to the other side, by size", "GB/s", Sizes::kSeries, true, measure_to},
    {"bandwidth-back", "from the other side, by size", "GB/s", Sizes::kSeries, true, measure_back},
    {"bandwidth-both", "both directions at once, their sum, by size", "GB/s", Sizes::kSeries, true, measure_both},
    {"registration", "making memory known to the device and forgetting it", "us", Sizes::kSeries, false,
     measure_registration},
};

const Benchmark* benchmark_named(const std::string& name);
std::vector<uint64_t> sizes_of(const Benchmark& benchmark, uint64_t bytes_max);
Times times_of(const Histogram& histogram);

}  // namespace tide::fabric
