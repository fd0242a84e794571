#include "scheduler/reconciler.h"

#include <algorithm>
#include <utility>

#include "base/clock.h"
#include "base/log.h"
#include "scheduler/policy.h"
#include "scheduler/remote_error.h"

namespace tide::sched {

Reconciler::Reconciler(Ledger& ledger, Store& store, kj::Timer& timer)
    : ledger_(ledger), store_(store), timer_(timer), books_(ledger, store), ticked_ns_(now_ns()), tasks_(*this) {
  tasks_.add(tick());
}

Reconciler::~Reconciler() noexcept(false) { stopped_ = true; }

void Reconciler::taskFailed(kj::Exception&& exception) {
  log(LogLevel::kError, "an action failed outside of its own handling: %s", exception.getDescription().cStr());
}

Outcome Reconciler::recover() {
  std::vector<JobRecord> records;
  Outcome loaded = store_.load_live(&records);
  if (loaded.ok()) loaded = store_.load_drains(&ledger_.drains);
  if (!loaded.ok()) return loaded;
  planner_ = nullptr;
  told_.clear();
  due_.clear();
  occupants_.clear();
  told_servers_.clear();
  ledger_.jobs.mark_all();
  if (!records.empty()) recover_until_ns_ = now_ns() + uint64_t(kRecoverGraceMs) * 1'000'000;
  const uint64_t now = now_ns(), wall_ms = wall_seconds() * 1000;
  for (const JobRecord& record : records) {
    Job& job = ledger_.jobs[record.number] = from_record(record);
    ledger_.last_ticket = std::max(ledger_.last_ticket, record.turn.ticket);
    const uint64_t had_ms = wall_ms > record.turn.began_ms ? wall_ms - record.turn.began_ms : 0;
    job.turn.began_ns = now - std::min(now, had_ms * 1'000'000);
    job.useful.saved_ms = record.useful_ms;
    job.useful.ask_ns = now + (kSizeAskFirstMs + record.number * 1000 % kSizeAskMs) * 1'000'000ull;  // not all at once
    job.useful.began_ms = record.useful_ms - std::min(record.useful_ms, had_ms);  // it ran usefully since, as it seems
  }
  const Outcome remembered = remember_usage();
  if (!remembered.ok()) return remembered;
  if (const Outcome begun = books_.begin(); !begun.ok()) return begun;
  if (const Outcome learned = learn_from_ended(); !learned.ok()) return learned;
  if (!records.empty()) log(LogLevel::kInfo, "took over %zu jobs from %s", records.size(), store_.path().c_str());
  return {};
}

void Reconciler::stop() {
  if (!stopped_ && leads_()) {
    save_usage(now_ns());
    save_useful(true);
    books_.finish();
  }
  stopped_ = true;
}

void Reconciler::poke() {
  if (poked_ || stopped_) return;
  poked_ = true;
  tasks_.add(kj::evalLater([this] {
    poked_ = false;
    if (stopped_ || !leads_()) return;
    ++rounds_;
    step();
  }));
}

Outcome Reconciler::save(const std::vector<Job*>& jobs) {
  std::vector<const JobRecord*> records;
  books_.close(jobs);
  for (Job* job : jobs) {
    to_record(job);
    records.push_back(&job->record);
  }
  const Outcome saved = store_.update(records);
  const bool news = std::any_of(jobs.begin(), jobs.end(), [](const Job* job) { return !job->dirty; });
  if (!saved.ok() && news) log(LogLevel::kError, "%s", saved.message().c_str());
  for (Job* job : jobs) {
    job->dirty = !saved.ok();
    if (saved.ok()) job->useful.saved_ms = job->record.useful_ms;
  }
  return saved;
}

// Looks only at whom somebody touched, and who has not come to rest.
void Reconciler::step() {
  if (watch_) watch_(true);
  const Moment now = this_moment();
  gather(now.ns);
  std::vector<Job*> started;
  for (const uint64_t number : looked_) {
    Job* const job = ledger_.jobs.quietly(number);
    if (job == nullptr) continue;
    if (note_started(job)) started.push_back(job);
    go_on_suspending(job);
    expect(job, now.wall_ms);
  }
  (void)save(started);  // a restart that misses this asks the agents, who know
  take_turns();
  std::vector<Planner::Change> changes = decide(now);
  if (give_up_parking()) changes = decide(now);
  record(now, changes);
  Assignment wanted = wanted_now(changes);
  admit(changes, &wanted);
  start(actions(wanted, now_ns()));
  leave_drained_servers();
  // What could not start (a held-back action, a store that is full) is asked for again by the tick.
  const std::vector<Action> left = actions(wanted, UINT64_MAX);
  wake_settled(left);
  note_undisturbed(left);
  for (const uint64_t number : looked_) {
    if (Job* job = ledger_.jobs.quietly(number)) let_go(job);
  }
  note_restless(left);
  forget_done_jobs();
  if (watch_) watch_(false);
}

// Who could not be written down is not wanted anywhere yet.
void Reconciler::admit(const std::vector<Planner::Change>& changes, Assignment* wanted) {
  std::vector<std::pair<Job*, JobRecord>> before;
  std::vector<Job*> admitted;
  std::vector<Planner::Change> starts;
  for (const uint64_t number : looked_) {
    Job* const job = ledger_.jobs.quietly(number);
    if (job != nullptr && !job->ended() && !job->admitted()) job->record.reason.clear();  // note_reason()
  }
  for (const Planner::Change& change : changes) {
    Job* const job = ledger_.by_id(change.id);
    if (job == nullptr || job->ended()) continue;
    const bool runs = change.decision.running;
    if (!change.decision.moved_for.empty()) job->moves_for = change.decision.moved_for;
    if (job->admitted() && !runs && !job->record.suspended) take_from(job, planner_->why(change.id));
    if (job->admitted() || !runs) continue;
    before.emplace_back(job, job->record);
    admitted.push_back(job);
    starts.push_back({.id = change.id, .decision = {}, .starts = true});
    job->record.phase = Phase::kRunning;
    job->expected.passes = change.decision.passes;
    begin_turn(job);
  }
  const Outcome saved = save(admitted);
  for (auto& [job, record] : before) {
    if (!saved.ok()) {
      job->record = record;
      job->record.reason = saved.message();
      wanted->erase(job->record.id());
      continue;
    }
    job->turn.coming_ns = job->started ? now_ns() : 0;
    if (job->started) begin_useful(job);
  }
  if (!saved.ok()) return;
  // Where jobs take turns, one that has run has its own.
  std::erase_if(starts, [&](const auto& each) { return ledger_.turns.on && ledger_.by_id(each.id)->started; });
  planner_->count_passed(starts);
}

bool Reconciler::note_started(Job* job) {
  const bool all = std::all_of(job->vgpus.begin(), job->vgpus.end(), [](const Vgpu& v) { return !v.at.none(); });
  if (!all || job->started || job->ended() || !job->admitted()) return false;
  job->started = true;
  job->problem.clear();
  begin_useful(job);
  job->record.started_ms = wall_seconds() * 1000;
  begin_turn(job);
  log(LogLevel::kInfo, "job %s runs: %u vGPUs on %u GPUs", job->record.id().c_str(), job->record.gpus,
      job->physical_gpus());
  wake(job->record.id(), Waiter::For::kRunning, "");
  return true;
}

void Reconciler::end_job(Job* job, std::string reason, int32_t exit_status) {
  if (job == nullptr || job->ended() || !leads_()) return;
  log(LogLevel::kInfo, "job %s ended: %s", job->record.id().c_str(), reason.c_str());
  job->record.phase = Phase::kEnded;
  job->record.reason = reason;
  job->record.exit_status = exit_status;
  job->record.ended_ms = wall_seconds() * 1000;
  for (uint32_t v = 0; v < job->vgpus.size(); ++v) drop_guard(job, v);
  (void)save(job);  // when the disk is full the tick tries again; the job's GPUs are free all the same
  const std::string id = job->record.id();
  wake(id, Waiter::For::kRunning, reason);
  wake(id, Waiter::For::kSettled, "job " + id + " ended: " + reason);
  wake(id, Waiter::For::kEnded, "");
  poke();
}

kj::Promise<MoveTotals> Reconciler::wait_for(Waiter::For what, const std::string& id) {
  auto pair = kj::newPromiseAndFulfiller<MoveTotals>();
  waiters_[what][id].push_back({.totals = {}, .fulfiller = kj::mv(pair.fulfiller)});
  return kj::mv(pair.promise);
}

kj::Promise<void> Reconciler::when_running(const std::string& id) {
  const Job* job = ledger_.by_id(id);
  if (job == nullptr || job->ended()) return error_for_caller("the job has ended");
  if (job->started) return kj::READY_NOW;
  return wait_for(Waiter::For::kRunning, id).ignoreResult();
}

kj::Promise<void> Reconciler::when_ended(const std::string& id) {
  const Job* job = ledger_.by_id(id);
  if (job == nullptr || job->ended()) return kj::READY_NOW;
  return wait_for(Waiter::For::kEnded, id).ignoreResult();
}

kj::Promise<MoveTotals> Reconciler::when_settled(const std::string& id) {
  auto promise = wait_for(Waiter::For::kSettled, id);
  poke();
  return promise;
}

// An error text rejects the waiters; none fulfils them.
bool Reconciler::wake(const std::string& job, Waiter::For what, const std::string& error) {
  auto& waiting = waiters_[what];
  const auto found = waiting.find(job);
  if (found == waiting.end()) return false;
  std::list<Waiter> woken;
  woken.swap(found->second);
  waiting.erase(found);
  for (Waiter& waiter : woken) {
    if (error.empty()) {
      waiter.fulfiller->fulfill(MoveTotals(waiter.totals));
    } else {
      waiter.fulfiller->reject(kj::Exception(kj::Exception::Type::FAILED, "", 0, kj::heapString(error.c_str())));
    }
  }
  return true;
}

void Reconciler::wake_settled(const std::vector<Action>& actions) {
  std::set<std::string> busy, settled;
  for (const Action& action : actions) busy.insert(action.job);
  for (const uint64_t number : looked_) {
    Job* const job = ledger_.jobs.quietly(number);
    if (job == nullptr || job->moves_for.empty() || !job->is_quiet() || busy.count(job->record.id()) != 0) continue;
    job->moves_for.clear();  // it has made way
    ledger_.jobs.mark(number);
  }
  for (const auto& [id, waiters] : waiters_[Waiter::For::kSettled]) {
    const Job* const job = ledger_.jobs.quietly(parse_number(id));
    if (job != nullptr && job->is_quiet() && !job->ended() && busy.count(id) == 0) settled.insert(id);
  }
  for (const std::string& id : settled) wake(id, Waiter::For::kSettled, "");
}

void Reconciler::forget_done_jobs() {
  const std::set<uint64_t> looked = looked_;  // who has ended has not come to rest
  for (const uint64_t number : looked) {
    const Job* const job = ledger_.jobs.quietly(number);
    if (job != nullptr && job->ended() && !job->holds_gpus() && !job->dirty) ledger_.jobs.erase(number);
  }
}

kj::Promise<void> Reconciler::tick() {
  return timer_.afterDelay(kTickMs * kj::MILLISECONDS).then([this]() -> kj::Promise<void> {
    if (stopped_) return kj::READY_NOW;
    if (leads_()) {
      check_deadlines();
    } else {
      ticked_ns_ = now_ns();
    }
    return tick();
  });
}

// Others' silence is theirs only while we listen: what came while this process was stopped has not been read yet.
bool Reconciler::was_stopped(uint64_t now) {
  const uint64_t gap = now - std::exchange(ticked_ns_, now);
  if (gap < uint64_t(kStalledMs) * 1'000'000) return false;
  log(LogLevel::kWarning, "this scheduler did not run for %lu ms; nobody's time counts for that",
      (unsigned long)(gap / 1'000'000));
  for (auto& [name, server] : ledger_.servers) {                     // marks all: it is rare
    server.last_seen_ns = std::min(server.last_seen_ns + gap, now);  // it may have been heard since
    server.give_up_ns += gap;
  }
  for (auto& [number, job] : ledger_.jobs) {
    job.left_ns = job.left_ns != 0 ? std::min(job.left_ns + gap, now) : 0;
    job.hold_until_ns += gap;
  }
  recover_until_ns_ += recover_until_ns_ != 0 ? gap : 0;
  return true;
}

void Reconciler::check_deadlines() {
  const uint64_t now = now_ns();
  count_usage(now);
  keep_books(now);
  if (was_stopped(now)) return;
  const uint64_t wall_ms = wall_seconds() * 1000;
  std::vector<std::string> lost;
  for (const auto& [name, server] : ledger_.servers.read()) {
    if (server.online && now - server.last_seen_ns > uint64_t(kLeaseMs) * 1'000'000) {
      log(LogLevel::kWarning, "server %s has been silent for %u ms", name.c_str(), kLeaseMs);
      lost.push_back(name);
    } else if (!server.online && now > server.give_up_ns) {
      lost.push_back(name);
    }
  }
  for (const std::string& name : lost) lose_server(name);
  const bool recovered = recover_until_ns_ != 0 && now > recover_until_ns_;
  bool again = turn_due_ns_ != 0 && turn_due_ns_ <= now;
  again |= promise_due_ns_ != 0 && promise_due_ns_ <= now;
  again |= save_dirty();
  again |= a_reservation_turned();
  for (const auto& [number, seen] : ledger_.jobs.read()) {
    again |= count_running(number, now, wall_ms);
    if (!recovered && !needs_care(seen, now)) continue;
    Job& job = ledger_.jobs.at(number);
    if (recovered && !job.ended() && !job.attached) {
      end_job(&job,
              format("`tide run` did not come back within %u s after the scheduler restarted", kRecoverGraceMs / 1000),
              -1);
    }
    if (!job.ended() && job.left_ns != 0 && now - job.left_ns > uint64_t(kLeftGraceMs) * 1'000'000) {
      end_job(&job, "its `tide run` is gone", -1);
    }
    hold_on(&job);
    again |= job.let_go_ns != 0 && job.let_go_ns <= now;
    look_after_idle(&job);
    look_after_protection(&job);
    again |= retry_failed_servers(&job, now);
    again |= job.kept_until_ns != 0 && job.kept_until_ns <= now;
    if (job.kept_until_ns <= now) job.kept_until_ns = 0;
    for (Vgpu& vgpu : job.vgpus) {
      if (recovered && ledger_.server(vgpu.home.server) == nullptr) vgpu.home = {};
      again |= vgpu.retry_ns != 0 && vgpu.retry_ns <= now;
      if (vgpu.retry_ns <= now) vgpu.retry_ns = 0;
      if (!recovered || vgpu.at.none() || (ledger_.server(vgpu.at.server) != nullptr && !vgpu.missing)) continue;
      const uint32_t v = uint32_t(&vgpu - job.vgpus.data());
      if (!recovers(&job, v, "its server did not come back"))
        end_job(&job, "its GPU server " + vgpu.at.server + " did not come back after the scheduler restarted", -1);
      vgpu.at = {};
      vgpu.missing = false;
      if (vgpu.doing == Doing::kMoving) drop_move(&job, v);
    }
  }
  save_useful();
  if (recovered) recover_until_ns_ = 0;
  if (again || recovered) poke();
}

// What only counts; it is touched when something follows from it. Whether something does.
bool Reconciler::count_running(uint64_t number, uint64_t now, uint64_t wall_ms) {
  Job* const job = ledger_.jobs.quietly(number);
  const bool over = count_useful(job, now);
  const bool open = may_be_disturbed_again(job, now) || is_expected_anew(*job, wall_ms);
  ask_for_size(job, now);
  if (over || open) ledger_.jobs.mark(number);
  return over || open;
}

// Whether the tick may have to do something for it.
bool Reconciler::needs_care(const Job& job, uint64_t now) const {
  const auto tried_again = [](const Vgpu& vgpu) { return vgpu.retry_ns != 0; };
  return job.left_ns != 0 || job.suspending != Suspending::kNot || (job.let_go_ns != 0 && job.let_go_ns <= now) ||
         job.record.idle_ms != 0 || job.record.protect_ms != 0 || !job.failed_on.empty() ||
         (job.kept_until_ns != 0 && job.kept_until_ns <= now) ||
         std::any_of(job.vgpus.begin(), job.vgpus.end(), tried_again);
}

// Whether one has begun or ended since the last tick, by what the clock on the wall says now, wherever it came from.
bool Reconciler::a_reservation_turned() {
  const uint64_t now_ms = wall_seconds() * 1000;
  std::set<std::string> lasting;
  for (const ReservationConfig& each : ledger_.reservations) {
    if (each.is.lasts(now_ms)) lasting.insert(each.is.name);
  }
  if (lasting == lasting_) return false;
  for (const std::string& name : lasting) {
    if (lasting_.count(name) == 0) log(LogLevel::kInfo, "reservation %s begins", name.c_str());
  }
  for (const std::string& name : lasting_) {
    if (lasting.count(name) == 0) log(LogLevel::kInfo, "reservation %s is over", name.c_str());
  }
  lasting_ = std::move(lasting);
  return true;
}

// Whether there were some, and they are in the store now.
bool Reconciler::save_dirty() {
  std::vector<Job*> dirty;
  for (const auto& [number, job] : ledger_.jobs.read()) {
    if (job.dirty) dirty.push_back(&ledger_.jobs.at(number));
  }
  return !dirty.empty() && save(dirty).ok();
}

kj::Promise<void> Reconciler::end_all(std::string reason, uint32_t timeout_ms) {
  for (auto& [number, job] : ledger_.jobs) end_job(&job, reason, -1);
  const bool busy = std::any_of(ledger_.jobs.read().begin(), ledger_.jobs.read().end(),
                                [](const auto& j) { return j.second.holds_gpus(); });
  if (!busy || timeout_ms == 0) return kj::READY_NOW;
  const uint32_t slice = std::min<uint32_t>(timeout_ms, 50);
  return timer_.afterDelay(slice * kj::MILLISECONDS).then([this, reason = kj::mv(reason), left = timeout_ms - slice] {
    return end_all(reason, left);
  });
}

}  // namespace tide::sched
