#pragma once

// What the policy was asked with, and what it answered, as bytes: for the journal of decisions (decision_files.h) and
// for the files of `tide snapshot`. The one place where State is written and read. No clock, no I/O. What is read may
// be damaged, or somebody else's: it is checked, and refused with a sentence.

#include <cstdint>
#include <string>
#include <vector>

#include "base/outcome.h"
#include "scheduler/state.h"

namespace tide::sched {

// A decision about one job, with what it was before.
struct Decided {
  std::string job;
  Decision decision;
  bool was_running = false;
  std::vector<GpuId> was_places;
};

struct Snapshot {
  uint64_t number = 0;  // of the decision; 0: there is none, this is how the pool was
  uint64_t at_ms = 0;   // since 1970
  std::string version;  // of the scheduler that wrote it
  State state;
  std::vector<Decided> answer;  // of whom nothing is said, nothing changes
};

inline constexpr size_t kSnapshotBytesMax = 256u << 20;  // of a file

// A file, whole.
std::string to_bytes(const Snapshot& snapshot);
Outcome from_bytes(const std::string& bytes, Snapshot* snapshot);

// The parts of one, as the journal keeps them.
std::string state_bytes(const State& state);
Outcome read_state(const std::string& bytes, State* state);
// Empty: they differ in more than can be said so (the GPUs that there are, the order of jobs).
std::string difference_bytes(const State& before, const State& after);
Outcome apply_difference(const std::string& bytes, State* state);
// Of a snapshot its answer and its version.
std::string answer_bytes(const Snapshot& snapshot);
Outcome read_answer(const std::string& bytes, Snapshot* snapshot);

// What a decision does to a job: "starts on a/0, a/1", "grows from 2 to 4 GPUs", "waits", ...
std::string what_of(const Decided& decided);

}  // namespace tide::sched
