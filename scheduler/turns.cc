#include "scheduler/turns.h"

#include <algorithm>
#include <tuple>
#include <vector>

#include "scheduler/policy.h"

namespace tide::sched {
namespace {

using Jobs = std::vector<const JobView*>;

bool is_online(const State& state, const GpuId& place) {
  return std::any_of(state.gpus.begin(), state.gpus.end(),
                     [&](const GpuView& gpu) { return gpu.id == place && gpu.online; });
}

constexpr uint64_t kLastTicket = UINT64_MAX / 2;

// Whether its turn can end.
bool gives(const State& state, const JobView& job) {
  if (!job.running || job.suspended || !job.turn.gives || job.turn.length_ms == kEndless) return false;
  if (job.spared || job.job_class == JobClass::kInference) return false;
  const bool in_queue = size_t(job.queue) < state.queues.queues.size();
  if (in_queue && !state.queues.queues[size_t(job.queue)].preemptible) return false;
  return !job.places.empty() &&
         std::all_of(job.places.begin(), job.places.end(), [&](const GpuId& place) { return is_online(state, place); });
}

uint64_t left_ms(const JobView& job) {
  return job.turn.length_ms > job.turn.had_ms ? job.turn.length_ms - job.turn.had_ms : 0;
}

Jobs waiting_of(const State& state) {
  Jobs jobs;
  for (const JobView& job : state.jobs) {
    if (!job.running && !job.suspended) jobs.push_back(&job);
  }
  std::stable_sort(jobs.begin(), jobs.end(),
                   [](const JobView* a, const JobView* b) { return a->turn.ticket < b->turn.ticket; });
  return jobs;
}

// Who has had most of its turn first; of those who have had all of it, whose turn began first.
Jobs givers_of(const State& state) {
  Jobs jobs;
  for (const JobView& job : state.jobs) {
    if (gives(state, job)) jobs.push_back(&job);
  }
  std::stable_sort(jobs.begin(), jobs.end(), [](const JobView* a, const JobView* b) {
    return left_ms(*a) != left_ms(*b) ? left_ms(*a) < left_ms(*b) : a->turn.had_ms > b->turn.had_ms;
  });
  return jobs;
}

using Ids = std::set<std::string>;

Ids with(Ids ids, const Jobs& jobs, size_t count) {
  for (size_t i = 0; i < count; ++i) ids.insert(jobs[i]->id);
  return ids;
}

// Whether the job starts when these are parked; who is on the way there already, is.
bool starts(const State& state, const Ids& parked, const std::string& id) {
  State after = state;
  after.next_turn = id;
  for (JobView& job : after.jobs) {
    if (parked.count(job.id) == 0 && !(job.running && job.suspended)) continue;
    job.running = false;
    // With queues it counts who waits then: its queue may be owed what it has just left.
    job.suspended = parked.count(job.id) == 0 || state.queues.empty();
    if (!job.suspended) job.turn.ticket = kLastTicket;
    job.keeps.clear();
    for (GpuId& place : job.places) {
      if (place.on_gpu()) place.index = kParked;
    }
  }
  return assign(after).at(id).running;
}

// The fewest of them, those with least of their turn left, beside those who leave anyway. Requires: all of them do.
Jobs whose_end_helps(const State& state, const Jobs& givers, const Ids& leaving, const std::string& id) {
  size_t fails = 0, helps = 1;
  while (helps < givers.size() && !starts(state, with(leaving, givers, helps), id)) {
    fails = helps;
    helps = std::min(2 * helps, givers.size());
  }
  while (helps - fails > 1) {
    const size_t middle = (fails + helps) / 2;
    (starts(state, with(leaving, givers, middle), id) ? helps : fails) = middle;
  }
  Jobs over(givers.begin(), givers.begin() + long(helps));
  for (size_t i = over.size() - 1; i-- > 0;) {
    Jobs fewer = over;
    fewer.erase(fewer.begin() + long(i));
    if (starts(state, with(leaving, fewer, fewer.size()), id)) over.swap(fewer);
  }
  return over;
}

// Jobs that are alike in it start on the same GPUs, or on none.
using Shape =
    std::tuple<uint32_t, uint32_t, uint32_t, uint32_t, uint64_t, bool, bool, std::vector<GpuId>, Ids, std::string>;

Shape shape_of(const JobView& job) {
  const bool drains = job.skipped >= kSkipsMax;
  return {job.vgpus,        job.min_gpus, job.target, job.part,      job.memory_bytes,
          job.memory_given, drains,       job.places, job.failed_on, to_text(job.require)};
}

uint64_t turns_share_ms(const State& state, const JobView& job) {
  const uint64_t length = std::min(job.turn.length_ms, kTurnMostMs << kStrainMax);
  return length * std::min<uint64_t>(job.min_gpus, job.vgpus) / std::max<size_t>(state.gpus.size(), 1);
}

}  // namespace

TurnPlan plan_turns(const State& state) {
  if (!state.turns) return {};
  Jobs givers = givers_of(state);
  TurnPlan plan;
  Ids leaving;
  std::set<Shape> hopeless;
  for (const JobView* job : waiting_of(state)) {
    if (plan.size() == kAtOnceMax || hopeless.size() == kShapesMax) break;
    if (hopeless.count(shape_of(*job)) != 0) continue;
    TurnEnd end{.next = job->id, .over = {}, .in_ms = 0};
    if (!starts(state, leaving, job->id)) {
      if (givers.empty() || !starts(state, with(leaving, givers, givers.size()), job->id)) {
        hopeless.insert(shape_of(*job));
        continue;
      }
      for (const JobView* giver : whose_end_helps(state, givers, leaving, job->id)) {
        end.over.insert(giver->id);
        end.in_ms = std::max(end.in_ms, left_ms(*giver));
        givers.erase(std::find(givers.begin(), givers.end(), giver));
      }
    }
    plan.push_back(end);
    leaving.insert(end.over.begin(), end.over.end());
    if (end.in_ms != 0) break;
  }
  return plan;
}

std::map<std::string, uint64_t> estimate_waits(const State& state, const TurnPlan& plan) {
  std::map<std::string, uint64_t> waits;
  if (plan.empty()) return waits;
  for (const TurnEnd& end : plan) waits[end.next] = end.in_ms;
  uint64_t ms = plan.back().in_ms;
  bool behind = false;
  for (const JobView* job : waiting_of(state)) {
    if (behind) waits[job->id] = ms;
    behind |= job->id == plan.back().next;
    if (behind) ms += turns_share_ms(state, *job);
  }
  return waits;
}

uint64_t cost_ms(const SwitchCost& cost) {
  const uint64_t guess = cost.bytes / kFirstBytesPerMs;
  return (cost.suspend_ms != 0 ? cost.suspend_ms : guess) + (cost.resume_ms != 0 ? cost.resume_ms : guess);
}

uint64_t turn_length_ms(const TurnRules& rules, const SwitchCost& cost, uint32_t strain) {
  if (strain >= kStrainMax) return kEndless;
  const uint64_t worth = std::min(cost_ms(cost), kTurnMostMs) * kTurnWorth;
  const uint64_t once = rules.fixed_ms != 0 ? rules.fixed_ms : std::clamp(worth, kTurnLeastMs, kTurnMostMs);
  return once << strain;
}

uint32_t strain_after(uint64_t cost_ms, uint64_t length_ms, uint32_t strain) {
  if (length_ms != kEndless && cost_ms > length_ms / kTurnWorthless) return strain_after_failure(strain);
  // Not where half the length would bring it back.
  const bool eases = length_ms == kEndless || cost_ms < length_ms / 2 / kTurnWorthless;
  return strain != 0 && eases ? strain - 1 : strain;
}

}  // namespace tide::sched
