// `tide top`: GPUs, jobs and queues in one answer.

#include <algorithm>

#include "base/clock.h"
#include "scheduler/pool_service.h"
#include "scheduler/remote_error.h"

namespace tide::sched {
namespace {

// What agents have said, by GPU and by job.
struct Load {
  uint64_t bytes = 0;
  uint32_t busy_permille = 0;
};

struct Loads {
  std::map<GpuId, Load> gpus;
  std::map<std::string, Load> jobs;
};

Loads loads_of(const Reconciler::Usages& usages) {
  Loads loads;
  for (const auto& [server, answer] : usages) {
    for (const auto each : answer.getVgpus()) {
      for (Load* load : {&loads.gpus[{server, each.getGpu()}], &loads.jobs[each.getJob().cStr()]}) {
        load->bytes += each.getResidentBytes();
        load->busy_permille += each.getBusyPermille();
      }
    }
  }
  return loads;
}

std::map<GpuId, std::string> holders_of(const Ledger& ledger) {
  std::map<GpuId, std::string> holders;
  for (const auto& [number, job] : ledger.jobs) {
    std::set<GpuId> gpus;
    for (const Vgpu& vgpu : job.vgpus) {
      if (vgpu.at.on_gpu()) gpus.insert(vgpu.at);
    }
    for (const GpuId& gpu : gpus) {
      std::string& text = holders[gpu];
      text += (text.empty() ? "" : ",") + job.record.id();
    }
  }
  return holders;
}

void fill_gpus(const PoolCore& core, const Reconciler::Usages& usages, const Loads& loads,
               control::Pool::TopResults::Builder results) {
  const auto holders = holders_of(core.ledger);
  uint32_t count = 0, i = 0;
  for (const auto& [name, server] : core.ledger.servers) count += uint32_t(server.gpus.size());
  auto list = results.initGpus(count);
  for (const auto& [name, server] : core.ledger.servers) {
    for (const Gpu& gpu : server.gpus) {
      const GpuId id{name, gpu.index};
      auto out = list[i++];
      out.setServer(name);
      out.setGpu(gpu.index);
      out.setModel(gpu.name);
      out.setMemoryBytes(gpu.memory_bytes);
      out.setUsable(server.online && gpu.healthy && !core.ledger.is_draining(name));
      out.setHeard(usages.count(name) != 0);
      if (const auto load = loads.gpus.find(id); load != loads.gpus.end()) {
        out.setUsedBytes(load->second.bytes);
        out.setBusyPermille(std::min(load->second.busy_permille, 1000u));
      }
      if (const auto holder = holders.find(id); holder != holders.end()) out.setJobs(holder->second);
    }
  }
}

void fill_job(const Job& job, const Loads& loads, control::TopJob::Builder out) {
  const JobRecord& record = job.record;
  out.setId(record.id());
  out.setName(record.name);
  out.setQueue(record.queue);
  out.setUser(record.user);
  out.setState(state_of(job));
  out.setVgpus(record.gpus);
  out.setPhysicalGpus(job.physical_gpus());
  out.setPart(record.part);
  out.setSubmittedMs(record.submitted_ms);
  out.setStartedMs(record.started_ms);
  const auto load = loads.jobs.find(record.id());
  if (load == loads.jobs.end()) return;
  out.setUsedBytes(load->second.bytes);
  const uint32_t gpus = std::max(job.physical_gpus(), 1u);
  out.setBusyPermille(std::min(load->second.busy_permille / gpus, 1000u));
}

void fill_jobs(const PoolCore& core, const Loads& loads, uint32_t jobs_max,
               control::Pool::TopResults::Builder results) {
  struct Shown {
    const Job* job;
    control::JobState state;
    uint32_t gpus;
  };
  std::vector<Shown> shown;
  uint32_t counts[4] = {};
  for (const auto& [number, job] : core.ledger.jobs) {
    if (job.ended()) continue;
    const control::JobState state = state_of(job);
    ++counts[uint16_t(state)];
    shown.push_back({&job, state, job.physical_gpus() * job.record.part});
  }
  const auto rank = [](const Shown& each) { return each.state == control::JobState::RUNNING ? 0 : 1; };
  std::stable_sort(shown.begin(), shown.end(), [&](const Shown& a, const Shown& b) {
    return std::pair(rank(a), b.gpus) < std::pair(rank(b), a.gpus);
  });
  shown.resize(std::min<size_t>(shown.size(), jobs_max));
  auto list = results.initJobs(uint32_t(shown.size()));
  for (uint32_t i = 0; i < list.size(); ++i) fill_job(*shown[i].job, loads, list[i]);
  results.setRunning(counts[uint16_t(control::JobState::RUNNING)]);
  results.setSuspended(counts[uint16_t(control::JobState::SUSPENDED)]);
  results.setWaiting(counts[uint16_t(control::JobState::QUEUED)]);
}

}  // namespace

kj::Promise<void> PoolService::top(TopContext context) {
  if (core_.refuses()) return error_for_caller(not_the_leader(core_.leader()));
  const uint32_t jobs_max = std::min(context.getParams().getJobsMax(), kTopJobsMax);
  return core_.reconciler.usage().then(
      [this, jobs_max, context](std::shared_ptr<const Reconciler::Usages> usages) mutable {
        auto results = context.getResults();
        const Loads loads = loads_of(*usages);
        fill_gpus(core_, *usages, loads, results);
        fill_jobs(core_, loads, jobs_max, results);
        const std::vector<QueueState> queues = states_of(core_.ledger.queues, core_.reconciler.look());
        auto list = results.initQueues(uint32_t(queues.size()));
        for (uint32_t i = 0; i < list.size(); ++i) fill_queue_info(list[i], queues[i]);
        results.setNowMs(wall_seconds() * 1000);
      });
}

}  // namespace tide::sched
