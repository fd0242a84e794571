#pragma once

// What the scheduler remembers of a job and of queues, and its bytes in the store.

#include <cstdint>
#include <string>
#include <vector>

#include "base/outcome.h"
#include "scheduler/protection.h"
#include "scheduler/state.h"
#include "scheduler/usage.h"

namespace tide::sched {

enum class Phase { kQueued = 0, kRunning = 1, kEnded = 2 };  // the numbers are in the store

struct VgpuRecord {
  GpuId at;                 // where it is or was sent last
  GpuId home = {};          // the GPU that it has left to be parked, kept for it until all of the job is parked
  uint64_t epoch = 0;       // highest that was ever used for it
  std::string device_info;  // of its first GPU; never changes afterwards
  GuardRecord guard = {};
};

// What taking turns (turns.h) remembers of a job.
struct TurnRecord {
  bool excluded = false;  // `tide run --no-turns`: it keeps its GPUs
  bool yielding = false;  // `suspended` because its turn is over: when all of it is parked it waits for the next one
  uint64_t ticket = 0;    // who waits with a smaller one has waited longer
  uint64_t began_ms = 0;  // its last turn; since 1970
  uint64_t suspend_ms = 0, resume_ms = 0;  // what these took the last time; 0: not measured
  uint32_t strain = 0;  // how often its turns are doubled, because switching failed or was not worth it
};

// Until when its GPU time has been counted (accounts.h).
struct AccountRecord {
  struct Counter {  // of a vGPU: what its agent had counted
    uint64_t epoch = 0;
    double used_ms = 0;
  };
  uint64_t wall_ms = 0;   // since 1970
  uint64_t boot = 0;      // of the machine on whose clock `clock_ns` is; 0: it was never counted
  uint64_t clock_ns = 0;  // now_ns()
  std::vector<Counter> used;
};

struct JobRecord {
  uint64_t number = 0;  // the id; never used twice
  std::string token;
  uint32_t gpus = 1, min_gpus = 1;
  bool min_given = false;
  uint32_t part = kWholeGpu;  // of its one GPU, in thousandths
  uint64_t memory_given = 0;  // bytes; 0: not chosen by the user
  uint64_t memory_bytes = 0;  // the quota; 0: not decided yet
  std::string queue, name, user, command;
  uint32_t pid = 0;
  uint32_t target = 0;
  bool pinned = false;
  bool suspended = false;   // `tide suspend` said so and `tide resume` has not. On no GPU: kQueued with `started_ms`
  bool idled = false;       // suspended because it did nothing for `idle_ms`: its next call resumes it
  uint64_t idle_ms = 0;     // 0: it keeps its GPUs
  uint64_t protect_ms = 0;  // so often checkpoints are made; 0: none
  bool held = false;        // its programs may have been told to begin nothing new (Agent.hold)
  Phase phase = Phase::kQueued;
  std::string reason;
  uint64_t submitted_ms = 0, started_ms = 0, ended_ms = 0;  // since 1970
  int32_t exit_status = 0;
  uint32_t moves = 0;
  TurnRecord turn;
  Requirements require;
  int32_t priority = 0;  // within its queue
  JobClass job_class = JobClass::kBatch;
  uint64_t min_runtime_ms = 0;  // of useful running before it is disturbed for others' sake; 0: as pool.toml says
  bool powers_of_two = false;
  uint64_t estimate_ms = 0;            // that it will run on all its GPUs, as its user thinks; 0: not said
  uint64_t deadline_ms = 0;            // since 1970; 0: none
  std::string reservation;             // whose GPUs it may use; empty: none
  uint32_t weight = 0;                 // where vGPUs share a GPU's time; 0: as its part says
  uint64_t useful_ms = 0;              // that it has run, all of it on GPUs and not standing still
  std::vector<uint64_t> disturbed_ms;  // when it was disturbed for others' sake, of the last hour; since 1970
  AccountRecord account;
  std::vector<VgpuRecord> vgpus;

  Portion portion() const { return {part, memory_bytes}; }
  std::string id() const { return std::to_string(number); }
};

std::string to_bytes(const JobRecord& job);
// Fails where the bytes are no record.
Outcome from_bytes(const std::string& bytes, JobRecord* job);

// The same for what queues had in the past, as it was `at_ms` (since 1970).
std::string usage_bytes(const Usage& usage, uint64_t at_ms);
Outcome read_usage(const std::string& bytes, Usage* usage, uint64_t* at_ms);

}  // namespace tide::sched
