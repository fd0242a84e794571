#include "scheduler/pool_service.h"

#include <kj/debug.h>
#include <unistd.h>

#include <algorithm>

#include "base/clock.h"
#include "base/log.h"
#include "scheduler/explain.h"
#include "scheduler/job_stats.h"
#include "scheduler/policy.h"
#include "scheduler/pool_promises.h"
#include "scheduler/pool_reservations.h"
#include "scheduler/rank.h"
#include "scheduler/remote_error.h"
#include "scheduler/room.h"
#include "scheduler/token.h"

#ifndef TIDE_VERSION
#define TIDE_VERSION "0"
#endif

namespace tide::sched {
namespace {

kj::Exception not_written_yet(const std::string& id) {
  return KJ_EXCEPTION(DISCONNECTED, "the end of the job is not written down yet", id);
}

// Held by `tide run`. When it falls, by whatever end of its process, the job is over, unless `tide run` comes back: its
// connection may have broken.
class HandleServer final : public control::JobHandle::Server {
 public:
  HandleServer(PoolCore& core, Job* job) : core_(core), id_(job->record.id()), generation_(++job->handle) {
    job->attached = true;
    job->left_ns = 0;
  }
  ~HandleServer() noexcept(false) {
    Job* job = core_.ledger.by_id(id_);
    if (core_.stopping || job == nullptr || job->handle != generation_) return;
    job->attached = false;
    job->left_ns = now_ns();
  }

 protected:
  // A call that waits must not outlive its connection: it would keep us, and so the job, alive.
  kj::Promise<void> running(RunningContext context) override {
    context.allowCancellation();
    return core_.reconciler.when_running(id_);
  }

  kj::Promise<void> info(InfoContext context) override { return answer(context.getResults().initJob()); }

  kj::Promise<void> ended(EndedContext context) override {
    if (core_.refuses()) return error_for_caller(not_the_leader(core_.leader()));
    const int32_t status = context.getParams().getExitStatus();
    Job* job = core_.ledger.by_id(id_);
    if (job != nullptr) {
      core_.reconciler.end_job(job, status == 0 ? "finished" : format("its command ended with status %d", status),
                               status);
    }
    // The next leader would take it for lost: so it is told again.
    if (job != nullptr && job->dirty && core_.election != nullptr) return not_written_yet(id_);
    return kj::READY_NOW;
  }

  kj::Promise<void> wait(WaitContext context) override {
    context.allowCancellation();
    return core_.reconciler.when_ended(id_).then(
        [this, context]() mutable { return answer(context.getResults().initJob()); });
  }

 private:
  kj::Promise<void> answer(control::JobInfo::Builder info) {
    if (Job* job = core_.ledger.jobs.quietly(parse_number(id_))) {
      core_.reconciler.note_reason(job);
      fill_job_info(info, *job);
      return kj::READY_NOW;
    }
    const auto record = core_.store.find(parse_number(id_));
    if (!record) return error_for_caller("there is no job " + id_);
    fill_job_info(info, from_record(*record));
    return kj::READY_NOW;
  }

  PoolCore& core_;
  std::string id_;
  uint64_t generation_;
};

class RegistrationServer final : public control::Registration::Server {
 public:
  RegistrationServer(PoolCore& core, std::string server, uint64_t generation)
      : core_(core), server_(std::move(server)), generation_(generation) {}
  ~RegistrationServer() noexcept(false) {
    if (!core_.stopping) core_.reconciler.agent_gone(server_, generation_);
  }

 protected:
  kj::Promise<void> heartbeat(HeartbeatContext) override {
    if (core_.reconciler.heartbeat(server_, generation_)) return kj::READY_NOW;
    return error_for_caller("the server's lease is over; register again");
  }

 private:
  PoolCore& core_;
  std::string server_;
  uint64_t generation_;
};

kj::Exception no_such_job(const std::string& name) {
  return error_for_caller("there is no running job " + name + "; `tide jobs --ended` lists those that ended");
}

// Why the GPUs of a job cannot be changed; empty: they can.
std::string why_not_movable(const Job& job) {
  const std::string id = job.record.id();
  if (!job.started) return "job " + id + " does not run yet; `tide why " + id + "` says why";
  if (job.record.suspended) return "job " + id + " is suspended; `tide resume " + id + "` gives it GPUs again";
  const bool parked = std::any_of(job.vgpus.begin(), job.vgpus.end(), [](const Vgpu& v) { return v.at.parked(); });
  if (job.admitted()) return parked ? "job " + id + " is being resumed; try again when it runs" : "";
  return "job " + id + " is suspended: after `tide resume` it waits for GPUs; `tide why " + id + "` says why";
}

// Why it cannot go to this GPU; empty: it can.
std::string why_no_room(const Ledger& ledger, const GpuId& to, const Job& job) {
  Room room(to, ledger.gpu(to)->memory_bytes);
  std::string others;
  for (const auto& [holder, portion] : ledger.holders(to)) {
    if (holder == job.record.id()) continue;
    if (portion.part == kWholeGpu || job.record.part == kWholeGpu)
      return "GPU " + to_text(to) + " serves job " + holder + "; choose a free one (`tide gpus`)";
    room.take(portion);
    others += (others.empty() ? "" : ", ") + holder;
  }
  if (others.empty() || room.fits(job.record.portion())) return "";
  return format(
      "GPU %s has %s left beside job%s %s, and %lu MiB of its memory; job %s needs %s and %lu MiB. Choose "
      "another one (`tide gpus`)",
      to_text(to).c_str(), part_text(room.part_left).c_str(), others.find(',') == std::string::npos ? "" : "s",
      others.c_str(), (unsigned long)(room.memory_left >> 20), job.record.id().c_str(),
      part_text(job.record.part).c_str(), (unsigned long)(job.record.memory_bytes >> 20));
}

// Why its vGPUs cannot be on these GPUs together, whoever else is there; empty: they can.
std::string why_not_there(const Ledger& ledger, const Job& job, const std::set<GpuId>& gpus) {
  const JobView view = view_of(job);
  const std::string requires_text = "job " + job.record.id() + " requires " + to_text(view.require);
  std::set<std::string> groups;
  for (const GpuId& id : gpus) {
    const Gpu* gpu = ledger.gpu(id);
    if (gpu == nullptr) continue;
    const GpuView seen{.id = id, .memory_bytes = gpu->memory_bytes, .traits = gpu->traits};
    if (!may_use(view, seen)) return requires_text + ", and GPU " + to_text(id) + " is not that";
    groups.insert(group_of(view, seen));
  }
  return groups.size() > 1 ? requires_text + "; so all of its virtual GPUs go there, or none" : "";
}

// Why it cannot have so many physical GPUs, beside --min and -g; empty: it can.
std::string why_not_so_many(const Job& job, uint32_t gpus) {
  const JobView view = view_of(job);
  if (may_have(view, gpus)) return "";
  return format("job %s was started with --powers-of-two: it can have %s physical GPUs, not %u",
                job.record.id().c_str(), counts_text(view).c_str(), gpus);
}

// Where it is its queue that lets it wait, that is the reason.
void explain_waiting(control::JobInfo::Builder info, const PoolCore& core, const Job& job) {
  if (job.ended() || job.admitted() || job.record.suspended || !core.ledger.queues.written) return;
  const State state = core.reconciler.look();
  const auto view = std::find_if(state.jobs.begin(), state.jobs.end(),
                                 [&](const JobView& each) { return each.id == job.record.id(); });
  if (view == state.jobs.end()) return;
  const QueueReason why = why_queue_waits(state, *view);
  if (why.reason.empty()) return;
  info.setReason(job.started ? "waits to run again: " + why.reason : why.reason);
  info.setNext(why.next);
}

// What its queue and pool.toml say where it has not. Requires: its queue is chosen.
void take_defaults(const Ledger& ledger, control::JobSpec::Reader spec, JobRecord* record) {
  if (spec.getJobClass() == control::JobClass::AS_QUEUE_SAYS)
    record->job_class = ledger.disturbance.class_of(record->queue);
  if (record->job_class == JobClass::kInteractive && spec.getIdleMs() == 0)
    record->idle_ms = ledger.disturbance.idle_return_ms;
}

// How often it was disturbed, and whether it may be now.
void fill_sparing(control::JobInfo::Builder info, const Ledger& ledger, const Job& job) {
  if (job.ended()) return;
  const uint64_t now_ms = wall_seconds() * 1000;
  const Disturbed disturbed = job.disturbed(ledger.disturbance);
  info.setDisturbed(disturbances_in_hour(job.record.disturbed_ms, now_ms));
  const Sparing sparing = sparing_of(ledger.disturbance, disturbed, now_ms);
  if (job.admitted()) info.setSpared(sparing_text(sparing, disturbed, now_ms));
}

// Who holds it.
void fill_shares(const Ledger& ledger, const GpuId& id, control::PoolGpu::Builder out) {
  std::vector<std::pair<const Job*, std::vector<uint32_t>>> shares;
  for (const auto& [number, job] : ledger.jobs) {
    std::vector<uint32_t> vgpus;
    for (uint32_t v = 0; v < job.vgpus.size(); ++v) {
      if (job.vgpus[v].at == id) vgpus.push_back(v);
    }
    if (!vgpus.empty()) shares.emplace_back(&job, std::move(vgpus));
  }
  const auto fill = [](auto list, const std::vector<uint32_t>& vgpus) {
    for (uint32_t v = 0; v < vgpus.size(); ++v) list.set(v, vgpus[v]);
  };
  auto list = out.initShares(uint32_t(shares.size()));
  for (uint32_t i = 0; i < list.size(); ++i) {
    list[i].setJob(shares[i].first->record.id());
    list[i].setPart(shares[i].first->record.part);
    fill(list[i].initVgpus(uint32_t(shares[i].second.size())), shares[i].second);
  }
  if (shares.empty()) return;
  out.setJob(shares[0].first->record.id());
  fill(out.initVgpus(uint32_t(shares[0].second.size())), shares[0].second);
}

}  // namespace

kj::Promise<void> PoolService::submit(SubmitContext context) {
  if (core_.stopping) return error_for_caller("the pool is being stopped");
  if (core_.refuses()) return error_for_caller(not_the_leader(core_.leader()));
  // What is promised to one is promised with all others in view.
  if (context.getParams().getSpec().getDeadlineMs() != 0) write_submissions();
  Job job;
  Outcome outcome = read_spec(context.getParams().getSpec(), &job.record);
  if (!outcome.ok()) return error_for_caller(outcome.message());
  if (core_.ledger.jobs.size() + submissions_.size() >= kLiveJobsMax) {
    return error_for_caller(format("the pool has %u jobs already, which is its limit; try again later", kLiveJobsMax));
  }
  job.vgpus.resize(job.record.gpus);
  const State state = core_.ledger.pool();
  outcome = core_.ledger.queues.choose(&job.record.queue);
  if (!outcome.ok()) return error_for_caller(outcome.message());
  take_defaults(core_.ledger, context.getParams().getSpec(), &job.record);
  JobView view = view_of(job);
  view.memory_bytes = job.record.memory_given;
  outcome = may_use_reservation(core_.ledger, state, view, job.record, wall_seconds() * 1000);
  if (!outcome.ok()) return error_for_caller(outcome.message());
  std::string impossible = why_unmet(state, view, job.record.min_given);
  if (impossible.empty()) impossible = why_impossible(state, view, job.record.min_given);
  if (impossible.empty() && job.record.reservation.empty())
    impossible = core_.ledger.queues.why_never(state, view, job.record.queue, job.record.min_given);
  if (!impossible.empty() && now_ns() < core_.settles_ns) {
    return core_.timer.afterDelay(kTickMs * kj::MILLISECONDS).then([this, context]() mutable {
      return submit(context);
    });
  }
  if (!impossible.empty()) return error_for_caller(impossible);
  if (job.record.deadline_ms != 0) {
    outcome = promise_deadline(core_.ledger, core_.ledger.snapshot(), view, job.record);
    if (!outcome.ok()) return error_for_caller(outcome.message());
  }
  job.record.memory_bytes = job.record.memory_given;
  job.record.submitted_ms = wall_seconds() * 1000;
  outcome = new_token(&job.record.token);
  if (!outcome.ok()) return error_for_caller(outcome.message());
  return kept(std::move(job)).then([this, context](uint64_t number) mutable -> kj::Promise<void> {
    const auto found = core_.ledger.jobs.find(number);
    if (found == core_.ledger.jobs.end()) return error_for_caller("the job was ended before it could begin");
    const Job& kept = found->second;
    auto results = context.getResults();
    results.setId(kept.record.id());
    results.setToken(
        kj::arrayPtr(reinterpret_cast<const kj::byte*>(kept.record.token.data()), kept.record.token.size()));
    results.setDoorAddress(core_.doors());
    results.setHandle(kj::heap<HandleServer>(core_, &found->second));
    return kj::READY_NOW;
  });
}

// Its number, when it is written down: with all that come together, in one transaction.
kj::Promise<uint64_t> PoolService::kept(Job job) {
  auto pair = kj::newPromiseAndFulfiller<uint64_t>();
  submissions_.push_back({std::move(job), kj::mv(pair.fulfiller)});
  if (submissions_.size() == 1) {
    writing_ = kj::evalLast([this] { write_submissions(); }).eagerlyEvaluate([](kj::Exception&& e) {
      log(LogLevel::kError, "submissions could not be written: %s", e.getDescription().cStr());
    });
  }
  return kj::mv(pair.promise);
}

void PoolService::write_submissions() {
  if (submissions_.empty()) return;
  std::vector<Submission> all;
  std::swap(all, submissions_);
  for (size_t at = 0, end = 0; at < all.size(); at = end) {
    uint64_t bytes = 0;
    std::vector<JobRecord*> records;
    for (; end < all.size() && records.size() < Store::kAddMax; ++end) {
      Job& job = all[end].job;
      job.record.turn.ticket = core_.ledger.next_ticket();
      to_record(&job);
      bytes += to_bytes(job.record).size();
      if (!records.empty() && bytes > Store::kAddBytesMax) break;
      records.push_back(&job.record);
    }
    const Outcome added = core_.store.add(records);
    for (size_t i = at; i < end; ++i) {
      if (!added.ok()) {
        all[i].fulfiller->reject(error_for_caller(added.message()));
        continue;
      }
      const uint64_t number = all[i].job.record.number;
      core_.ledger.jobs[number] = std::move(all[i].job);
      all[i].fulfiller->fulfill(kj::cp(number));
    }
  }
  core_.reconciler.poke();
}

kj::Promise<void> PoolService::reattach(ReattachContext context) {
  const auto params = context.getParams();
  const auto token = params.getToken();
  Job* job = core_.ledger.by_id(params.getId().cStr());
  const std::string shown(reinterpret_cast<const char*>(token.begin()), token.size());
  if (job != nullptr && job->ended() && job->dirty && core_.election != nullptr)
    return not_written_yet(job->record.id());
  if (job == nullptr || job->ended() || !same_token(job->record.token, shown)) {
    return error_for_caller(std::string("there is no running job ") + params.getId().cStr() + " with this token");
  }
  context.getResults().setHandle(kj::heap<HandleServer>(core_, job));
  core_.reconciler.poke();
  return kj::READY_NOW;
}

kj::Promise<void> PoolService::register_(RegisterContext context) {
  if (core_.stopping) return error_for_caller("the pool is being stopped");
  if (core_.refuses()) return error_for_caller(not_the_leader(core_.leader()));
  sched::Server server;
  const auto info = context.getParams().getServer();
  Outcome outcome = read_server(info, &server);
  if (outcome.ok() && core_.ledger.servers.size() >= kServersMax)
    outcome = Outcome::fail("the pool has too many servers");
  std::vector<control::Lease::Reader> leases;
  for (const auto lease : info.getLeases()) leases.push_back(lease);
  uint64_t generation = 0;
  const std::string name = server.name;
  if (outcome.ok()) {
    outcome = core_.reconciler.register_agent(std::move(server), leases, context.getParams().getAgent(), &generation);
  }
  if (!outcome.ok()) return error_for_caller(outcome.message());
  context.getResults().setRegistration(kj::heap<RegistrationServer>(core_, name, generation));
  context.getResults().setLeaseMs(kLeaseMs);
  return kj::READY_NOW;
}

kj::Promise<void> PoolService::jobs(JobsContext context) {
  std::vector<JobRecord> ended;
  if (context.getParams().getEnded()) {
    const Outcome outcome = core_.store.load_ended(kEndedJobsShown, &ended);
    if (!outcome.ok()) return error_for_caller(outcome.message());
  }
  std::vector<const Job*> live;
  for (const auto& [number, job] : core_.ledger.jobs.read()) {
    if (job.ended()) continue;
    core_.reconciler.note_reason(core_.ledger.jobs.quietly(number));
    live.push_back(&job);
  }
  auto list = context.getResults().initJobs(uint32_t(ended.size() + live.size()));
  uint32_t i = 0;
  for (auto it = ended.rbegin(); it != ended.rend(); ++it) fill_job_info(list[i++], from_record(*it));
  for (const Job* job : live) {
    fill_job_info(list[i], *job);
    fill_sparing(list[i++], core_.ledger, *job);
  }
  return kj::READY_NOW;
}

kj::Promise<void> PoolService::job(JobContext context) {
  const std::string name = context.getParams().getJob().cStr();
  Job* job = core_.ledger.find(name);
  if (job == nullptr) {
    auto record = core_.store.find(parse_number(name));
    if (!record) record = core_.store.find_named(name);
    if (!record) return error_for_caller("there is no job " + name + "; `tide jobs` lists them");
    fill_job_info(context.getResults().initJob(), from_record(*record));
    return kj::READY_NOW;
  }
  auto info = context.getResults().initJob();
  core_.reconciler.note_reason(job);
  fill_job_info(info, *job);
  explain_waiting(info, core_, *job);
  fill_sparing(info, core_.ledger, *job);
  return JobStats::ask(core_, *job).then([context](JobStats stats) mutable {
    auto list = context.getResults().initVgpus(uint32_t(stats.vgpus().size()));
    for (uint32_t i = 0; i < list.size(); ++i) list.setWithCaveats(i, stats.vgpus()[i]);
  });
}

kj::Promise<void> PoolService::gpus(GpusContext context) {
  uint32_t count = 0;
  for (const auto& [name, server] : core_.ledger.servers.read()) count += uint32_t(server.gpus.size());
  auto list = context.getResults().initGpus(count);
  uint32_t i = 0;
  for (const auto& [name, server] : core_.ledger.servers.read()) {
    for (const Gpu& gpu : server.gpus) {
      auto out = list[i++];
      out.setServer(name);
      out.setOnline(server.online);
      auto info = out.initInfo();
      info.setIndex(gpu.index);
      info.setName(gpu.name);
      info.setMemoryBytes(gpu.memory_bytes);
      info.setUuid(gpu.uuid);
      info.setHealthy(gpu.healthy);
      info.setSoftware(gpu.software);
      info.setCompute(gpu.compute);
      out.setDraining(core_.ledger.is_draining(name));
      if (gpu.traits != nullptr) {
        fill_texts(out.initLabels(uint32_t(gpu.traits->labels.size())), gpu.traits->labels);
        out.setNetworkSwitch(gpu.traits->network_switch);
      }
      fill_shares(core_.ledger, {name, gpu.index}, out);
    }
  }
  return kj::READY_NOW;
}

kj::Promise<void> PoolService::resize(ResizeContext context) {
  const std::string name = context.getParams().getJob().cStr();
  const uint32_t gpus = context.getParams().getGpus();
  Job* job = core_.ledger.find(name);
  if (job == nullptr || job->ended()) return no_such_job(name);
  const std::string id = job->record.id();
  if (const std::string why = why_not_movable(*job); !why.empty()) return error_for_caller(why);
  if (job->record.part < kWholeGpu) {
    return error_for_caller("job " + id + " has " + part_text(job->record.part) +
                            " of a GPU, and that for its life; `tide resize` is for jobs with several virtual GPUs");
  }
  if (gpus < job->record.min_gpus || gpus > job->record.gpus) {
    return error_for_caller(format("job %s can have %u to %u physical GPUs (its --min and -g), not %u", id.c_str(),
                                   job->record.min_gpus, job->record.gpus, gpus));
  }
  if (const std::string why = why_not_so_many(*job, gpus); !why.empty()) return error_for_caller(why);
  const JobRecord before = job->record;
  job->record.target = gpus == job->record.gpus ? 0 : gpus;
  job->record.pinned = false;
  const Outcome saved = core_.reconciler.save(job);
  if (!saved.ok()) {
    job->record = before;
    return error_for_caller(saved.message());
  }
  for (Vgpu& vgpu : job->vgpus) {
    vgpu.wish = {};
    vgpu.retry_ns = 0;  // somebody asks: do not wait out a backoff
  }
  return core_.reconciler.when_settled(id).then(
      [this, id, gpus, context](MoveTotals totals) mutable -> kj::Promise<void> {
        const Job* now = core_.ledger.by_id(id);
        if (now != nullptr && now->physical_gpus() > gpus) {
          return error_for_caller(
              format("job %s is still on %u GPUs: a server of it does not answer, or is busy with another move; "
                     "it goes to %u when it can (`tide why %s`)",
                     id.c_str(), now->physical_gpus(), gpus, id.c_str()));
        }
        fill_report(context.getResults().initReport(), totals);
        return kj::READY_NOW;
      });
}

kj::Promise<void> PoolService::migrate(MigrateContext context) {
  const auto params = context.getParams();
  const std::string name = params.getJob().cStr();
  const GpuId to{params.getServer().cStr(), params.getGpu()};
  Job* job = core_.ledger.find(name);
  if (job == nullptr || job->ended()) return no_such_job(name);
  const std::string id = job->record.id();
  const Gpu* gpu = core_.ledger.gpu(to);
  if (const std::string why = why_not_movable(*job); !why.empty()) return error_for_caller(why);
  if (gpu == nullptr) return error_for_caller("there is no GPU " + to_text(to) + "; `tide gpus` lists them");
  if (!gpu->healthy || !core_.ledger.server(to.server)->online)
    return error_for_caller("GPU " + to_text(to) + " is not usable now");
  if (core_.ledger.is_draining(to.server)) {
    return error_for_caller("server " + to.server + " is being drained, so it takes nothing; `tide undrain " +
                            to.server + "` ends that");
  }
  if (params.getVgpu() >= int32_t(job->vgpus.size())) {
    return error_for_caller(format("job %s has virtual GPUs 0 to %zu", id.c_str(), job->vgpus.size() - 1));
  }
  if (const std::string why = why_no_room(core_.ledger, to, *job); !why.empty()) return error_for_caller(why);
  std::set<GpuId> after;
  uint64_t there = 0;
  for (size_t v = 0; v < job->vgpus.size(); ++v) {
    const bool goes = params.getVgpu() < 0 || size_t(params.getVgpu()) == v;
    after.insert(goes ? to : job->vgpus[v].at);
    there += goes || job->vgpus[v].at == to ? 1 : 0;
  }
  if (const std::string why = why_not_there(core_.ledger, *job, after); !why.empty()) return error_for_caller(why);
  if (after.size() < job->record.min_gpus) {
    return error_for_caller(format("job %s must keep %u physical GPUs (--min)", id.c_str(), job->record.min_gpus));
  }
  if (const std::string why = why_not_so_many(*job, uint32_t(after.size())); !why.empty()) return error_for_caller(why);
  if (job->record.memory_given != 0 && there * job->record.memory_given > gpu->memory_bytes) {
    return error_for_caller(
        format("%lu virtual GPUs of job %s do not fit into the memory of ", (unsigned long)there, id.c_str()) +
        to_text(to));
  }
  job->record.pinned = true;
  job->record.target = after.size() == job->record.gpus ? 0 : uint32_t(after.size());
  (void)core_.reconciler.save(job);
  for (size_t v = 0; v < job->vgpus.size(); ++v) {
    job->vgpus[v].retry_ns = 0;
    job->vgpus[v].wish = params.getVgpu() < 0 || size_t(params.getVgpu()) == v ? to : GpuId();
  }
  return core_.reconciler.when_settled(id).then(
      [context](MoveTotals totals) mutable { fill_report(context.getResults().initReport(), totals); });
}

kj::Promise<void> PoolService::kill(KillContext context) {
  if (core_.refuses()) return error_for_caller(not_the_leader(core_.leader()));
  const std::string name = context.getParams().getJob().cStr();
  Job* job = core_.ledger.find(name);
  if (job == nullptr || job->ended()) return no_such_job(name);
  core_.reconciler.end_job(job, "killed by `tide kill`", -1);
  return kj::READY_NOW;
}

kj::Promise<void> PoolService::queues(QueuesContext context) {
  const std::vector<QueueState> queues = states_of(core_.ledger.queues, core_.reconciler.look());
  auto list = context.getResults().initQueues(uint32_t(queues.size()));
  for (uint32_t i = 0; i < list.size(); ++i) fill_queue_info(list[i], queues[i]);
  context.getResults().setHalfLifeMs(core_.ledger.queues.half_life_ms);
  return kj::READY_NOW;
}

kj::Promise<void> PoolService::status(StatusContext context) {
  auto results = context.getResults();
  results.setVersion(TIDE_VERSION);
  results.setPid(uint32_t(getpid()));
  results.setStartedMs(core_.started_ms);
  uint32_t online = 0;
  for (const auto& [name, server] : core_.ledger.servers.read()) online += server.online ? 1 : 0;
  results.setServers(online);
  results.setDoorAddress(core_.doors());
  results.setTurns(to_text(core_.ledger.turns));
  const BooksState books = core_.reconciler.books().state();
  auto history = results.initHistory();
  history.setKept(books.kept);
  history.setPath(books.path);
  history.setProblem(books.problem);
  history.setWaiting(books.waiting);
  history.setLost(books.lost);
  return kj::READY_NOW;
}

kj::Promise<void> PoolService::shutdown(ShutdownContext) {
  core_.stopping = true;
  return core_.reconciler.end_all("the pool was stopped", kStopMs).then([this] {
    if (core_.quit) core_.quit();
  });
}

kj::Promise<void> PoolService::suspend(SuspendContext context) {
  const std::string name = context.getParams().getJob().cStr();
  Job* job = core_.ledger.find(name);
  if (job == nullptr || job->ended()) return no_such_job(name);
  const std::string id = job->record.id();
  if (!job->started) {
    return error_for_caller("job " + id + " has not started, so it holds no GPU; `tide kill " + id + "` ends it");
  }
  const Outcome noted = core_.reconciler.suspend(job);
  if (!noted.ok()) return error_for_caller(noted.message());
  return core_.reconciler.when_settled(id).then([this, id, context](MoveTotals totals) mutable -> kj::Promise<void> {
    const Job* now = core_.ledger.by_id(id);
    if (now == nullptr || !now->record.suspended || now->admitted()) {
      return error_for_caller("job " + id + " is not suspended; `tide why " + id + "` says what it does");
    }
    fill_report(context.getResults().initReport(), totals);
    return kj::READY_NOW;
  });
}

kj::Promise<void> PoolService::resume(ResumeContext context) {
  const std::string name = context.getParams().getJob().cStr();
  Job* job = core_.ledger.find(name);
  if (job == nullptr || job->ended()) return no_such_job(name);
  const std::string id = job->record.id();
  if (!job->started) return error_for_caller(why_not_movable(*job));
  const Outcome noted = core_.reconciler.resume(job);
  if (!noted.ok()) return error_for_caller(noted.message());
  return core_.reconciler.when_settled(id).then([this, id, context](MoveTotals totals) mutable -> kj::Promise<void> {
    Job* now = core_.ledger.by_id(id);
    if (now == nullptr || now->record.suspended) return error_for_caller("job " + id + " was suspended again");
    const auto on_gpu = [](const Vgpu& vgpu) { return vgpu.at.on_gpu(); };
    if (!now->admitted()) {
      core_.reconciler.note_reason(now);
      context.getResults().setQueued(now->record.reason);
    } else if (!std::all_of(now->vgpus.begin(), now->vgpus.end(), on_gpu)) {
      return error_for_caller("job " + id + " runs again when a server of it answers (`tide why " + id + "`)");
    }
    fill_report(context.getResults().initReport(), totals);
    return kj::READY_NOW;
  });
}

}  // namespace tide::sched
