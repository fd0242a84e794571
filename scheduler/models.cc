#include "scheduler/models.h"

#include <algorithm>
#include <map>
#include <optional>

#include "base/log.h"
#include "scheduler/queues.h"
#include "scheduler/spread.h"

namespace tide::sched {
namespace {

using GpuIds = std::set<GpuId>;

bool usable(const GpuView& gpu) { return gpu.online && gpu.healthy; }
bool waits(const JobView& job) { return !job.running && !job.suspended; }

bool is_of(const GpuView& gpu, const std::string& model) {
  return gpu.traits != nullptr && is_model(gpu.traits->model, model);
}

GpuIds gpus_of(const JobView& job) {
  GpuIds on(job.keeps);
  for (const GpuId& place : job.places) {
    if (place.on_gpu()) on.insert(place);
  }
  return on;
}

std::vector<int32_t> up_from(const QueueTree& tree, int32_t leaf) {
  std::vector<int32_t> chain;
  const bool there = leaf >= 0 && size_t(leaf) < tree.queues.size();
  for (int32_t at = there ? leaf : kNoQueue; at != kNoQueue; at = tree.queues[size_t(at)].parent) chain.push_back(at);
  return chain;
}

bool is_below(const QueueTree& tree, int32_t leaf, int32_t queue) {
  const std::vector<int32_t> chain = up_from(tree, leaf);
  return std::find(chain.begin(), chain.end(), queue) != chain.end();
}

int64_t least_of(const State& state, const JobView& job) {
  return job.is_partial() ? 1 : needed_by(state, job) / kWholeGpu;
}

std::string gpus_text(int64_t count) { return format("%ld GPU%s", long(count), count == 1 ? "" : "s"); }

// A quota that a job may run within: the one nearest to it, of a model that it requires.
struct Quota {
  int32_t queue = kNoQueue;
  std::string model;
  int64_t gpus = 0;
};

Quota quota_of(const QueueTree& tree, const JobView& job) {
  if (job.require.model.empty() || job.is_partial()) return {};
  for (const int32_t queue : up_from(tree, job.queue)) {
    for (const ModelQuota& each : tree.queues[size_t(queue)].models) {
      if (each.quota != 0 && is_model(job.require.model, each.model)) return {queue, each.model, each.quota};
    }
  }
  return {};
}

class Barring {
 public:
  explicit Barring(State* state) : state_(*state), tree_(state->queues), barred_(state->jobs.size()) {
    for (const GpuView& gpu : state_.gpus) {
      if (usable(gpu)) usable_[gpu.id] = &gpu;
    }
    for (size_t i = 0; i < state_.jobs.size(); ++i) {
      for (const GpuId& gpu : gpus_of(state_.jobs[i])) on_[gpu].push_back(i);
    }
  }

  KeptGpus run() {
    protect();
    std::vector<size_t> waiting;
    for (size_t i = 0; i < state_.jobs.size(); ++i) {
      const bool looks = waits(state_.jobs[i]) || missing_of(state_.jobs[i]) > 0;
      if (looks && quota_of(tree_, state_.jobs[i]).gpus != 0) waiting.push_back(i);
    }
    std::stable_sort(waiting.begin(), waiting.end(),
                     [&](size_t a, size_t b) { return state_.jobs[a].priority > state_.jobs[b].priority; });
    for (const size_t i : waiting) keep_for(i);
    for (int32_t queue = 0; queue < int32_t(tree_.queues.size()); ++queue) {
      for (const ModelQuota& each : tree_.queues[size_t(queue)].models) {
        if (each.limit) limit(queue, each);
      }
    }
    for (size_t i = 0; i < barred_.size(); ++i) {
      // Who is being suspended has what it has until it has left.
      const bool leaves = state_.jobs[i].suspended && state_.jobs[i].running;
      if (!barred_[i].empty() && !leaves) state_.jobs[i].barred = std::make_shared<const GpuIds>(std::move(barred_[i]));
    }
    return std::move(kept_);
  }

 private:
  // Those that run and require a model, as far as a quota goes, the oldest first: nothing is taken from them.
  void protect() {
    for (JobView& job : state_.jobs) {
      const Quota quota = quota_of(tree_, job);
      if (quota.gpus == 0 || !job.running || job.suspended) continue;
      int64_t& used = used_[{quota.queue, quota.model}];
      const int64_t has = std::max<int64_t>(int64_t(gpus_of(job).size()), least_of(state_, job));
      if (used + least_of(state_, job) <= quota.gpus) {
        job.preemptible = false;
        protected_.insert(&job);
      }
      used += has;
    }
  }

  // Of one that has begun, and that others are still leaving GPUs for.
  int64_t missing_of(const JobView& job) const {
    return job.running && !job.suspended ? least_of(state_, job) - int64_t(gpus_of(job).size()) : 0;
  }

  bool within_limits(const JobView& job, int64_t need) const {
    const QueueShares shares = fair_shares(tree_, loads_of(state_), 0);
    if (headroom(tree_, shares, job.queue) < need * kWholeGpu) return false;
    for (const int32_t queue : up_from(tree_, job.queue)) {
      for (const ModelQuota& each : tree_.queues[size_t(queue)].models) {
        const bool counts = each.limit && is_model(job.require.model, each.model);
        if (counts && held_of(state_, queue, each.model) + need > int64_t(*each.limit)) return false;
      }
    }
    return true;
  }

  void keep_for(size_t index) {
    JobView& job = state_.jobs[index];
    const Quota quota = quota_of(tree_, job);
    const int64_t need = job.running ? missing_of(job) : least_of(state_, job);
    int64_t& used = used_[{quota.queue, quota.model}];
    if (!job.running && (used + need > quota.gpus || !within_limits(job, need))) return;
    if (job.running && !is_protected(job)) return;
    std::map<std::string, std::vector<GpuId>> groups;
    for (const auto& [id, gpu] : usable_) {
      const bool open = kept_.count(id) == 0 && gpus_of(job).count(id) == 0 && capacity(job, *gpu) > 0 &&
                        job.failed_on.count(id.server) == 0;
      if (open) groups[group_of(job, *gpu)].push_back(id);
    }
    for (const auto& [name, group] : groups) {
      const GpuIds chosen = choose(job, group, need);
      if (chosen.empty()) continue;
      used += job.running ? 0 : need;
      for (const GpuId& gpu : chosen) kept_[gpu] = job.id;
      job.entitled = true;
      for (size_t i = 0; i < barred_.size(); ++i) {
        if (i != index) barred_[i].insert(chosen.begin(), chosen.end());
      }
      return;
    }
  }

  // `need` of these, on which it can lie; none where it cannot be so.
  GpuIds choose(const JobView& job, const std::vector<GpuId>& group, int64_t need) const {
    std::vector<std::pair<std::pair<int, int64_t>, GpuId>> ranked;
    std::vector<const GpuView*> elsewhere;
    for (const auto& [id, gpu] : usable_) {
      if (on_.count(id) == 0 && kept_.count(id) == 0 && !may_use(job, *gpu)) elsewhere.push_back(gpu);
    }
    std::map<size_t, int64_t> surplus;
    for (auto id = group.rbegin(); id != group.rend(); ++id) {
      if (const auto rank = rank_of(*id, &elsewhere, &surplus)) ranked.emplace_back(*rank, *id);
    }
    std::stable_sort(ranked.begin(), ranked.end());
    GpuIds chosen;
    uint64_t room = 0;
    for (size_t i = 0; i < ranked.size() && int64_t(chosen.size()) < need; ++i) {
      chosen.insert(ranked[i].second);
      room += capacity(job, *usable_.at(ranked[i].second));
    }
    for (const GpuId& gpu : gpus_of(job)) room += usable_.count(gpu) != 0 ? capacity(job, *usable_.at(gpu)) : 0;
    return int64_t(chosen.size()) == need && room >= job.vgpus ? chosen : GpuIds();
  }

  // How little it disturbs to keep it; nothing: it cannot be had.
  std::optional<std::pair<int, int64_t>> rank_of(const GpuId& id, std::vector<const GpuView*>* elsewhere,
                                                 std::map<size_t, int64_t>* surplus) const {
    const auto found = on_.find(id);
    if (found == on_.end()) return std::pair(0, int64_t(0));
    bool left = true, may = true;
    size_t newest = SIZE_MAX;
    for (const size_t i : found->second) {
      const JobView& job = state_.jobs[i];
      left &= job.suspended;
      may &= job.suspended || (job.running && job.preemptible && !is_protected(job));
      newest = std::min(newest, i);
    }
    if (left) return std::pair(1, int64_t(0));
    const JobView& job = state_.jobs[newest];
    const bool alone = found->second.size() == 1 && job.running && !is_protected(job);
    const auto to = alone && may ? std::find_if(elsewhere->begin(), elsewhere->end(),
                                                [&](const GpuView* gpu) { return capacity(job, *gpu) > 0; })
                                 : elsewhere->end();
    if (to != elsewhere->end()) {
      elsewhere->erase(to);
      return std::pair(2, -int64_t(newest));
    }
    if (alone && !job.is_partial()) {
      const auto [more, fresh] = surplus->try_emplace(newest, 0);
      if (fresh) more->second = int64_t(gpus_of(job).size()) - least_of(state_, job);
      if (more->second-- > 0) return std::pair(3, -int64_t(newest));
    }
    if (!may) return std::nullopt;
    return std::pair(4, -int64_t(newest));
  }

  bool is_protected(const JobView& job) const { return protected_.count(&job) != 0; }

  // Which GPUs of the model the queue may have: as many as its limit, those first that its jobs are on.
  void limit(int32_t queue, const ModelQuota& model) {
    std::vector<std::pair<int, GpuId>> ranked;
    for (const auto& [id, gpu] : usable_) {
      if (is_of(*gpu, model.model)) ranked.emplace_back(rank_for(queue, id), id);
    }
    std::stable_sort(ranked.begin(), ranked.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    for (size_t r = *model.limit; r < ranked.size(); ++r) {
      for (size_t i = 0; i < barred_.size(); ++i) {
        const bool below = is_below(tree_, state_.jobs[i].queue, queue);
        if (below && !needs(i, ranked[r].second)) barred_[i].insert(ranked[r].second);
      }
    }
  }

  // Whether it is on it, and could not keep its minimum without: who had it when the limit came stays.
  bool needs(size_t i, const GpuId& gpu) const {
    const GpuIds on = gpus_of(state_.jobs[i]);
    const auto keeps = [&](const GpuId& each) { return barred_[i].count(each) == 0; };
    return on.count(gpu) != 0 && std::count_if(on.begin(), on.end(), keeps) <= least_of(state_, state_.jobs[i]);
  }

  // Those that are closed to all of it by the limit of a queue above are no use.
  int rank_for(int32_t queue, const GpuId& id) const {
    bool closed = true, ours = false;
    for (size_t i = 0; i < barred_.size(); ++i) {
      if (!is_below(tree_, state_.jobs[i].queue, queue)) continue;
      closed &= barred_[i].count(id) != 0;
      ours |= state_.jobs[i].entitled && barred_[i].count(id) == 0 && kept_.count(id) != 0;
    }
    const auto found = on_.find(id);
    const bool held = found != on_.end() && std::any_of(found->second.begin(), found->second.end(), [&](size_t i) {
                        return is_below(tree_, state_.jobs[i].queue, queue);
                      });
    return held ? 0 : ours ? 1 : closed ? 4 : found == on_.end() ? 2 : 3;
  }

  State& state_;
  const QueueTree& tree_;
  std::vector<GpuIds> barred_;  // by job
  std::map<GpuId, const GpuView*> usable_;
  std::map<GpuId, std::vector<size_t>> on_;
  KeptGpus kept_;
  std::map<std::pair<int32_t, std::string>, int64_t> used_;  // of quotas
  std::set<const JobView*> protected_;
};

}  // namespace

bool has_models(const QueueTree& tree) {
  return std::any_of(tree.queues.begin(), tree.queues.end(), [](const Queue& queue) { return !queue.models.empty(); });
}

KeptGpus bar_by_model(State* state) { return Barring(state).run(); }

void displace_by_model(const State& barred, const KeptGpus& kept, Assignment* answer) {
  if (kept.empty()) return;
  GpuIds online;
  for (const GpuView& gpu : barred.gpus) {
    if (gpu.online) online.insert(gpu.id);
  }
  for (const JobView& job : barred.jobs) {
    Decision& decision = answer->at(job.id);
    if (!job.running || job.suspended || !decision.running || !job.preemptible) continue;
    std::string by;
    bool all_there = true;
    for (const GpuId& place : decision.places) {
      const auto found = kept.find(place);
      if (found != kept.end()) by = found->second;
      all_there &= !place.on_gpu() || online.count(place) != 0;
    }
    if (by.empty() || by == job.id || !all_there) continue;
    decision = {.running = false,
                .reason = "gives its GPUs to job " + by + ", whose queue has a quota of their model",
                .places = job.places};
  }
}

int64_t held_of(const State& state, int32_t queue, const std::string& model) {
  GpuIds held;
  for (const JobView& job : state.jobs) {
    if (is_below(state.queues, job.queue, queue)) held.merge(gpus_of(job));
  }
  return std::count_if(state.gpus.begin(), state.gpus.end(),
                       [&](const GpuView& gpu) { return held.count(gpu.id) != 0 && is_of(gpu, model); });
}

int64_t there_of(const State& state, const std::string& model) {
  return std::count_if(state.gpus.begin(), state.gpus.end(),
                       [&](const GpuView& gpu) { return usable(gpu) && is_of(gpu, model); });
}

std::string why_barred(const State& state, const JobView& job) {
  const int64_t need = least_of(state, job);
  for (const int32_t queue : up_from(state.queues, job.queue)) {
    for (const ModelQuota& each : state.queues.queues[size_t(queue)].models) {
      if (!each.limit) continue;
      int64_t others = 0;  // GPUs that it could use, and that are not of this model
      for (const GpuView& gpu : state.gpus) others += usable(gpu) && may_use(job, gpu) && !is_of(gpu, each.model);
      const int64_t held = held_of(state, queue, each.model);
      if (others >= need || held + need - others <= int64_t(*each.limit)) continue;
      return "queue '" + state.queues.queues[size_t(queue)].name + "' has a limit of " + gpus_text(*each.limit) +
             " of model " + each.model + format(" and is on %ld", long(held)) + "; it needs " + gpus_text(need) +
             (others > 0 ? format(", and %ld of other models are there for it", long(others)) : "");
    }
  }
  return "";
}

std::string why_never_by_model(const QueueTree& tree, int32_t leaf, const State& state, const JobView& job,
                               bool min_given) {
  const int64_t asked = job.is_partial() ? 1 : min_given ? job.min_gpus : job.vgpus;
  for (const int32_t queue : up_from(tree, leaf)) {
    for (const ModelQuota& each : tree.queues[size_t(queue)].models) {
      if (!each.limit || asked <= int64_t(*each.limit)) continue;
      int64_t others = 0;
      for (const GpuView& gpu : state.gpus) others += may_use(job, gpu) && !is_of(gpu, each.model) ? 1 : 0;
      if (asked <= others + int64_t(*each.limit)) continue;
      return "queue '" + tree.queues[size_t(queue)].name + "' has a limit of " + gpus_text(*each.limit) + " of model " +
             each.model + (others > 0 ? format(", and the pool has %ld others for it", long(others)) : "") +
             format("; %s %ld asks for more", min_given ? "--min" : "-g", long(asked)) +
             (min_given || job.is_partial() ? "" : "; --min lets virtual GPUs share fewer");
    }
  }
  return "";
}

}  // namespace tide::sched
