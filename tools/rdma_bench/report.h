#pragma once

// All that one run found out: what is shown in the terminal, written to the HTML file, and printed with --json.

#include <cstdint>
#include <string>
#include <vector>

#include "tools/rdma_bench/fields.h"
#include "tools/rdma_bench/machine.h"
#include "tools/rdma_bench/path.h"

namespace tide::fabric {

struct Bucket {  // of a histogram
  double from_us = 0, to_us = 0;
  uint64_t count = 0;
  template <class F>
  void fields(F& f) {
    f("from_us", from_us), f("to_us", to_us), f("count", count);
  }
};

struct Times {  // microseconds; all zero where the benchmark is not about time
  uint64_t count = 0;
  double min = 0, p50 = 0, p99 = 0, p999 = 0, max = 0, jitter = 0;  // jitter: p99.9 - p50
  std::vector<Bucket> histogram;
  template <class F>
  void fields(F& f) {
    f("count", count), f("min", min), f("p50", p50), f("p99", p99), f("p999", p999), f("max", max);
    f("jitter", jitter), f("histogram", histogram);
  }
};

struct Row {
  std::string path, test;  // path: Line::name()
  uint64_t bytes = 0;
  Times us;
  double messages_per_s = 0, gbytes_per_s = 0;  // bandwidth-both: the sum of both directions
  double limit = 0;                             // in the unit of the figure; 0: none is known
  std::string limit_of;
  template <class F>
  void fields(F& f) {
    f("path", path), f("test", test), f("bytes", bytes), f("us", us), f("messages_per_s", messages_per_s);
    f("gbytes_per_s", gbytes_per_s), f("limit", limit), f("limit_of", limit_of);
  }
};

struct PathReport {
  std::string name, title, family;
  std::string state, why;  // "measured", "absent", "failed"; why not measured
  bool named = false;      // with --paths
  std::vector<std::string> devices,
      devices_there;  // of each rail (rails.h); none: by which the two sides reach each other
  Facts here, there;
  template <class F>
  void fields(F& f) {
    f("name", name), f("title", title), f("family", family), f("state", state), f("why", why), f("named", named);
    f("devices", devices), f("devices_there", devices_there), f("here", here);
    f("there", there);
  }
};

struct Finding {
  std::string level;  // "ok", "note", "WRONG"
  std::string what, cost, mend;
  template <class F>
  void fields(F& f) {
    f("level", level), f("what", what), f("cost", cost), f("mend", mend);
  }
};

struct Jobs {  // what the fabric means for them
  std::string path, model;
  double round_trip_us = 0, to_gbytes_per_s = 0, from_gbytes_per_s = 0;
  std::string trace;  // the rest is about this recorded job
  uint64_t round_trips = 0, sent_bytes = 0, received_bytes = 0;
  double span_s = 0, added_s = 0;
  template <class F>
  void fields(F& f) {
    f("path", path), f("model", model), f("round_trip_us", round_trip_us), f("to_gbytes_per_s", to_gbytes_per_s);
    f("from_gbytes_per_s", from_gbytes_per_s), f("trace", trace), f("round_trips", round_trips);
    f("sent_bytes", sent_bytes), f("received_bytes", received_bytes), f("span_s", span_s), f("added_s", added_s);
  }
};

struct Report {
  uint32_t protocol = kProtocolVersion, duration_ms = 0;
  uint64_t wall_seconds = 0;
  std::string failure;                 // why the run ended early; empty: it did not
  std::string address, there_address;  // of the two ends of the control connection
  Machine here, there;
  std::vector<PathReport> paths;
  std::vector<Row> rows;
  std::vector<Finding> findings;
  Jobs jobs;
  template <class F>
  void fields(F& f) {
    f("protocol", protocol), f("duration_ms", duration_ms), f("wall_seconds", wall_seconds), f("failure", failure);
    f("address", address), f("there_address", there_address), f("here", here), f("there", there), f("paths", paths),
        f("rows", rows);
    f("findings", findings), f("jobs", jobs);
  }

  const Row* row(const std::string& path, const std::string& test, uint64_t bytes) const;
  const Row* largest(const std::string& path, const std::string& test) const;  // by bytes
  const PathReport* measured(const std::string& path) const;                   // null: it was not
  bool one_machine() const { return here.boot_id == there.boot_id; }
};

std::string time_text(double us);         // "1.23 us"
std::string figure_text(const Row& row);  // "1.23 GB/s", "0.4 M/s", "min 1.1 us, p50 1.2 us, ..."
std::string limit_text(const Row& row);   // "; 0.54 of 9.591 GB/s (a copy by one core)", or nothing
// What was possible, beside the figure, from what was measured before.
void set_limit(const Report& report, Row* row);
void judge(Report* report);  // findings
Outcome add_jobs(const std::string& trace, Report* report);

void print_path_head(const PathReport& path);
void print_row(const Row& row);
void print_end(const Report& report);  // plots, findings, jobs
Outcome write_html(const Report& report, const std::string& path);

}  // namespace tide::fabric
