#include "scheduler/plan.h"

#include <algorithm>
#include <set>

namespace tide::sched {
namespace {

using Occupants = std::map<GpuId, std::map<std::string, int>>;  // GPU -> job -> its vGPUs there, coming or going

Occupants occupants_of(const std::vector<Present>& present) {
  Occupants occupants;
  for (const Present& p : present) {
    if (p.at.on_gpu()) ++occupants[p.at][p.job];
    if (p.to.on_gpu() && p.to != p.at) ++occupants[p.to][p.job];
  }
  return occupants;
}

bool free_for(const Occupants& occupants, const GpuId& gpu, const std::string& job) {
  const auto found = occupants.find(gpu);
  if (found == occupants.end()) return true;
  return std::all_of(found->second.begin(), found->second.end(), [&](const auto& o) { return o.first == job; });
}

Action::Kind kind_of(const GpuId& from, const GpuId& to) {
  if (to.none()) return Action::Kind::kRelease;
  return from.none() ? Action::Kind::kPlace : Action::Kind::kMove;
}

// Releases first, since they make room; then moves, those onto GPUs that are free for the job before the others, and
// those of parked vGPUs before all: a vGPU that is to stop for a move may be waiting for one that is parked; then
// places.
int rank(const Action& action, const Occupants& occupants) {
  const bool room = action.to.none() || free_for(occupants, action.to, action.job);
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

std::vector<Action> plan(const std::vector<Present>& present, const Assignment& wanted) {
  const Occupants occupants = occupants_of(present);
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
  std::stable_sort(actions.begin(), actions.end(),
                   [&](const Action& a, const Action& b) { return rank(a, occupants) < rank(b, occupants); });
  for (Action& action : actions) {
    action.ready = action.kind == Action::Kind::kRelease || free_for(occupants, action.to, action.job);
    if (action.kind != Action::Kind::kMove || !action.ready) continue;
    action.ready = moving.insert(action.job).second;
  }
  return actions;
}

}  // namespace tide::sched
