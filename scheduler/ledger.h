#pragma once

// What is, in memory: servers with their GPUs, and the jobs that have not ended or still hold a GPU. Plain data and
// lookups; the reconciler changes it. Owned by one thread.

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "scheduler/config.h"
#include "scheduler/disturbance.h"
#include "scheduler/expect.h"
#include "scheduler/move_totals.h"
#include "scheduler/plan.h"
#include "scheduler/promises.h"
#include "scheduler/protection.h"
#include "scheduler/queues.h"
#include "scheduler/reservation_config.h"
#include "scheduler/state.h"
#include "scheduler/store.h"
#include "scheduler/tracked.h"
#include "scheduler/turn_rules.h"

namespace tide::sched {

struct Gpu {
  uint32_t index = 0;
  std::string name, uuid, device_info;
  uint64_t memory_bytes = 0;
  bool healthy = true;
  bool software = false;
  uint32_t compute = 0;                     // its compute capability: 90 is 9.0; 0: not known
  std::shared_ptr<const GpuTraits> traits;  // Ledger::describe()
};

struct Server {
  std::string name, endpoint, version;
  std::vector<Gpu> gpus;
  bool online = false;
  uint64_t generation = 0;  // of its registration; a late goodbye of an older one changes nothing
  uint64_t last_seen_ns = 0;
  uint64_t give_up_ns = 0;  // offline: when its vGPUs count as lost
};

struct Vgpu {
  GpuId at, to, wish;       // `wish`: where `tide migrate` wants it
  GpuId home = {};          // the GPU that it has left to be parked; none once all of its job is parked, or it is back
  uint64_t epoch = 0;       // of the lease at `at`
  uint64_t last_epoch = 0;  // highest that was ever used
  Doing doing = Doing::kNothing;
  std::string device_info;
  bool missing = false;   // after our restart `at` says that it is not there; another server may have it
  uint32_t failures = 0;  // in a row
  uint64_t retry_ns = 0;
  std::set<std::string> keepers_refused = {};  // parked, on a server that is being drained: who would not keep it
  MoveTotals last_move;                        // that this scheduler saw; of no vGPU: none
  Protection protection = {};

  // It has lost its place, and will have another one, with what its guard has.
  bool comes_back() const { return protection.whole() && (protection.lost || at.none()); }
};

// How far a job that is being suspended is. Before kParking nothing of it moves: first its programs are held.
enum class Suspending { kNot, kWaiting, kHolding, kParking };

// What was seen of a job that may have nothing to do.
struct Idleness {
  uint64_t commands = 0;  // of all its vGPUs, when it was looked at last
  uint64_t since_ns = 0;  // nothing has happened since; 0: not known
  uint64_t look_ns = 0;   // when it is looked at next
  bool asked = false;     // agents are
};

// Of a job where jobs take turns (turns.h). What must outlive the scheduler is in its record.
struct Turn {
  uint64_t began_ns = 0;    // the present one
  uint64_t leaving_ns = 0;  // since when it is being suspended; 0: it is not, or an earlier scheduler began it
  uint64_t coming_ns = 0;   // the same of being resumed
  uint64_t bytes = 0;       // that it has in use, as last heard
  uint64_t ask_ns = 0;      // when that is asked again
  // For people, as it was in the last round; 0: no such time.
  uint64_t length_ms = 0;  // of its turns; kEndless: until it ends
  uint64_t ends_ns = 0;    // when its turn ends
  std::string next;        // for this job
  uint64_t comes_ns = 0;   // when its turn comes, about
};

// Of useful running (record.useful_ms): all vGPUs on GPUs, none of them on its way.
struct Useful {
  uint64_t began_ms = 0;    // what the record said when it last got its GPUs
  uint64_t counted_ns = 0;  // until then; 0: it does not run usefully
  uint64_t rest_ns = 0;     // beyond what the record says
  uint64_t saved_ms = 0;    // what the store has
  uint64_t ask_ns = 0;      // when its servers are asked what it has in use; 0: not since this scheduler started
};

// What was promised to a job with a deadline, as it was in the last round.
struct Promise {
  PromiseView is;
  bool counts = false;  // else it has ended, with its deadline or with the estimate, or there was none
};

// What it is expected to need, as it was reckoned last (reconciler_expect.cc).
struct Expectation {
  Expected is;
  Estimates::Kind kind;
  bool counts = false;      // among those of whom is learned
  bool began = false;       // to run
  bool admitted = false;    // when this was reckoned,
  uint32_t gpus = 0;        // and had so many
  uint32_t step = 0;        // of running time (estimates.h)
  uint64_t ran_ms = 0;      // useful time
  uint64_t next_ms = 0;     // the same, when it is reckoned anew
  int64_t place = 0;        // JobView
  uint64_t ends_ms = 0;     // since 1970; 0: not known, or it does not run
  std::string passes = {};  // JobView
  bool overrun = false;
};

struct Job {
  JobRecord record;
  std::vector<Vgpu> vgpus;
  bool started = false;       // all vGPUs were placed once: the program may be running
  bool attached = false;      // somebody holds its handle
  uint64_t left_ns = 0;       // since when nobody does any more; 0: nobody has since the scheduler started
  uint64_t handle = 0;        // generation of the handle that counts
  bool dirty = false;         // the store has an older version
  std::string problem;        // of a running job: what failed last and when it is tried again
  std::string moved_because;  // the last time, as far as this scheduler saw it
  uint64_t moved_ns = 0;
  std::string moves_for;  // the job for which it makes way, until it has
  Idleness idle;
  Turn turn;
  Useful useful;
  Expectation expected;
  bool spared = false;      // as it was at the last tick
  bool disturbing = false;  // it shrinks or is moved for others now; until that is done it is not spared
  Promise promise;
  Suspending suspending = Suspending::kNot;
  std::set<std::string> refused_by;           // servers that could not keep a vGPU of it, this time
  std::string refusals;                       // and what they said
  std::map<std::string, uint64_t> failed_on;  // servers on which resuming it failed: until when they are left out
  uint64_t hold_round = 0;                    // generation of what is said to the agents about holding
  uint64_t hold_until_ns = 0;                 // when a job that does not come to rest is let go
  uint64_t hold_again_ns = 0;                 // when the agents are told once more, who else let go by themselves
  uint64_t kept_until_ns = 0;  // nothing is taken from it before: it has just begun, or that has just failed
  std::string taken;           // why, while its GPUs are taken for another queue
  bool letting_go = false;     // agents are told
  uint64_t let_go_ns = 0;      // when one that did not listen is told again; 0: none

  bool ended() const { return record.phase == Phase::kEnded; }
  bool admitted() const { return record.phase == Phase::kRunning; }
  bool being_suspended() const { return record.suspended && admitted(); }
  bool holds_gpus() const;  // or is parked on a server
  uint32_t physical_gpus() const;
  bool is_parked() const;  // all of it
  // What decides whether it may be disturbed. Valid as long as this.
  Disturbed disturbed(const DisturbanceRules& rules) const;
  bool is_quiet() const;  // none of its vGPUs takes part in an action
};

struct Ledger {
  Tracked<std::string, Server> servers;
  Tracked<uint64_t, Job> jobs;  // by number, which is the order of submission
  TurnRules turns;
  DisturbanceRules disturbance;
  bool consolidate = true;                      // running jobs may be moved so that others can start
  bool by_estimates = false;                    // who waits starts by what it is expected to need
  bool preempts = false;                        // and who runs stops and shrinks for who is before it in line
  std::map<std::string, uint64_t> drains;       // servers that are being drained, also absent ones: since when (1970)
  std::map<std::string, ServerTraits> traits;   // what pool.toml says of servers
  PriceConfig prices;                           // the same of GPU time,
  uint64_t history_keep_ms = kHistoryKeepMs;    // and of the history
  std::vector<ReservationConfig> reservations;  // in the order of pool.toml

  bool is_draining(const std::string& server) const { return drains.count(server) != 0; }
  // After the server has come, or `traits` has changed.
  void describe(Server* server) const;
  Queues queues;

  State snapshot() const;
  State pool() const;  // without jobs and queues
  std::vector<GpuView> gpus_of(const Server& server) const;
  // Adds the job's vGPUs. UINT64_MAX: as if nothing had to wait.
  static void add_present(const Job& job, uint64_t now_ns, std::vector<Present>* present);
  Job* find(const std::string& id_or_name);  // newest of that name; null: none that lives
  Job* by_id(const std::string& id);
  const Gpu* gpu(const GpuId& id) const;
  const Server* server(const std::string& name) const;
  uint64_t next_ticket() { return ++last_ticket; }  // for who begins to wait now
  uint64_t last_ticket = 0;                         // that was given, or is in the record
  // Jobs with a vGPU on it, coming, going or wished there, and the job for which it is kept; and what each has of it.
  std::map<std::string, Portion> holders(const GpuId& id) const;
};

JobView view_of(const Job& job);
Expected expected_now(const Job& job);  // less what it has run since
void to_record(Job* job);               // vgpus -> record.vgpus
Job from_record(const JobRecord& record);

// "3" -> 3; 0 for anything that is not a job's number.
uint64_t parse_number(const std::string& text);

}  // namespace tide::sched
