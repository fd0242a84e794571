#pragma once

// The pool's queues as the scheduler keeps them: the tree that pool.toml describes, what each had in the past, which
// queue a job is for, and how they stand now. Owned by one thread; no clock.

#include <string>
#include <vector>

#include "base/outcome.h"
#include "scheduler/config.h"
#include "scheduler/shares.h"
#include "scheduler/state.h"
#include "scheduler/usage.h"

namespace tide::sched {

struct Queues {
  bool written = false;  // pool.toml has queues; else there is one, without limit
  QueueTree tree = make_tree({});
  ShareRules rules;
  uint64_t half_life_ms = kHalfLifeMs;
  Usage usage;

  bool operator==(const Queues&) const = default;

  // What pool.toml says, also of a pool that runs; the past stays.
  void configure(const std::vector<QueueConfig>& queues, const PolicyConfig& policy);

  // Makes of what somebody asked for (empty: nothing) a queue that takes jobs, or says which ones do.
  Outcome choose(std::string* name) const;
  // Why a job can never start in its queue, whatever else runs; empty: it can.
  std::string why_never(const State& state, const JobView& job, const std::string& queue, bool min_given) const;
};

// Gives the snapshot its queues, and each of its jobs its own. `names`: of the jobs' queues, in their order. Those that
// are gone from pool.toml, or have queues below them now, take no new jobs and have no quota.
void put_into_queues(const Queues& queues, const std::vector<std::string>& names, State* state);
// The same of one job: it belongs to this leaf of the tree.
void put_into_queue(const QueueTree& tree, int32_t leaf, JobView* job);
// What each queue of the tree had in the past, as parts of such a pool.
std::vector<double> used_by(const Queues& queues, const QueueTree& tree, int64_t pool);

// What jobs of each queue want and have; by index in State::queues. A job that somebody suspended wants nothing.
std::vector<QueueLoad> loads_of(const State& state);
// What of a job counts for its queue: all that it may have, what it cannot run without, and what it has.
int64_t wanted_by(const JobView& job);
int64_t needed_by(const State& state, const JobView& job);
int64_t held_by(const JobView& job);
// Thousandths of the GPUs that can be given away.
int64_t pool_of(const State& state);

// For people.
struct ModelState {
  ModelQuota is;
  int64_t held = 0, there = 0;  // GPUs that its jobs are on; usable ones in the pool
};
struct QueueState {
  Queue queue;
  std::string parent;
  bool in_file = true;
  QueueShare share;
  uint32_t running = 0, waiting = 0;  // jobs, of inner queues those of their leaves
  int64_t waiting_for = 0;            // what the latter want
  double used_gpu_s = 0;
  std::vector<ModelState> models = {};  // in the order of its own
};
std::vector<QueueState> states_of(const Queues& queues, const State& state);

// Why a job waits, where its queue is the reason: one sentence with numbers, and what to do. Empty: it is not.
struct QueueReason {
  std::string reason, next;
};
QueueReason why_queue_waits(const State& state, const JobView& job);

}  // namespace tide::sched
