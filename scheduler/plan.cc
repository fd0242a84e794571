#include "scheduler/plan.h"

#include <algorithm>
#include <set>

#include "scheduler/room.h"

namespace tide::sched {
namespace {

// Who is on each GPU, comes or goes.
class Occupants {
 public:
  Occupants(const std::vector<Present>& present, const std::map<GpuId, uint64_t>& memory) : memory_(memory) {
    for (const Present& p : present) {
      portions_[p.job] = p.portion;
      add(p.at, p.job);
      add(p.to, p.job);
    }
  }
  void add(const GpuId& gpu, const std::string& job) {
    if (gpu.on_gpu()) jobs_[gpu].insert(job);
  }
  bool free_for(const GpuId& gpu, const std::string& job) const {
    const auto found = jobs_.find(gpu);
    if (found == jobs_.end()) return true;
    const auto bytes = memory_.find(gpu);
    Room room(gpu, bytes == memory_.end() ? UINT64_MAX : bytes->second);
    bool alone = true;
    for (const std::string& other : found->second) {
      if (other == job) continue;
      alone = false;
      room.take(portions_.at(other));
    }
    return alone || room.fits(portions_.at(job));
  }

 private:
  const std::map<GpuId, uint64_t>& memory_;
  std::map<std::string, Portion> portions_;  // by job
  std::map<GpuId, std::set<std::string>> jobs_;
};

Action::Kind kind_of(const GpuId& from, const GpuId& to) {
  if (to.none()) return Action::Kind::kRelease;
  return from.none() ? Action::Kind::kPlace : Action::Kind::kMove;
}

// Releases first, since they make room; then moves, those onto GPUs that are free for the job before the others, and
// those of parked vGPUs before all: a vGPU that is to stop for a move may be waiting for one that is parked; then
// places.
int rank(const Action& action, const Occupants& occupants) {
  const bool room = action.to.none() || occupants.free_for(action.to, action.job);
  switch (action.kind) {
    case Action::Kind::kRelease:
      return 0;
    case Action::Kind::kMove:
      return room ? (action.from.parked() ? 1 : 2) : 3;
    case Action::Kind::kPlace:
      return room ? 4 : 5;
  }
  return 5;
}

void sort_by_rank(const Occupants& occupants, std::vector<Action>* actions) {
  std::vector<std::pair<int, size_t>> order;
  for (size_t i = 0; i < actions->size(); ++i) order.emplace_back(rank((*actions)[i], occupants), i);
  if (std::is_sorted(order.begin(), order.end())) return;
  std::sort(order.begin(), order.end());
  std::vector<Action> sorted;
  for (const auto& [rank, i] : order) sorted.push_back(std::move((*actions)[i]));
  *actions = std::move(sorted);
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

std::vector<Action> plan(const std::vector<Present>& present, const Assignment& wanted,
                         const std::map<GpuId, uint64_t>& memory) {
  Occupants occupants(present, memory);
  std::vector<Action> actions;
  std::set<std::string> moving;
  for (const Present& p : present) {
    if (p.doing == Doing::kMoving) moving.insert(p.job);
    if (p.doing != Doing::kNothing || p.held_back) continue;
    const auto decision = wanted.find(p.job);
    GpuId to = p.at;
    if (p.leaving) {
      to = {};
    } else if (decision != wanted.end() && decision->second.running && p.vgpu < decision->second.places.size()) {
      to = decision->second.places[p.vgpu];
    }
    if (to != p.at) actions.push_back({kind_of(p.at, to), p.job, p.vgpu, p.at, to});
  }
  sort_by_rank(occupants, &actions);
  for (Action& action : actions) {
    action.ready = action.kind == Action::Kind::kRelease || occupants.free_for(action.to, action.job);
    if (action.kind == Action::Kind::kMove && action.ready) action.ready = moving.insert(action.job).second;
    if (action.ready) occupants.add(action.to, action.job);  // what is left of a shared GPU is given once
  }
  return actions;
}

}  // namespace tide::sched
