#include "scheduler/reservations.h"

#include <time.h>

#include <algorithm>
#include <map>

#include "base/log.h"
#include "scheduler/queues.h"
#include "scheduler/spread.h"

namespace tide::sched {
namespace {

bool usable(const GpuView& gpu) { return gpu.online && gpu.healthy; }

const Reservation* find(const State& state, const JobView& job) {
  if (job.reservation.empty()) return nullptr;
  for (const Reservation& each : state.reservations) {
    if (each.name == job.reservation) return &each;
  }
  return nullptr;
}

// The one that lasts and is its own; null: none.
const Reservation* lasting(const State& state, const JobView& job) {
  const Reservation* const own = find(state, job);
  return own != nullptr && own->lasts(state.now_ms) ? own : nullptr;
}

std::set<GpuId> gpus_of(const JobView& job) {
  std::set<GpuId> on(job.keeps);
  for (const GpuId& place : job.places) {
    if (place.on_gpu()) on.insert(place);
  }
  return on;
}

bool waits(const JobView& job) { return !job.running && !job.suspended; }

// False: nothing is taken from its queue's jobs, whatever is true of it at this moment.
bool queue_is_preemptible(const State& state, const JobView& job) {
  const auto& queues = state.queues.queues;
  return job.queue < 0 || size_t(job.queue) >= queues.size() || queues[size_t(job.queue)].preemptible;
}

// Physical GPUs that it cannot run without.
int64_t least_of(const State& state, const JobView& job) {
  return job.is_partial() ? 1 : needed_by(state, job) / kWholeGpu;
}

// Physical GPUs that parts need which are put together as they come.
int64_t gpus_for_parts(std::vector<uint32_t> parts) {
  std::sort(parts.rbegin(), parts.rend());
  std::vector<uint32_t> left;
  for (const uint32_t part : parts) {
    const auto room = std::find_if(left.begin(), left.end(), [&](uint32_t each) { return each >= part; });
    if (room == left.end()) {
      left.push_back(kWholeGpu - part);
    } else {
      *room -= part;
    }
  }
  return int64_t(left.size());
}

// Which GPUs are kept for one reservation.
class Keeping {
 public:
  Keeping(const State& state, const Reservation& reservation, const std::set<GpuId>& gone)
      : state_(state), reservation_(reservation) {
    for (const JobView& job : state.jobs) {
      for (const GpuId& gpu : gpus_of(job)) on_[gpu].push_back(&job);
    }
    for (const GpuView& gpu : state.gpus) {
      if (!usable(gpu) || gone.count(gpu.id) != 0 || is_others(gpu.id)) continue;
      if (is_for(reservation, gpu)) {
        open_.insert(gpu.id);
      } else if (on_.count(gpu.id) == 0) {
        free_elsewhere_.push_back(&gpu);
      }
    }
  }

  std::set<GpuId> choose() {
    const int64_t most = std::min<int64_t>(reservation_.gpus, int64_t(open_.size()));
    const int64_t held = std::count_if(open_.begin(), open_.end(), [&](const GpuId& gpu) { return is_mine(gpu); });
    const int64_t wanted = reservation_.exclusive ? most : std::min(most, std::max(held, demand(most)));
    take_ranked(wanted, [&](const GpuId& gpu) { return is_mine(gpu); });
    take_ranked(wanted, [&](const GpuId& gpu) { return on_.count(gpu) == 0; });
    take_ranked(wanted, [&](const GpuId& gpu) { return is_left(gpu); });
    take_movable(wanted);
    take_surplus(wanted);
    take_from_newest(wanted);
    take_ranked(wanted, [](const GpuId&) { return true; });
    return chosen_;
  }

 private:
  bool is_own(const JobView& job) const { return lasting(state_, job) == &reservation_; }
  bool is_full(int64_t wanted) const { return int64_t(chosen_.size()) >= wanted; }

  void take(const GpuId& gpu) {
    open_.erase(gpu);
    chosen_.insert(gpu);
    ++on_server_[gpu.server];
  }

  // What its jobs want, of those that can run at all.
  int64_t demand(int64_t most) const {
    int64_t whole = 0, least = 0;
    std::vector<uint32_t> parts;
    for (const bool running : {true, false}) {
      for (const JobView& job : state_.jobs) {
        if (!is_own(job) || job.suspended || job.running != running) continue;
        const int64_t need = least_of(state_, job);
        if (!running && !job.is_partial() && least + need > most) continue;
        if (job.is_partial()) {
          parts.push_back(job.part);
          continue;
        }
        least += need;
        whole += std::max<int64_t>(job.want(), need);
      }
    }
    return whole + gpus_for_parts(std::move(parts));
  }

  bool is_mine(const GpuId& gpu) const {
    const auto found = on_.find(gpu);
    return found != on_.end() &&
           std::any_of(found->second.begin(), found->second.end(), [&](const JobView* job) { return is_own(*job); });
  }

  // Jobs of another reservation that lasts are there.
  bool is_others(const GpuId& gpu) const {
    const auto found = on_.find(gpu);
    return found != on_.end() && std::any_of(found->second.begin(), found->second.end(), [&](const JobView* job) {
             return !is_own(*job) && lasting(state_, *job) != nullptr;
           });
  }

  bool is_left(const GpuId& gpu) const {
    const auto found = on_.find(gpu);
    return found != on_.end() &&
           std::all_of(found->second.begin(), found->second.end(), [](const JobView* job) { return job->suspended; });
  }

  // Those that are so, first on servers where it has most already, then where there are most.
  template <typename Is>
  void take_ranked(int64_t wanted, const Is& is) {
    if (is_full(wanted)) return;
    std::map<std::string, std::vector<GpuId>> servers;
    for (const GpuId& gpu : open_) {
      if (is(gpu)) servers[gpu.server].push_back(gpu);
    }
    while (!is_full(wanted) && !servers.empty()) {
      auto best = servers.begin();
      const auto rank = [&](auto at) { return std::pair(on_server_[at->first], at->second.size()); };
      for (auto at = servers.begin(); at != servers.end(); ++at) {
        if (rank(at) > rank(best)) best = at;
      }
      for (const GpuId& gpu : best->second) {
        if (!is_full(wanted)) take(gpu);
      }
      servers.erase(best);
    }
  }

  // A whole GPU's job that runs and may lose it; null: there is none.
  const JobView* holder(const GpuId& gpu) const {
    const auto found = on_.find(gpu);
    if (found == on_.end() || found->second.size() != 1) return nullptr;
    const JobView* const job = found->second[0];
    return job->suspended || !job->running || is_own(*job) || lasting(state_, *job) != nullptr ? nullptr : job;
  }

  // Whose jobs can go to a GPU that is free, and that this reservation cannot have.
  void take_movable(int64_t wanted) {
    for (const GpuId& gpu : std::set<GpuId>(open_)) {
      const JobView* const job = is_full(wanted) ? nullptr : holder(gpu);
      if (job == nullptr) continue;
      const auto to = std::find_if(free_elsewhere_.begin(), free_elsewhere_.end(),
                                   [&](const GpuView* each) { return capacity(*job, *each) > 0; });
      if (to == free_elsewhere_.end()) continue;
      free_elsewhere_.erase(to);
      take(gpu);
    }
  }

  // What jobs have beyond their minimum; the last of their GPUs first.
  void take_surplus(int64_t wanted) {
    std::map<const JobView*, int64_t> surplus;
    const std::set<GpuId> open(open_);
    for (auto gpu = open.rbegin(); gpu != open.rend() && !is_full(wanted); ++gpu) {
      const JobView* const job = holder(*gpu);
      if (job == nullptr || job->is_partial()) continue;
      const auto [found, fresh] = surplus.try_emplace(job, 0);
      if (fresh) found->second = int64_t(gpus_of(*job).size()) - least_of(state_, *job) - taken_of(*job);
      if (found->second <= 0) continue;
      --found->second;
      take(*gpu);
    }
  }

  int64_t taken_of(const JobView& job) const {
    const std::set<GpuId> on = gpus_of(job);
    return std::count_if(on.begin(), on.end(), [&](const GpuId& gpu) { return chosen_.count(gpu) != 0; });
  }

  // The newest jobs, from which may be taken; in the end nobody whose GPUs are not needed after all.
  void take_from_newest(int64_t wanted) {
    std::vector<std::vector<GpuId>> givers;
    int64_t more = wanted - int64_t(chosen_.size());
    for (auto job = state_.jobs.rbegin(); job != state_.jobs.rend() && more > 0; ++job) {
      if (!job->preemptible || !job->running || job->suspended || lasting(state_, *job) != nullptr) continue;
      std::vector<GpuId> of;
      for (const GpuId& gpu : gpus_of(*job)) {
        if (open_.count(gpu) != 0 && all_may_give(gpu) && planned_.insert(gpu).second) of.push_back(gpu);
      }
      more -= int64_t(of.size());
      if (!of.empty()) givers.push_back(std::move(of));
    }
    std::erase_if(givers, [&](const std::vector<GpuId>& of) {
      if (more > 0 || more + int64_t(of.size()) > 0) return false;
      more += int64_t(of.size());
      return true;
    });
    for (const auto& of : givers) {
      for (const GpuId& gpu : of) {
        if (!is_full(wanted)) take(gpu);
      }
    }
  }

  bool all_may_give(const GpuId& gpu) const {
    const auto& jobs = on_.at(gpu);
    return std::all_of(jobs.begin(), jobs.end(), [&](const JobView* job) {
      return job->suspended || (job->running && job->preemptible && lasting(state_, *job) == nullptr);
    });
  }

  const State& state_;
  const Reservation& reservation_;
  std::map<GpuId, std::vector<const JobView*>> on_;
  std::set<GpuId> open_, chosen_, planned_;
  std::map<std::string, size_t> on_server_;
  std::vector<const GpuView*> free_elsewhere_;
};

// Not disturbed for others, and without an end in sight before `by_ms`.
bool stands_in_the_way(const State& state, const JobView& job, uint64_t by_ms) {
  if (queue_is_preemptible(state, job)) return false;
  const uint64_t left_ms = job.estimate_ms > job.useful_ms ? job.estimate_ms - job.useful_ms : 0;
  return left_ms == 0 || state.now_ms + left_ms > by_ms;
}

// All GPUs on which the job can be are such as the reservation may have.
bool only_there(const State& state, const Reservation& reservation, const JobView& job) {
  return std::all_of(state.gpus.begin(), state.gpus.end(), [&](const GpuView& gpu) {
    return !usable(gpu) || !may_use(job, gpu) || is_for(reservation, gpu);
  });
}

// Before one reservation begins: who may still begin that stays.
class LookingAhead {
 public:
  LookingAhead(const State& state, const Reservation& reservation) : state_(state), coming_(reservation) {
    for (const GpuView& gpu : state.gpus) {
      if (!usable(gpu)) continue;
      ++left_;
      left_there_ += is_for(coming_, gpu) ? 1 : 0;
    }
    left_there_ -= coming_.gpus;
    left_ -= coming_.gpus;
    for (const Reservation& other : state.reservations) {
      const bool beside = &other != &coming_ && other.from_ms <= coming_.from_ms && other.until_ms > coming_.from_ms;
      if (!beside) continue;
      left_ -= other.gpus;
      left_there_ -= other.require == coming_.require ? other.gpus : 0;
    }
    for (const JobView& job : state.jobs) {
      if (job.running && lasting(state, job) == nullptr) book(job);
    }
  }

  // Of a job that waits: it may begin, and counts from now on.
  bool admit(const JobView& job) {
    if (!stands_in_the_way(state_, job, coming_.from_ms)) return true;
    const int64_t need = least_of(state_, job);
    if (need > left_ || (need > left_there_ && only_there(state_, coming_, job))) return false;
    book(job);
    return true;
  }

 private:
  void book(const JobView& job) {
    if (!stands_in_the_way(state_, job, coming_.from_ms)) return;
    left_ -= least_of(state_, job);
    left_there_ -= only_there(state_, coming_, job) ? least_of(state_, job) : 0;
  }

  const State& state_;
  const Reservation& coming_;
  int64_t left_ = 0, left_there_ = 0;
};

std::string gpus_text(uint64_t count) { return format("%lu GPU%s", (unsigned long)count, count == 1 ? "" : "s"); }

std::string before_text(const State& state, const Reservation& coming, const JobView& job) {
  const std::string queue = state.queues.queues[size_t(job.queue)].name;
  return "waits because reservation '" + coming.name + "' begins at " + time_text(coming.from_ms) + " with " +
         gpus_text(coming.gpus) + ", which could not be free then: queue '" + queue +
         "' is not preemptible, and the job has no end in sight before";
}

// Whether a job that waits has room in its queue; one that has not takes no part in looking ahead.
bool has_room(const State& state, const QueueShares& shares, const JobView& job) {
  return state.queues.empty() || headroom(state.queues, shares, job.queue) >= needed_by(state, job);
}

// Who must not begin, with the reason.
Assignment held_back(const State& state) {
  Assignment held;
  const bool any = std::any_of(state.queues.queues.begin(), state.queues.queues.end(),
                               [](const Queue& queue) { return !queue.preemptible; });
  if (!any) return held;
  const QueueShares shares = fair_shares(state.queues, loads_of(state), 0);
  for (const Reservation& coming : state.reservations) {
    if (coming.begun(state.now_ms)) continue;
    LookingAhead ahead(state, coming);
    for (const JobView& job : state.jobs) {
      const bool counts = waits(job) && held.count(job.id) == 0 && lasting(state, job) == nullptr;
      if (!counts || queue_is_preemptible(state, job) || !has_room(state, shares, job)) continue;
      if (!ahead.admit(job))
        held[job.id] = {.running = false, .reason = before_text(state, coming, job), .places = job.places};
    }
  }
  return held;
}

// A GPU that somebody else is still on is not its own yet.
void mark_own(const Reserved& reserved, const State& state, const std::string& name, State* pool) {
  std::set<GpuId> taken;
  for (const JobView& job : state.jobs) {
    const bool other = lasting(state, job) == nullptr || job.reservation != name;
    if (other) taken.merge(gpus_of(job));
  }
  for (GpuView& gpu : pool->gpus) {
    if (reserved.gpus.count(gpu.id) != 0 && taken.count(gpu.id) == 0) continue;
    gpu.healthy = gpu.draining = false;
  }
}

State like(const State& state) {
  State copy = state;
  copy.jobs.clear();
  copy.reservations.clear();
  return copy;
}

}  // namespace

bool is_for(const Reservation& reservation, const GpuView& gpu) {
  JobView any;
  any.require = reservation.require;
  return may_use(any, gpu);
}

std::string time_text(uint64_t ms) {
  const time_t seconds = time_t(ms / 1000);
  struct tm parts {};
  char text[32] = "";
  if (gmtime_r(&seconds, &parts) == nullptr || strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S UTC", &parts) == 0)
    return format("%lu s after 1970", (unsigned long)(ms / 1000));
  return text;
}

Division divide(const State& state) {
  Division division{.rest = like(state), .reserved = {}, .waiting = held_back(state)};
  std::set<GpuId> gone, held;  // `held`: by jobs of reservations
  std::map<std::string, size_t> by_name;
  for (size_t i = 0; i < state.reservations.size(); ++i) {
    const Reservation& reservation = state.reservations[i];
    if (!reservation.lasts(state.now_ms)) continue;
    Reserved reserved{.index = i, .gpus = Keeping(state, reservation, gone).choose(), .pool = like(state)};
    gone.insert(reserved.gpus.begin(), reserved.gpus.end());
    reserved.pool.queues = {};
    reserved.pool.used.clear();
    reserved.pool.turns = false;
    mark_own(reserved, state, reservation.name, &reserved.pool);
    by_name[reservation.name] = division.reserved.size();
    division.reserved.push_back(std::move(reserved));
  }
  for (const JobView& job : state.jobs) {
    const Reservation* const own = find(state, job);
    const auto pool = by_name.find(job.reservation);
    if (own != nullptr && pool != by_name.end()) {
      division.reserved[pool->second].pool.jobs.push_back(job);
      division.reserved[pool->second].pool.jobs.back().queue = 0;
      held.merge(gpus_of(job));
      continue;
    }
    if (own != nullptr && !own->begun(state.now_ms) && waits(job)) {
      division.waiting[job.id] = {
          .running = false,
          .reason = "waits until " + time_text(own->from_ms) + ", when its reservation '" + own->name + "' begins",
          .places = job.places};
    }
    if (division.waiting.count(job.id) == 0) division.rest.jobs.push_back(job);
  }
  for (GpuView& gpu : division.rest.gpus) {
    if (gone.count(gpu.id) != 0 || held.count(gpu.id) != 0) gpu.healthy = gpu.draining = false;
  }
  return division;
}

bool is_reserved(const State& state, const JobView& job) { return lasting(state, job) != nullptr; }

State rest_of(const State& state) { return state.reservations.empty() ? state : divide(state).rest; }

void displace(const State& state, const Division& division, Assignment* rest) {
  std::map<GpuId, const Reservation*> kept;
  std::set<GpuId> online;
  for (const Reserved& each : division.reserved) {
    for (const GpuId& gpu : each.gpus) kept[gpu] = &state.reservations[each.index];
  }
  for (const GpuView& gpu : state.gpus) {
    if (gpu.online) online.insert(gpu.id);
  }
  for (const JobView& job : division.rest.jobs) {
    Decision& decision = rest->at(job.id);
    if (waits(job) && !decision.running && !kept.empty() && !decision.reason.empty()) {
      decision.reason += "; " + gpus_text(kept.size()) + (kept.size() == 1 ? " is" : " are") +
                         " kept for reservations (`tide status`)";
    }
    if (!job.running || job.suspended || !decision.running || !job.preemptible) continue;
    const Reservation* by = nullptr;
    bool all_there = true;
    for (const GpuId& place : decision.places) {
      if (const auto found = kept.find(place); found != kept.end()) by = found->second;
      all_there &= !place.on_gpu() || online.count(place) != 0;
    }
    if (by == nullptr || !all_there) continue;
    decision = {
        .running = false,
        .reason = "gives its GPUs to reservation '" + by->name + "', which lasts until " + time_text(by->until_ms),
        .places = job.places};
  }
}

std::vector<ReservationState> states_of(const State& state) {
  std::vector<ReservationState> states(state.reservations.size());
  for (const Reserved& each : divide(state).reserved) states[each.index].kept = each.gpus.size();
  for (size_t i = 0; i < states.size(); ++i) {
    for (const GpuView& gpu : state.gpus) states[i].there += usable(gpu) && is_for(state.reservations[i], gpu) ? 1 : 0;
    std::set<GpuId> used;
    for (const JobView& job : state.jobs) {
      if (job.reservation != state.reservations[i].name) continue;
      const std::set<GpuId> on = gpus_of(job);
      states[i].running += on.empty() ? 0 : 1;
      states[i].waiting += waits(job) ? 1 : 0;
      used.insert(on.begin(), on.end());
    }
    states[i].used = used.size();
  }
  return states;
}

}  // namespace tide::sched
