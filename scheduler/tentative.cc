#include "scheduler/tentative.h"

#include <algorithm>
#include <utility>

#include "scheduler/cost.h"
#include "scheduler/expect.h"
#include "scheduler/policy.h"
#include "scheduler/queues.h"
#include "scheduler/rank.h"
#include "scheduler/spread.h"

namespace tide::sched {
namespace {

constexpr int64_t kBehindAll = INT64_MAX;       // beyond any growth_rank()
constexpr int64_t kBehindPromises = 1ll << 62;  // beyond any deadline

bool is_whole(const Share& share) { return !share.job->is_partial(); }

bool is_but_for_count(const Standing& is, const Standing& then) {
  return is.admitted && then.admitted && is.frozen == then.frozen && is.out == then.out && is.least == then.least &&
         is.most == then.most;
}

// Mostly behind all others.
void insert_sorted(GpuSet* set, uint32_t value) {
  if (set->empty() || set->back() < value) return set->push_back(value);
  const auto at = std::lower_bound(set->begin(), set->end(), value);
  if (*at != value) set->insert(at, value);
}

void erase_sorted(GpuSet* set, uint32_t value) {
  const auto found = std::lower_bound(set->begin(), set->end(), value);
  if (found != set->end() && *found == value) set->erase(found);
}

}  // namespace

Tentative::Tentative(const State& state)
    : gpus_(state.gpus),
      turns_(state.turns),
      next_turn_(state.next_turn),
      queues_(state.queues),
      has_queues_(queues_.queues.size() > 1 ||
                  (!queues_.empty() && (queues_.queues[0].limit != kNoLimit || !queues_.queues[0].preemptible ||
                                        !queues_.queues[0].models.empty()))),
      used_(state.used),
      share_rules_(state.share_rules),
      consolidates_(state.consolidate),
      now_ms_(state.now_ms),
      at_server_(gpus_.servers()) {
  const size_t leaves = std::max<size_t>(queues_.queues.size(), 1);
  waiting_.resize(leaves);
  queue_sums_.resize(leaves);
  drainers_.resize(leaves);
  growing_.resize(leaves);
  shrinking_.resize(leaves);
  elastic_.resize(leaves);
  grown_.resize(leaves);
  givers_.resize(leaves);
  leaving_by_.resize(leaves);
  rooms_.reserve(gpus_.size());
  for (const GpuView& gpu : gpus_.views()) rooms_.push_back({Room({}, gpu.memory_bytes), {}, false});
}

Tentative::Tentative(const State& state, Tentative&& jobs_of) : Tentative(state) {
  shares_ = std::move(jobs_of.shares_);  // and their memory: of many jobs it is large
  unused_ = std::move(jobs_of.unused_);
  for (Slot slot = 0; slot < shares_.size(); ++slot) {
    Share& share = shares_[slot];
    Share fresh;
    fresh.job = share.job;
    fresh.number = share.number;
    const auto empty = [](auto* to, auto* from) {
      *to = std::move(*from);
      to->clear();
    };
    empty(&fresh.held, &share.held);
    empty(&fresh.mine, &share.mine);
    empty(&fresh.servers, &share.servers);
    empty(&fresh.places, &share.places);
    share = std::move(fresh);
    if (share.job != nullptr) dirty_.push_back(slot);
  }
}

void Tentative::set_rules(const State& state) {
  next_turn_ = state.next_turn;
  used_ = state.used;
  now_ms_ = state.now_ms;
}

int32_t Tentative::leaf_of(const JobView& job) const {
  return !has_queues_ || job.queue < 0 || size_t(job.queue) >= queues_.queues.size() ? 0 : job.queue;
}

Order Tentative::order_of(const Share& share) const {
  if (turns_) return {.rank = int64_t(share.job->turn.ticket), .number = share.number};
  return {.rank = start_rank(*share.job), .place = share.job->place, .number = share.number};
}

// ---- jobs that come, change and go

Slot Tentative::add(const JobView* job, uint64_t number) {
  Slot slot = Slot(shares_.size());
  if (unused_.empty()) {
    shares_.emplace_back();
  } else {
    slot = unused_.back();
    unused_.pop_back();
    shares_[slot] = {};
  }
  shares_[slot].job = job;
  shares_[slot].number = number;
  dirty_.push_back(slot);
  return slot;
}

void Tentative::change(Slot slot) {
  Share& share = shares_[slot];
  if (share.fresh) return;
  share.fresh = true;
  dirty_.push_back(slot);
}

void Tentative::make_sore(Slot slot) {
  shares_[slot].sore = true;
  change(slot);
}

// Takes it out of everything that follows from its view.
void Tentative::forget(Slot slot) {
  Share& share = shares_[slot];
  if (is_whole(share)) {
    put_mine(slot, {});
  } else {
    while (!share.mine.empty()) put_leave(slot, share.mine.back());
  }
  unindex(slot);
  for (const ServerIndex server : share.servers) erase_sorted(&at_server_[server], slot);
  share.servers.clear();
}

void Tentative::remove(Slot slot) {
  if (shares_[slot].known) forget(slot);
  std::erase(dirty_, slot);
  shares_[slot] = {};
  unused_.push_back(slot);
}

bool Tentative::change_gpu(const GpuView& view) {
  const GpuIndex gpu = gpus_.find(view.id);
  if (gpu == kNoGpu) return false;
  const GpuView& is = gpus_.view(gpu);
  if (is.memory_bytes != view.memory_bytes || is.traits != view.traits) return false;
  // Whether a server answers, or drains, is a matter of all that is there.
  const bool alone = is.online == view.online && is.draining == view.draining;
  gpus_.set(gpu, view);
  for (const Slot slot : at_server_[gpus_.server_of(gpu)]) {
    const JobView& job = *shares_[slot].job;
    const bool there = std::find(job.places.begin(), job.places.end(), view.id) != job.places.end();
    if (!alone || there || job.keeps.count(view.id) != 0) change(slot);
  }
  return true;
}

// ---- what follows from a job's view

void Tentative::hold(const GpuId& place, Share* share) {
  if (place.none()) return;
  const ServerIndex server = gpus_.find_server(place.server);
  if (server != kNoServer && std::find(share->servers.begin(), share->servers.end(), server) == share->servers.end())
    share->servers.push_back(server);
  if (place.parked()) {
    share->away |= server == kNoServer || !gpus_.answers(server);
    share->is.frozen |= share->away;
    return;
  }
  const GpuIndex gpu = server == kNoServer ? kNoGpu : gpus_.find_on(server, place.index);
  if (gpu == kNoGpu || !gpus_.view(gpu).online) share->is.frozen = true;
  if (gpu == kNoGpu || !gpus_.usable(gpu)) return;
  // What a job leaves that is being suspended is its own until all of it is parked, whether it meets its needs or not.
  if (!share->job->suspended && !may_use(*share->job, gpus_.view(gpu))) return;
  insert_sorted(&share->held, gpu);
}

uint32_t Tentative::gpus_for_memory(const JobView& job) {
  if (job.require.any() || job.barred != nullptr) return sched::gpus_for_memory(gpus_.views(), job);
  if (job.memory_bytes == 0) return 1;
  const std::tuple key(job.memory_bytes, job.memory_given, job.vgpus);
  const auto [found, fresh] = for_memory_.try_emplace(key, 0);
  if (fresh) found->second = sched::gpus_for_memory(gpus_.views(), job);
  return found->second;
}

void Tentative::refresh(Slot slot) {
  Share& share = shares_[slot];
  const JobView& job = *share.job;
  share.is = {.admitted = job.running, .out = false};
  share.away = share.sore = share.fresh = false;
  share.known = true;
  share.taken_for = share.behind = kNoSlot;
  share.why = Why::kNeeds;
  share.left = 0;
  share.held.clear();
  for (const GpuId& place : job.places) hold(place, &share);
  for (const GpuId& place : job.keeps) hold(place, &share);
  for (const ServerIndex server : share.servers) insert_sorted(&at_server_[server], slot);
  Standing& is = share.is;
  is.frozen |= job.suspended;
  const Counts counts = counts_of(job, gpus_for_memory(job), uint32_t(share.held.size()));
  is.least = counts.least;
  if (is_whole(share) && job.due_gpus != 0)
    is.least = std::max(is.least, rounded_up(job, std::min(job.due_gpus, job.vgpus)));
  is.most = job.in_line && job.due_gpus != 0 ? is.least : std::max(is.least, counts.most);
  // What it has goes to others when all of it is parked, and not before.
  if (job.in_line && job.running && !job.yields_to.empty()) is.least = is.most = uint32_t(share.held.size());
  if (is.frozen) is.least = is.most = uint32_t(share.held.size());
  if (is.admitted) is.count = std::clamp(uint32_t(share.held.size()), is.least, is.most);
  index(slot);
  if (share.held.empty()) note_home(slot);  // else it claims its place again (begin())
  if (is_whole(share) && (is.admitted || is.frozen)) put_mine(slot, share.held);
  touch(slot);
  note_unplaced(slot);
}

// Who had its part of a GPU first keeps it, as far as there is room; who is frozen does in any case.
void Tentative::share_gpus(Claims claims) {
  std::vector<GpuIndex> gpus;  // each once
  for (const auto& [slot, gpu] : claims) {
    if (!std::exchange(rooms_[gpu].claimed, true)) gpus.push_back(gpu);
  }
  bool others = false;
  for (const GpuIndex gpu : gpus) {
    const std::vector<Slot> before = rooms_[gpu].slots;
    for (const Slot slot : before) put_leave(slot, gpu);
    for (const Slot slot : before) claims.emplace_back(slot, gpu);
    others |= !before.empty();
  }
  const auto earlier = [&](const auto& a, const auto& b) { return shares_[a.first].number < shares_[b.first].number; };
  if (others) std::stable_sort(claims.begin(), claims.end(), earlier);
  for (const auto& [slot, gpu] : claims) {  // job by job, as they lie in memory
    Shared& shared = rooms_[gpu];
    const Portion portion = shares_[slot].job->portion();
    if (shared.slots.empty() || shares_[slot].is.frozen || shared.room.fits(portion)) {
      shared.slots.push_back(slot);
      shared.room.take(portion);
      note_joined(slot, gpu);
      continue;
    }
    make_sore(slot);
    note_unplaced(slot);
    note_home(slot);
  }
  for (const GpuIndex gpu : gpus) {
    Shared& shared = rooms_[gpu];
    shared.claimed = false;
    if (shared.slots.empty()) continue;
    left_in_.insert({shared.room.part_left, shared.room.memory_left, gpu});
    ++rooms_used_;
  }
}

void Tentative::freeze(Slot slot) {
  Share& share = shares_[slot];
  Standing is = share.is;
  is.frozen = true;
  is.least = is.most = is.count = uint32_t(share.held.size());
  put_standing(slot, is);
  for (const GpuIndex gpu : share.held) {
    const bool has = std::binary_search(share.mine.begin(), share.mine.end(), gpu);
    if (!is_whole(share) && !has) share_gpus({{slot, gpu}});
  }
  make_sore(slot);
}

void Tentative::begin() {
  std::vector<Slot> slots;
  slots.swap(dirty_);
  const auto earlier = [&](Slot a, Slot b) { return shares_[a].number < shares_[b].number; };
  if (!std::is_sorted(slots.begin(), slots.end(), earlier)) std::sort(slots.begin(), slots.end(), earlier);
  for (const Slot slot : slots) {
    if (shares_[slot].known) forget(slot);
  }
  for (const Slot slot : slots) refresh(slot);
  Claims claims;
  for (const Slot slot : slots) {
    const Share& share = shares_[slot];
    if (is_whole(share) || !share.is.admitted) continue;
    for (const GpuIndex gpu : share.held) claims.emplace_back(slot, gpu);
  }
  if (!claims.empty()) share_gpus(std::move(claims));
  blocked_by = kNoSlot;
  ways_in_vain = 0;
  reserved.clear();
  log_.clear();
}

void Tentative::hold_mine(Slot slot) {
  Share& share = shares_[slot];
  std::vector<ServerIndex> servers;
  for (const GpuIndex gpu : share.mine) {
    const ServerIndex server = gpus_.server_of(gpu);
    if (servers.empty() || servers.back() != server) servers.push_back(server);
  }
  if (share.held != share.mine) {
    share.held = share.mine;
    if (has_queues_) {
      queue_sums_[share.filed.leaf].add(share.filed.sums, -1);
      share.filed.sums = sums_of(share);
      queue_sums_[share.filed.leaf].add(share.filed.sums, 1);
    }
  }
  if (servers == share.servers) return;
  for (const ServerIndex server : share.servers) erase_sorted(&at_server_[server], slot);
  share.servers = std::move(servers);
  for (const ServerIndex server : share.servers) insert_sorted(&at_server_[server], slot);
}

void Tentative::settle() {
  for (const Slot slot : touched_) {
    Share& share = shares_[slot];
    share.touched = false;
    share.is.moved_for = share.is.passes = kNoSlot;
    share.places.clear();
    if (share.known && share.is.admitted && !share.is.frozen) hold_mine(slot);
  }
  touched_.clear();
  for (const Slot slot : unplaced_) shares_[slot].unplaced = false;
  unplaced_.clear();
  log_.clear();
}

void Tentative::note_cost(Slot slot) {
  Filed& filed = shares_[slot].filed;
  const uint64_t cost = filed.givers == nullptr ? 0 : disturbance_cost(*shares_[slot].job);
  if (filed.givers == nullptr || cost == filed.price) return;
  filed.givers->erase({filed.price, shares_[slot].number, slot});
  filed.price = cost;
  filed.givers->insert({filed.price, shares_[slot].number, slot});
}

void Tentative::note_passed(Slot slot) {
  const Share& share = shares_[slot];
  if (share.fresh || !share.known || share.filed.line == nullptr) return change(slot);
  unindex(slot);
  index(slot);
}

void Tentative::note_unplaced(Slot slot) {
  if (std::exchange(shares_[slot].unplaced, true)) return;
  unplaced_.push_back(slot);
}

void Tentative::touch(Slot slot) {
  if (shares_[slot].touched) return;
  shares_[slot].touched = true;
  touched_.push_back(slot);
}

// ---- indices

void Tentative::index(Slot slot) {
  Share& share = shares_[slot];
  const Standing& is = share.is;
  const JobView& job = *share.job;
  Filed& filed = share.filed;
  filed = {.leaf = size_t(leaf_of(job)), .is = is, .order = order_of(share), .kind = {}};
  filed.rank = growth_rank(job);
  filed.steps = job.powers_of_two;
  filed.counted = true;
  stepping_ += filed.steps;
  ++ranks_[filed.rank];
  if (has_queues_) {
    filed.sums = sums_of(share);
    queue_sums_[filed.leaf].add(filed.sums, 1);
  }
  if (is.admitted) return index_admitted(slot);
  if (job.suspended) return;
  if (share.away || is.out || !job.kept_out_for.empty()) return;
  filed.due = job.due_gpus != 0;
  if (filed.due) {
    filed.order.rank = job.in_line ? kBehindPromises + line_rank(job) : int64_t(job.deadline_ms);
    filed.order.place = job.in_line ? job.place : 0;
    dues_.insert({filed.order, slot});
    return;
  }
  if (job.in_line) return;
  const bool picky = job.picky();
  const uint64_t bytes = job.is_partial() ? job.memory_bytes : 0;
  filed.kind = {.least = is.least, .part = job.part, .memory_bytes = bytes, .picky = picky ? slot : kNoSlot};
  filed.line = &waiting_[filed.leaf][filed.kind];
  filed.line->emplace_hint(filed.line->end(), filed.order, slot);
  filed.entitled = job.entitled;
  entitled_ += filed.entitled;
  filed.drains = job.skipped >= kSkipsMax;
  if (filed.drains) drainers_[filed.leaf].insert({filed.order, slot});
}

void Tentative::index_admitted(Slot slot) {
  Share& share = shares_[slot];
  const Standing& is = share.is;
  const JobView& job = *share.job;
  Filed& filed = share.filed;
  filed.summed = is_whole(share);
  if (filed.summed) least_sum_ += is.least;
  filed.due = job.due_gpus != 0;
  filed.awaits = is.frozen || job.in_line ? 0 : job.due_more;
  awaited_ += filed.awaits;
  filed.ends_ms = end_of(share);
  if (filed.ends_ms != 0) ending_.insert({filed.ends_ms, slot});
  filed.priority = job.priority;
  filed.elastic = has_queues_ && is.least < is.most;
  const int64_t rank = filed.due ? kBehindAll : filed.rank;
  if (filed.elastic) elastic_[filed.leaf].insert({{rank, is.least, share.number}, slot});
  if (keeps_givers_) file_giver(slot);
  filed.leaving = job.suspended;
  if (filed.leaving) {
    filed.leaves = is_whole(share) ? int64_t(share.held.size()) : 0;
    leaving_gpus_ += filed.leaves;
    ++leaving_jobs_;
    ++leaving_by_[filed.leaf][job.priority];
  }
  index_count(slot);
}

// Of one that is admitted.
void Tentative::file_giver(Slot slot) {
  const Share& share = shares_[slot];
  const JobView& job = *share.job;
  Filed& filed = shares_[slot].filed;
  if (share.is.frozen || !job.preemptible || job.spared) return;
  const bool inference = job.job_class == JobClass::kInference;
  filed.givers = &givers_[filed.leaf][{job.priority, inference, share.is.least, job.part}];
  filed.price = disturbance_cost(job);
  filed.givers->insert(filed.givers->end(), {filed.price, share.number, slot});
}

const std::vector<Tentative::Givers>& Tentative::givers() {
  if (std::exchange(keeps_givers_, true)) return givers_;
  for (Slot slot = 0; slot < shares_.size(); ++slot) {
    if (shares_[slot].filed.counted && shares_[slot].is.admitted) file_giver(slot);
  }
  return givers_;
}

// What depends on how many GPUs it is to have, and nothing else does.
void Tentative::index_count(Slot slot) {
  const Share& share = shares_[slot];
  const Standing& is = share.is;
  Filed& filed = shares_[slot].filed;
  filed.is.count = is.count;
  if (filed.summed) count_sum_ += is.count;
  filed.growing = is.count < is.most;
  filed.shrinking = is.count > is.least;
  const int64_t rank = filed.due ? kBehindAll : filed.rank;
  if (filed.growing) growing_[filed.leaf].insert({{rank, is.count, share.number}, slot});
  if (!filed.shrinking) return;
  shrinking_[filed.leaf].insert({{rank, is.count - 1, share.number}, slot});
  grown_[filed.leaf] += is.count - is.least;
}

void Tentative::unindex_count(Slot slot) {
  const Share& share = shares_[slot];
  const Filed& filed = share.filed;
  if (filed.summed) count_sum_ -= filed.is.count;
  const int64_t rank = filed.due ? kBehindAll : filed.rank;
  if (filed.growing) growing_[filed.leaf].erase({{rank, filed.is.count, share.number}, slot});
  if (!filed.shrinking) return;
  shrinking_[filed.leaf].erase({{rank, filed.is.count - 1, share.number}, slot});
  grown_[filed.leaf] -= filed.is.count - filed.is.least;
}

void Tentative::unindex_admitted(Slot slot, const Filed& filed) {
  const int64_t rank = filed.due ? kBehindAll : filed.rank;
  if (filed.summed) least_sum_ -= filed.is.least;
  awaited_ -= filed.awaits;
  if (filed.ends_ms != 0) ending_.erase({filed.ends_ms, slot});
  if (filed.elastic) elastic_[filed.leaf].erase({{rank, filed.is.least, shares_[slot].number}, slot});
  if (filed.givers != nullptr) filed.givers->erase({filed.price, shares_[slot].number, slot});
  if (!filed.leaving) return;
  leaving_gpus_ -= filed.leaves;
  --leaving_jobs_;
  auto& by_priority = leaving_by_[filed.leaf];
  const auto found = by_priority.find(filed.priority);
  if (--found->second == 0) by_priority.erase(found);
}

bool Tentative::somebody_leaves_below(int32_t leaf, int32_t priority) const {
  const auto& by_priority = leaving_by_[size_t(leaf)];
  return !by_priority.empty() && by_priority.begin()->first < priority;
}

uint32_t Tentative::part_left_most() const {
  uint32_t most = 0;
  for (const ByLeft* rooms : {&left_in_, &left_in_new_}) {
    if (!rooms->empty()) most = std::max(most, std::get<0>(*rooms->rbegin()));
  }
  return most;
}

void Tentative::unindex(Slot slot) {
  Share& share = shares_[slot];
  unindex_count(slot);
  unindex_admitted(slot, share.filed);
  const Filed filed = std::exchange(share.filed, {});
  if (has_queues_) queue_sums_[filed.leaf].add(filed.sums, -1);
  if (!homeless_.empty()) homeless_.erase({share.number, slot});
  if (filed.due) dues_.erase({filed.order, slot});
  stepping_ -= filed.steps;
  if (filed.counted) {
    const auto ranked = ranks_.find(filed.rank);
    if (--ranked->second == 0) ranks_.erase(ranked);
  }
  entitled_ -= filed.entitled;
  if (filed.drains) drainers_[filed.leaf].erase({filed.order, slot});
  if (filed.line == nullptr) return;
  filed.line->erase({filed.order, slot});
  if (filed.line->empty()) waiting_[filed.leaf].erase(filed.kind);
}

// 0: not known.
uint64_t Tentative::end_of(const Share& share) const {
  constexpr uint64_t kLeaving = 1;  // before all others
  const JobView& job = *share.job;
  if (share.away) return 0;
  if (job.suspended) return kLeaving;
  if (job.running) return job.ends_ms;
  return end_if_started(job, now_ms_);
}

void QueueSums::add(const QueueSums& other, int64_t sign) {
  demand += sign * other.demand;
  allocated += sign * other.allocated;
  minima += sign * other.minima;
  left_behind += sign * other.left_behind;
  usable += sign * other.usable;
}

QueueSums Tentative::sums_of(const Share& share) const {
  const JobView& job = *share.job;
  const Standing& is = share.is;
  const int64_t held = int64_t(share.held.size()) * (is_whole(share) ? kWholeGpu : job.part);
  const int64_t most = is_whole(share) ? int64_t(is.most) * kWholeGpu : job.part;
  QueueSums sums;
  if (!is.frozen) sums.demand = most;
  if (!is.admitted) return sums;
  // Of an absent server it has what it had there, as far as limits go.
  const int64_t absent = is.frozen ? std::max<int64_t>(held_by(job) - held, 0) : 0;
  sums.allocated = held;
  sums.minima = is.frozen ? held + absent : is_whole(share) ? int64_t(is.least) * kWholeGpu : job.part;
  sums.left_behind = job.suspended ? held + absent : absent;
  sums.usable = most;
  if (is.frozen && !job.suspended) sums.demand = held;
  return sums;
}

void Tentative::note_home(Slot slot) {
  const Share& share = shares_[slot];
  const bool homeless = share.is.admitted && !is_whole(share) && !share.is.frozen && share.mine.empty();
  if (homeless) homeless_.insert({share.number, slot});
  if (!homeless && !homeless_.empty()) homeless_.erase({share.number, slot});
}

// ---- what actions do

void Tentative::stand(Slot slot, const Standing& standing) {
  log_.push_back({.kind = Undo::Kind::kStanding, .slot = slot, .is = shares_[slot].is});
  put_standing(slot, standing);
}

void Tentative::set_mine(Slot slot, GpuSet mine) {
  log_.push_back({.kind = Undo::Kind::kMine, .slot = slot, .mine = shares_[slot].mine});
  put_mine(slot, std::move(mine));
}

void Tentative::join(Slot slot, GpuIndex gpu) {
  log_.push_back({.kind = Undo::Kind::kJoin, .slot = slot, .gpu = gpu});
  put_join(slot, gpu);
}

void Tentative::leave(Slot slot, GpuIndex gpu) {
  log_.push_back({.kind = Undo::Kind::kLeave, .slot = slot, .gpu = gpu});
  put_leave(slot, gpu);
}

void Tentative::rollback(size_t checkpoint) {
  for (; log_.size() > checkpoint; log_.pop_back()) {
    Undo& undo = log_.back();
    switch (undo.kind) {
      case Undo::Kind::kStanding:
        put_standing(undo.slot, undo.is);
        break;
      case Undo::Kind::kMine:
        put_mine(undo.slot, std::move(undo.mine));
        break;
      case Undo::Kind::kJoin:
        put_leave(undo.slot, undo.gpu);
        break;
      case Undo::Kind::kLeave:
        put_join(undo.slot, undo.gpu);
        break;
    }
  }
}

void Tentative::put_standing(Slot slot, const Standing& standing) {
  Share& share = shares_[slot];
  if (is_but_for_count(share.filed.is, standing) && share.filed.counted) {
    unindex_count(slot);
    share.is = standing;
    index_count(slot);
  } else {
    unindex(slot);
    share.is = standing;
    index(slot);
  }
  note_home(slot);
  touch(slot);
  note_unplaced(slot);
}

void Tentative::put_mine(Slot slot, GpuSet mine) {
  Share& share = shares_[slot];
  for (const GpuIndex gpu : mine) gpus_.take(gpu);
  for (const GpuIndex gpu : share.mine) gpus_.give(gpu);
  share.mine = std::move(mine);
  touch(slot);
  note_unplaced(slot);
}

void Tentative::put_join(Slot slot, GpuIndex gpu) {
  Shared& shared = rooms_[gpu];
  const auto after = std::find_if(shared.slots.begin(), shared.slots.end(),
                                  [&](Slot other) { return shares_[other].number > shares_[slot].number; });
  refill(gpu, [&] {
    shared.slots.insert(after, slot);
    sum_up(&shared);
  });
  note_joined(slot, gpu);
}

void Tentative::note_joined(Slot slot, GpuIndex gpu) {
  insert_sorted(&shares_[slot].mine, gpu);
  if (gpu < gpus_.size()) gpus_.take(gpu);
  note_home(slot);
  touch(slot);
}

void Tentative::put_leave(Slot slot, GpuIndex gpu) {
  Shared& shared = rooms_[gpu];
  refill(gpu, [&] {
    shared.slots.erase(std::find(shared.slots.begin(), shared.slots.end(), slot));
    sum_up(&shared);
  });
  erase_sorted(&shares_[slot].mine, gpu);
  if (gpu < gpus_.size()) gpus_.give(gpu);
  note_home(slot);
  touch(slot);
  note_unplaced(slot);
}

// ---- rooms

template <typename Change>
void Tentative::refill(GpuIndex gpu, const Change& change) {
  Shared& shared = rooms_[gpu];
  const bool chosen = gpu < gpus_.size();
  ByLeft& by_left = chosen ? left_in_ : left_in_new_;
  const auto key = [&] { return std::tuple(shared.room.part_left, shared.room.memory_left, gpu); };
  if (!shared.slots.empty()) by_left.erase(key());
  rooms_used_ -= chosen && !shared.slots.empty();
  change();
  if (!shared.slots.empty()) by_left.insert(key());
  rooms_used_ += chosen && !shared.slots.empty();
}

void Tentative::sum_up(Shared* shared) const {
  shared->room.part_left = kWholeGpu;
  shared->room.memory_left = shared->room.gpu_bytes;
  for (const Slot slot : shared->slots) shared->room.take(shares_[slot].job->portion());
}

GpuIndex Tentative::new_room() {
  rooms_.push_back({Room({}, gpus_.memory_most()), {}, false});
  return GpuIndex(rooms_.size() - 1);
}

void Tentative::drop_new_rooms() { rooms_.resize(gpus_.size(), {Room({}, 0), {}, false}); }

bool Tentative::may_begin(const JobView& job, GpuIndex gpu) const {
  if (gpu >= gpus_.size()) return true;
  return job.failed_on.count(gpus_.view(gpu).id.server) == 0 && may_use(job, gpus_.view(gpu));
}

GpuIndex Tentative::first_fit(const ByLeft& rooms, const JobView& job) const {
  for (auto room = rooms.lower_bound({job.part, job.memory_bytes, 0}); room != rooms.end();) {
    const auto& [part, memory, gpu] = *room;
    if (memory < job.memory_bytes) {
      room = rooms.lower_bound({part, job.memory_bytes, 0});
      continue;
    }
    if (fits(job, gpu) && may_begin(job, gpu)) return gpu;
    ++room;
  }
  return kNoGpu;
}

// The one with the least memory left of those with just so much left of them.
GpuIndex Tentative::fit_on(ServerIndex server, const JobView& job, uint32_t part_left) const {
  GpuIndex best = kNoGpu;
  for (GpuIndex gpu = gpus_.first(server); gpu < gpus_.end(server); ++gpu) {
    const Shared& shared = rooms_[gpu];
    if (shared.slots.empty() || shared.room.part_left != part_left) continue;
    if (!fits(job, gpu) || !may_begin(job, gpu)) continue;
    if (best == kNoGpu || shared.room.memory_left < rooms_[best].room.memory_left) best = gpu;
  }
  return best;
}

GpuSet Tentative::emptiest_rooms(size_t most) const {
  GpuSet rooms;
  for (auto room = left_in_.rbegin(); room != left_in_.rend() && rooms.size() < most; ++room)
    rooms.push_back(std::get<2>(*room));
  return rooms;
}

GpuIndex Tentative::best_room(const JobView& job) const {
  const GpuIndex chosen = first_fit(left_in_, job), fresh = first_fit(left_in_new_, job);
  if (chosen == kNoGpu) return fresh;
  const Room& room = rooms_[chosen].room;
  const bool parked = !job.places.empty() && job.places[0].parked();
  const ServerIndex server = parked ? gpus_.find_server(job.places[0].server) : kNoServer;
  const GpuIndex near = server == kNoServer ? kNoGpu : fit_on(server, job, room.part_left);
  const Room* const other = fresh == kNoGpu ? nullptr : &rooms_[fresh].room;
  if (other != nullptr && other->part_left < room.part_left) return fresh;
  if (near != kNoGpu) return near;
  if (other == nullptr || other->part_left > room.part_left) return chosen;
  return !parked || other->memory_left <= room.memory_left ? fresh : chosen;
}

int64_t Tentative::open_to(const JobView& job) const {
  int64_t open = total();
  for (const std::string& name : job.failed_on) {
    const ServerIndex server = gpus_.find_server(name);
    if (server != kNoServer) open -= gpus_.usable_on(server);
  }
  return open;
}

}  // namespace tide::sched
