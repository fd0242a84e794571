#pragma once

// What `tide run` and `tide env` have in common: asking for GPUs, and what a job's processes find in their environment.

#include <string>
#include <utility>
#include <vector>

#include "base/outcome.h"
#include "scheduler/control.capnp.h"
#include "scheduler/require.h"
#include "tools/tide/options.h"

namespace tide::cli {

struct Ask {
  uint32_t gpus = 1;
  uint32_t part = 0;    // of that one GPU, in thousandths; 0: all of it
  uint32_t weight = 0;  // beside others on that GPU; 0: not given
  uint32_t min_gpus = 1;
  bool min_given = false;
  uint64_t memory_bytes = 0;
  uint64_t idle_ms = 0;
  bool no_turns = false;
  int32_t priority = 0;
  control::JobClass job_class = control::JobClass::AS_QUEUE_SAYS;
  uint64_t min_runtime_ms = 0;
  bool powers_of_two = false;
  uint64_t protect_ms = 0;
  uint64_t estimate_ms = 0, deadline_ms = 0;  // the latter since 1970
  std::string name, queue, reservation;
  std::string gpu_model;
  std::vector<std::string> labels;
  sched::Together together = sched::Together::kPreferred;
  std::string trace;     // the file; absolute after begin_trace()
  std::string compress;  // a PackMode's name; empty: as the environment says
};
extern const std::vector<OptionSpec> kAskOptions;
extern const char* const kAskHelp;
// False: a usage error was printed.
bool read_ask(Options& options, Ask* ask);

// Makes the file of --trace ready, if there is one. Fails when it cannot be written, or libtidetrace.so is not found.
Outcome begin_trace(Ask* ask);

void fill_spec(control::JobSpec::Builder spec, const Ask& ask, const std::string& command, uint32_t pid);

struct Granted {
  std::string id, token, door;
  uint32_t gpus = 1;
};
// Name and value; lists keep what was there behind ours. Fails when libtidecuda.so is not found.
Outcome job_environment(const Granted& job, const Ask& ask,
                        std::vector<std::pair<std::string, std::string>>* environment);

}  // namespace tide::cli
