#include "scheduler/invariants.h"

#include <algorithm>

#include "base/log.h"
#include "scheduler/room.h"

namespace tide::sched {
namespace {

std::set<GpuId> gpus_of(const std::vector<GpuId>& places) {
  std::set<GpuId> gpus;
  for (const GpuId& place : places) {
    if (place.on_gpu()) gpus.insert(place);
  }
  return gpus;
}

class Checking {
 public:
  Checking(const State& state, const Assignment& assignment) : state_(state), assignment_(assignment) {
    for (const GpuView& gpu : state.gpus) gpus_[gpu.id].view = &gpu;
  }

  std::string run() {
    for (const JobView& job : state_.jobs) {
      const auto found = assignment_.find(job.id);
      if (found == assignment_.end()) return "job " + job.id + " has no decision";
      const std::string wrong = check_job(job, found->second);
      if (!wrong.empty()) return wrong;
    }
    for (const auto& [id, gpu] : gpus_) {
      const std::string wrong = check_gpu(id, gpu);
      if (!wrong.empty()) return wrong;
    }
    return check_queues();
  }

 private:
  struct Load {
    const GpuView* view = nullptr;
    std::vector<const JobView*> jobs;
    uint64_t parts = 0, bytes = 0;
  };

  // What it has from now on: what it is given, or, being suspended, what nobody else may have yet.
  static std::set<GpuId> held_after(const JobView& job, const Decision& decision) {
    std::set<GpuId> held = gpus_of(decision.running ? decision.places : job.places);
    if (!decision.running && !job.running && !job.suspended) held.clear();
    // Who is taken now gives them to whom they are given already, or kept for; they are had when it has left (plan.h).
    if (!decision.running && !job.suspended) held.clear();
    held.insert(job.keeps.begin(), job.keeps.end());
    return held;
  }

  std::string check_job(const JobView& job, const Decision& decision) {
    const char* const id = job.id.c_str();
    if (decision.running && decision.places.size() != job.vgpus)
      return format("job %s has %zu places for %u virtual GPUs", id, decision.places.size(), job.vgpus);
    if (job.suspended && !job.running && decision.running) return format("job %s is suspended, and starts", id);
    const std::set<GpuId> before = gpus_of(job.places);
    const bool same = decision.places == job.places;
    std::set<std::string> groups;
    for (const GpuId& place : gpus_of(decision.running ? decision.places : std::vector<GpuId>())) {
      const auto found = gpus_.find(place);
      if (found == gpus_.end()) {
        if (before.count(place) != 0) continue;
        return format("job %s is to be on GPU %s, which the pool does not have", id, to_text(place).c_str());
      }
      const GpuView& gpu = *found->second.view;
      groups.insert(group_of(job, gpu));
      if (before.count(place) != 0) continue;
      if (!gpu.online || !gpu.healthy)
        return format("job %s gets GPU %s, which is not usable", id, to_text(place).c_str());
      if (!may_use(job, gpu))
        return format("job %s gets GPU %s, which does not meet what it requires", id, to_text(place).c_str());
    }
    if (!same && groups.size() > 1) return format("job %s does not lie together, as it requires", id);
    if (decision.running && !job.running && gpus_of(decision.places).size() < std::min(job.min_gpus, job.vgpus))
      return format("job %s starts on fewer GPUs than its minimum of %u", id, job.min_gpus);
    for (const GpuId& gpu : held_after(job, decision)) load(job, decision, gpu);
    return "";
  }

  void load(const JobView& job, const Decision& decision, const GpuId& gpu) {
    const auto found = gpus_.find(gpu);
    if (found == gpus_.end()) return;
    Load& load = found->second;
    load.jobs.push_back(&job);
    load.parts += job.part;
    const auto& places = decision.running ? decision.places : job.places;
    const auto there = uint64_t(std::max<int64_t>(std::count(places.begin(), places.end(), gpu), 1));
    load.bytes += job.is_partial() ? bytes_on(job.portion(), load.view->memory_bytes)
                                   : (job.memory_given ? there * job.memory_bytes : 0);
  }

  // What lay there before, and too much of it, is no news.
  std::string check_gpu(const GpuId& id, const Load& gpu) const {
    const auto is_new = [&](const JobView* job) {
      const auto& places = job->places;
      return std::find(places.begin(), places.end(), id) == places.end() && job->keeps.count(id) == 0;
    };
    if (std::none_of(gpu.jobs.begin(), gpu.jobs.end(), is_new)) return "";
    if (gpu.parts > kWholeGpu && gpu.jobs.size() > 1)
      return format("GPU %s is given to %zu jobs, %lu thousandths in all", to_text(id).c_str(), gpu.jobs.size(),
                    (unsigned long)gpu.parts);
    if (gpu.bytes > gpu.view->memory_bytes)
      return format("GPU %s has %lu bytes of memory, and quotas of %lu on it", to_text(id).c_str(),
                    (unsigned long)gpu.view->memory_bytes, (unsigned long)gpu.bytes);
    return "";
  }

  int64_t thousandths(const JobView& job, size_t gpus) const { return int64_t(gpus) * job.part; }

  // Its GPUs are its reservation's, and no queue's.
  bool is_reserved(const JobView& job) const {
    return std::any_of(state_.reservations.begin(), state_.reservations.end(), [&](const Reservation& each) {
      return each.name == job.reservation && each.lasts(state_.now_ms);
    });
  }

  std::string check_queues() const {
    const auto& queues = state_.queues.queues;
    std::vector<int64_t> before(queues.size()), after(queues.size());
    for (const JobView& job : state_.jobs) {
      if (is_reserved(job)) continue;
      const Decision& decision = assignment_.at(job.id);
      const int64_t had = thousandths(job, gpus_of(job.places).size());
      const int64_t has = decision.running ? thousandths(job, gpus_of(decision.places).size()) : had;
      for (int32_t at = job.queue; at >= 0 && size_t(at) < queues.size(); at = queues[size_t(at)].parent) {
        before[size_t(at)] += had;
        after[size_t(at)] += has;
      }
    }
    for (size_t i = 0; i < queues.size(); ++i) {
      const int64_t most = queues[i].preemptible ? queues[i].limit : std::min(queues[i].limit, queues[i].quota);
      if (after[i] <= std::max(most, before[i])) continue;
      return format("queue %s gets %ld thousandths of GPUs, and may have %ld", queues[i].name.c_str(), long(after[i]),
                    long(most));
    }
    return "";
  }

  const State& state_;
  const Assignment& assignment_;
  std::map<GpuId, Load> gpus_;
};

}  // namespace

std::string what_is_wrong(const State& state, const Assignment& assignment) {
  return Checking(state, assignment).run();
}

}  // namespace tide::sched
