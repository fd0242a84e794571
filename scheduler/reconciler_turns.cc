// Jobs that take turns (turns.h): whose turn is over is suspended as by `tide suspend`, and waits from then on as who
// has not started, behind all who have waited longer.

#include <algorithm>

#include "base/clock.h"
#include "base/log.h"
#include "scheduler/reconciler.h"
#include "scheduler/reservations.h"
#include "scheduler/turns.h"

namespace tide::sched {
namespace {

constexpr uint64_t kMs = 1'000'000;
constexpr uint64_t kAskAgainNs = 2'000 * kMs;

uint64_t since_ms(uint64_t begin_ns, uint64_t now) { return now > begin_ns ? (now - begin_ns) / kMs : 0; }

SwitchCost cost_of(const Job& job) {
  return {.suspend_ms = job.record.turn.suspend_ms, .resume_ms = job.record.turn.resume_ms, .bytes = job.turn.bytes};
}

// On GPUs, and nothing about that is to change.
bool is_settled(const Job& job) {
  const auto at_rest = [](const Vgpu& vgpu) { return vgpu.at.on_gpu() && !vgpu.missing; };
  return job.started && job.is_quiet() && std::all_of(job.vgpus.begin(), job.vgpus.end(), at_rest);
}

}  // namespace

Reconciler::Moment Reconciler::this_moment() { return {.ns = now_ns(), .wall_ms = wall_seconds() * 1000}; }

State Reconciler::look(const Ledger& ledger) const { return look(ledger, this_moment()); }

State Reconciler::look(const Ledger& ledger, const Moment& now, Promises* promises) const {
  State state = ledger.snapshot();
  state.turns = ledger.turns.on;
  state.now_ms = now.wall_ms;
  if (ledger.turns.on) state.next_turn = next_turn_;
  for (JobView& view : state.jobs) {
    const uint64_t number = parse_number(view.id);
    fill_view(ledger, ledger.jobs.at(number), now, &view);
    view.skipped = times_passed(number, view);
  }
  const Promises kept = keep_promises(&state);
  if (promises != nullptr) *promises = kept;
  return state;
}

// What follows from the time. Returns when that changes by itself (UINT64_MAX: never); a view that is told to the
// planner is told again then. Requires: the view is the ledger's, in its queue.
uint64_t Reconciler::fill_view(const Ledger& ledger, const Job& job, const Moment& now, JobView* view) const {
  uint64_t until_ns = job.kept_until_ns > now.ns ? job.kept_until_ns : UINT64_MAX;
  view->preemptible &= job.kept_until_ns <= now.ns && (!job.admitted() || is_settled(job));
  if (job.admitted() && !job.disturbing) {
    const Sparing sparing = sparing_of(ledger.disturbance, job.disturbed(ledger.disturbance), now.wall_ms);
    view->spared = sparing.spared();
    if (sparing.spared()) until_ns = std::min(until_ns, now.ns + (sparing.left_ms + 1) * kMs);
  }
  if (!ledger.by_estimates) view->place = 0;
  if (!ledger.turns.on) return until_ns;
  view->turn = {.gives = job.admitted() && !job.record.turn.excluded,
                .ticket = job.record.turn.ticket,
                .had_ms = since_ms(job.turn.began_ns, now.ns),
                .length_ms = turn_length_ms(ledger.turns, cost_of(job), job.record.turn.strain)};
  return until_ns;
}

// Called in every round, before the policy is asked.
void Reconciler::take_turns() {
  turn_due_ns_ = 0;
  if (!ledger_.turns.on) return;
  const State state = rest_of(look());
  const TurnPlan plan = plan_turns(state);
  next_turn_ = plan.empty() ? "" : plan.front().next;
  note_turns(state, plan);
  for (const TurnEnd& end : plan) {
    if (end.over.empty()) continue;
    turn_due_ns_ = now_ns() + end.in_ms * kMs;
    bool settled = true;
    for (const std::string& id : end.over) {
      Job* job = ledger_.by_id(id);
      settled &= is_settled(*job);
      ask_for_bytes(job);
    }
    if (end.in_ms != 0 || !settled) return;
    for (const std::string& id : end.over) end_turn(ledger_.by_id(id), end.next);
  }
}

// For people.
void Reconciler::note_turns(const State& state, const TurnPlan& plan) {
  const uint64_t now = now_ns();
  const auto waits = estimate_waits(state, plan);
  for (const JobView& view : state.jobs) {
    Turn& turn = ledger_.jobs.quietly(parse_number(view.id))->turn;
    const auto wait = waits.find(view.id);
    turn.length_ms = view.turn.length_ms;
    turn.comes_ns = wait != waits.end() ? now + wait->second * kMs : 0;
    turn.ends_ns = 0;
    turn.next.clear();
  }
  for (const TurnEnd& end : plan) {
    for (const std::string& id : end.over) {
      Turn& turn = ledger_.by_id(id)->turn;
      turn.next = end.next;
      turn.ends_ns = now + end.in_ms * kMs;
    }
  }
}

void Reconciler::end_turn(Job* job, const std::string& next) {
  log(LogLevel::kInfo, "job %s has had its turn of %lu ms; job %s is next", job->record.id().c_str(),
      (unsigned long)since_ms(job->turn.began_ns, now_ns()), next.c_str());
  job->record.turn.yielding = true;
  job->taken.clear();
  if (!suspend_for_others(job)) job->record.turn.yielding = false;  // the tick tries again
}

// The policy has said so: another queue is owed its GPUs, or somebody of a higher priority waits. When all of it is
// parked it waits like who has not started.
void Reconciler::take_from(Job* job, const std::string& why) {
  if (!is_settled(*job)) return;  // the next round says so again
  log(LogLevel::kInfo, "job %s %s", job->record.id().c_str(), why.c_str());
  job->taken = why;
  job->record.turn.yielding = true;
  if (!suspend_for_others(job)) job->record.turn.yielding = false;  // the tick tries again
}

// Before switching it has been measured, what it will cost follows from what there is to copy.
void Reconciler::ask_for_bytes(Job* job) {
  const uint64_t now = now_ns();
  const TurnRecord& known = job->record.turn;
  if (ledger_.turns.fixed_ms != 0 || (known.suspend_ms != 0 && known.resume_ms != 0) || now < job->turn.ask_ns) return;
  job->turn.ask_ns = now + kAskAgainNs;
  tasks_.add(look_at_rest(*job).then([this, id = job->record.id()](Rest rest) {
    Job* job = ledger_.by_id(id);
    if (job != nullptr && rest.silent == 0) job->turn.bytes = rest.bytes;
  }));
}

void Reconciler::begin_turn(Job* job) {
  job->turn.began_ns = now_ns();
  job->record.turn.began_ms = wall_seconds() * 1000;
}

// All of it is parked. Whose turn is over waits for the next one, behind all who wait now.
void Reconciler::note_gone(Job* job) {
  Turn& turn = job->turn;
  if (turn.leaving_ns != 0) job->record.turn.suspend_ms = std::max<uint64_t>(since_ms(turn.leaving_ns, now_ns()), 1);
  turn.leaving_ns = 0;
  if (!job->record.turn.yielding) return;
  job->record.turn.yielding = job->record.suspended = false;
  job->record.turn.ticket = ledger_.next_ticket();
}

// All of it is on GPUs again.
void Reconciler::note_back(Job* job) {
  Turn& turn = job->turn;
  if (turn.coming_ns == 0) return;
  begin_useful(job);
  TurnRecord& record = job->record.turn;
  const uint64_t length_ms = turn_length_ms(ledger_.turns, cost_of(*job), record.strain);
  record.resume_ms = std::max<uint64_t>(since_ms(turn.coming_ns, now_ns()), 1);
  turn.coming_ns = 0;
  record.strain = strain_after(cost_ms(cost_of(*job)), length_ms, record.strain);
  begin_turn(job);
}

void Reconciler::note_switch_failed(Job* job) {
  job->turn.leaving_ns = job->turn.coming_ns = 0;
  if (!ledger_.turns.on || job->record.turn.excluded) return;
  job->record.turn.strain = strain_after_failure(job->record.turn.strain);
  log(LogLevel::kInfo, "job %s: switching failed; its turns are doubled %u times", job->record.id().c_str(),
      job->record.turn.strain);
}

}  // namespace tide::sched
