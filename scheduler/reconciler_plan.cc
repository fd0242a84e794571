// What the planner is told, and what follows from its answer. It is told only of what may have changed: the ledger
// marks who was touched (tracked.h), and views that change by themselves have a time at which they do. Where the
// queues are others, or a job's queue is gone, everything is compared anew.

#include <stdlib.h>

#include <algorithm>
#include <cstdio>

#include "base/clock.h"
#include "base/log.h"
#include "scheduler/policy.h"
#include "scheduler/reconciler.h"

namespace tide::sched {
namespace {

bool waits(const JobView& view) { return !view.running && !view.suspended; }

std::string name_of(const JobRecord& record) { return record.queue.empty() ? kDefaultQueue : record.queue; }

std::string text_of(const Decision& decision) {
  std::string text = decision.running ? "runs" : "waits";
  for (const GpuId& place : decision.places) text += " " + to_text(place);
  return text + (decision.reason.empty() ? "" : " (" + decision.reason + ")");
}

}  // namespace

bool Reconciler::checks_planner() {
  const char* const text = getenv("TIDE_CHECK_PLANNER");
  return text != nullptr && std::string(text) == "1";
}

// ---- what has changed

// Whom this round looks at: besides those of before, whom somebody touched, and whose view has changed by itself.
void Reconciler::gather(uint64_t now) {
  const auto changes = ledger_.jobs.take_changes();
  if (changes.all) {
    for (const auto& [number, job] : ledger_.jobs.read()) looked_.insert(number);
    for (const auto& [number, told] : told_) looked_.insert(number);
  }
  looked_.insert(changes.keys.begin(), changes.keys.end());
  for (; !due_.empty() && due_.begin()->first <= now; due_.erase(due_.begin())) {
    const uint64_t number = due_.begin()->second;
    looked_.insert(number);
    told_[number].due_ns = 0;
  }
}

// True for all jobs.
State Reconciler::rules_now(const Moment& now) const {
  State rules;
  rules.turns = ledger_.turns.on;
  if (rules.turns) rules.next_turn = next_turn_;
  rules.now_ms = now.wall_ms;
  rules.consolidate = ledger_.consolidate;
  for (const ReservationConfig& each : ledger_.reservations) rules.reservations.push_back(each.is);
  if (!ledger_.queues.written) return rules;
  rules.queues = ledger_.queues.tree;
  rules.share_rules = ledger_.queues.rules;
  rules.used = used_by(ledger_.queues, rules.queues, pool_size_);
  return rules;
}

void Reconciler::tell_of_gpus() {
  auto changes = ledger_.servers.take_changes();
  if (changes.all) {
    for (const auto& [name, server] : ledger_.servers.read()) changes.keys.insert(name);
    changes.keys.insert(told_servers_.begin(), told_servers_.end());
  }
  for (const std::string& name : changes.keys) {
    const Server* server = ledger_.server(name);
    planner_->put_server(name, server == nullptr ? std::vector<GpuView>() : ledger_.gpus_of(*server));
    if (server != nullptr) told_servers_.insert(name);
    if (server == nullptr) told_servers_.erase(name);
  }
  if (changes.keys.empty()) return;
  pool_size_ = 0;
  for (const auto& [name, server] : ledger_.servers.read()) {
    for (const Gpu& gpu : server.gpus) pool_size_ += gpu.healthy && server.online && !ledger_.is_draining(name);
  }
  pool_size_ *= kWholeGpu;
}

void Reconciler::tell_planner(const Moment& now) {
  gather(now.ns);
  if (planner_ == nullptr) {
    planner_ = std::make_unique<Planner>(State());
    ledger_.servers.mark_all();
  }
  tell_of_gpus();
  const bool others = told_turns_ != ledger_.turns.on || told_written_ != ledger_.queues.written ||
                      !(told_tree_ == ledger_.queues.tree);
  // What is due of one job depends on all the others, in line, too; and reservations reckon with how long each still
  // runs.
  const bool promised = promised_ || has_deadlines() || !ledger_.reservations.empty() || ledger_.preempts;
  if (others || orphans_ || promised || !tell_of_changes(now)) tell_all(now);
}

bool Reconciler::has_deadlines() const {
  return std::any_of(looked_.begin(), looked_.end(), [this](uint64_t number) {
    const auto job = ledger_.jobs.read().find(number);
    return job != ledger_.jobs.read().end() && job->second.record.deadline_ms != 0 && !job->second.ended();
  });
}

// False: more than that has changed.
bool Reconciler::tell_of_changes(const Moment& now) {
  planner_->put_rules(rules_now(now));
  for (const uint64_t number : looked_) {
    const auto found = ledger_.jobs.read().find(number);
    const Job* const job = found == ledger_.jobs.read().end() ? nullptr : &found->second;
    note_places(number, job);
    if (job == nullptr || job->ended()) {
      forget_told(number);
      continue;
    }
    JobView view = view_of(*job);
    if (ledger_.queues.written) {
      const auto leaf = leaves_.find(name_of(job->record));
      if (leaf == leaves_.end()) return false;
      put_into_queue(ledger_.queues.tree, leaf->second, &view);
    }
    note_due(number, fill_view(ledger_, *job, now, &view));
    tell_of(number, std::move(view));
  }
  return true;
}

void Reconciler::tell_all(const Moment& now) {
  Promises promises;
  State state = look(ledger_, now, &promises);
  promised_ = !promises.jobs.empty();
  note_promises(promises);
  told_turns_ = ledger_.turns.on;
  told_written_ = ledger_.queues.written;
  told_tree_ = ledger_.queues.tree;
  leaves_.clear();
  for (size_t i = 0; i < told_tree_.queues.size(); ++i) {
    if (told_tree_.queues[i].leaf()) leaves_[told_tree_.queues[i].name] = int32_t(i);
  }
  orphans_ = told_written_ && state.queues.queues.size() != told_tree_.queues.size();
  for (const auto& [number, job] : ledger_.jobs.read()) looked_.insert(number);
  for (const auto& [number, told] : told_) looked_.insert(number);
  for (const uint64_t number : looked_) {
    const auto found = ledger_.jobs.read().find(number);
    const Job* const job = found == ledger_.jobs.read().end() ? nullptr : &found->second;
    note_places(number, job);
    if (job == nullptr || job->ended()) forget_told(number);
  }
  std::vector<JobView> views;
  views.swap(state.jobs);
  planner_->put_rules(std::move(state));
  for (JobView& view : views) {
    const uint64_t number = parse_number(view.id);
    JobView again = view;
    note_due(number, fill_view(ledger_, ledger_.jobs.read().at(number), now, &again));
    tell_of(number, std::move(view));
  }
}

void Reconciler::note_due(uint64_t number, uint64_t until_ns) {
  uint64_t& due_ns = told_[number].due_ns;
  if (due_ns != 0) due_.erase({due_ns, number});
  due_ns = until_ns == UINT64_MAX ? 0 : until_ns;
  if (due_ns != 0) due_.insert({due_ns, number});
}

void Reconciler::forget_told(uint64_t number) {
  planner_->remove(std::to_string(number));
  const auto told = told_.find(number);
  if (told == told_.end()) return;
  told->second.waited = false;
  note_due(number, UINT64_MAX);
  if (ledger_.jobs.read().count(number) == 0) told_.erase(told);
}

void Reconciler::tell_of(uint64_t number, JobView view) {
  Told& told = told_[number];
  view.turn = {.ticket = view.turn.ticket};  // only taking turns asks for the rest, and that asks look()
  view.skipped = times_passed(number, view);
  told.waited = waits(view);
  const JobView* const known = planner_->view(view.id);
  if (known == nullptr || !(*known == view)) planner_->put(view);
}

// The planner counts, from when the job begins to wait.
uint32_t Reconciler::times_passed(uint64_t number, const JobView& view) const {
  const auto told = told_.find(number);
  const JobView* const known = planner_ == nullptr ? nullptr : planner_->view(view.id);
  return waits(view) && told != told_.end() && told->second.waited && known != nullptr ? known->skipped : 0;
}

uint32_t Reconciler::times_passed(uint64_t number) const {
  const auto job = ledger_.jobs.read().find(number);
  return job == ledger_.jobs.read().end() || job->second.ended() ? 0 : times_passed(number, view_of(job->second));
}

// Who is on a GPU, comes or goes. `job`: null where it is gone.
void Reconciler::note_places(uint64_t number, const Job* job) {
  std::vector<GpuId> places;
  for (size_t v = 0; job != nullptr && v < job->vgpus.size(); ++v) {
    const Vgpu& vgpu = job->vgpus[v];
    if (vgpu.at.on_gpu()) places.push_back(vgpu.at);
    if (vgpu.to.on_gpu()) places.push_back(vgpu.to);
  }
  if (!std::is_sorted(places.begin(), places.end())) std::sort(places.begin(), places.end());
  places.erase(std::unique(places.begin(), places.end()), places.end());
  Told& told = told_[number];
  if (places == told.places) return;
  for (const GpuId& gpu : told.places) {
    const auto there = occupants_.find(gpu);
    std::erase(there->second, number);
    if (there->second.empty()) occupants_.erase(there);
  }
  for (const GpuId& gpu : places) occupants_[gpu].push_back(number);
  told.places = std::move(places);
}

// ---- what follows

std::optional<Decision> Reconciler::wanted_of(const std::string& job) const {
  const JobView* const view = planner_->view(job);
  if (view == nullptr) return std::nullopt;
  return Decision{.running = view->running, .reason = "", .places = view->places};
}

std::vector<Planner::Change> Reconciler::decide(const Moment& now) {
  tell_planner(now);
  const State state = checks_ ? look(ledger_, now) : State();
  std::vector<Planner::Change> changes = planner_->decide();
  if (checks_) check_planner(state, changes);
  for (const Planner::Change& change : changes) looked_.insert(parse_number(change.id));
  return changes;
}

// Of whom this round looks at; and who else is on the GPUs that they are to have now counts, too.
std::vector<Action> Reconciler::actions(const Assignment& wanted, uint64_t now_ns) const {
  std::set<uint64_t> others;
  for (const auto& [id, decision] : wanted) {
    const uint64_t number = parse_number(id);
    const auto job = ledger_.jobs.read().find(number);
    for (size_t v = 0; v < decision.places.size(); ++v) {
      const GpuId& gpu = decision.places[v];
      const bool is_there =
          job != ledger_.jobs.read().end() && v < job->second.vgpus.size() && job->second.vgpus[v].at == gpu;
      const auto there = is_there ? occupants_.end() : occupants_.find(gpu);
      if (there == occupants_.end()) continue;
      for (const uint64_t other : there->second) {
        if (other != number && looked_.count(other) == 0) others.insert(other);
      }
    }
  }
  others.insert(looked_.begin(), looked_.end());
  std::vector<Present> present;
  for (const uint64_t number : others) {
    const auto job = ledger_.jobs.read().find(number);
    if (job != ledger_.jobs.read().end()) Ledger::add_present(job->second, now_ns, &present);
  }
  return plan(present, wanted, [this](const GpuId& id) {
    const Gpu* const gpu = ledger_.gpu(id);
    return gpu == nullptr ? UINT64_MAX : gpu->memory_bytes;
  });
}

// What the policy wants of whom this round looks at.
Assignment Reconciler::wanted_now(const std::vector<Planner::Change>& changes) const {
  Assignment wanted;
  for (const uint64_t number : looked_) {
    const std::string id = std::to_string(number);
    if (auto decision = wanted_of(id)) wanted[id] = std::move(*decision);
  }
  for (const Planner::Change& change : changes) wanted[change.id] = change.decision;
  return wanted;
}

// Who comes to rest is not looked at again before somebody touches it.
void Reconciler::note_restless(const std::vector<Action>& left) {
  std::set<uint64_t> restless;
  for (const Action& action : left) restless.insert(parse_number(action.job));
  for (const uint64_t number : looked_) {
    const auto found = ledger_.jobs.read().find(number);
    if (found == ledger_.jobs.read().end()) continue;
    const Job& job = found->second;
    const bool tried_again =
        std::any_of(job.vgpus.begin(), job.vgpus.end(), [](const Vgpu& vgpu) { return vgpu.retry_ns != 0; });
    if (job.ended() || job.being_suspended() || job.record.held || job.dirty || tried_again || !job.is_quiet())
      restless.insert(number);
  }
  looked_.swap(restless);
}

// What was decided with, and what: not of a round in which nothing was, and nobody is new.
void Reconciler::record(const Moment& now, const std::vector<Planner::Change>& changes) {
  if (!record_ || !record_wanted_()) return;
  const uint64_t newest = ledger_.jobs.empty() ? 0 : ledger_.jobs.read().rbegin()->first;
  if (changes.empty() && newest <= recorded_) return;
  recorded_ = std::max(recorded_, newest);
  State state = look(ledger_, now);
  Assignment answer;
  std::map<std::string, const Decision*> changed;
  for (const Planner::Change& change : changes) changed[change.id] = &change.decision;
  for (const JobView& job : state.jobs) {
    const auto found = changed.find(job.id);
    Decision decision = found != changed.end() ? *found->second : wanted_of(job.id).value_or(Decision());
    if (!decision.running) decision.reason = planner_->why(job.id);
    answer.emplace_hint(answer.end(), job.id, std::move(decision));
  }
  record_(std::move(state), answer);
}

void Reconciler::note_reason(Job* job) const {
  if (job->ended() || job->admitted() || planner_ == nullptr || job->dirty) return;
  job->record.reason = planner_->why(job->record.id());
}

// ---- tests

// The planner's answer is that of assign() to all that is, or one of the two is wrong.
void Reconciler::check_planner(const State& state, const std::vector<Planner::Change>& changes) const {
  const Assignment wanted = assign(state);
  std::map<std::string, const Decision*> changed;
  for (const Planner::Change& change : changes) changed[change.id] = &change.decision;
  bool same = planner_->jobs() == state.jobs.size();
  if (!same) fprintf(stderr, "the planner has %zu jobs, the ledger %zu\n", planner_->jobs(), state.jobs.size());
  for (const JobView& job : state.jobs) {
    const JobView* const view = planner_->view(job.id);
    Decision answer;
    if (changed.count(job.id) != 0) {
      answer = *changed.at(job.id);
    } else if (view != nullptr) {
      answer = {.running = view->running, .reason = "", .places = view->places};
    }
    if (!answer.running) answer.reason = planner_->why(job.id);
    const Decision& right = wanted.at(job.id);
    if (answer == right) continue;
    same = false;
    fprintf(stderr, "job %s: the planner says: %s; the policy says: %s\n", job.id.c_str(), text_of(answer).c_str(),
            text_of(right).c_str());
  }
  if (!same) abort();
}

}  // namespace tide::sched
