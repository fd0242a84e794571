// What the fabric means for jobs: a model, stated with its result.

#include <algorithm>

#include "base/log.h"
#include "interpose/trace/reader.h"
#include "tools/rdma_bench/report.h"

namespace tide::fabric {
namespace {

constexpr const char* kModel =
    "added time = round trips x round trip of 8 bytes (median) + bytes sent / bandwidth + bytes received / bandwidth "
    "back, each at the largest size measured; nothing overlaps, the server's own time is not in it";

// Where jobs' calls travel: our rings within a machine, else UCX as it chooses.
std::string path_of_jobs(const Report& report) {
  for (const char* name : {"memory", "ucx", "tcp"}) {
    if (report.measured(name) != nullptr && report.row(name, "latency", 8) != nullptr) return name;
  }
  return "";
}

Outcome add_trace(const std::string& path, Jobs* jobs) {
  trace::TraceFile file;
  Outcome outcome = trace::TraceFile::read(path, &file);
  uint64_t begin = UINT64_MAX, end = 0;
  const auto add = [&](const trace::Call& call) {
    begin = std::min(begin, call.begin_ns);
    end = std::max(end, call.begin_ns + call.duration_ns);
    jobs->round_trips += call.travel.round_trips;
    jobs->sent_bytes += call.travel.sent_bytes;
    jobs->received_bytes += call.travel.received_bytes;
  };
  if (outcome.ok()) outcome = file.for_each_call(add);
  if (!outcome.ok()) return outcome;
  if (end == 0) return Outcome::fail(path + ": the trace has no calls");
  jobs->trace = path;
  jobs->span_s = double(end - begin) / 1e9;
  return {};
}

}  // namespace

Outcome add_jobs(const std::string& trace, Report* report) {
  Jobs& jobs = report->jobs;
  jobs.path = path_of_jobs(*report);
  if (jobs.path.empty()) {
    return trace.empty() ? Outcome{} : Outcome::fail("no prediction for " + trace + ": no path's latency was measured");
  }
  jobs.model = kModel;
  jobs.round_trip_us = 2 * report->row(jobs.path, "latency", 8)->us.p50;
  const Row *to = report->largest(jobs.path, "bandwidth"), *back = report->largest(jobs.path, "bandwidth-back");
  if (to != nullptr) jobs.to_gbytes_per_s = to->gbytes_per_s;
  if (back != nullptr) jobs.from_gbytes_per_s = back->gbytes_per_s;
  if (trace.empty()) return {};
  if (jobs.to_gbytes_per_s == 0 || jobs.from_gbytes_per_s == 0) {
    return Outcome::fail("no prediction for " + trace + ": it needs the tests latency, bandwidth and bandwidth-back");
  }
  const Outcome outcome = add_trace(trace, &jobs);
  if (!outcome.ok()) return outcome;
  jobs.added_s = double(jobs.round_trips) * jobs.round_trip_us / 1e6 +
                 double(jobs.sent_bytes) / 1e9 / jobs.to_gbytes_per_s +
                 double(jobs.received_bytes) / 1e9 / jobs.from_gbytes_per_s;
  return {};
}

}  // namespace tide::fabric
