// Jobs that were started with `tide run --protect`: their vGPUs' checkpoints, and how a vGPU whose worker or server is
// lost goes on from its last one (docs/decisions/0019-*.md).

#include <algorithm>
#include <tuple>

#include "base/clock.h"
#include "base/log.h"
#include "scheduler/reconciler.h"
#include "scheduler/remote_error.h"
#include "scheduler/token.h"

namespace tide::sched {
namespace {

constexpr uint32_t kRecoveriesMax = 3;      // from one checkpoint: what follows it may be what ends the worker
constexpr uint64_t kFirstNs = 500'000'000;  // a program that begins is looked for so often
constexpr uint64_t kWatchAgainNs = 1'000'000'000;
constexpr const char* kNoProgram = "no program uses it yet";

bool is_protected(const Job& job) { return job.record.protect_ms != 0 && job.started && !job.ended(); }

CheckpointTotals totals_of(control::CheckpointReport::Reader report) {
  return {.bytes = report.getBytes(),
          .pause_bytes = report.getPauseBytes(),
          .pause_ms = report.getPauseMs(),
          .drain_ms = report.getDrainMs(),
          .copy_ms = report.getCopyMs(),
          .total_ms = report.getTotalMs(),
          .cpu_ms = report.getCpuMs(),
          .rounds = report.getRounds(),
          .sessions = report.getSessions()};
}

}  // namespace

// Called by the tick.
void Reconciler::look_after_protection(Job* job) {
  if (!is_protected(*job)) return;
  for (uint32_t v = 0; v < job->vgpus.size(); ++v) {
    Vgpu& vgpu = job->vgpus[v];
    if (vgpu.doing != Doing::kNothing || vgpu.at.none()) continue;
    if (vgpu.protection.lost) {
      if (vgpu.retry_ns <= now_ns()) release_lost(job, v);
      continue;
    }
    // Where it is parked, its program waits: what the guard has stays what is needed.
    if (vgpu.at.on_gpu() && !vgpu.protection.refused && !job->record.suspended) protect(job, v);
  }
}

void Reconciler::protect(Job* job, uint32_t v) {
  Protection& now = job->vgpus[v].protection;
  if (links_.find(job->vgpus[v].at.server) == links_.end()) return;
  const uint64_t time = now_ns();
  if (!now.watched && now.watch_ns <= time) watch(job, v);
  if (now.asked) return;
  if (leave_guard(job, v)) return begin_guard(job, v);
  if (now.next_ns > time) return;
  if (now.guard.server.empty()) return begin_guard(job, v);
  if (links_.find(now.guard.server) != links_.end()) return take_checkpoint(job, v);
  now.problem = "its guard's server " + now.guard.server + " is away";
}

// Another server than the vGPU's if there is one, so that the checkpoint outlives that; of these, who guards fewest.
// One that is being drained only where there is no other.
std::string Reconciler::choose_guard(const GpuId& at) const {
  std::map<std::string, uint32_t> guards;
  for (const auto& [number, job] : ledger_.jobs.read()) {
    for (const Vgpu& vgpu : job.vgpus) ++guards[vgpu.protection.guard.server];
  }
  std::tuple<bool, bool, uint32_t, std::string> best;
  for (const auto& [name, server] : ledger_.servers.read()) {
    if (links_.find(name) == links_.end()) continue;
    const std::tuple<bool, bool, uint32_t, std::string> one(ledger_.is_draining(name), name == at.server, guards[name],
                                                            name);
    if (std::get<3>(best).empty() || one < best) best = one;
  }
  return std::get<3>(best);
}

void Reconciler::begin_guard(Job* job, uint32_t v) {
  Vgpu& vgpu = job->vgpus[v];
  Protection& now = vgpu.protection;
  now.guard.server = choose_guard(vgpu.at);
  now.guard.made_ms = 0;
  now.guard.epoch = std::max(now.guard.epoch, kGuardEpochs) + 1;
  now.last = {};
  if (const Outcome made = new_token(&now.guard.token); !made.ok()) return guard_failed(job, v, made.message());
  if (const Outcome saved = save(job); !saved.ok()) return guard_failed(job, v, saved.message());
  log(LogLevel::kInfo, "job %s: %s guards vGPU %u", job->record.id().c_str(), now.guard.server.c_str(), v);
  now.asked = true;
  Link& link = *links_.at(now.guard.server);
  auto request = link.agent.prepareRequest();
  fill_guard(request.initLease(), *job, v);
  const std::string id = job->record.id();
  const uint64_t epoch = now.guard.epoch;
  tasks_.add(link.canceler.wrap(request.send().ignoreResult())
                 .then(
                     [this, id, v, epoch] {
                       Vgpu* vgpu = guarded(id, v, epoch);
                       if (vgpu == nullptr) return;
                       vgpu->protection.asked = false;
                       vgpu->protection.next_ns = 0;
                     },
                     [this, id, v, epoch](kj::Exception&& e) {
                       if (guarded(id, v, epoch) != nullptr) guard_failed(ledger_.by_id(id), v, remote_error(e));
                     }));
}

void Reconciler::fill_guard(control::Lease::Builder lease, const Job& job, uint32_t v) {
  fill_lease(lease, job, v, {job.vgpus[v].protection.guard.server, control::GUARDING},
             job.vgpus[v].protection.guard.epoch);
  lease.setProtected(false);
  // One from a record of before has the job's.
  const std::string& token = job.vgpus[v].protection.guard.token;
  if (!token.empty()) lease.setToken(kj::arrayPtr(reinterpret_cast<const kj::byte*>(token.data()), token.size()));
}

// The vGPU, if this guard is still its own.
Vgpu* Reconciler::guarded(const std::string& id, uint32_t v, uint64_t guard_epoch) {
  Vgpu* vgpu = vgpu_of(id, v);
  const bool same =
      vgpu != nullptr && vgpu->protection.guard.epoch == guard_epoch && !vgpu->protection.guard.server.empty();
  return same ? vgpu : nullptr;
}

void Reconciler::guard_failed(Job* job, uint32_t v, const std::string& why) {
  Protection& now = job->vgpus[v].protection;
  now.problem = now.guard.server + " cannot guard it: " + why;
  log(LogLevel::kWarning, "job %s: vGPU %u: %s", job->record.id().c_str(), v, now.problem.c_str());
  now.asked = false;
  now.guard.server.clear();
  now.next_ns = now_ns() + backoff_ns(++now.failures);
}

void Reconciler::take_checkpoint(Job* job, uint32_t v) {
  Vgpu& vgpu = job->vgpus[v];
  Protection& now = vgpu.protection;
  Link& link = *links_.at(vgpu.at.server);
  auto request = link.agent.checkpointRequest();
  request.setJob(job->record.id());
  request.setVgpu(v);
  request.setEpoch(vgpu.epoch);
  fill_guard(request.initGuard(), *job, v);
  request.setAddress(ledger_.server(now.guard.server)->endpoint);
  now.asked = true;
  const std::string id = job->record.id();
  const uint64_t epoch = now.guard.epoch;
  tasks_.add(link.canceler
                 .wrap(request.send().then([this, id, v, epoch](auto&& made) {
                   if (guarded(id, v, epoch) != nullptr) note_checkpoint(ledger_.by_id(id), v, made.getReport());
                 }))
                 .catch_([this, id, v, epoch](kj::Exception&& e) {
                   if (guarded(id, v, epoch) != nullptr) checkpoint_failed(ledger_.by_id(id), v, remote_error(e));
                 }));
}

void Reconciler::note_checkpoint(Job* job, uint32_t v, control::CheckpointReport::Reader report) {
  Protection& now = job->vgpus[v].protection;
  now.asked = false;
  if (report.getRefused().size() != 0) return end_protection(job, v, report.getRefused().cStr());
  if (report.getSessions() == 0) {
    if (!now.whole()) now.problem = kNoProgram;
    now.next_ns = now_ns() + kFirstNs;
    return;
  }
  now.last = totals_of(report);
  now.failures = now.recoveries = 0;
  now.problem.clear();
  now.next_ns = now_ns() + job->record.protect_ms * 1'000'000;
  now.guard.made_ms = wall_seconds() * 1000;
  log(LogLevel::kDebug, "job %s: checkpoint of vGPU %u: %lu bytes, paused %.1f ms", job->record.id().c_str(), v,
      (unsigned long)now.last.bytes, now.last.pause_ms);
  (void)save(job);
}

void Reconciler::checkpoint_failed(Job* job, uint32_t v, const std::string& why) {
  Protection& now = job->vgpus[v].protection;
  now.asked = false;
  now.problem = why;
  const uint64_t wait = std::min(backoff_ns(now.failures++), job->record.protect_ms * 1'000'000);
  now.next_ns = now_ns() + wait;
  log(LogLevel::kInfo, "job %s: no checkpoint of vGPU %u: %s", job->record.id().c_str(), v, why.c_str());
}

// It runs on as it would without.
void Reconciler::end_protection(Job* job, uint32_t v, const std::string& why) {
  log(LogLevel::kWarning, "job %s: vGPU %u is protected no more: %s", job->record.id().c_str(), v, why.c_str());
  drop_guard(job, v);
  Protection& now = job->vgpus[v].protection;
  now.refused = true;
  now.problem = "protected no more: " + why;
  (void)save(job);
}

void Reconciler::drop_guard(Job* job, uint32_t v) {
  Protection& now = job->vgpus[v].protection;
  if (now.guard.server.empty()) return;
  cancel_at(now.guard.server, job->record.id(), v, now.guard.epoch);
  now.guard.server.clear();
  now.guard.made_ms = 0;
  now.asked = false;
}

void Reconciler::watch(Job* job, uint32_t v) {
  Vgpu& vgpu = job->vgpus[v];
  Link& link = *links_.at(vgpu.at.server);
  auto request = link.agent.watchRequest();
  request.setJob(job->record.id());
  request.setVgpu(v);
  request.setEpoch(vgpu.epoch);
  vgpu.protection.watched = true;
  const std::string id = job->record.id();
  const uint64_t epoch = vgpu.epoch;
  const auto heard = [this, id, v, epoch](bool lost) {
    Vgpu* vgpu = vgpu_of(id, v);
    if (vgpu == nullptr || vgpu->epoch != epoch) return;
    Protection& now = vgpu->protection;
    now.watched = false;
    now.watch_ns = now_ns() + kTickMs * 1'000'000ull;
    if (!lost && now.failures == 0) now.next_ns = std::min(now.next_ns, now_ns());
    if (lost) lose_worker(ledger_.by_id(id), v);
  };
  tasks_.add(link.canceler.wrap(request.send().then([heard](auto&& news) { heard(news.getLost()); }))
                 .catch_([this, id, v, epoch](kj::Exception&&) {
                   Vgpu* vgpu = vgpu_of(id, v);
                   if (vgpu == nullptr || vgpu->epoch != epoch) return;
                   vgpu->protection.watched = false;
                   vgpu->protection.watch_ns = now_ns() + kWatchAgainNs;
                 }));
}

// Its server lives, and says so. Without a checkpoint the job's programs get an error, as they would without
// protection.
void Reconciler::lose_worker(Job* job, uint32_t v) {
  Vgpu& vgpu = job->vgpus[v];
  if (job->ended() || vgpu.at.none() || vgpu.protection.lost) return;
  if (!recovers(job, v, "a worker of it on " + vgpu.at.server + " has ended")) {
    return end_job(job,
                   format("a worker of its virtual GPU %u was lost, and no checkpoint is whole%s%s", v,
                          vgpu.protection.problem.empty() ? "" : ": ", vgpu.protection.problem.c_str()),
                   -1);
  }
  if (vgpu.doing == Doing::kNothing) release_lost(job, v);
}

// Who has lost its place. Marks it as one that goes on from its checkpoint; false: there is none, or not once more.
bool Reconciler::recovers(Job* job, uint32_t v, const std::string& why) {
  Protection& now = job->vgpus[v].protection;
  const bool can = is_protected(*job) && now.whole() && ledger_.server(now.guard.server) != nullptr &&
                   (now.lost || now.recoveries < kRecoveriesMax);
  if (!can) return false;
  if (!now.lost) ++now.recoveries;
  now.lost = true;
  now.asked = now.watched = false;
  job->problem =
      format("virtual GPU %u is restored from its checkpoint on %s: %s", v, now.guard.server.c_str(), why.c_str());
  log(LogLevel::kWarning, "job %s: %s", job->record.id().c_str(), job->problem.c_str());
  return true;
}

// It was lost, and then what it was to go on from. A place with nothing in it is no help.
bool Reconciler::end_without_checkpoint(Job* job, uint32_t v) {
  Vgpu& vgpu = job->vgpus[v];
  if (!vgpu.protection.lost || vgpu.protection.whole()) return false;
  vgpu.doing = Doing::kNothing;
  vgpu.to = {};
  end_job(job, format("a worker of its virtual GPU %u was lost, and its last checkpoint, too", v), -1);
  return true;
}

// What was heard of its last place says nothing about this one.
void Reconciler::watch_anew(Vgpu* vgpu) {
  vgpu->protection.watched = false;
  vgpu->protection.watch_ns = 0;
}

// Its server was away, and it has not been placed elsewhere: it serves on where it is.
void Reconciler::found_again(Vgpu* vgpu) {
  Protection& now = vgpu->protection;
  watch_anew(vgpu);
  if (!now.lost) return;
  now.lost = false;
  if (now.recoveries != 0) --now.recoveries;
}

// What is left of it there ends first.
void Reconciler::release_lost(Job* job, uint32_t v) {
  Vgpu& vgpu = job->vgpus[v];
  if (links_.find(vgpu.at.server) == links_.end()) return;
  vgpu.doing = Doing::kReleasing;
  start_release({.kind = Action::Kind::kRelease, .job = job->record.id(), .vgpu = v, .from = vgpu.at, .to = {}});
}

// A place of a vGPU that was lost: as a move that has the guard for its source.
void Reconciler::start_recovery(const Action& action) {
  Job* job = ledger_.by_id(action.job);
  Vgpu& vgpu = job->vgpus[action.vgpu];
  const uint64_t epoch = vgpu.last_epoch;
  const std::string guard = vgpu.protection.guard.server;
  if (links_.find(guard) == links_.end()) {
    return place_failed(action.job, action.vgpu, epoch, "its checkpoint's server " + guard + " is away");
  }
  Link& to = *links_.at(action.to.server);
  auto prepare = to.agent.prepareRequest();
  fill_lease(prepare.initLease(), *job, action.vgpu, action.to, epoch);
  auto give = links_.at(guard)->agent.giveRequest();
  give.setJob(action.job);
  give.setVgpu(action.vgpu);
  give.setEpoch(vgpu.protection.guard.epoch);
  fill_lease(give.initLease(), *job, action.vgpu, action.to, epoch);
  auto given = to.canceler.wrap(prepare.send().then([](auto&& prepared) { return kj::str(prepared.getAddress()); }))
                   .then([this, guard, give = kj::mv(give)](kj::String address) mutable -> kj::Promise<void> {
                     const auto link = links_.find(guard);
                     if (link == links_.end()) return error_for_caller("its checkpoint's server " + guard + " is away");
                     give.setAddress(address);
                     return link->second->canceler.wrap(give.send().ignoreResult());
                   });
  tasks_.add(given.then([this, action, epoch] { recovered(action, epoch); },
                        [this, action, epoch](kj::Exception&& e) {
                          cancel_at(action.to.server, action.job, action.vgpu, epoch);
                          place_failed(action.job, action.vgpu, epoch, remote_error(e));
                        }));
}

// A program waits for it, as long as that takes: elsewhere at once, there only after a while. Where the guard is away
// no other server is of more help.
void Reconciler::recovery_failed(Job* job, uint32_t v, const std::string& server, const std::string& why) {
  Vgpu& vgpu = job->vgpus[v];
  const std::string& guard = vgpu.protection.guard.server;
  job->problem = format("virtual GPU %u waits to be restored from its checkpoint on %s; on %s that failed: %s", v,
                        guard.c_str(), server.c_str(), why.c_str());
  if (links_.find(guard) == links_.end()) return;
  const bool again = job->failed_on.count(server) != 0;  // its job has no other GPU
  job->failed_on[server] = vgpu.retry_ns;
  if (!again) vgpu.retry_ns = 0;
}

void Reconciler::recovered(const Action& action, uint64_t epoch) {
  placed(action.job, action.vgpu, epoch);
  Vgpu* vgpu = vgpu_of(action.job, action.vgpu);
  if (vgpu == nullptr || vgpu->epoch != epoch || vgpu->at.none()) return;
  Job* job = ledger_.by_id(action.job);
  Protection& now = vgpu->protection;
  now.lost = now.asked = now.watched = false;
  now.watch_ns = 0;
  now.next_ns = now_ns() + job->record.protect_ms * 1'000'000;
  ++now.recoveries_all;
  job->problem.clear();
  log(LogLevel::kInfo, "job %s: vGPU %u goes on from its checkpoint on %s", action.job.c_str(), action.vgpu,
      to_text(vgpu->at).c_str());
  books_.note_recovery(*job, action.vgpu);
  (void)save(job);
}

// An agent says that it has a guard. False: it should not.
bool Reconciler::confirm_guard(const std::string& server, const control::Lease::Reader& lease) {
  const std::string id = lease.getJob().cStr();
  const Vgpu* vgpu = guarded(id, lease.getVgpu(), lease.getEpoch());
  const Job* job = ledger_.by_id(id);
  return vgpu != nullptr && !job->ended() && vgpu->protection.guard.server == server;
}

// What it kept is gone; the next guard begins from nothing.
void Reconciler::lose_guards(const std::string& server, const std::set<std::pair<std::string, uint32_t>>& but) {
  for (auto& [number, job] : ledger_.jobs) {
    for (uint32_t v = 0; v < job.vgpus.size(); ++v) {
      Protection& now = job.vgpus[v].protection;
      if (now.guard.server != server || but.count({job.record.id(), v}) != 0) continue;
      log(LogLevel::kWarning, "job %s: the checkpoint of vGPU %u on %s is lost", job.record.id().c_str(), v,
          server.c_str());
      now.guard.server.clear();
      now.guard.made_ms = 0;
      now.asked = false;
      now.next_ns = 0;
      now.problem = "its guard on " + server + " was lost; there is another one soon";
    }
  }
}

}  // namespace tide::sched
