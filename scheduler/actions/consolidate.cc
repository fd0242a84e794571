#include <algorithm>
#include <compare>
#include <map>

#include "scheduler/actions/actions.h"
#include "scheduler/cost.h"
#include "scheduler/room.h"
#include "scheduler/spread.h"

namespace tide::sched {
namespace {

constexpr size_t kRoomsMax = 16;   // shared GPUs that are looked at for one job, the emptiest first
constexpr size_t kRetriesMax = 8;  // sets of GPUs that are tried for one job
constexpr uint32_t kWaysMax = 16;  // jobs of a round for which that leads nowhere; the others wait
constexpr size_t kMovedMax = 16;   // vGPUs that move for one job
constexpr size_t kWaitersMax = 4;  // jobs of a round for which parts are moved together in vain

// What moving costs: failures, before what nobody has tried yet; vGPUs; those of what is not batch; bytes.
struct Cost {
  uint32_t failed = 0, vgpus = 0, delicate = 0;
  uint64_t bytes = 0;
  auto operator<=>(const Cost&) const = default;
  void add(const Cost& other) {
    failed += other.failed;
    vgpus += other.vgpus;
    delicate += other.delicate;
    bytes += other.bytes;
  }
};

// Who makes way for it already goes on.
bool makes_way(const Tentative& plan, Slot slot, Slot for_whom) {
  const std::string& id = plan.share(slot).job->moves_for;
  return for_whom != kNoSlot && !id.empty() && id == plan.share(for_whom).job->id;
}

bool is_movable(const Tentative& plan, Slot slot, Slot for_whom) {
  const Share& share = plan.share(slot);
  if (share.job == nullptr || !share.known || !share.is.admitted || share.is.frozen || share.mine.empty()) return false;
  const JobView& job = *share.job;
  if (!job.running || job.suspended || job.pinned) return false;
  const bool kept = job.spared || !job.preemptible || is_nearly_done(job);
  if (kept && !makes_way(plan, slot, for_whom)) return false;
  return std::all_of(job.places.begin(), job.places.end(), [](const GpuId& place) { return place.on_gpu(); });
}

Cost cost_of(const Tentative& plan, Slot slot, GpuIndex gpu, Slot for_whom) {
  const JobView& job = *plan.share(slot).job;
  if (makes_way(plan, slot, for_whom)) return {.failed = job.failed_moves};
  const GpuView& view = plan.gpus().view(gpu);
  const uint32_t there = uint32_t(std::count(job.places.begin(), job.places.end(), view.id));
  const uint64_t each =
      job.bytes != 0 ? job.bytes / std::max(job.vgpus, 1u) : bytes_on(job.portion(), view.memory_bytes);
  return {.failed = job.failed_moves,
          .vgpus = there,
          .delicate = job.job_class == JobClass::kBatch ? 0 : there,
          .bytes = each * there};
}

// Jobs on the GPU; none where it is not known who all of them are, since somebody gets it in this round.
std::vector<Slot> jobs_on(const Tentative& plan, GpuIndex gpu) {
  if (!plan.sharers(gpu).empty()) return plan.sharers(gpu);
  for (const Slot slot : plan.jobs_at(plan.gpus().server_of(gpu))) {
    const GpuSet& mine = plan.share(slot).mine;
    if (std::binary_search(mine.begin(), mine.end(), gpu)) return {slot};
  }
  return {};
}

GpuSet without(const GpuSet& set, const GpuSet& others) {
  GpuSet rest;
  std::set_difference(set.begin(), set.end(), others.begin(), others.end(), std::back_inserter(rest));
  return rest;
}

// Whom moving takes off GPUs, and where they go.
class Displacing {
 public:
  // `for_whom` waits. With `to_free` they may go to GPUs that nobody has; never to those that it leaves itself, where
  // each would wait for the other to move first.
  Displacing(Tentative& plan, Slot for_whom, bool to_free) : plan_(plan), for_whom_(for_whom), to_free_(to_free) {
    if (for_whom == kNoSlot) return;
    for (const GpuId& place : plan.share(for_whom).job->places) {
      const GpuIndex gpu = place.on_gpu() ? plan.gpus().find(place) : kNoGpu;
      if (gpu == kNoGpu) continue;
      left_behind_.push_back(gpu);
      plan_.gpus().take(gpu);
    }
  }
  ~Displacing() {
    for (const GpuIndex gpu : left_behind_) plan_.gpus().give(gpu);
  }

  // Off these GPUs (all but who gets them).
  void leave(Slot slot, const GpuSet& gpus) {
    Share& share = plan_.share(slot);
    if (share.places.empty()) share.places = share.job->places;  // where it is if this leads nowhere
    had_.push_back({slot, uint32_t(share.mine.size())});
    if (share.job->is_partial()) {
      plan_.leave(slot, share.mine.front());
    } else {
      plan_.set_mine(slot, without(share.mine, gpus));
    }
  }

  // False: `stuck` can go nowhere else.
  bool find_places(Slot* stuck) {
    std::sort(had_.begin(), had_.end(), [&](const Had& a, const Had& b) { return key(a.slot) < key(b.slot); });
    for (const Had& had : had_) {
      *stuck = had.slot;
      const bool found = plan_.share(had.slot).job->is_partial() ? find_room(had.slot) : find_gpus(had);
      if (!found) return false;
      Standing is = plan_.share(had.slot).is;
      is.moved_for = for_whom_;
      plan_.stand(had.slot, is);
    }
    return true;
  }

  void tell(std::vector<Slot>* moved) const {
    for (const Had& had : had_) moved->push_back(had.slot);
  }

 private:
  struct Had {
    Slot slot;
    uint32_t gpus;
  };

  // Whole GPUs first, then the largest parts.
  std::pair<int64_t, uint64_t> key(Slot slot) const {
    const Share& share = plan_.share(slot);
    return {-int64_t(share.job->part), share.number};
  }

  bool find_room(Slot slot) {
    const JobView& job = *plan_.share(slot).job;
    GpuIndex room = plan_.best_room(job);
    GpuSet free;
    if (room == kNoGpu && to_free_ && add_gpus(plan_.gpus(), job, 1, 1, &free)) room = free.front();
    const bool left_behind = std::find(left_behind_.begin(), left_behind_.end(), room) != left_behind_.end();
    if (room == kNoGpu || left_behind) return false;
    plan_.join(slot, room);
    return true;
  }

  // As many as it had, or shall have.
  bool find_gpus(const Had& had) {
    const Share& share = plan_.share(had.slot);
    GpuSet mine = share.mine;
    if (!to_free_ || !add_gpus(plan_.gpus(), *share.job, share.is.least, share.is.count, &mine)) return false;
    if (mine.size() < std::min(had.gpus, share.is.count)) return false;
    plan_.set_mine(had.slot, std::move(mine));
    return true;
  }

  Tentative& plan_;
  Slot for_whom_;
  bool to_free_;
  std::vector<Had> had_;
  GpuSet left_behind_;
};

// GPUs for a job that has whole ones: free, or with others on them who can go elsewhere.
class Clearing {
 public:
  Clearing(Tentative& plan, Slot slot, std::vector<Slot>* moved) : plan_(plan), slot_(slot), moved_(moved) {}

  bool run(uint32_t count) {
    for (size_t tries = 0; tries < kRetriesMax; ++tries) {
      GpuSet targets;
      if (!choose_targets(count, &targets)) return false;
      if (clear(targets)) return true;
    }
    return false;
  }

 private:
  struct Target {
    Cost cost;
    GpuIndex gpu = 0;
    uint32_t capacity = 0;
  };

  // False: somebody is on it who stays.
  bool find_cost(GpuIndex gpu, Cost* cost) const {
    const GpuSet& mine = plan_.share(slot_).mine;
    if (plan_.gpus().is_free(gpu) || std::binary_search(mine.begin(), mine.end(), gpu)) return true;
    if (!plan_.gpus().usable(gpu)) return false;
    const std::vector<Slot> jobs = jobs_on(plan_, gpu);
    for (const Slot job : jobs) {
      if (job == slot_ || stuck_.count(job) != 0 || !is_movable(plan_, job, slot_)) return false;
      cost->add(cost_of(plan_, job, gpu, slot_));
    }
    return !jobs.empty();
  }

  std::map<std::string, std::vector<Target>> groups() const {
    const JobView& job = *plan_.share(slot_).job;
    const FreeGpus& gpus = plan_.gpus();
    std::map<std::string, std::vector<Target>> groups;
    for (ServerIndex server = 0; server < gpus.servers(); ++server) {
      if (job.failed_on.count(gpus.name_of(server)) != 0) continue;
      for (GpuIndex gpu = gpus.first(server); gpu < gpus.end(server); ++gpu) {
        Target target{.cost = {}, .gpu = gpu, .capacity = capacity(job, gpus.view(gpu))};
        if (target.capacity == 0 || !find_cost(gpu, &target.cost)) continue;
        groups[group_of(job, gpus.view(gpu))].push_back(target);
      }
    }
    return groups;
  }

  // The cheapest that hold all its vGPUs; else the roomiest.
  bool choose_of(std::vector<Target>* targets, uint32_t count, Cost* cost) const {
    if (targets->size() < count) return false;
    for (const bool roomiest : {false, true}) {
      const auto key = [&](const Target& each) {
        return std::tuple(roomiest ? -int64_t(each.capacity) : 0, each.cost, -int64_t(each.capacity), each.gpu);
      };
      std::sort(targets->begin(), targets->end(), [&](const Target& a, const Target& b) { return key(a) < key(b); });
      uint64_t room = 0;
      *cost = {};
      for (size_t i = 0; i < count; ++i) {
        room += (*targets)[i].capacity;
        cost->add((*targets)[i].cost);
      }
      if (room < plan_.share(slot_).job->vgpus) continue;
      targets->resize(count);
      return cost->vgpus <= kMovedMax;
    }
    return false;
  }

  bool choose_targets(uint32_t count, GpuSet* targets) const {
    bool found = false;
    Cost least;
    for (auto& [group, some] : groups()) {
      Cost cost;
      std::vector<Target> chosen = some;
      if (!choose_of(&chosen, count, &cost) || (found && least <= cost)) continue;
      found = true;
      least = cost;
      targets->clear();
      for (const Target& target : chosen) targets->push_back(target.gpu);
    }
    std::sort(targets->begin(), targets->end());
    return found;
  }

  bool clear(const GpuSet& targets) {
    const size_t before = plan_.checkpoint();
    const int64_t left = plan_.left();
    std::vector<Slot> jobs;
    for (const GpuIndex gpu : targets) {
      if (plan_.gpus().is_free(gpu)) continue;
      for (const Slot job : jobs_on(plan_, gpu)) {
        if (job != slot_ && std::find(jobs.begin(), jobs.end(), job) == jobs.end()) jobs.push_back(job);
      }
    }
    plan_.set_mine(slot_, targets);
    Displacing displacing(plan_, slot_, true);
    for (const Slot job : jobs) displacing.leave(job, targets);
    Slot stuck = kNoSlot;
    if (displacing.find_places(&stuck) && plan_.left() >= std::min<int64_t>(left, 0)) {
      displacing.tell(moved_);
      return true;
    }
    plan_.rollback(before);
    stuck_.insert(stuck);
    return stuck != kNoSlot;
  }

  Tentative& plan_;
  Slot slot_;
  std::vector<Slot>* moved_;
  std::set<Slot> stuck_;  // they can go nowhere else
};

// Who leaves the shared GPU so that the job's part fits: one if one is enough, else the largest first. Empty: that
// would not do.
std::vector<Slot> fewest_off(const Tentative& plan, GpuIndex gpu, Slot for_whom, Cost* cost) {
  const JobView& job = *plan.share(for_whom).job;
  const std::vector<Slot>& sharers = plan.sharers(gpu);
  const auto fits_without = [&](const std::vector<Slot>& off) {
    Room room({}, plan.gpus().view(gpu).memory_bytes);
    for (const Slot slot : sharers) {
      if (std::find(off.begin(), off.end(), slot) == off.end()) room.take(plan.share(slot).job->portion());
    }
    return room.fits(job.portion());
  };
  std::vector<std::pair<Cost, Slot>> movable;
  for (const Slot slot : sharers) {
    if (is_movable(plan, slot, for_whom)) movable.emplace_back(cost_of(plan, slot, gpu, for_whom), slot);
  }
  const auto part = [&](Slot slot) { return plan.share(slot).job->part; };
  std::stable_sort(movable.begin(), movable.end(), [&](const auto& a, const auto& b) {
    return std::pair(a.first, part(a.second)) < std::pair(b.first, part(b.second));
  });
  for (const auto& [each, slot] : movable) {
    if (!fits_without({slot})) continue;
    *cost = each;
    return {slot};
  }
  std::stable_sort(movable.begin(), movable.end(),
                   [&](const auto& a, const auto& b) { return part(a.second) > part(b.second); });
  std::vector<Slot> off;
  *cost = {};
  for (const auto& [each, slot] : movable) {
    off.push_back(slot);
    cost->add(each);
    if (fits_without(off)) return off;
  }
  return {};
}

// A GPU for a job that has a part of one, where others' parts, or with `to_free` a whole job, go elsewhere.
class Squeezing {
 public:
  Squeezing(Tentative& plan, Slot slot, bool to_free, std::vector<Slot>* moved)
      : plan_(plan), slot_(slot), to_free_(to_free), moved_(moved) {}

  bool run() {
    std::vector<Choice> choices;
    for (const GpuIndex gpu : candidates()) add_choice(gpu, &choices);
    std::sort(choices.begin(), choices.end(),
              [](const Choice& a, const Choice& b) { return std::pair(a.cost, a.gpu) < std::pair(b.cost, b.gpu); });
    if (choices.size() > kRetriesMax) choices.resize(kRetriesMax);
    return std::any_of(choices.begin(), choices.end(), [&](const Choice& choice) { return squeeze(choice); });
  }

 private:
  struct Choice {
    Cost cost;
    GpuIndex gpu = 0;
    std::vector<Slot> off;
  };

  GpuSet candidates() const {
    const JobView& job = *plan_.share(slot_).job;
    GpuSet some;
    if (!to_free_) return plan_.emptiest_rooms(kRoomsMax);
    for (GpuIndex gpu = 0; gpu < plan_.gpus().size(); ++gpu) {
      if (plan_.gpus().usable(gpu) && plan_.may_begin(job, gpu)) some.push_back(gpu);
    }
    return some;
  }

  void add_choice(GpuIndex gpu, std::vector<Choice>* choices) const {
    const JobView& job = *plan_.share(slot_).job;
    if (!plan_.gpus().usable(gpu) || !plan_.may_begin(job, gpu)) return;
    if (!Room({}, plan_.gpus().view(gpu).memory_bytes).fits(job.portion())) return;
    Choice choice{.cost = {}, .gpu = gpu, .off = {}};
    if (!plan_.sharers(gpu).empty()) {
      choice.off = fewest_off(plan_, gpu, slot_, &choice.cost);
    } else if (to_free_) {
      choice.off = jobs_on(plan_, gpu);
      if (choice.off.empty() || !is_movable(plan_, choice.off.front(), slot_)) return;
      choice.cost = cost_of(plan_, choice.off.front(), gpu, slot_);
    }
    if (!choice.off.empty() && choice.cost.vgpus <= kMovedMax) choices->push_back(std::move(choice));
  }

  bool squeeze(const Choice& choice) {
    const size_t before = plan_.checkpoint();
    const int64_t left = plan_.left();
    Displacing displacing(plan_, slot_, to_free_);
    for (const Slot job : choice.off) displacing.leave(job, {choice.gpu});
    plan_.join(slot_, choice.gpu);
    Slot stuck = kNoSlot;
    if (displacing.find_places(&stuck) && (!to_free_ || plan_.left() >= std::min<int64_t>(left, 0))) {
      displacing.tell(moved_);
      return true;
    }
    plan_.rollback(before);
    return false;
  }

  Tentative& plan_;
  Slot slot_;
  bool to_free_;
  std::vector<Slot>* moved_;
};

// Whether all parts on it could go to other shared GPUs, as far as one look at the emptiest of these tells.
bool may_empty(const Tentative& plan, GpuIndex gpu, Slot for_whom, uint32_t most_left) {
  const auto& sharers = plan.sharers(gpu);
  return std::all_of(sharers.begin(), sharers.end(), [&](Slot slot) {
    return is_movable(plan, slot, for_whom) && plan.share(slot).job->part <= most_left;
  });
}

// Takes all parts off one shared GPU that `slot` could have.
bool vacate_one(Tentative& plan, Slot slot, std::vector<Slot>* moved) {
  const GpuSet rooms = plan.emptiest_rooms(kRoomsMax);
  if (rooms.size() < 2) return false;
  std::vector<std::pair<Cost, GpuIndex>> choices;
  for (const GpuIndex gpu : rooms) {
    const JobView* const job = slot == kNoSlot ? nullptr : plan.share(slot).job;
    if (job != nullptr && (!plan.may_begin(*job, gpu) || capacity(*job, plan.gpus().view(gpu)) == 0)) continue;
    if (!plan.gpus().usable(gpu)) continue;
    if (!may_empty(plan, gpu, slot, plan.part_left(gpu == rooms[0] ? rooms[1] : rooms[0]))) continue;
    Cost cost;
    for (const Slot sharer : plan.sharers(gpu)) cost.add(cost_of(plan, sharer, gpu, slot));
    if (cost.vgpus <= kMovedMax) choices.emplace_back(cost, gpu);
  }
  std::sort(choices.begin(), choices.end());
  for (const auto& [cost, gpu] : choices) {
    const size_t before = plan.checkpoint();
    Displacing displacing(plan, slot, false);
    const std::vector<Slot> sharers = plan.sharers(gpu);
    for (const Slot sharer : sharers) displacing.leave(sharer, {gpu});
    Slot stuck = kNoSlot;
    if (displacing.find_places(&stuck)) {
      displacing.tell(moved);
      return true;
    }
    plan.rollback(before);
  }
  return false;
}

// Whether nothing but GPUs that are free in pieces keeps it.
bool waits_for_pieces(const Tentative& plan, const std::pair<Order, Slot>& who) {
  const Share& share = plan.share(who.second);
  const int64_t missing = int64_t(share.is.least) - plan.left_last;
  if (missing <= 0 || missing > plan.rooms_used() || missing > int64_t(kMovedMax)) return false;
  if (plan.reserved.count(who.second) != 0) return false;
  if (!share.job->failed_on.empty() && int64_t(share.is.least) > plan.open_to(*share.job)) return false;
  if (plan.blocked_by != kNoSlot && plan.blocked_by != who.second && plan.blocked_from < who.first) return false;
  if (!plan.has_queues()) return true;
  const int32_t leaf = plan.leaf_of(*share.job);
  const int64_t need = need_of(share);
  return headroom(plan.queues(), plan.queue_shares, leaf) >= need &&
         headroom(plan.queues(), plan.limit_shares, leaf) >= need && leaves_shares(plan, leaf, need);
}

Slot next_waiting(Tentative& plan, const std::set<Slot>& seen) {
  std::pair<Order, Slot> first = {{}, kNoSlot};
  for (const Kinds& kinds : plan.waiting()) {
    for (const auto& [kind, line] : kinds) {
      // Who is alike fares alike, and who needs more fares no better.
      const auto& who = *line.begin();
      const int64_t missing = int64_t(kind.least) - plan.left_last;
      if (missing <= 0 || missing > int64_t(kMovedMax)) continue;
      if (first.second != kNoSlot && first < who) continue;
      const auto fares_no_better = [&, of = &line, needs = kind](Slot slot) {
        const Filed& filed = plan.share(slot).filed;
        const bool alike = needs.picky == kNoSlot && filed.kind.picky == kNoSlot;
        return filed.line == of || (alike && needs.least >= filed.kind.least && needs.part >= filed.kind.part &&
                                    needs.memory_bytes >= filed.kind.memory_bytes);
      };
      const bool in_vain = std::any_of(seen.begin(), seen.end(), fares_no_better);
      if (!in_vain && waits_for_pieces(plan, who)) first = who;
    }
  }
  return first.second;
}

std::vector<Slot> who_start(const Tentative& plan) {
  std::vector<Slot> slots;
  for (const Slot slot : plan.touched()) {
    const Share& share = plan.share(slot);
    if (share.known && share.is.admitted && !share.job->running) slots.push_back(slot);
  }
  const auto number = [&](Slot slot) { return plan.share(slot).number; };
  std::sort(slots.begin(), slots.end(), [&](Slot a, Slot b) { return number(a) < number(b); });
  return slots;
}

// Who is to get whole GPUs and has none: the oldest of those that start, or have started and wait for others to move.
Slot first_without_gpus(const Tentative& plan) {
  Slot first = kNoSlot;
  for (const Slot slot : plan.unplaced()) {
    const Share& share = plan.share(slot);
    const bool has_none = share.known && share.is.admitted && !share.is.frozen && share.mine.empty();
    if (!has_none || share.job->is_partial()) continue;
    if (first == kNoSlot || share.number < plan.share(first).number) first = slot;
  }
  return first;
}

struct PartMove {
  Slot slot;
  GpuIndex from, to;
};

// Which parts move so that the job finds room beside all that the plan has already. The plan stays as it is.
std::vector<PartMove> moves_for(Tentative& plan, Slot slot) {
  const size_t before = plan.checkpoint();
  const Share& share = plan.share(slot);
  std::vector<Slot> moved;
  bool can = true;
  if (share.job->is_partial()) {
    can = Squeezing(plan, slot, false, &moved).run() || vacate_one(plan, slot, &moved);
  } else {
    for (int64_t missing = int64_t(share.is.least) - plan.left_last; can && missing > 0; --missing)
      can = moved.size() <= kMovedMax && vacate_one(plan, slot, &moved);
  }
  std::map<Slot, GpuIndex> to;
  for (const Slot each : moved) to[each] = plan.share(each).mine.front();
  plan.rollback(before);
  std::vector<PartMove> moves;
  for (const auto& [each, gpu] : to) moves.push_back({each, plan.share(each).mine.front(), gpu});
  return can ? moves : std::vector<PartMove>();
}

// False: somebody is elsewhere by now.
bool carry_out(Tentative& plan, const std::vector<PartMove>& moves, Slot for_whom) {
  for (const PartMove& move : moves) {
    if (plan.share(move.slot).mine != GpuSet{move.from}) return false;
  }
  for (const PartMove& move : moves) plan.leave(move.slot, move.from);
  for (const PartMove& move : moves) {
    if (!plan.fits(*plan.share(move.slot).job, move.to)) return false;
    plan.join(move.slot, move.to);
    Standing is = plan.share(move.slot).is;
    is.moved_for = for_whom;
    plan.stand(move.slot, is);
  }
  return true;
}

}  // namespace

bool make_way(Tentative& plan, Slot slot, std::vector<Slot>* moved) {
  if (!plan.consolidates() || plan.ways_in_vain >= kWaysMax) return false;
  if (!plan.share(slot).job->failed_on.empty()) return false;  // where it failed it is tried again soon
  if (plan.share(slot).job->is_partial()) {
    if (Squeezing(plan, slot, plan.gpus().free() > 0, moved).run()) return true;
  } else {
    const Standing is = plan.share(slot).is;
    // Somewhere as many must be free as it gets; else nobody need be looked at.
    const int64_t has = plan.gpus().free() + int64_t(plan.share(slot).mine.size());
    if (is.count <= has && Clearing(plan, slot, moved).run(is.count)) return true;
    if (is.least < is.count && is.least <= has && Clearing(plan, slot, moved).run(is.least)) {
      Standing fewer = plan.share(slot).is;
      fewer.count = fewer.least;
      plan.stand(slot, fewer);
      plan.make_sore(slot);
      return true;
    }
  }
  ++plan.ways_in_vain;
  return false;
}

void move_instead_of_shrinking(Tentative& plan, int64_t reserved) {
  if (!plan.consolidates() || reserved != 0 || plan.rooms_used() < 2 || !plan.homeless().empty()) return;
  const int64_t missing = -plan.left();
  if (missing <= 0) return;
  const Slot for_whom = first_without_gpus(plan);
  std::vector<Slot> moved;
  for (int64_t i = 0; i < missing; ++i) {
    if (moved.size() > kMovedMax || !vacate_one(plan, for_whom, &moved)) return;
    ++plan.left_last;
  }
}

void consolidate(Tentative& plan, size_t before, const TryPlan& try_plan) {
  if (!plan.consolidates() || plan.rooms_used() == 0) return;
  std::set<Slot> seen;
  for (size_t in_vain = 0; in_vain < kWaitersMax;) {
    const Slot slot = next_waiting(plan, seen);
    if (slot == kNoSlot) return;
    seen.insert(slot);
    const std::vector<PartMove> moves = moves_for(plan, slot);
    ++in_vain;
    if (moves.empty()) continue;
    const std::vector<Slot> started = who_start(plan);
    plan.rollback(before);
    const bool moved = carry_out(plan, moves, slot);
    const size_t behind = plan.checkpoint();
    if (moved && try_plan(plan)) {
      const std::vector<Slot> more = who_start(plan);
      const auto still = [&](Slot each) { return std::find(more.begin(), more.end(), each) != more.end(); };
      if (more.size() > started.size() && std::all_of(started.begin(), started.end(), still)) {
        before = behind;
        --in_vain;
        seen.erase(slot);
        continue;
      }
    }
    plan.rollback(before);
    (void)try_plan(plan);
  }
}

}  // namespace tide::sched
