#include "scheduler/plan.h"

#include <algorithm>
#include <set>

#include "scheduler/room.h"

namespace tide::sched {
namespace {

// What may be done, before it is said in full.
struct Step {
  const Present* of;
  const GpuId* to;
  Action::Kind kind;
  int rank = 0;
};

// Who is on each GPU that somebody is to get, comes or goes.
class Occupants {
 public:
  Occupants(const std::vector<Present>& present, const std::vector<Step>& steps, const MemoryOf& memory_of)
      : memory_of_(memory_of) {
    for (const Step& step : steps) {
      if (step.to->on_gpu()) gpus_.push_back(step.to);
    }
    const auto less = [](const GpuId* a, const GpuId* b) { return *a < *b; };
    const auto same = [](const GpuId* a, const GpuId* b) { return *a == *b; };
    if (!std::is_sorted(gpus_.begin(), gpus_.end(), less)) std::sort(gpus_.begin(), gpus_.end(), less);
    gpus_.erase(std::unique(gpus_.begin(), gpus_.end(), same), gpus_.end());
    jobs_.resize(gpus_.size());
    for (const Present& p : present) {
      add(p.at, p);
      add(p.to, p);
    }
  }
  void add(const GpuId& gpu, const Present& who) {
    const size_t at = gpu.on_gpu() ? find(gpu) : gpus_.size();
    if (at == gpus_.size()) return;
    const auto is_it = [&](const Present* other) { return other->job == who.job; };
    if (std::none_of(jobs_[at].begin(), jobs_[at].end(), is_it)) jobs_[at].push_back(&who);
  }
  bool free_for(const GpuId& gpu, const Present& who) const {
    if (!gpu.on_gpu()) return true;
    const auto& there = jobs_[find(gpu)];
    if (there.empty() || (there.size() == 1 && there[0]->job == who.job)) return true;
    Room room(gpu, memory_of_ ? memory_of_(gpu) : UINT64_MAX);
    for (const Present* other : there) {
      if (other->job != who.job) room.take(other->portion);
    }
    return room.fits(who.portion);
  }

 private:
  size_t find(const GpuId& gpu) const {
    const auto less = [](const GpuId* a, const GpuId& b) { return *a < b; };
    const auto at = std::lower_bound(gpus_.begin(), gpus_.end(), gpu, less);
    return at == gpus_.end() || **at != gpu ? gpus_.size() : size_t(at - gpus_.begin());
  }

  const MemoryOf& memory_of_;
  std::vector<const GpuId*> gpus_;                 // sorted
  std::vector<std::vector<const Present*>> jobs_;  // of each, one vGPU of each of them
};

Action::Kind kind_of(const GpuId& from, const GpuId& to) {
  if (to.none()) return Action::Kind::kRelease;
  return from.none() ? Action::Kind::kPlace : Action::Kind::kMove;
}

// Releases first, since they make room; then moves, those onto GPUs that are free for the job before the others, and
// those of parked vGPUs before all: a vGPU that is to stop for a move may be waiting for one that is parked; then
// places.
int rank(const Step& step, const Occupants& occupants) {
  const bool room = occupants.free_for(*step.to, *step.of);
  switch (step.kind) {
    case Action::Kind::kRelease:
      return 0;
    case Action::Kind::kMove:
      return room ? (step.of->at.parked() ? 1 : 2) : 3;
    case Action::Kind::kPlace:
      return room ? 4 : 5;
  }
  return 5;
}

std::vector<Step> steps_of(const std::vector<Present>& present, const Assignment& wanted) {
  static const GpuId kNowhere;
  std::vector<Step> steps;
  const std::string* job = nullptr;
  const Decision* decision = nullptr;  // of that job
  for (const Present& p : present) {
    if (p.doing != Doing::kNothing || p.held_back) continue;
    if (job == nullptr || *job != p.job) {
      const auto found = wanted.find(p.job);
      job = &p.job;
      decision = found == wanted.end() ? nullptr : &found->second;
    }
    const GpuId* to = &p.at;
    if (p.leaving) {
      to = &kNowhere;
    } else if (decision != nullptr && decision->running && p.vgpu < decision->places.size()) {
      to = &decision->places[p.vgpu];
    }
    if (*to != p.at) steps.push_back({&p, to, kind_of(p.at, *to)});
  }
  return steps;
}

}  // namespace

std::string to_text(const Action& action) {
  const std::string vgpu = action.job + ":" + std::to_string(action.vgpu);
  switch (action.kind) {
    case Action::Kind::kPlace:
      return "place " + vgpu + " on " + to_text(action.to);
    case Action::Kind::kRelease:
      return "release " + vgpu + " from " + to_text(action.from);
    case Action::Kind::kMove:
      return "move " + vgpu + " from " + to_text(action.from) + " to " + to_text(action.to);
  }
  return "";
}

std::vector<Action> plan(const std::vector<Present>& present, const Assignment& wanted, const MemoryOf& memory_of) {
  std::vector<Step> steps = steps_of(present, wanted);
  std::vector<Action> actions;
  if (steps.empty()) return actions;
  Occupants occupants(present, steps, memory_of);
  std::set<std::string> moving;
  for (const Present& p : present) {
    if (p.doing == Doing::kMoving) moving.insert(p.job);
  }
  for (Step& step : steps) step.rank = rank(step, occupants);
  const auto before = [](const Step& a, const Step& b) { return a.rank < b.rank; };
  if (!std::is_sorted(steps.begin(), steps.end(), before)) std::stable_sort(steps.begin(), steps.end(), before);
  actions.reserve(steps.size());
  for (const auto& [of, to, kind, rank] : steps) {
    Action& action = actions.emplace_back(Action{kind, of->job, of->vgpu, of->at, *to});
    action.ready = kind == Action::Kind::kRelease || occupants.free_for(*to, *of);
    if (kind == Action::Kind::kMove && action.ready) action.ready = moving.insert(of->job).second;
    if (action.ready) occupants.add(*to, *of);  // what is left of a shared GPU is given once
  }
  return actions;
}

}  // namespace tide::sched
