// A job that shall be on no GPU: its programs are held until nothing of it is under way, then its vGPUs are parked one
// after another. Until all are, their GPUs are kept for them; what fails brings them back.

#include <algorithm>
#include <utility>

#include "base/clock.h"
#include "base/log.h"
#include "scheduler/reconciler.h"
#include "scheduler/remote_error.h"
#include "scheduler/turns.h"

namespace tide::sched {
namespace {

constexpr auto kHoldPatience = 5 * kj::SECONDS;
constexpr auto kLookPatience = 2 * kj::SECONDS;
constexpr auto kLookPause = 50 * kj::MILLISECONDS;
constexpr uint64_t kHoldAgainNs = 2'000'000'000;
constexpr uint64_t kLetGoAgainNs = 1'000'000'000;

std::string too_old(const std::string& version, const std::string& what) {
  return "its tide-agent (version " + version + ") cannot suspend " + what + "; update it";
}

// Why an agent did not hold a vGPU.
std::string hold_error(const kj::Exception& e, const std::string& version) {
  if (e.getType() == kj::Exception::Type::UNIMPLEMENTED) return too_old(version, "jobs with several virtual GPUs");
  return e.getType() == kj::Exception::Type::OVERLOADED ? "its agent does not answer" : remote_error(e);
}

// Why an agent did not keep one. One of an older release takes the parked place for a GPU's number.
std::string park_error(const std::string& why, const Server* server) {
  const bool old = why.find("has no GPU " + std::to_string(kParked)) != std::string::npos;
  return old && server != nullptr ? too_old(server->version, "jobs") : why;
}

}  // namespace

Outcome Reconciler::suspend(Job* job) {
  // What is acknowledged is in the record, also where it was so before.
  if (job->record.suspended) {
    // Somebody wants it: neither its next call nor its next turn changes that.
    const bool idled = std::exchange(job->record.idled, false),
               yielded = std::exchange(job->record.turn.yielding, false);
    return idled || yielded || job->dirty ? save(job) : Outcome();
  }
  const JobRecord before = job->record;
  job->record.suspended = true;
  job->record.held |= job->admitted() && job->record.gpus > 1;
  const Outcome saved = save(job);
  if (!saved.ok()) {
    job->record = before;
    return saved;
  }
  job->failed_on.clear();
  job->turn.leaving_ns = job->admitted() ? now_ns() : 0;
  job->turn.coming_ns = 0;
  const std::string& id = job->record.id();
  log(LogLevel::kInfo, "job %s shall be suspended", id.c_str());
  wake(id, Waiter::For::kSettled, "job " + id + " is being suspended now");
  for (Vgpu& vgpu : job->vgpus) vgpu.wish = {};
  // Nothing of it moves in this round: its programs are held first.
  if (job->being_suspended()) job->suspending = Suspending::kWaiting;
  poke();
  return {};
}

Outcome Reconciler::resume(Job* job) {
  if (!job->failed_on.empty() && !job->admitted()) job->problem.clear();
  job->failed_on.clear();  // somebody asks now
  // Whose turn is over comes back by itself.
  if (!job->record.suspended || job->record.turn.yielding) return job->dirty ? save(job) : Outcome();
  const bool midway = job->being_suspended();
  const JobRecord before = job->record;
  job->record.suspended = job->record.idled = false;
  if (!midway) job->record.turn.ticket = ledger_.next_ticket();
  const Outcome saved = save(job);
  if (!saved.ok()) {
    job->record = before;
    return saved;
  }
  job->idle = {};
  const std::string& id = job->record.id();
  log(LogLevel::kInfo, "job %s shall run again", id.c_str());
  if (midway) wake(id, Waiter::For::kSettled, "job " + id + " was resumed before it was suspended");
  job->problem.clear();
  stop_suspending(job);
  return {};
}

// Called in every round.
void Reconciler::go_on_suspending(Job* job) {
  if (job->ended() || !job->being_suspended()) return;
  if (job->suspending == Suspending::kNot) job->suspending = Suspending::kWaiting;
  // What the record says of a server that has not come to us yet may be old.
  const auto lost = [this](const Vgpu& v) { return v.missing || ledger_.server(v.at.server) == nullptr; };
  const bool known = std::none_of(job->vgpus.begin(), job->vgpus.end(), lost);
  const auto restored = [](const Vgpu& v) { return v.at.none() && v.protection.lost; };
  if (job->suspending == Suspending::kWaiting && std::any_of(job->vgpus.begin(), job->vgpus.end(), restored))
    return suspend_failed(job, "a virtual GPU of it is being restored from its checkpoint");
  if (job->suspending == Suspending::kWaiting && job->is_quiet() && known) {
    if (job->vgpus.size() == 1 || job->physical_gpus() == 0) {
      begin_parking(job);
    } else {
      begin_holding(job);
    }
  }
  if (job->suspending == Suspending::kParking && job->is_quiet() && job->is_parked()) note_parked(job);
}

void Reconciler::begin_parking(Job* job) {
  job->suspending = Suspending::kParking;
  job->refused_by.clear();
  job->refusals.clear();
  // Written down with the first epoch of a move.
  for (Vgpu& vgpu : job->vgpus) {
    vgpu.home = vgpu.at.on_gpu() ? vgpu.at : vgpu.home;
    vgpu.failures = 0;
  }
}

// Its GPUs are free; from here on it is a job that waits, and not to be admitted before it is resumed.
void Reconciler::note_parked(Job* job) {
  job->record.phase = Phase::kQueued;
  job->record.reason.clear();
  job->record.held = false;  // who moves is let go
  job->problem.clear();
  for (Vgpu& vgpu : job->vgpus) vgpu.home = {};
  note_gone(job);
  log(LogLevel::kInfo, "job %s is suspended", job->record.id().c_str());
  stop_suspending(job);
  (void)save(job);  // a restart that misses this finds all of it parked
}

void Reconciler::stop_suspending(Job* job) {
  job->suspending = Suspending::kNot;
  job->refused_by.clear();
  ++job->hold_round;
  for (Vgpu& vgpu : job->vgpus) {
    vgpu.retry_ns = 0;
    if (vgpu.doing == Doing::kNothing && vgpu.at == vgpu.home) vgpu.home = {};
  }
  poke();
}

void Reconciler::suspend_failed(Job* job, const std::string& why) {
  const std::string& id = job->record.id();
  const std::string text = "job " + id + " was not suspended, it runs on: " + why;
  log(LogLevel::kWarning, "%s", text.c_str());
  if (std::exchange(job->record.turn.yielding, false)) {
    note_switch_failed(job);
    job->kept_until_ns = now_ns() + kKeptMs * 1'000'000;
  }
  begin_turn(job);
  job->record.suspended = job->record.idled = false;
  job->idle = {.look_ns = now_ns() + job->record.idle_ms * 1'000'000};
  stop_suspending(job);
  (void)save(job);
  if (!wake(id, Waiter::For::kSettled, text)) job->problem = text;
}

// Others may have its GPUs until it is tried again: elsewhere at once, there only after a while.
void Reconciler::resume_failed(Job* job, const std::string& server, uint64_t until_ns) {
  note_switch_failed(job);
  // Others shall not leave for it again and again.
  if (ledger_.turns.on) until_ns += (kTurnLeastMs << job->record.turn.strain) * 1'000'000;
  job->failed_on[server] = until_ns;
  job->record.phase = Phase::kQueued;
  job->record.reason.clear();
  for (Vgpu& vgpu : job->vgpus) {
    vgpu.home = vgpu.wish = {};
    vgpu.retry_ns = 0;
  }
  (void)save(job);  // a restart that misses this tries at once
}

// Called by the tick. Whether there are any.
bool Reconciler::retry_failed_servers(Job* job, uint64_t now) {
  const size_t again = std::erase_if(job->failed_on, [&](const auto& each) { return each.second <= now; });
  if (again != 0 && job->failed_on.empty() && !job->admitted() && !job->ended()) job->problem.clear();
  return again != 0;
}

// Where the server refuses, another one may be able to: the policy knows which, or that there is none.
void Reconciler::park_failed(Job* job, uint32_t v, const GpuId& to, const std::string& why, bool passing) {
  const std::string id = job->record.id(), server = to.server, said = park_error(why, ledger_.server(server));
  const std::string refusal = format("virtual GPU %u could not be kept on %s: %s", v, server.c_str(), said.c_str());
  log(LogLevel::kWarning, "job %s: %s", id.c_str(), refusal.c_str());
  Vgpu& vgpu = job->vgpus[v];
  cancel_at(server, id, v, vgpu.last_epoch);
  if (job->being_suspended() && passing && ++vgpu.failures < kParkTriesAgainMax) {
    vgpu.retry_ns = now_ns() + backoff_ns(vgpu.failures);
  } else if (job->being_suspended()) {
    vgpu.failures = 0;
    job->refused_by.insert(server);
    job->refusals += (job->refusals.empty() ? "" : "; ") + refusal;
  } else if (vgpu.at == vgpu.home) {
    vgpu.home = {};
  } else if (vgpu.at.parked()) {  // where it has left a server that is being drained, it would go from one to another
    const bool again = !vgpu.keepers_refused.insert(server).second;
    vgpu.retry_ns = again ? now_ns() + backoff_ns(++vgpu.failures) : 0;
    job->problem = refusal;
  }
  poke();
}

bool Reconciler::give_up_parking() {
  bool any = false;
  for (const uint64_t number : std::set<uint64_t>(looked_)) {
    Job* const job = ledger_.jobs.quietly(number);
    if (job == nullptr || job->ended() || job->suspending != Suspending::kParking || !job->is_quiet()) continue;
    const std::optional<Decision> wanted = wanted_of(job->record.id());
    const auto parked = [](const GpuId& place) { return place.parked(); };
    if (!wanted || std::all_of(wanted->places.begin(), wanted->places.end(), parked)) continue;
    suspend_failed(job, job->refusals.empty() ? "no server can keep it" : job->refusals);
    any = true;
  }
  return any;
}

// Holding: a vGPU that is parked gives no signals, and another one's streams may wait for them.

void Reconciler::begin_holding(Job* job) {
  for (const Vgpu& vgpu : job->vgpus) {
    if (links_.find(vgpu.at.server) == links_.end()) return;  // it comes back, or is lost
  }
  job->suspending = Suspending::kHolding;
  job->hold_until_ns = now_ns() + uint64_t(kHoldMs) * 1'000'000;
  job->hold_again_ns = now_ns() + kHoldAgainNs;
  const std::string id = job->record.id();
  const uint64_t round = ++job->hold_round;
  auto rests = hold(*job, true).then([this, id, round] { return watch_rest(id, round, {.busy = 1}); });
  tasks_.add(rests.catch_([this, id, round](kj::Exception&& e) {
    if (Job* job = holding(id, round)) suspend_failed(job, remote_error(e));
  }));
}

Job* Reconciler::holding(const std::string& id, uint64_t round) {
  Job* job = ledger_.by_id(id);
  const bool same = job != nullptr && !job->ended() && job->hold_round == round;
  return same && job->suspending == Suspending::kHolding ? job : nullptr;
}

// All of its vGPUs that are on GPUs; fails with the first that cannot be told.
kj::Promise<void> Reconciler::hold(const Job& job, bool on) {
  kj::Vector<kj::Promise<void>> told;
  for (uint32_t v = 0; v < job.vgpus.size(); ++v) {
    const Vgpu& vgpu = job.vgpus[v];
    if (!vgpu.at.on_gpu()) continue;
    const auto link = links_.find(vgpu.at.server);
    const Server* server = ledger_.server(vgpu.at.server);
    if (link == links_.end() || server == nullptr) {
      told.add(error_for_caller("server " + vgpu.at.server + " does not answer"));
      continue;
    }
    auto request = link->second->agent.holdRequest();
    request.setJob(job.record.id());
    request.setVgpu(v);
    request.setEpoch(vgpu.epoch);
    request.setOn(on);
    auto sent = link->second->canceler.wrap(timer_.timeoutAfter(kHoldPatience, request.send().ignoreResult()));
    const std::string which = format("virtual GPU %u on server %s could not be held: ", v, server->name.c_str());
    auto failed = [on, which, version = server->version](kj::Exception&& e) -> kj::Promise<void> {
      // Who cannot hold has nothing to let go.
      if (!on && e.getType() == kj::Exception::Type::UNIMPLEMENTED) return kj::READY_NOW;
      return error_for_caller(which + hold_error(e, version));
    };
    told.add(sent.then([]() -> kj::Promise<void> { return kj::READY_NOW; }, kj::mv(failed)));
  }
  return kj::joinPromises(told.releaseAsArray());
}

// Called in every tick. A worker lets go by itself after a while, and a process of the job may have begun since.
void Reconciler::hold_on(Job* job) {
  const bool wanted = job->suspending == Suspending::kHolding || job->suspending == Suspending::kParking;
  if (!wanted || job->vgpus.size() == 1 || job->ended() || now_ns() < job->hold_again_ns) return;
  job->hold_again_ns = now_ns() + kHoldAgainNs;
  tasks_.add(hold(*job, true).catch_([](kj::Exception&&) {}));
}

// Of its vGPUs on GPUs, or of the parked ones: of these, who has a command that nobody executes is busy. A server that
// does not say counts as one that is busy.
kj::Promise<Reconciler::Rest> Reconciler::look_at_rest(const Job& job, bool parked) {
  std::map<std::string, std::set<uint32_t>> vgpus;  // by server
  for (uint32_t v = 0; v < job.vgpus.size(); ++v) {
    const GpuId& at = job.vgpus[v].at;
    if (parked ? at.parked() : at.on_gpu()) vgpus[at.server].insert(v);
  }
  kj::Vector<kj::Promise<Rest>> asked;
  for (const auto& [server, here] : vgpus) {
    const auto link = links_.find(server);
    const uint32_t count = uint32_t(here.size());
    const Rest nothing{.busy = count, .some_busy = *here.begin(), .silent = count};
    if (link == links_.end()) {
      asked.add(nothing);
      continue;
    }
    auto request = link->second->agent.statsRequest();
    request.setJob(job.record.id());
    auto answer = request.send().then([here = here, parked](auto&& got) {
      Rest rest;
      std::set<uint32_t> quiet;
      for (const auto each : got.getVgpus()) {
        if (here.count(each.getVgpu()) == 0) continue;
        rest.commands += each.getCommands();
        rest.bytes += each.getResidentBytes();
        if (each.getQuiet() || (!parked && each.getWorkerPids().size() == 0)) quiet.insert(each.getVgpu());
      }
      for (const uint32_t v : here) {
        if (quiet.count(v) != 0) continue;
        ++rest.busy;
        rest.some_busy = v;
      }
      return rest;
    });
    asked.add(link->second->canceler.wrap(timer_.timeoutAfter(kLookPatience, kj::mv(answer)))
                  .catch_([nothing](kj::Exception&&) { return nothing; }));
  }
  return kj::joinPromises(asked.releaseAsArray()).then([](kj::Array<Rest> rests) {
    Rest all;
    for (const Rest& rest : rests) {
      all.busy += rest.busy;
      all.silent += rest.silent;
      if (rest.busy != 0) all.some_busy = rest.some_busy;
      all.commands += rest.commands;
      all.bytes += rest.bytes;
    }
    return all;
  });
}

// Twice in a row without a command between: what one vGPU was about to tell another has arrived.
kj::Promise<void> Reconciler::watch_rest(std::string id, uint64_t round, Rest before) {
  const Job* job = holding(id, round);
  if (job == nullptr) return kj::READY_NOW;
  return look_at_rest(*job).then([this, id, round, before](Rest now) -> kj::Promise<void> {
    Job* job = holding(id, round);
    if (job == nullptr) return kj::READY_NOW;
    if (now.busy == 0 && before.busy == 0 && now.commands == before.commands) {
      begin_parking(job);
      poke();
      return kj::READY_NOW;
    }
    if (now_ns() > job->hold_until_ns) {
      return error_for_caller(format("virtual GPU %u did not come to rest within %u s of its programs being held",
                                     now.some_busy, kHoldMs / 1000));
    }
    return timer_.afterDelay(kLookPause).then([this, id, round, now] { return watch_rest(id, round, now); });
  });
}

// Until each agent has heard it: a program that stays held would wait for ever.
void Reconciler::let_go(Job* job) {
  const bool wanted = job->record.held && !job->record.suspended && !job->ended();
  if (!wanted || job->letting_go || job->let_go_ns > now_ns()) return;
  job->letting_go = true;
  job->let_go_ns = 0;
  const std::string id = job->record.id();
  const uint64_t round = job->hold_round;
  tasks_.add(hold(*job, false)
                 .then(
                     [this, id, round] {
                       Job* job = ledger_.by_id(id);
                       if (job == nullptr) return;
                       job->letting_go = false;
                       if (job->hold_round != round) return poke();
                       job->record.held = false;
                       (void)save(job);
                     },
                     [this, id](kj::Exception&& e) {
                       Job* job = ledger_.by_id(id);
                       if (job == nullptr) return;
                       job->letting_go = false;
                       job->let_go_ns = now_ns() + kLetGoAgainNs;
                       log(LogLevel::kInfo, "job %s: %s; told again", id.c_str(), remote_error(e).c_str());
                     }));
}

}  // namespace tide::sched
