#pragma once

// Makes what is into what the policy wants: decides anew after every event, writes the decision down, and drives the
// agents. Every action carries an epoch that was stored before it was sent, so repeating one, or one that was cut off,
// can do no harm. Failures leave a vGPU where it was and are tried again later. One kj event loop owns all of this.

#include <kj/async-io.h>
#include <kj/timer.h>

#include <functional>
#include <list>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/outcome.h"
#include "scheduler/books.h"
#include "scheduler/control.capnp.h"
#include "scheduler/drains.h"
#include "scheduler/estimates.h"
#include "scheduler/ledger.h"
#include "scheduler/move_totals.h"
#include "scheduler/planner.h"
#include "scheduler/promises.h"
#include "scheduler/store.h"
#include "scheduler/turns.h"

namespace tide::sched {

inline constexpr uint32_t kLeaseMs = 15'000;           // an agent that is silent for so long is lost
inline constexpr uint32_t kOfflineGraceMs = kLeaseMs;  // an agent whose connection broke may be restarted
inline constexpr uint32_t kLeftGraceMs = 1'500;        // for `tide run` whose connection ended
inline constexpr uint32_t kRecoverGraceMs = 30'000;    // after a restart, for `tide run` and agents
inline constexpr uint32_t kTickMs = 200;
inline constexpr uint32_t kStalledMs = 2'000;  // without a tick: it was us who were stopped
inline constexpr uint32_t kPlaceTriesMax = 5;  // then a job is given up; not one that is restored from a checkpoint

inline constexpr uint32_t kParkTriesAgainMax = 5;  // while somebody is away or busy; then its server counts as refusing

inline constexpr uint32_t kSizeAskMs = 60'000, kSizeAskFirstMs = 10'000;  // what a job has in use is asked so often
inline constexpr uint32_t kUsageSaveMs = 30'000;  // what queues have had is written down so often

inline constexpr uint32_t kUsageFreshMs = 500;

inline constexpr uint64_t kKeptMs = 60'000;  // after what was to be taken from a job could not be

inline constexpr uint32_t kHoldMs = 30'000;  // what a job that is held may take to come to rest

// Before what has failed so often in a row is tried again.
inline uint64_t backoff_ns(uint32_t failures) {
  const uint64_t ms = 500ull << (failures < 6 ? failures : 6);  // 1 s, 2 s, ... 32 s
  return ms * 1'000'000;
}

MoveTotals totals_of(control::MoveReport::Reader report);

class Reconciler final : private kj::TaskSet::ErrorHandler {
 public:
  Reconciler(Ledger& ledger, Store& store, kj::Timer& timer);
  ~Reconciler() noexcept(false);

  // Takes over what the store knows. Call once, before anything else.
  Outcome recover();
  // Something changed: decide again, soon.
  void poke();
  uint64_t rounds() const { return rounds_; }  // so far
  // Nothing is decided, ended or sent while this says false.
  void act_only_while(std::function<bool()> leads) { leads_ = std::move(leads); }
  // Told after each round while somebody wants it, as to put it together takes time: what the policy was asked with,
  // and what it answered.
  void record_to(std::function<bool()> wanted, std::function<void(State, const Assignment&)> record) {
    record_wanted_ = std::move(wanted);
    record_ = std::move(record);
  }
  // Nothing is decided or sent from now on; jobs stay as they are (they may be taken over by the next scheduler).
  void stop();
  // Ends all jobs and returns when their GPUs are released, or after `timeout_ms`.
  kj::Promise<void> end_all(std::string reason, uint32_t timeout_ms);

  void end_job(Job* job, std::string reason, int32_t exit_status);
  // Writes down that the job shall be on no GPU, or again on some, and sets about it; when_settled() waits for it.
  // A suspending that fails lets the job run on. Requires: it has started and not ended.
  Outcome suspend(Job* job);
  Outcome resume(Job* job);
  // Fulfilled when all vGPUs run; rejected when the job ends before.
  kj::Promise<void> when_running(const std::string& id);
  kj::Promise<void> when_ended(const std::string& id);
  // Fulfilled when the job lies as the policy wants it; rejected at the first failed move.
  kj::Promise<MoveTotals> when_settled(const std::string& id);

  // Takes the server into the pool; `*generation` is for agent_gone() and heartbeat().
  Outcome register_agent(Server server, std::vector<control::Lease::Reader> leases, control::Agent::Client agent,
                         uint64_t* generation);
  bool heartbeat(const std::string& server, uint64_t generation);
  void agent_gone(const std::string& server, uint64_t generation);
  kj::Maybe<control::Agent::Client> agent(const std::string& server);

  // Writes down that the server is to be drained, or not any more, and sets about it: it gets nothing new, and what is
  // there goes elsewhere.
  Outcome drain(const std::string& server, bool on);
  // What is left on servers that are being drained, and why; by server.
  std::map<std::string, std::vector<Left>> left();
  // What the policy is asked with; of another ledger, as it would be if that were this one's.
  State look() const { return look(ledger_); }
  State look(const Ledger& ledger) const;
  // Puts into its record why the job waits, as of the last round; of others nothing changes.
  void note_reason(Job* job) const;
  // How many that were submitted later have started while it waits.
  uint32_t times_passed(uint64_t number) const;
  // For who measures: called when a round begins (true) and when it is over.
  void watch_rounds(std::function<void(bool)> watch) { watch_ = std::move(watch); }

  Books& books() { return books_; }
  // What all agents count of GPUs, by server; whoever does not answer soon is left out. Each is asked once for all who
  // want to know within kUsageFreshMs.
  using Usages = std::map<std::string, capnp::Response<control::Agent::UsageResults>>;
  kj::Promise<std::shared_ptr<const Usages>> usage();

  Outcome save(Job* job) { return save(std::vector<Job*>{job}); }
  // Few transactions for all of them. Where that failed, any may be in the store as it is now, and all are dirty.
  Outcome save(const std::vector<Job*>& jobs);

 private:
  struct Link {  // to one agent
    control::Agent::Client agent;
    kj::Canceler canceler;  // ends the calls to an agent that is lost
    explicit Link(control::Agent::Client a) : agent(kj::mv(a)) {}
  };
  struct Waiter {
    enum class For { kRunning, kEnded, kSettled };
    MoveTotals totals;
    kj::Own<kj::PromiseFulfiller<MoveTotals>> fulfiller;
  };

  struct Told {  // of a job
    bool waited = false;
    std::vector<GpuId> places;  // in occupants_, sorted
    uint64_t due_ns = 0;        // in due_; 0: it is not
  };

  void taskFailed(kj::Exception&& exception) override;
  void step();
  struct Moment {
    uint64_t ns = 0, wall_ms = 0;
  };
  static Moment this_moment();
  // `promises`: how they stand in it; null: nobody asks.
  State look(const Ledger& ledger, const Moment& now, Promises* promises = nullptr) const;
  void record(const Moment& now, const std::vector<Planner::Change>& changes);
  uint64_t fill_view(const Ledger& ledger, const Job& job, const Moment& now, JobView* view) const;
  static bool checks_planner();
  void gather(uint64_t now);
  State rules_now(const Moment& now) const;
  void tell_planner(const Moment& now);
  void tell_of_gpus();
  bool tell_of_changes(const Moment& now);
  void tell_all(const Moment& now);
  bool has_deadlines() const;
  void forget_told(uint64_t number);
  void tell_of(uint64_t number, JobView view);
  uint32_t times_passed(uint64_t number, const JobView& view) const;
  void note_due(uint64_t number, uint64_t until_ns);
  void note_places(uint64_t number, const Job* job);
  std::vector<Planner::Change> decide(const Moment& now);
  std::optional<Decision> wanted_of(const std::string& job) const;  // none: there is no such job
  std::vector<Action> actions(const Assignment& wanted, uint64_t now_ns) const;
  Assignment wanted_now(const std::vector<Planner::Change>& changes) const;
  void note_restless(const std::vector<Action>& left);
  void check_planner(const State& state, const std::vector<Planner::Change>& changes) const;
  bool note_started(Job* job);  // whether it has just begun to run
  void go_on_suspending(Job* job);
  bool give_up_parking();
  void begin_holding(Job* job);
  void begin_parking(Job* job);
  void note_parked(Job* job);
  void stop_suspending(Job* job);
  void suspend_failed(Job* job, const std::string& why);
  void resume_failed(Job* job, const std::string& server, uint64_t until_ns);
  bool retry_failed_servers(Job* job, uint64_t now);
  void park_failed(Job* job, uint32_t vgpu, const GpuId& to, const std::string& why, bool passing);
  Job* holding(const std::string& id, uint64_t round);
  kj::Promise<void> hold(const Job& job, bool on);
  void hold_on(Job* job);
  struct Rest {              // of a job that is held
    uint32_t busy = 0;       // vGPUs that are not quiet
    uint32_t some_busy = 0;  // one of them
    uint32_t silent = 0;     // of these, whose servers do not say
    uint64_t commands = 0;   // of all that were looked at; it only grows
    uint64_t bytes = 0;      // of GPU memory that they have in use
  };
  kj::Promise<Rest> look_at_rest(const Job& job, bool parked = false);
  kj::Promise<void> watch_rest(std::string id, uint64_t round, Rest before);
  void let_go(Job* job);
  void look_after_idle(Job* job);
  void note_rest(const std::string& id, bool away, const Rest& rest);
  void take_turns();
  void note_promises(const Promises& promises);
  void note_turns(const State& state, const TurnPlan& plan);
  void end_turn(Job* job, const std::string& next);
  void take_from(Job* job, const std::string& why);
  Outcome learn_from_ended();
  void expect(Job* job, uint64_t now_ms);
  bool learn(Job* job);
  void reckon(Job* job, bool stepped, uint64_t now_ms);
  static bool is_expected_anew(const Job& job, uint64_t now_ms);
  void begin_useful(Job* job);
  bool count_useful(Job* job, uint64_t now);
  void save_useful(bool all = false);
  bool may_be_disturbed_again(Job* job, uint64_t now);
  bool suspend_for_others(Job* job);
  void note_moves(Job* job, const std::vector<Action>& actions);
  void note_undisturbed(const std::vector<Action>& left);
  void ask_for_size(Job* job, uint64_t now);
  void ask_for_bytes(Job* job);
  void begin_turn(Job* job);
  void note_gone(Job* job);
  void note_back(Job* job);
  void note_switch_failed(Job* job);
  void leave_drained_servers();
  void leave_drained_server(const Job& job, std::vector<Action>* moves) const;
  std::string other_keeper(const Vgpu& vgpu) const;
  bool leave_guard(Job* job, uint32_t vgpu);
  Outcome remember_usage();
  void count_usage(uint64_t now);
  void save_usage(uint64_t now);
  void keep_books(uint64_t now);
  void hear_usage();
  kj::Promise<std::shared_ptr<const Usages>> ask_usage();
  void look_after_protection(Job* job);
  void protect(Job* job, uint32_t vgpu);
  std::string choose_guard(const GpuId& at) const;
  void begin_guard(Job* job, uint32_t vgpu);
  void fill_guard(control::Lease::Builder lease, const Job& job, uint32_t vgpu);
  Vgpu* guarded(const std::string& job, uint32_t vgpu, uint64_t guard_epoch);
  void guard_failed(Job* job, uint32_t vgpu, const std::string& why);
  void take_checkpoint(Job* job, uint32_t vgpu);
  void note_checkpoint(Job* job, uint32_t vgpu, control::CheckpointReport::Reader report);
  void checkpoint_failed(Job* job, uint32_t vgpu, const std::string& why);
  void end_protection(Job* job, uint32_t vgpu, const std::string& why);
  void drop_guard(Job* job, uint32_t vgpu);
  void watch(Job* job, uint32_t vgpu);
  void lose_worker(Job* job, uint32_t vgpu);
  bool recovers(Job* job, uint32_t vgpu, const std::string& why);
  void release_lost(Job* job, uint32_t vgpu);
  bool end_without_checkpoint(Job* job, uint32_t vgpu);
  static void watch_anew(Vgpu* vgpu);
  static void found_again(Vgpu* vgpu);
  void start_recovery(const Action& action);
  void recovery_failed(Job* job, uint32_t vgpu, const std::string& server, const std::string& why);
  void recovered(const Action& action, uint64_t epoch);
  bool confirm_guard(const std::string& server, const control::Lease::Reader& lease);
  void lose_guards(const std::string& server, const std::set<std::pair<std::string, uint32_t>>& but);
  void admit(const std::vector<Planner::Change>& changes, Assignment* wanted);
  void start(const std::vector<Action>& actions);
  bool prepare_action(Job* job, const Action& action);
  void start_place(const Action& action);
  void start_move(const Action& action);
  void start_release(const Action& action);
  void placed(const std::string& job, uint32_t vgpu, uint64_t epoch);
  void place_failed(const std::string& job, uint32_t vgpu, uint64_t epoch, const std::string& why);
  void moved(const std::string& job, uint32_t vgpu, uint64_t epoch, const MoveTotals& report);
  // `passing`: nobody has refused it; somebody was away, or busy with it.
  void move_failed(const std::string& job, uint32_t vgpu, uint64_t epoch, const std::string& why, bool passing);
  void released(const Action& action, bool ok, const std::string& why);
  void cancel_at(const std::string& server, const std::string& job, uint32_t vgpu, uint64_t epoch);
  void adopt(const Server& server, const std::vector<control::Lease::Reader>& leases, control::Agent::Client& agent);
  enum class Claim { kRight, kOpen, kVoid };
  Claim judge(const GpuId& here, const control::Lease::Reader& lease, Vgpu* vgpu);
  void take_word(const GpuId& here, const control::Lease::Reader& lease, Vgpu* vgpu);
  void miss(Job* job, uint32_t vgpu, const std::string& server);
  void drop_move(Job* job, uint32_t vgpu);
  void lose_server(const std::string& name);
  void forget_done_jobs();
  bool count_running(uint64_t number, uint64_t now, uint64_t wall_ms);
  bool needs_care(const Job& job, uint64_t now) const;
  kj::Promise<MoveTotals> wait_for(Waiter::For what, const std::string& id);
  bool wake(const std::string& job, Waiter::For what, const std::string& error);  // whether somebody waited
  void wake_settled(const std::vector<Action>& actions);
  kj::Promise<void> tick();
  void check_deadlines();
  bool save_dirty();
  bool a_reservation_turned();
  bool was_stopped(uint64_t now);
  Vgpu* vgpu_of(const std::string& job, uint32_t vgpu);
  void fill_lease(control::Lease::Builder lease, const Job& job, uint32_t vgpu, const GpuId& gpu, uint64_t epoch);

  Ledger& ledger_;
  Store& store_;
  kj::Timer& timer_;
  Books books_;
  std::map<std::string, kj::Own<Link>> links_;                               // of servers that are online
  std::map<Waiter::For, std::map<std::string, std::list<Waiter>>> waiters_;  // by job
  uint64_t generation_ = 0;
  uint64_t recover_until_ns_ = 0;
  uint64_t ticked_ns_;
  std::string next_turn_;          // the job whose turn is next
  uint64_t turn_due_ns_ = 0;       // when turns end for it; 0: none does
  uint64_t promise_due_ns_ = 0;    // when what was promised is to be looked at again, whatever happens; 0: never
  uint64_t counted_ns_ = 0;        // usage of queues, until then
  uint64_t save_usage_ns_ = 0;     // when it is written down next
  std::set<std::string> lasting_;  // reservations, when it was looked at last
  std::function<bool()> leads_ = [] { return true; };
  std::function<bool()> record_wanted_;
  std::function<void(State, const Assignment&)> record_;  // null: nobody asks
  uint64_t recorded_ = 0;                                 // the newest job that is in what was recorded
  Estimates estimates_;
  double came_s_ = 0;  // the latest job, since 1970
  std::unique_ptr<Planner> planner_;
  std::set<uint64_t> looked_;                    // jobs that the next round looks at, also when nobody touches them
  std::set<std::pair<uint64_t, uint64_t>> due_;  // when a job's view changes by itself (ns), and whose
  std::unordered_map<uint64_t, Told> told_;
  std::unordered_map<GpuId, std::vector<uint64_t>, GpuIdHash> occupants_;  // jobs with a vGPU there, coming or going
  std::set<std::string> told_servers_;
  bool told_turns_ = false, told_written_ = false;
  bool promised_ = false;  // somebody has been promised a deadline
  QueueTree told_tree_;
  std::map<std::string, int32_t> leaves_;  // of told_tree_
  bool orphans_ = false;                   // jobs whose queue is gone from pool.toml
  int64_t pool_size_ = 0;                  // pool_of() all servers
  const bool checks_ = checks_planner();
  std::function<void(bool)> watch_;
  bool poked_ = false;
  bool asks_usage_ = false;
  std::shared_ptr<const Usages> usages_;  // as heard last; null: not yet
  uint64_t usages_ns_ = 0;
  kj::Maybe<kj::ForkedPromise<std::shared_ptr<const Usages>>> asking_;
  uint64_t rounds_ = 0;
  bool stopped_ = false;
  kj::TaskSet tasks_;
};

}  // namespace tide::sched
