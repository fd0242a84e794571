#pragma once

// A recorded trace of a cluster: one job a row, as CSV. The columns are found by their names in the header (kColumns in
// trace.cc); others are left alone. A file may hold several traces, one after the other (`queue_vc_trace` or `workload`
// says which): a part each.

#include <cstdint>
#include <string>
#include <vector>

#include "base/outcome.h"

namespace tide::simulate {

inline constexpr uint32_t kTraceJobsMax = 10'000'000;
inline constexpr uint32_t kJobGpusMax = 65'536;
inline constexpr uint32_t kTraceErrorsMax = 20;         // more are counted only
inline constexpr double kClockJumpMax_s = 366 * 86400;  // between neighbours; what is longer is another clock

struct Job {
  std::string id, team;
  double submit_s = 0;
  double duration_s = 0;  // on all the GPUs that it asks for
  uint32_t gpus = 1;
  uint32_t min_gpus = 0;  // it may run on as few; 0: the trace does not say
  uint32_t line = 0;
  // Of a training job; 0 and empty where the trace does not say.
  std::string model;
  uint64_t iterations = 0;
  double iteration_ms = 0;
  uint32_t batch_size = 0;
  double deadline_s = 0;  // on the clock of submit_s; 0: none
  double estimate_s = 0;  // of the duration, by its user; 0: none

  double work_gpu_s() const { return duration_s * gpus; }
};

struct Trace {
  std::string name;       // of the part; empty where the file holds one trace
  std::vector<Job> jobs;  // in the order of submission
};

struct TraceError {
  std::string path;
  uint32_t line = 0;
  std::string message;
  std::string text() const;  // "jobs.csv:7: gpus_requested 'x' is no whole number"
};

struct TraceOptions {
  bool skip_bad = false;  // rows that are wrong are left out, and counted
  bool sort = false;      // rows need not be in the order of submission
  bool by_team = false;   // each team is a trace of its own
};

struct TraceFile {
  std::vector<Trace> parts;
  std::vector<TraceError> errors;  // when there are any, and they are not to be skipped, there are no parts
  uint64_t wrong_rows = 0;
};

// `path` is for messages.
TraceFile parse_trace(const std::string& text, const std::string& path, const TraceOptions& options);
// Plain or compressed with gzip.
TraceFile read_trace(const std::string& path, const TraceOptions& options);

}  // namespace tide::simulate
