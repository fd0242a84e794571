#include "scheduler/drains.h"

#include <algorithm>

#include "base/log.h"
#include "scheduler/spread.h"

namespace tide::sched {
namespace {

// GPUs elsewhere that the job may have: of those that are in use, and of those that are not.
struct Elsewhere {
  uint32_t usable = 0, free = 0, others = 0;  // `others`: healthy, and without what the job requires
};

Elsewhere look_elsewhere(const State& state, const JobView& job) {
  std::set<GpuId> busy;
  for (const JobView& each : state.jobs) {
    if (each.id != job.id && each.running) busy.insert(each.places.begin(), each.places.end());
  }
  Elsewhere found;
  for (const GpuView& gpu : state.gpus) {
    if (!gpu.online || !gpu.healthy) continue;
    if (!may_use(job, gpu)) {
      ++found.others;
      continue;
    }
    ++found.usable;
    found.free += busy.count(gpu.id) == 0 ? 1 : 0;
  }
  return found;
}

const JobView* view_in(const State& state, const std::string& id) {
  for (const JobView& job : state.jobs) {
    if (job.id == id) return &job;
  }
  return nullptr;
}

class Looker {
 public:
  Looker(const Ledger& ledger, const State& state, const Assignment& wanted, const std::string& server)
      : ledger_(ledger), state_(state), wanted_(wanted), server_(server) {
    const auto found = ledger.servers.find(server);
    answers_ = found != ledger.servers.end() && found->second.online;
    for (const auto& [name, each] : ledger.servers) others_ |= each.online && !ledger.is_draining(name);
  }

  void look_at(const Job& job, std::vector<Left>* left) const {
    Left gpu{.job = job.record.id(), .kind = LeftKind::kGpu, .vgpus = {}};
    Left parked{.job = job.record.id(), .kind = LeftKind::kParked, .vgpus = {}};
    Left guard{.job = job.record.id(), .kind = LeftKind::kGuard, .vgpus = {}};
    for (uint32_t v = 0; v < job.vgpus.size(); ++v) {
      const Vgpu& vgpu = job.vgpus[v];
      const GpuId& place = vgpu.at.server == server_ ? vgpu.at : vgpu.to;
      if (place.server == server_) (place.parked() ? parked : gpu).vgpus.push_back(v);
      if (vgpu.protection.guard.server == server_) guard.vgpus.push_back(v);
    }
    if (!gpu.vgpus.empty()) say_gpu(job, &gpu), left->push_back(gpu);
    if (!parked.vgpus.empty()) say_parked(job, &parked), left->push_back(parked);
    if (!guard.vgpus.empty()) say_guard(job, &guard), left->push_back(guard);
  }

 private:
  void stays(Left* left, std::string reason, std::string next) const {
    left->doing = LeftDoing::kStays;
    left->reason = std::move(reason);
    left->next = std::move(next);
  }
  // What holds for all kinds. False: it does not.
  bool say_common(const Job& job, Left* left) const {
    if (!answers_) {
      stays(left, "server " + server_ + " does not answer",
            "start its agent again; when it has been silent for 15 s, what is on it counts as lost");
      return true;
    }
    if (job.ended()) left->reason = "the job has ended, and leaves now";
    return job.ended();
  }
  bool moves_away(const Vgpu& vgpu) const {
    return vgpu.doing != Doing::kNothing && (vgpu.to.none() || vgpu.to.server != server_);
  }
  // Whether the last attempt failed.
  static bool failed(const Job& job, const Left& left) {
    return !job.problem.empty() &&
           std::any_of(left.vgpus.begin(), left.vgpus.end(), [&](uint32_t v) { return job.vgpus[v].failures != 0; });
  }
  void say_attempt(const Job& job, Left* left) const {
    if (!failed(job, *left)) return;
    left->doing = LeftDoing::kRetries;
    left->reason = job.problem;
    left->next = "it is tried again by itself; `tide suspend " + left->job +
                 "` may be possible where a move is not, `tide kill " + left->job + "` always is";
  }

  void say_gpu(const Job& job, Left* left) const {
    if (say_common(job, left)) return;
    const auto decision = wanted_.find(left->job);
    const auto leaves = [&](uint32_t v) {
      if (moves_away(job.vgpus[v]) || job.being_suspended()) return true;
      if (decision == wanted_.end() || v >= decision->second.places.size()) return false;
      return !decision->second.running || decision->second.places[v].server != server_;
    };
    if (std::all_of(left->vgpus.begin(), left->vgpus.end(), leaves)) return say_attempt(job, left);
    const JobView* view = view_in(state_, left->job);
    if (view != nullptr) say_no_room(*view, left);
  }

  void say_no_room(const JobView& view, Left* left) const {
    for (const GpuId& place : view.places) {
      const auto found = ledger_.servers.find(place.server);
      if (place.none() || (found != ledger_.servers.end() && found->second.online)) continue;
      return stays(left, "server " + place.server + ", where another virtual GPU of it is, does not answer",
                   "nothing of the job moves until that server is back, or given up after 15 s");
    }
    const uint32_t needs = std::min(std::max(view.min_gpus, gpus_for_memory(state_, view)), view.vgpus);
    const Elsewhere found = look_elsewhere(state_, view);
    const std::string needs_text =
        view.is_partial() ? "it needs a part of a GPU" : format("it needs %u GPU%s", needs, needs == 1 ? "" : "s");
    const std::string requires_text = view.require.any() ? " (" + to_text(view.require) + ")" : "";
    std::string there =
        format("; on servers that take jobs there %s %u", found.usable == 1 ? "is" : "are", found.usable);
    if (found.usable != 0) there += format(", %u of them free", found.free);
    if (found.usable == 0 && found.others != 0) there += format(" such (and %u others)", found.others);
    stays(left, needs_text + requires_text + there,
          "it leaves by itself when there is room; `tide suspend " + left->job +
              "` takes it off its GPUs now, `tide kill " + left->job +
              "` ends it, `tide undrain` of a server makes room");
  }

  void say_parked(const Job& job, Left* left) const {
    if (say_common(job, left) || job.admitted()) return;
    if (!others_) {
      return stays(left, "it is kept here without a GPU, and there is no other server that could keep it",
                   "add a server, or `tide undrain` one; `tide kill " + left->job + "` ends it");
    }
    say_attempt(job, left);
  }

  void say_guard(const Job& job, Left* left) const {
    if (say_common(job, left)) return;
    if (!others_) {
      return stays(left, "its checkpoint is here, and there is no other server for it",
                   "add a server, or `tide undrain` one; without it the job runs on, and has no checkpoint");
    }
    const bool away =
        std::any_of(left->vgpus.begin(), left->vgpus.end(), [&](uint32_t v) { return !job.vgpus[v].at.on_gpu(); });
    if (!away && !job.record.suspended) return;
    stays(left, "its last checkpoint is here, and while it is on no GPU there is no newer one",
          "`tide resume " + left->job +
              "` makes one elsewhere; if the server is stopped before, only this checkpoint is lost");
  }

  const Ledger& ledger_;
  const State& state_;
  const Assignment& wanted_;
  const std::string& server_;
  bool answers_ = false, others_ = false;
};

}  // namespace

std::vector<Left> left_on(const Ledger& ledger, const State& state, const Assignment& wanted,
                          const std::string& server) {
  const Looker looker(ledger, state, wanted, server);
  std::vector<Left> left;
  for (const auto& [number, job] : ledger.jobs) looker.look_at(job, &left);
  return left;
}

}  // namespace tide::sched
