#include "scheduler/promises.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <vector>

#include "base/log.h"
#include "scheduler/queues.h"
#include "scheduler/reservations.h"
#include "scheduler/spread.h"
#include "scheduler/timetable.h"
#include "scheduler/useful.h"

namespace tide::sched {
namespace {

constexpr uint64_t kSpareLeastMs = 2'000;
constexpr uint64_t kSparePart = 20;       // of the estimate, one in so many
constexpr uint64_t kLookSoonestMs = 250;  // nothing is looked at again sooner
constexpr double kFarthest_s = 10 * 365.25 * 86400;
constexpr int kHalvings = 40;
constexpr size_t kKeptOutTries = 16;  // waiting jobs from which nothing can be taken that are looked at

double seconds(uint64_t ms) { return double(ms) / 1000; }

bool is_pow2(uint32_t n) { return (n & (n - 1)) == 0; }

uint32_t least_of(const State& state, const JobView& job) {
  return job.is_partial() ? 1 : uint32_t(needed_by(state, job) / kWholeGpu);
}

Rates rates_of(const State& state, const JobView& job) {
  if (job.is_partial()) return {{1, 1}};
  Rates rates;
  for (uint32_t gpus = least_of(state, job); gpus <= job.vgpus; ++gpus) {
    if (gpus > std::max(job.want(), least_of(state, job))) break;
    if (job.powers_of_two && !is_pow2(gpus) && gpus != job.vgpus) continue;
    const double part = useful_part(job.vgpus, gpus);
    if (part > (rates.empty() ? 0 : rates.back().per_s)) rates.push_back({gpus, part});
  }
  return rates;
}

std::set<GpuId> held_of(const JobView& job) {
  std::set<GpuId> held(job.keeps);
  for (const GpuId& place : job.places) {
    if (place.on_gpu()) held.insert(place);
  }
  return held;
}

// Whether its queue lets others have its GPUs. (JobView::preemptible says whether that can be now.)
bool gives_ever(const State& state, const JobView& job) {
  return size_t(job.queue) >= state.queues.queues.size() || state.queues.queues[size_t(job.queue)].preemptible;
}

// GPUs that some jobs may have together. Amounts are thousandths.
struct Cap {
  int64_t most = 0;
  int32_t queue = kNoQueue;       // of the jobs below it; else
  std::vector<bool> usable = {};  // of the GPUs that are such
};

// Who leaves its GPUs together: a job, or all who have a part of a GPU.
struct Unit {
  std::vector<size_t> jobs;
  int64_t least = 0;         // that it cannot do without, thousandths
  std::vector<size_t> gpus;  // that it is on
  bool leaving = false, stuck = false;
};

class Pool {
 public:
  explicit Pool(const State& state) : state_(state) {
    for (size_t i = 0; i < state.gpus.size(); ++i) numbers_[state.gpus[i].id] = i;
    Cap all;
    for (const GpuView& gpu : state.gpus) all.usable.push_back(gpu.online && gpu.healthy);
    all.most = kWholeGpu * std::count(all.usable.begin(), all.usable.end(), true);
    caps_.push_back(all);
    find_units();
    // Whose times and jobs are not planned here: what reservations may have is promised to nobody.
    for (const Reservation& each : state.reservations) {
      if (!each.over(state.now_ms)) reserved_ += int64_t(each.gpus) * kWholeGpu;
      if (each.lasts(state.now_ms)) reserved_now_ += int64_t(each.gpus) * kWholeGpu;
    }
  }

  // What there may be at most without what reservations have, now and later. Any GPU may be one of theirs; a queue's
  // limit is no GPU.
  int64_t most_now(size_t cap) const { return caps_[cap].most - (caps_[cap].queue == kNoQueue ? reserved_now_ : 0); }
  int64_t most_ever(size_t cap) const { return caps_[cap].most - (caps_[cap].queue == kNoQueue ? reserved_ : 0); }

  const State& state() const { return state_; }
  const std::vector<Cap>& caps() const { return caps_; }
  const std::vector<Unit>& units() const { return units_; }

  // By number.
  std::vector<size_t> caps_of(const JobView& job) {
    std::vector<size_t> found{0};
    Cap such;
    for (size_t g = 0; g < state_.gpus.size(); ++g)
      such.usable.push_back(caps_[0].usable[g] && capacity(job, state_.gpus[g]) > 0);
    such.most = kWholeGpu * std::count(such.usable.begin(), such.usable.end(), true);
    if (such.most != caps_[0].most) found.push_back(number_of(such));
    for (int32_t at = job.queue; size_t(at) < state_.queues.queues.size();
         at = state_.queues.queues[size_t(at)].parent) {
      const Queue& queue = state_.queues.queues[size_t(at)];
      const int64_t most = queue.preemptible ? queue.limit : std::min(queue.limit, queue.quota);
      if (most != kNoLimit) found.push_back(number_of({.most = most, .queue = at}));
    }
    return found;
  }

  // The most physical GPUs that it can have at all, whoever else is there.
  uint32_t most_of(const JobView& job) const {
    std::map<std::string, uint32_t> groups;
    uint32_t most = 0;
    for (size_t g = 0; g < state_.gpus.size(); ++g) {
      if (!caps_[0].usable[g] || capacity(job, state_.gpus[g]) == 0) continue;
      most = std::max(most, ++groups[group_of(job, state_.gpus[g])]);
    }
    return most;
  }

  int64_t use(const Unit& unit, const Cap& cap) const {
    if (cap.queue == kNoQueue) {
      if (&cap == &caps_[0]) return unit.least;
      return kWholeGpu * std::count_if(unit.gpus.begin(), unit.gpus.end(), [&](size_t gpu) { return cap.usable[gpu]; });
    }
    int64_t used = 0;
    for (const size_t job : unit.jobs) {
      if (!is_below(state_.jobs[job].queue, cap.queue)) continue;
      used += state_.jobs[job].is_partial() ? state_.jobs[job].part : unit.least;
    }
    return used;
  }

 private:
  size_t number_of(const Cap& cap) {
    for (size_t i = 1; i < caps_.size(); ++i) {
      if (caps_[i].queue == cap.queue && caps_[i].usable == cap.usable) return i;
    }
    caps_.push_back(cap);
    return caps_.size() - 1;
  }

  bool is_below(int32_t queue, int32_t above) const {
    while (size_t(queue) < state_.queues.queues.size() && queue != above)
      queue = state_.queues.queues[size_t(queue)].parent;
    return queue == above;
  }

  bool is_stuck(const JobView& job) const {
    return std::any_of(job.places.begin(), job.places.end(), [&](const GpuId& place) {
      if (place.none()) return false;
      if (place.parked()) {
        return std::none_of(state_.gpus.begin(), state_.gpus.end(),
                            [&](const GpuView& gpu) { return gpu.online && gpu.id.server == place.server; });
      }
      const auto found = numbers_.find(place);
      return found == numbers_.end() || !state_.gpus[found->second].online;
    });
  }

  void find_units() {
    std::map<size_t, size_t> rooms;  // unit by GPU
    for (size_t i = 0; i < state_.jobs.size(); ++i) {
      const JobView& job = state_.jobs[i];
      if (!job.running || is_reserved(state_, job)) continue;  // on GPUs of its own
      Unit unit{.jobs = {i}, .gpus = {}, .leaving = job.suspended, .stuck = is_stuck(job)};
      for (const GpuId& place : held_of(job)) {
        const auto found = numbers_.find(place);
        if (found != numbers_.end() && caps_[0].usable[found->second]) unit.gpus.push_back(found->second);
      }
      const bool fixed = unit.leaving || unit.stuck;
      unit.least = kWholeGpu * (fixed ? int64_t(unit.gpus.size()) : int64_t(least_of(state_, job)));
      const auto room = job.is_partial() && !unit.gpus.empty() ? rooms.try_emplace(unit.gpus[0], units_.size())
                                                               : std::pair(rooms.end(), true);
      if (room.second) {
        units_.push_back(std::move(unit));
        continue;
      }
      Unit& shared = units_[room.first->second];
      shared.jobs.push_back(i);
      shared.leaving &= unit.leaving;
      shared.stuck |= unit.stuck;
    }
  }

  const State& state_;
  std::map<GpuId, size_t> numbers_;
  std::vector<Cap> caps_;  // the first: all usable GPUs
  int64_t reserved_ = 0, reserved_now_ = 0;
  std::vector<Unit> units_;
};

struct Promised {
  const JobView* job = nullptr;
  size_t index = SIZE_MAX;  // in State::jobs; none: it is not there yet
  Rates rates;
  std::vector<size_t> caps;
  uint32_t gpus_most = 0;
  uint64_t deadline_ms = 0;
  uint64_t early_ms = 0;  // it shall be done so much before that
  bool waits = false;
  Timetable table = {};
  bool kept = false, lazy = false;

  uint32_t gpus_at(uint64_t now_ms) const { return gpus_of(rate_at(table, seconds(now_ms))); }
};

// How it is planned. No way is best always: with fewer GPUs a job runs longer, and may be in another one's way then.
struct Way {
  bool lazy = false;  // who waits does so as long as that does no harm,
  bool all = false;   // and who runs goes on as others let it: so nobody is stopped for whom it would hold up later
  Prefer prefer = Prefer::kFewest;
  bool margin = true;
};
// Those that wait as long as that does no harm first.
constexpr Way kWays[] = {{.lazy = true},
                         {.lazy = true, .all = true},
                         {},
                         {.prefer = Prefer::kWhatItHas},
                         {.prefer = Prefer::kWhatItHasThenMost},
                         {.margin = false},
                         {.prefer = Prefer::kMost}};

// All that was promised, planned from now on, the earliest deadline first.
class Plan {
 public:
  explicit Plan(const State& state) : pool_(state), now_ms_(state.now_ms) {
    for (size_t i = 0; i < state.jobs.size(); ++i) {
      if (is_promised(state.jobs[i], now_ms_)) add(state.jobs[i], i, state.jobs[i].deadline_ms);
    }
    note_gone();
  }

  Pool& pool() { return pool_; }
  std::vector<Promised>& promised() { return promised_; }

  size_t add(const JobView& job, size_t index, uint64_t deadline_ms, uint64_t early_ms = 0) {
    Promised fresh{.job = &job,
                   .index = index,
                   .rates = rates_of(pool_.state(), job),
                   .caps = pool_.caps_of(job),
                   .gpus_most = pool_.most_of(job),
                   .deadline_ms = deadline_ms,
                   .early_ms = early_ms,
                   .waits = !job.running};
    const auto at =
        std::upper_bound(promised_.begin(), promised_.end(), fresh,
                         [](const Promised& a, const Promised& b) { return a.deadline_ms < b.deadline_ms; });
    const size_t number = size_t(at - promised_.begin());
    promised_.insert(at, std::move(fresh));
    return number;
  }
  void remove(size_t at) { promised_.erase(promised_.begin() + long(at)); }

  // What nobody can take again any more.
  void note_gone() {
    gone_.assign(pool_.caps().size(), 0);
    for (const Unit& unit : pool_.units()) {
      const bool stays = std::any_of(unit.jobs.begin(), unit.jobs.end(),
                                     [&](size_t job) { return !gives_ever(pool_.state(), pool_.state().jobs[job]); });
      const bool promised = std::any_of(unit.jobs.begin(), unit.jobs.end(),
                                        [&](size_t job) { return is_promised(pool_.state().jobs[job], now_ms_); });
      if (!stays || promised) continue;
      for (size_t i = 0; i < gone_.size(); ++i) gone_[i] += pool_.use(unit, pool_.caps()[i]);
    }
  }
  void give_away(size_t cap, int64_t amount) {
    if (cap < gone_.size()) gone_[cap] += amount;  // else nothing that was promised is of these GPUs
  }

  // Whether all can be kept.
  bool make(const Way& way) {
    std::vector<Profile> free;
    for (size_t i = 0; i < gone_.size(); ++i) {
      const int64_t left = pool_.most_ever(i) - gone_[i];
      free.emplace_back(seconds(now_ms_), uint32_t(std::max<int64_t>(left, 0) / kWholeGpu));
    }
    bool all = true;
    for (Promised& each : promised_) {
      place(each, way, free);
      all &= each.kept;
      for (const size_t cap : each.caps) reserve(each.table, seconds(now_ms_), &free[cap]);
    }
    return all;
  }

  // In the way that keeps most, and of these the one that changes least.
  void make_best() {
    Way best = kWays[0];
    size_t late_least = SIZE_MAX, changes_least = SIZE_MAX;
    for (const Way& way : kWays) {
      make(way);
      const size_t late = promised_.size() - kept().size(), changes = changes_now();
      if (late == 0 && changes == 0) return;
      if (std::pair(late, changes) >= std::pair(late_least, changes_least)) continue;
      late_least = late;
      changes_least = changes;
      best = way;
    }
    make(best);
  }

  std::set<std::string> kept() const {
    std::set<std::string> ids;
    for (const Promised& each : promised_) {
      if (each.kept) ids.insert(each.job->id);
    }
    return ids;
  }

 private:
  // Of those that run: a plan that goes on as it is does not go to and fro.
  size_t changes_now() const {
    size_t changes = 0;
    for (const Promised& each : promised_) {
      if (each.waits || each.lazy || each.job->suspended) continue;
      const uint32_t gpus = each.gpus_at(now_ms_);
      changes += gpus == 0 ? 2 : gpus > held_of(*each.job).size() ? 1 : 0;
    }
    return changes;
  }

  void place(Promised& each, const Way& way, const std::vector<Profile>& free) const {
    Profile mine = free[each.caps[0]];
    for (size_t i = 1; i < each.caps.size(); ++i) mine.keep_least(free[each.caps[i]]);
    const TimetableRules rules{.gpus_most = each.gpus_most, .change_s = seconds(kChangeMs)};
    const uint32_t held = each.job->is_partial() ? 1 : uint32_t(held_of(*each.job).size());
    Work work{.rates = &each.rates,
              .left = seconds(left_ms(*each.job)),
              .deadline_s = seconds(each.deadline_ms - std::min(each.deadline_ms, each.early_ms)),
              .has = each.waits || each.job->suspended ? nullptr : fastest(each.rates, held),
              .prefer = way.prefer,
              .margin_s = way.margin ? seconds(spare_ms(*each.job)) / 2 : 0};
    each.lazy = way.lazy && (each.waits || way.all);
    if (each.lazy) {
      Work later = work;
      later.not_before_s = seconds(now_ms_ + spare_ms(*each.job));
      later.has = nullptr;
      each.kept = fill(later, mine, rules, &each.table);
      if (each.kept) return;
      each.lazy = false;
    }
    each.kept = fill(work, mine, rules, &each.table);
    if (!each.kept) fill_late(work, mine, rules, &each.table);
  }

  Pool pool_;
  const uint64_t now_ms_;
  std::vector<Promised> promised_;
  std::vector<int64_t> gone_;  // by cap
};

// ---- what is due now, and who leaves for it

class Dues {
 public:
  Dues(Plan& plan, State* state) : plan_(plan), pool_(plan.pool()), state_(*state) {
    for (const Promised& each : plan.promised()) {
      const bool may = !each.job->suspended && !each.lazy;
      needs_.push_back(may ? each.gpus_at(state->now_ms) : 0);
      if (needs_.back() > 0) due_.insert(each.index);
    }
    now_.assign(pool_.caps().size(), 0);
    after_ = now_;
    for (const Unit& unit : pool_.units()) {
      for (size_t i = 0; i < now_.size(); ++i) {
        const int64_t used = pool_.use(unit, pool_.caps()[i]);
        now_[i] += used;
        after_[i] += unit.leaving ? 0 : used;
      }
    }
    taken_.resize(pool_.units().size());
  }

  void run() {
    for (size_t i = 0; i < needs_.size(); ++i) {
      if (needs_[i] > 0) find_room(plan_.promised()[i], needs_[i]);
    }
  }

 private:
  // What it has anyway.
  int64_t own(const Promised& each, size_t cap) const {
    for (const Unit& unit : pool_.units()) {
      if (std::count(unit.jobs.begin(), unit.jobs.end(), each.index) != 0) return pool_.use(unit, pool_.caps()[cap]);
    }
    return 0;
  }

  // GPUs that there are for it, with those.
  uint32_t room(const Promised& each, const std::vector<int64_t>& used) const {
    int64_t left = INT64_MAX;
    for (const size_t cap : each.caps) left = std::min(left, pool_.most_now(cap) - used[cap] + own(each, cap));
    return uint32_t(std::max<int64_t>(left, 0) / kWholeGpu);
  }

  void find_room(const Promised& each, uint32_t need) {
    std::vector<size_t> leave;
    while (room(each, after_) < need) {
      const size_t unit = next_to_leave(each, need);
      if (unit == SIZE_MAX) break;
      take(unit, -1);
      leave.push_back(unit);
    }
    const uint32_t got = gpus_of(fastest(each.rates, std::min(room(each, after_), need)));
    // Who is not needed after all stays.
    std::erase_if(leave, [&](size_t unit) {
      take(unit, 1);
      if (room(each, after_) >= got) return true;
      take(unit, -1);
      return false;
    });
    JobView& view = state_.jobs[each.index];
    for (const size_t unit : leave) {
      for (const size_t job : pool_.units()[unit].jobs) state_.jobs[job].yields_to = view.id;
    }
    if (got == 0) return;
    const uint32_t here = gpus_of(fastest(each.rates, std::min(room(each, now_), got)));
    view.due_gpus = each.waits ? got : std::max(here, least_of(state_, view));
    if (!each.waits) view.due_more = got - std::min(got, view.due_gpus);
    book(each, got, &after_);
    if (!each.waits || here == got) book(each, here, &now_);
  }

  void book(const Promised& each, uint32_t gpus, std::vector<int64_t>* used) const {
    std::vector<int64_t> more;
    for (const size_t cap : each.caps) more.push_back(std::max<int64_t>(gpus * int64_t(kWholeGpu) - own(each, cap), 0));
    for (size_t i = 0; i < more.size(); ++i) (*used)[each.caps[i]] += more[i];
  }

  void take(size_t unit, int64_t sign) {
    taken_[unit] = sign < 0;
    for (size_t i = 0; i < after_.size(); ++i) after_[i] += sign * pool_.use(pool_.units()[unit], pool_.caps()[i]);
  }

  bool can_leave(const Unit& unit) const {
    if (unit.leaving || unit.stuck) return false;
    return std::all_of(unit.jobs.begin(), unit.jobs.end(), [&](size_t job) {
      const JobView& view = state_.jobs[job];
      return view.preemptible && !view.suspended && due_.count(job) == 0 && gives_ever(state_, view);
    });
  }

  // The newest that helps; those that ought to be left alone only where nobody else is left.
  size_t next_to_leave(const Promised& each, uint32_t need) const {
    size_t found = SIZE_MAX;
    for (size_t i = 0; i < pool_.units().size(); ++i) {
      const Unit& unit = pool_.units()[i];
      if (taken_[i] || !can_leave(unit) || !helps(each, unit, need)) continue;
      if (found == SIZE_MAX || spared(unit) <= spared(pool_.units()[found])) found = i;
    }
    return found;
  }

  bool spared(const Unit& unit) const {
    return std::any_of(unit.jobs.begin(), unit.jobs.end(), [&](size_t job) { return state_.jobs[job].spared; });
  }

  // It has some of what is short.
  bool helps(const Promised& each, const Unit& unit, uint32_t need) const {
    return std::any_of(each.caps.begin(), each.caps.end(), [&](size_t cap) {
      const bool is_short = pool_.most_now(cap) - after_[cap] + own(each, cap) < need * int64_t(kWholeGpu);
      return is_short && pool_.use(unit, pool_.caps()[cap]) > 0;
    });
  }

  Plan& plan_;
  Pool& pool_;
  State& state_;
  std::vector<uint32_t> needs_;       // as promised()
  std::set<size_t> due_;              // in State::jobs
  std::vector<int64_t> now_, after_;  // thousandths that are used, by cap; when those that leave have left
  std::vector<bool> taken_;
};

// Who could not be made to leave must not start on what was promised.
void keep_out(Plan& plan, State* state) {
  const std::set<std::string> kept = plan.kept();
  size_t tries = 0;
  for (JobView& job : state->jobs) {
    if (job.running || job.suspended || gives_ever(*state, job) || is_promised(job, state->now_ms)) continue;
    if (++tries > kKeptOutTries) return;
    const std::vector<size_t> caps = plan.pool().caps_of(job);
    const int64_t amount = needed_by(*state, job);
    for (const size_t cap : caps) plan.give_away(cap, amount);
    plan.make_best();
    for (const Promised& each : plan.promised()) {
      if (each.kept || kept.count(each.job->id) == 0) continue;
      job.kept_out_for = each.job->id;
      break;
    }
    if (job.kept_out_for.empty()) continue;
    for (const size_t cap : caps) plan.give_away(cap, -amount);
  }
}

// When something about it changes by itself.
uint64_t next_of(const Promised& each, const State& state) {
  const double now_s = seconds(state.now_ms);
  double next_s = seconds(each.deadline_ms) + 0.001;
  if (each.lazy) return state.now_ms + std::max(spare_ms(*each.job) / 2, kLookSoonestMs);
  for (const Piece& piece : each.table) {
    if (piece.from_s > now_s) next_s = std::min(next_s, piece.from_s);
    if (piece.to_s > now_s) next_s = std::min(next_s, piece.to_s);
  }
  if (!each.waits) {
    const uint32_t held = uint32_t(held_of(*each.job).size());
    const double part = each.job->is_partial() ? 1 : useful_part(each.job->vgpus, held);
    if (part > 0) next_s = std::min(next_s, now_s + seconds(left_ms(*each.job)) / part);
  }
  // Fewer GPUs may do before that.
  const bool may_shrink = !each.rates.empty() && each.gpus_at(state.now_ms) > each.rates.front().gpus;
  if (may_shrink) next_s = std::min(next_s, now_s + std::max((each.table.back().to_s - now_s) / 8, 1.0));
  return std::max(uint64_t(std::ceil(next_s * 1000)), state.now_ms + kLookSoonestMs);
}

std::string others_text(const std::vector<Promised>& promised, const JobView& but) {
  constexpr size_t kShown = 5;
  std::string text;
  size_t count = 0;
  for (const Promised& each : promised) {
    if (each.job != &but && ++count <= kShown) text += (count == 1 ? "" : ", ") + each.job->id;
  }
  if (count == 0) return "";
  if (count > kShown) text += format(" and %zu more", count - kShown);
  return (count == 1 ? "what is promised to job " : "what is promised to jobs ") + text;
}

}  // namespace

uint64_t spare_ms(const JobView& job) { return kSpareLeastMs + job.estimate_ms / kSparePart; }

bool is_promised(const JobView& job, uint64_t now_ms) {
  return job.deadline_ms > now_ms && job.useful_ms < job.estimate_ms;
}

uint64_t left_ms(const JobView& job) { return job.estimate_ms > job.useful_ms ? job.estimate_ms - job.useful_ms : 0; }

Admission may_promise(const State& state, const JobView& job) {
  Plan plan(state);
  plan.make_best();
  const std::set<std::string> before = plan.kept();
  const auto fits = [&](uint64_t deadline_ms) {
    const size_t at = plan.add(job, SIZE_MAX, deadline_ms, spare_ms(job));
    plan.note_gone();
    const bool kept = std::any_of(std::begin(kWays), std::end(kWays), [&](const Way& way) {
      plan.make(way);
      const std::set<std::string> now = plan.kept();
      return now.count(job.id) != 0 && std::includes(now.begin(), now.end(), before.begin(), before.end());
    });
    plan.remove(at);
    return kept;
  };
  if (fits(job.deadline_ms)) return {.possible = true, .because = {}};
  Admission answer;
  uint64_t no = std::max(job.deadline_ms, state.now_ms), yes = no;
  const uint64_t first_ms = std::max<uint64_t>(1000, job.estimate_ms / 8);
  for (uint64_t further_ms = first_ms; seconds(further_ms) < kFarthest_s; further_ms *= 2) {
    if (!fits(no + further_ms)) continue;
    yes = no + further_ms;
    break;
  }
  // As near as is of use: each try plans all that was promised.
  const auto far = [&] { return yes - no > std::max<uint64_t>(1000, (yes - state.now_ms) / 64); };
  for (int i = 0; far() && i < kHalvings; ++i) {
    const uint64_t middle = no + (yes - no) / 2;
    (fits(middle) ? yes : no) = middle;
  }
  answer.earliest_ms = yes > std::max(job.deadline_ms, state.now_ms) ? yes : 0;
  answer.because = others_text(plan.promised(), job);
  return answer;
}

Promises keep_promises(State* state) {
  Promises promises;
  const auto promised = [&](const JobView& job) { return is_promised(job, state->now_ms); };
  for (JobView& job : state->jobs) {
    job.due_gpus = job.due_more = 0;
    job.yields_to.clear();
    job.kept_out_for.clear();
  }
  if (std::none_of(state->jobs.begin(), state->jobs.end(), promised)) return promises;
  Plan plan(*state);
  plan.make_best();
  Dues(plan, state).run();
  for (const Promised& each : plan.promised()) {
    JobView& job = state->jobs[each.index];
    const uint64_t next_ms = next_of(each, *state);
    if (promises.next_ms == 0 || next_ms < promises.next_ms) promises.next_ms = next_ms;
    const uint64_t least_ms = each.rates.empty() ? 0 : uint64_t(double(left_ms(job)) / each.rates.back().per_s);
    const uint64_t needs_ms = least_ms + spare_ms(job);
    promises.jobs[job.id] = {.kept = each.kept,
                             .gpus = each.lazy || job.suspended ? 0 : each.gpus_at(state->now_ms),
                             .ends_ms = each.kept && !each.table.empty() ? uint64_t(each.table.back().to_s * 1000) : 0,
                             .starts_ms = each.lazy && each.deadline_ms > needs_ms ? each.deadline_ms - needs_ms : 0};
    if (job.running && job.due_gpus != 0) job.preemptible = job.turn.gives = false;
  }
  keep_out(plan, state);
  return promises;
}

}  // namespace tide::sched
