// Carrying actions out: what is said to the agents, and what follows from their answers.

#include <algorithm>
#include <memory>

#include "base/clock.h"
#include "base/log.h"
#include "scheduler/reconciler.h"
#include "scheduler/remote_error.h"
#include "scheduler/room.h"

namespace tide::sched {
namespace {

// Of a request with a lease, in words: without it each takes zeroed memory for the largest.
constexpr uint64_t kLeaseWords = 64;

// An agent that was not there, or that is still at a move which a scheduler before us has ordered.
bool is_passing(const kj::Exception& e) {
  const kj::StringPtr text = e.getDescription();
  return e.getType() == kj::Exception::Type::DISCONNECTED || text.endsWith("is being moved already");
}

// Why a vGPU moves, for people.
std::string cause_of(const Ledger& ledger, const Job& job, const Action& action) {
  const bool drains = ledger.is_draining(action.from.server);
  if (action.to.parked() && action.from.on_gpu()) return "it was suspended";
  if (action.from.parked() && action.to.on_gpu()) return "it was resumed";
  if (job.vgpus[action.vgpu].wish == action.to) return "somebody asked for it (`tide migrate`)";
  if (!job.moves_for.empty()) return "it was moved so that job " + job.moves_for + " could start";
  if (drains) return "server " + action.from.server + " is being drained";
  const Gpu* const from = ledger.gpu(action.from);
  if (from != nullptr && !from->healthy) return "GPU " + to_text(action.from) + " is not healthy";
  const JobView view = view_of(job);
  if (from != nullptr && !may_use(view, {.id = action.from, .memory_bytes = 0, .traits = from->traits}))
    return "GPU " + to_text(action.from) + " does not meet what it requires any more (" + to_text(view.require) + ")";
  if (job.record.target != 0) return "it was to have another number of GPUs (`tide resize`)";
  return "the pool's GPUs were shared out anew: jobs have come or ended, or GPUs have";
}

}  // namespace

Vgpu* Reconciler::vgpu_of(const std::string& id, uint32_t vgpu) {
  Job* job = ledger_.by_id(id);
  return job == nullptr || vgpu >= job->vgpus.size() ? nullptr : &job->vgpus[vgpu];
}

void Reconciler::fill_lease(control::Lease::Builder lease, const Job& job, uint32_t vgpu, const GpuId& gpu,
                            uint64_t epoch) {
  lease.setJob(job.record.id());
  lease.setVgpu(vgpu);
  lease.setGpu(gpu.index);
  lease.setEpoch(epoch);
  lease.setToken(kj::arrayPtr(reinterpret_cast<const kj::byte*>(job.record.token.data()), job.record.token.size()));
  lease.setMemoryBytes(job.record.memory_bytes);
  lease.setProtected(job.record.protect_ms != 0 && !job.vgpus[vgpu].protection.refused);
  lease.setPart(job.record.part);
  lease.setWeight(job.record.weight);
  lease.setLatency(job.record.job_class != JobClass::kBatch);
}

// Marks the vGPU as busy with the action and takes the next epoch. False: not now.
bool Reconciler::prepare_action(Job* job, const Action& action) {
  Vgpu& vgpu = job->vgpus[action.vgpu];
  const GpuId& needs = action.kind == Action::Kind::kRelease ? action.from : action.to;
  if (links_.find(needs.server) == links_.end()) return false;
  if (action.kind == Action::Kind::kMove && links_.find(action.from.server) == links_.end()) return false;
  if (action.kind == Action::Kind::kRelease) {
    vgpu.doing = Doing::kReleasing;
    return true;
  }
  const Gpu* gpu = ledger_.gpu(action.to);
  if (gpu == nullptr && !action.to.parked()) return false;
  if (gpu != nullptr && job->record.memory_bytes == 0) {
    const uint64_t given = job->record.memory_given;
    job->record.memory_bytes = given != 0 ? given : bytes_on(job->record.portion(), gpu->memory_bytes);
  }
  if (gpu != nullptr && vgpu.device_info.empty()) vgpu.device_info = gpu->device_info;
  if (action.kind == Action::Kind::kMove) job->moved_because = cause_of(ledger_, *job, action);
  vgpu.doing = action.kind == Action::Kind::kPlace ? Doing::kPlacing : Doing::kMoving;
  vgpu.to = action.to;
  ++vgpu.last_epoch;
  return true;
}

void Reconciler::start(const std::vector<Action>& actions) {
  std::map<std::string, std::vector<Action>> by_job;
  for (const Action& action : actions) {
    Job* job = ledger_.by_id(action.job);
    if (job != nullptr && action.ready && prepare_action(job, action)) by_job[action.job].push_back(action);
  }
  std::vector<Job*> fresh;  // with new epochs
  for (const auto& [id, started] : by_job) {
    const bool some =
        std::any_of(started.begin(), started.end(), [](const Action& a) { return a.kind != Action::Kind::kRelease; });
    if (some) fresh.push_back(ledger_.by_id(id));
  }
  for (const auto& [id, started] : by_job) note_moves(ledger_.by_id(id), started);
  // The epochs must be on disk before an agent hears of them, else a restart could use them again.
  const Outcome saved = save(fresh);
  for (const auto& [id, started] : by_job) {
    Job* job = ledger_.by_id(id);
    const bool refused = !saved.ok() && std::find(fresh.begin(), fresh.end(), job) != fresh.end();
    for (const Action& action : started) {
      if (refused) {
        Vgpu& vgpu = job->vgpus[action.vgpu];
        vgpu.doing = Doing::kNothing;
        vgpu.to = {};
        vgpu.retry_ns = now_ns() + backoff_ns(1);
        job->problem = saved.message();
        if (job->being_suspended()) suspend_failed(job, saved.message());
        wake(id, Waiter::For::kSettled, saved.message());
        continue;
      }
      if (log_enabled(LogLevel::kInfo)) {
        log(LogLevel::kInfo, "%s (epoch %lu)", to_text(action).c_str(),
            (unsigned long)job->vgpus[action.vgpu].last_epoch);
      }
      switch (action.kind) {
        case Action::Kind::kPlace:
          start_place(action);
          break;
        case Action::Kind::kMove:
          start_move(action);
          break;
        case Action::Kind::kRelease:
          start_release(action);
          break;
      }
    }
  }
}

void Reconciler::start_place(const Action& action) {
  Job* job = ledger_.by_id(action.job);
  if (job->started && job->vgpus[action.vgpu].protection.whole()) return start_recovery(action);
  if (end_without_checkpoint(job, action.vgpu)) return;
  const uint64_t epoch = job->vgpus[action.vgpu].last_epoch;
  Link& link = *links_.at(action.to.server);
  auto request = link.agent.placeRequest(capnp::MessageSize{kLeaseWords, 0});
  fill_lease(request.initLease(), *job, action.vgpu, action.to, epoch);
  tasks_.add(link.canceler.wrap(request.send().ignoreResult())
                 .then([this, action, epoch] { placed(action.job, action.vgpu, epoch); },
                       [this, action, epoch](kj::Exception&& e) {
                         place_failed(action.job, action.vgpu, epoch, remote_error(e));
                       }));
}

void Reconciler::placed(const std::string& id, uint32_t v, uint64_t epoch) {
  Vgpu* vgpu = vgpu_of(id, v);
  if (vgpu == nullptr || vgpu->doing != Doing::kPlacing || vgpu->last_epoch != epoch) return;
  vgpu->doing = Doing::kNothing;
  vgpu->at = vgpu->to;
  vgpu->to = {};
  vgpu->epoch = epoch;
  vgpu->failures = 0;
  watch_anew(vgpu);
  poke();
}

void Reconciler::place_failed(const std::string& id, uint32_t v, uint64_t epoch, const std::string& why) {
  Job* job = ledger_.by_id(id);
  Vgpu* vgpu = vgpu_of(id, v);
  if (vgpu == nullptr || vgpu->doing != Doing::kPlacing || vgpu->last_epoch != epoch) return;
  const std::string where = to_text(vgpu->to), server = vgpu->to.server;
  vgpu->doing = Doing::kNothing;
  vgpu->to = {};
  ++vgpu->failures;
  vgpu->retry_ns = now_ns() + backoff_ns(vgpu->failures);
  job->problem = format("virtual GPU %u could not start on %s: %s", v, where.c_str(), why.c_str());
  log(LogLevel::kWarning, "job %s: %s", id.c_str(), job->problem.c_str());
  if (job->started && vgpu->protection.whole()) {
    recovery_failed(job, v, server, why);
  } else if (vgpu->failures >= kPlaceTriesMax && !job->ended()) {
    end_job(job, job->problem, -1);
  }
  poke();
}

void Reconciler::start_move(const Action& action) {
  Job* job = ledger_.by_id(action.job);
  Vgpu& vgpu = job->vgpus[action.vgpu];
  const uint64_t epoch = vgpu.last_epoch, old_epoch = vgpu.epoch;
  Link& to = *links_.at(action.to.server);
  auto prepare = to.agent.prepareRequest(capnp::MessageSize{kLeaseWords, 0});
  fill_lease(prepare.initLease(), *job, action.vgpu, action.to, epoch);
  auto move = links_.at(action.from.server)->agent.moveRequest(capnp::MessageSize{kLeaseWords, 0});
  move.setJob(action.job);
  move.setVgpu(action.vgpu);
  move.setEpoch(old_epoch);
  fill_lease(move.initLease(), *job, action.vgpu, action.to, epoch);
  move.setEndpoint(ledger_.server(action.to.server)->endpoint);
  auto ordered = std::make_shared<bool>(false);
  auto moving = to.canceler.wrap(prepare.send().then([](auto&& prepared) { return kj::str(prepared.getAddress()); }))
                    .then([this, action, epoch, ordered,
                           move = kj::mv(move)](kj::String address) mutable -> kj::Promise<MoveTotals> {
                      // The source may have been away meanwhile, and the destination told that nothing comes.
                      const Vgpu* vgpu = vgpu_of(action.job, action.vgpu);
                      const bool wanted = vgpu != nullptr && vgpu->doing == Doing::kMoving && vgpu->last_epoch == epoch;
                      if (!wanted) return error_for_caller("the move was given up meanwhile");
                      const auto link = links_.find(action.from.server);
                      if (link == links_.end()) {
                        return kj::Exception(kj::Exception::Type::DISCONNECTED, "", 0, kj::str("its server is gone"));
                      }
                      move.setAddress(address);
                      *ordered = true;
                      return link->second->canceler.wrap(
                          move.send().then([](auto&& moved) { return totals_of(moved.getReport()); }));
                    });
  tasks_.add(moving.then([this, action, epoch](MoveTotals report) { moved(action.job, action.vgpu, epoch, report); },
                         [this, action, epoch, ordered](kj::Exception&& e) {
                           if (*ordered && e.getType() == kj::Exception::Type::DISCONNECTED) {
                             // It alone knows what came of it, and says so when it is back (adopt()); or it is lost,
                             // and so is the vGPU.
                             log(LogLevel::kWarning, "job %s: %s is gone in the middle of a move of vGPU %u",
                                 action.job.c_str(), action.from.server.c_str(), action.vgpu);
                             return;
                           }
                           move_failed(action.job, action.vgpu, epoch, remote_error(e), is_passing(e));
                         }));
}

MoveTotals totals_of(control::MoveReport::Reader report) {
  MoveTotals totals;
  totals.bytes = report.getBytes();
  totals.pause_ms = report.getPauseMs();
  totals.rounds = report.getRounds();
  totals.vgpus = report.getVgpus();
  totals.total_ms = report.getTotalMs();
  totals.pause_bytes = report.getPauseBytes();
  totals.drain_ms = report.getDrainMs();
  totals.copy_ms = report.getCopyMs();
  totals.restore_ms = report.getRestoreMs();
  return totals;
}

void Reconciler::moved(const std::string& id, uint32_t v, uint64_t epoch, const MoveTotals& report) {
  Job* job = ledger_.by_id(id);
  Vgpu* vgpu = vgpu_of(id, v);
  if (vgpu == nullptr || vgpu->doing != Doing::kMoving || vgpu->last_epoch != epoch) return;
  const GpuId from = vgpu->at;
  vgpu->doing = Doing::kNothing;
  vgpu->at = vgpu->to;
  vgpu->to = {};
  vgpu->missing = false;
  vgpu->keepers_refused.clear();
  if (ledger_.server(vgpu->at.server) == nullptr) {
    vgpu->at = {};
    end_job(job, "virtual GPU " + std::to_string(v) + " moved to a GPU server that was lost meanwhile", -1);
    return poke();
  }
  if (vgpu->wish == vgpu->at) vgpu->wish = {};
  if (!vgpu->at.parked()) vgpu->home = {};
  const auto parked = [](const Vgpu& each) { return each.at.parked(); };
  if (std::none_of(job->vgpus.begin(), job->vgpus.end(), parked)) {
    job->failed_on.clear();
    note_back(job);
  }
  vgpu->epoch = epoch;
  vgpu->failures = 0;
  watch_anew(vgpu);
  vgpu->last_move = report;
  job->moved_ns = now_ns();
  ++job->record.moves;
  job->problem.clear();
  log(LogLevel::kInfo, "job %s: vGPU %u is on %s now: %lu bytes, paused %.1f ms", id.c_str(), v,
      to_text(vgpu->at).c_str(), (unsigned long)report.bytes, report.pause_ms);
  for (auto& [what, waiting] : waiters_) {
    const auto found = waiting.find(id);
    if (found == waiting.end()) continue;
    for (Waiter& waiter : found->second) waiter.totals.add(report);
  }
  books_.note_move(*job, v, from, report);
  (void)save(job);
  poke();
}

void Reconciler::move_failed(const std::string& id, uint32_t v, uint64_t epoch, const std::string& why, bool passing) {
  Job* job = ledger_.by_id(id);
  Vgpu* vgpu = vgpu_of(id, v);
  if (vgpu == nullptr || vgpu->doing != Doing::kMoving || vgpu->last_epoch != epoch) return;
  const GpuId to = vgpu->to;
  vgpu->doing = Doing::kNothing;
  vgpu->to = {};
  vgpu->wish = {};
  if (to.parked()) return park_failed(job, v, to, why, passing);
  ++vgpu->failures;
  // All of the job's vGPUs wait, so that a failing move does not turn into a chain of other ones.
  const uint64_t retry = now_ns() + backoff_ns(vgpu->failures);
  for (Vgpu& each : job->vgpus) each.retry_ns = std::max(each.retry_ns, retry);
  job->problem = format("virtual GPU %u could not move from %s to %s: %s. It stays where it is; tried again in %lu ms",
                        v, to_text(vgpu->at).c_str(), to_text(to).c_str(), why.c_str(),
                        (unsigned long)(backoff_ns(vgpu->failures) / 1'000'000));
  log(LogLevel::kWarning, "job %s: %s", id.c_str(), job->problem.c_str());
  const bool resumed = job->started && !job->ended() && !job->record.suspended;
  if (resumed && job->is_parked() && job->is_quiet()) resume_failed(job, to.server, retry);
  cancel_at(to.server, id, v, epoch);
  wake(id, Waiter::For::kSettled, job->problem);
  poke();
}

void Reconciler::cancel_at(const std::string& server, const std::string& id, uint32_t v, uint64_t epoch) {
  const auto link = links_.find(server);
  if (link == links_.end()) return;
  auto cancel = link->second->agent.cancelRequest();
  cancel.setJob(id);
  cancel.setVgpu(v);
  cancel.setEpoch(epoch);
  tasks_.add(link->second->canceler.wrap(cancel.send().ignoreResult()).catch_([](kj::Exception&&) {}));
}

// Of a vGPU that is lost anyway.
void Reconciler::drop_move(Job* job, uint32_t v) {
  Vgpu& vgpu = job->vgpus[v];
  cancel_at(vgpu.to.server, job->record.id(), v, vgpu.last_epoch);
  vgpu.doing = Doing::kNothing;
  vgpu.to = {};
}

void Reconciler::start_release(const Action& action) {
  Link& link = *links_.at(action.from.server);
  auto request = link.agent.releaseRequest(capnp::MessageSize{kLeaseWords, 0});
  request.setJob(action.job);
  request.setVgpu(action.vgpu);
  request.setEpoch(vgpu_of(action.job, action.vgpu)->epoch);
  tasks_.add(link.canceler.wrap(request.send().ignoreResult())
                 .then([this, action] { released(action, true, ""); },
                       [this, action](kj::Exception&& e) { released(action, false, remote_error(e)); }));
}

void Reconciler::released(const Action& action, bool ok, const std::string& why) {
  const std::string& id = action.job;
  const uint32_t v = action.vgpu;
  Vgpu* vgpu = vgpu_of(id, v);
  if (vgpu == nullptr || vgpu->doing != Doing::kReleasing) return;
  vgpu->doing = Doing::kNothing;
  if (ok) {
    if (vgpu->at == action.from) vgpu->at = {};  // else it is known by now to be elsewhere, and is released there next
    vgpu->failures = 0;
    hear_usage();  // its last
  } else {
    ++vgpu->failures;
    vgpu->retry_ns = now_ns() + backoff_ns(vgpu->failures);
    log(LogLevel::kWarning, "job %s: %s did not release virtual GPU %u: %s; trying again", id.c_str(),
        to_text(vgpu->at).c_str(), v, why.c_str());
  }
  poke();
}

}  // namespace tide::sched
