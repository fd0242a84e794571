#pragma once

// The pool's memory: every job that was ever acknowledged, and where its vGPUs were put. SQLite in one file,
// write-ahead log, synchronous=FULL: when a call has returned ok, the record survives a power cut. Errors are sentences
// that name the file. Owned by one thread.

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/outcome.h"
#include "scheduler/protection.h"
#include "scheduler/state.h"
#include "scheduler/usage.h"

struct sqlite3;
struct sqlite3_stmt;

namespace tide::sched {

enum class Phase { kQueued = 0, kRunning = 1, kEnded = 2 };  // the numbers are in the file

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
  std::vector<VgpuRecord> vgpus;

  Portion portion() const { return {part, memory_bytes}; }
  std::string id() const { return std::to_string(number); }
};

class Store {
 public:
  // Creates `directory` and the file in it if need be.
  static Outcome open(const std::string& directory, std::unique_ptr<Store>* store);
  ~Store();
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;

  const std::string& path() const { return path_; }

  // Gives `job` its number.
  Outcome add(JobRecord* job);
  Outcome update(const JobRecord& job) { return update(std::vector<const JobRecord*>{&job}); }
  // In one transaction: what one disk write costs is paid once. Where it fails, any of them may be written.
  Outcome update(const std::vector<const JobRecord*>& jobs);
  Outcome load_live(std::vector<JobRecord>* jobs);                        // not ended, in order of submission
  Outcome load_ended(uint32_t newest_max, std::vector<JobRecord>* jobs);  // newest first
  std::optional<JobRecord> find(uint64_t number);
  std::optional<JobRecord> find_named(const std::string& name);  // the newest of that name
  // What queues had in the past, as it was `at_ms` (since 1970; 0: it was never written).
  Outcome save_usage(const Usage& usage, uint64_t at_ms);
  Outcome load_usage(Usage* usage, uint64_t* at_ms);

 private:
  explicit Store(std::string path) : path_(std::move(path)) {}
  Outcome prepare_schema();
  Outcome run(const char* sql);
  Outcome failure(const char* what) const;
  Outcome write(const JobRecord& job, bool fresh, uint64_t* number);
  Outcome write_vgpus(const JobRecord& job, uint64_t number);
  Outcome write_turn(const TurnRecord& turn, uint64_t number);
  Outcome query(const std::string& where, const std::string* name, std::vector<JobRecord>* jobs);
  Outcome read_vgpus(JobRecord* job);
  Outcome read_turn(JobRecord* job);

  std::string path_;
  sqlite3* db_ = nullptr;
};

}  // namespace tide::sched
