#pragma once

// What the policy sees: plain data, a snapshot of the pool at one moment. No clock, no connections.

#include <compare>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "scheduler/job_class.h"
#include "scheduler/require.h"
#include "scheduler/reservation.h"
#include "scheduler/shares.h"

namespace tide::sched {

inline constexpr uint32_t kWholeGpu = 1000;  // a job's part of a GPU is in thousandths of it
inline constexpr uint32_t kPartLeast = 10;

inline constexpr uint32_t kParked = 0xffffffff;  // `parked` of control.capnp: on none of the server's GPUs

// Where a vGPU is: a physical GPU, "SERVER/INDEX", or "SERVER/parked", which has room for any number of them. An empty
// server means nowhere.
struct GpuId {
  std::string server;
  uint32_t index = 0;
  auto operator<=>(const GpuId&) const = default;
  bool none() const { return server.empty(); }
  bool parked() const { return !none() && index == kParked; }
  bool on_gpu() const { return !none() && index != kParked; }
};
std::string to_text(const GpuId& id);
struct GpuIdHash {
  size_t operator()(const GpuId& id) const { return std::hash<std::string>()(id.server) * 31 + id.index; }
};

struct GpuView {
  GpuId id;
  uint64_t memory_bytes = 0;
  bool online = true;     // its server answers
  bool healthy = true;    // an unhealthy GPU takes nothing new, and what is there moves away
  bool draining = false;  // unhealthy because its server is being drained, and for no other reason
  std::shared_ptr<const GpuTraits> traits = {};  // null: nothing is known
  bool operator==(const GpuView&) const = default;
};

inline constexpr uint64_t kEndless = UINT64_MAX;  // of a turn: until the job ends

// What taking turns (turns.h) needs to know of a job.
struct TurnView {
  bool gives = false;      // its turn may end: it has GPUs, nothing about that is to change, and nobody excluded it
  uint64_t ticket = 0;     // who waits with a smaller one has waited longer
  uint64_t had_ms = 0;     // since its turn began
  uint64_t length_ms = 0;  // that its turn shall have, or kEndless
  bool operator==(const TurnView&) const = default;
};

// What a job has of one GPU.
struct Portion {
  uint32_t part = kWholeGpu;  // thousandths, of its time; less than all: others' portions may lie beside it
  uint64_t memory_bytes = 0;  // 0: the same part of its memory
};

// A job that has not ended.
struct JobView {
  std::string id;
  uint32_t vgpus = 1;
  uint32_t min_gpus = 1;                 // never fewer physical GPUs than this
  uint32_t part = kWholeGpu;             // less: it has one vGPU, which takes so much of a GPU that others may share
  uint32_t target = 0;                   // `tide resize`; 0: as many as vGPUs
  uint64_t memory_bytes = 0;             // a vGPU's quota; 0: not decided yet
  bool memory_given = false;             // the user chose the quota, so the vGPUs of one GPU must fit together
  bool running = false;                  // admitted: it has a right to min_gpus until it ends or is suspended
  bool suspended = false;                // shall be on no GPU; still `running` until it is
  bool pinned = false;                   // `tide migrate` chose the places: they need not be even
  uint32_t skipped = 0;                  // jobs that come after it (by place, submission) and started before it
  std::vector<GpuId> places;             // per vGPU; of a vGPU that is on its way, the destination
  std::set<std::string> failed_on = {};  // servers on which it could not be resumed a moment ago
  // While it is being suspended:
  std::set<GpuId> keeps = {};             // GPUs that it has left: nobody gets them before all of it is parked
  std::set<std::string> refused_by = {};  // servers that could not keep one of its vGPUs
  TurnView turn = {};                     // where jobs take turns
  int32_t queue = 0;                      // index in State::queues
  int32_t priority = 0;                   // within its queue: a higher one starts first
  bool preemptible = true;                // false: nothing is taken from it for others' sake
  Requirements require = {};
  JobClass job_class = JobClass::kBatch;
  bool powers_of_two = false;  // of physical GPUs it has 1, 2, 4, ... or as many as vGPUs
  bool spared = false;         // nothing is taken from it or moved for others' sake now: it has run too little since it
                               // began, or was disturbed too often
  uint32_t failed_moves = 0;   // in a row: before it is tried once more, others are asked to make way
  std::string moves_for = {};  // the job for which it is making way already
  uint64_t bytes = 0;          // of GPU memory that it has in use, as last heard: what moving it copies
  uint64_t switch_ms = 0;      // that suspending and resuming it took the last time; 0: not measured
  uint64_t useful_ms = 0;      // that it has run
  uint64_t estimate_ms = 0;    // that it will run on all its GPUs; 0: nothing is known
  uint64_t deadline_ms = 0;    // on the clock of State::now_ms; 0: none
  // By keep_promises(), or by keep_line():
  bool in_line = false;           // the latter: it gets GPUs in line (line.h), and who waits and is not due starts not
  uint32_t due_gpus = 0;          // so many physical GPUs it has now, before all who have none due; 0: nothing is due
  uint32_t due_more = 0;          // and it runs, and so many more others leave for it
  std::string yields_to = {};     // a job with a deadline, or before it in line, for which it is suspended
  std::string kept_out_for = {};  // such a job, whose promise its start would break: nobody could take its GPUs again
  std::string reservation = {};   // whose GPUs it may use; empty: none
  std::shared_ptr<const std::set<GpuId>> barred = {};  // GPUs that its queue may not use now (models.h); null: none
  bool entitled = false;  // GPUs of the model that it requires are kept for it: it starts first
  // What it is expected to need (expect.h), as it was reckoned last:
  int64_t place = 0;        // of those that are alike in priority and class the smallest starts first
  uint64_t left_ms = 0;     // that it will run yet on all its GPUs; 0: nothing is known
  uint64_t ends_ms = 0;     // it runs: when it will be over, on the clock of State::now_ms; 0: nothing is known
  std::string passes = {};  // it runs: the pool drained for that job when it started, and it was to be over before that
  bool overrun = false;     // and it is not

  // Some GPUs are not for it.
  bool picky() const { return require.any() || !failed_on.empty() || barred != nullptr; }

  bool is_partial() const { return part < kWholeGpu; }
  Portion portion() const { return {part, memory_bytes}; }
  uint32_t want() const { return target == 0 || target > vgpus ? vgpus : target; }
  bool operator==(const JobView&) const = default;
};

struct State {
  std::vector<GpuView> gpus;
  std::vector<JobView> jobs;  // in the order of submission
  bool turns = false;         // jobs take turns: who has waited longest starts first
  std::string next_turn;      // who waits behind this job waits for it; empty: nobody's turn is next
  QueueTree queues;           // empty: as if there were one, without limit
  std::vector<double> used;   // by queue: the part of the pool that it had in the past (QueueLoad)
  ShareRules share_rules;
  uint64_t now_ms = 0;                         // since 1970: deadlines and reservations are on this clock
  std::vector<Reservation> reservations = {};  // in the order of pool.toml
  bool consolidate = true;                     // running jobs may be moved so that others can start
  bool operator==(const State&) const = default;
};

struct Decision {
  bool running = false;
  std::string reason;          // why it waits: one sentence
  std::vector<GpuId> places;   // per vGPU, complete when running
  std::string moved_for = {};  // it runs, and is moved so that this job can start
  std::string passes = {};     // it starts although the pool drains for this job
  bool operator==(const Decision&) const = default;
};

using Assignment = std::map<std::string, Decision>;  // by job id

}  // namespace tide::sched
