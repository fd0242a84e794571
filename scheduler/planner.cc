#include "scheduler/planner.h"

#include <algorithm>
#include <utility>

#include "scheduler/expect.h"
#include "scheduler/models.h"

namespace tide::sched {
namespace {

bool is_leaving(const JobView& job) {
  return job.suspended &&
         std::any_of(job.places.begin(), job.places.end(), [](const GpuId& place) { return place.on_gpu(); });
}

bool can_be_passed(const JobView& job) { return !job.running && !job.suspended && job.skipped < kSkipsMax; }

}  // namespace

Planner::Planner(const State& state) : pool_(state) {
  pool_.jobs.clear();
  std::sort(pool_.gpus.begin(), pool_.gpus.end(), [](const GpuView& a, const GpuView& b) { return a.id < b.id; });
  plan_ = std::make_unique<Tentative>(pool_);
}

// Where it is parked depends on servers that it is not on.
void Planner::note_leaving(const JobView& job) {
  if (is_leaving(job)) {
    leaving_.insert(job.id);
  } else {
    leaving_.erase(job.id);
  }
}

void Planner::put(const JobView& job) {
  note_leaving(job);
  const auto found = slots_.find(job.id);
  if (found != slots_.end()) {
    views_[found->second] = job;
    plan_->change(found->second);
    return list_passable(found->second);
  }
  const Slot slot = plan_->next_slot();
  if (slot >= views_.size()) views_.resize(slot + 1);
  views_[slot] = job;
  plan_->add(&views_[slot], next_number_++);
  slots_[job.id] = slot;
  list_passable(slot);
}

void Planner::remove(const std::string& id) {
  const auto found = slots_.find(id);
  if (found == slots_.end()) return;
  unlist(found->second);
  plan_->remove(found->second);
  slots_.erase(found);
  leaving_.erase(id);
}

std::vector<GpuView>::iterator Planner::place_of(const GpuId& id) {
  return std::lower_bound(pool_.gpus.begin(), pool_.gpus.end(), id,
                          [](const GpuView& gpu, const GpuId& other) { return gpu.id < other; });
}

void Planner::put_gpu(const GpuView& gpu) {
  const auto known = place_of(gpu.id);
  if (known == pool_.gpus.end() || known->id != gpu.id) {
    pool_.gpus.insert(known, gpu);
    return begin_anew();
  }
  if (*known == gpu) return;
  *known = gpu;
  if (anew_ || !plan_->change_gpu(gpu)) return begin_anew();
  for (const std::string& id : leaving_) plan_->change(slots_.at(id));
}

void Planner::put_server(const std::string& server, const std::vector<GpuView>& gpus) {
  for (const GpuView& gpu : gpus_of(server)) {
    const bool stays = std::any_of(gpus.begin(), gpus.end(), [&](const GpuView& each) { return each.id == gpu.id; });
    if (stays) continue;
    pool_.gpus.erase(place_of(gpu.id));
    begin_anew();
  }
  for (const GpuView& gpu : gpus) put_gpu(gpu);
}

std::vector<GpuView> Planner::gpus_of(const std::string& server) const {
  const auto first = std::lower_bound(pool_.gpus.begin(), pool_.gpus.end(), server,
                                      [](const GpuView& gpu, const std::string& name) { return gpu.id.server < name; });
  auto last = first;
  while (last != pool_.gpus.end() && last->id.server == server) ++last;
  return {first, last};
}

void Planner::put_rules(State rules) {
  rules.jobs.clear();
  rules.gpus.clear();
  std::vector<GpuView> gpus = std::move(pool_.gpus);
  pool_.gpus.clear();
  pool_.next_turn = rules.next_turn;
  pool_.used = rules.used;
  pool_.now_ms = rules.now_ms;
  if (!(pool_ == rules)) begin_anew();
  pool_ = std::move(rules);
  pool_.gpus = std::move(gpus);
  plan_->set_rules(pool_);
}

// Where GPUs are kept for some the whole answer is worked out, and what differs is told. The plan itself only knows who
// waits.
std::vector<Planner::Change> Planner::decide_whole() {
  if (std::exchange(anew_, false)) plan_ = std::make_unique<Tentative>(pool_, std::move(*plan_));
  plan_->begin();
  plan_->settle();
  std::vector<std::pair<uint64_t, Slot>> order;
  for (const auto& [id, slot] : slots_) order.emplace_back(plan_->share(slot).number, slot);
  std::sort(order.begin(), order.end());
  State state = pool_;
  for (const auto& [number, slot] : order) state.jobs.push_back(views_[slot]);
  const Assignment answer = assign(state);
  std::vector<Change> changes;
  for (const auto& [number, slot] : order) {
    const JobView& job = views_[slot];
    const Decision& decision = answer.at(job.id);
    reasons_[job.id] = decision.reason;
    if (decision.running == job.running && decision.places == job.places) continue;
    changes.push_back({job.id, decision, decision.running && !job.running});
  }
  for (const Change& change : changes) adopt(slots_.at(change.id), change.decision);
  return changes;
}

std::vector<Planner::Change> Planner::decide() {
  reasons_.clear();
  if (!pool_.reservations.empty() || has_models(pool_.queues)) return decide_whole();
  std::vector<Change> changes;
  if (std::exchange(anew_, false)) plan_ = std::make_unique<Tentative>(pool_, std::move(*plan_));
  if (!make_plan(*plan_)) {
    plan_->settle();
    return changes;
  }
  std::vector<Slot> touched = plan_->touched();
  const auto earlier = [&](Slot a, Slot b) { return plan_->share(a).number < plan_->share(b).number; };
  if (!std::is_sorted(touched.begin(), touched.end(), earlier)) std::sort(touched.begin(), touched.end(), earlier);
  for (const Slot slot : touched) {
    const Share& share = plan_->share(slot);
    if (!share.known) continue;
    const JobView& job = *share.job;
    const bool placed = share.is.admitted && !share.is.frozen && share.taken_for == kNoSlot && !yields(share);
    const bool taken = share.taken_for != kNoSlot || yields(share);
    if (placed && share.places.empty()) continue;  // it was only tried out what it could leave
    if (taken ? false : placed ? job.running && share.places == job.places : !job.suspended || !is_leaving(job))
      continue;
    Decision decision = decision_of(*plan_, slot);
    if (decision.running == job.running && decision.places == job.places) continue;
    const bool starts = decision.running && !job.running;
    changes.push_back({job.id, std::move(decision), starts});
  }
  plan_->settle();
  for (const Change& change : changes) adopt(slots_.at(change.id), change.decision);
  return changes;
}

void Planner::adopt(Slot slot, const Decision& decision) {
  JobView& job = views_[slot];
  if (job.running != decision.running) unlist(slot);
  if (job.running && !decision.running) {  // its GPUs are taken for others
    job.suspended = true;
    plan_->change(slot);
    note_leaving(job);
    return;
  }
  const bool starts = decision.running && !job.running;
  job.running = decision.running;
  for (size_t v = 0; job.suspended && v < job.places.size(); ++v) {
    if (job.places[v].on_gpu() && decision.places[v].parked()) job.keeps.insert(job.places[v]);
  }
  if (!decision.running) return;
  if (starts) note_start(decision, pool_.now_ms, &job);
  if (job.suspended || (job.spared && job.places != decision.places)) plan_->change(slot);  // it keeps what it has got
  job.places = decision.places;
  plan_->note_cost(slot);
  note_leaving(job);
}

// Each is gone through kSkipsMax times at most, however many wait.
void Planner::count_passed(const std::vector<Change>& changes) {
  std::vector<Passable> starters;
  for (const Change& change : changes) {
    const auto found = change.starts ? slots_.find(change.id) : slots_.end();
    if (found != slots_.end()) starters.push_back(passable(found->second));
  }
  if (starters.empty()) return;
  std::sort(starters.begin(), starters.end());
  std::vector<Slot> enough;
  auto later = starters.begin();
  for (auto who = passable_.begin(); who != passable_.end() && *who < starters.back(); ++who) {
    while (*later < *who) ++later;
    uint32_t& times = passed_[who->slot];
    times = uint32_t(std::min<size_t>(times + size_t(starters.end() - later), kSkipsMax));
    if (times == kSkipsMax) enough.push_back(who->slot);
  }
  for (const Slot slot : enough) {
    views_[slot].skipped = kSkipsMax;
    plan_->note_passed(slot);
    unlist(slot);
  }
}

// By its place as it is now.
void Planner::list_passable(Slot slot) {
  if (listed_.size() <= slot) {
    listed_.resize(slot + 1);
    passed_.resize(slot + 1);
  }
  passed_[slot] = views_[slot].skipped;
  const bool lists = can_be_passed(views_[slot]);
  if (lists && listed_[slot] == passable(slot)) return;
  unlist(slot);
  if (!lists) return;
  listed_[slot] = passable(slot);
  passable_.insert(*listed_[slot]);
}

void Planner::unlist(Slot slot) {
  if (slot >= listed_.size() || !listed_[slot]) return;
  views_[slot].skipped = passed_[slot];
  passable_.erase(*listed_[slot]);
  listed_[slot].reset();
}

std::string Planner::why(const std::string& id) const {
  if (const auto said = reasons_.find(id); said != reasons_.end()) return said->second;
  const auto found = slots_.find(id);
  return found == slots_.end() ? "" : reason_of(*plan_, found->second);
}

const JobView* Planner::view(const std::string& id) const {
  const auto found = slots_.find(id);
  if (found == slots_.end()) return nullptr;
  JobView& view = views_[found->second];
  if (listed_[found->second]) view.skipped = passed_[found->second];
  return &view;
}

}  // namespace tide::sched
