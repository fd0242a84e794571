#include "scheduler/planner.h"

#include <algorithm>

namespace tide::sched {
namespace {

bool is_leaving(const JobView& job) {
  return job.suspended &&
         std::any_of(job.places.begin(), job.places.end(), [](const GpuId& place) { return place.on_gpu(); });
}

}  // namespace

Planner::Planner(const State& state) : pool_(state) {
  pool_.jobs.clear();
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
    return;
  }
  const Slot slot = plan_->next_slot();
  if (slot >= views_.size()) views_.resize(slot + 1);
  views_[slot] = job;
  plan_->add(&views_[slot], next_number_++);
  slots_[job.id] = slot;
}

void Planner::remove(const std::string& id) {
  const auto found = slots_.find(id);
  if (found == slots_.end()) return;
  plan_->remove(found->second);
  slots_.erase(found);
  leaving_.erase(id);
}

void Planner::put_gpu(const GpuView& gpu) {
  const auto known =
      std::find_if(pool_.gpus.begin(), pool_.gpus.end(), [&](const GpuView& g) { return g.id == gpu.id; });
  if (known == pool_.gpus.end()) {
    pool_.gpus.push_back(gpu);
  } else {
    *known = gpu;
  }
  if (!plan_->change_gpu(gpu)) return begin_anew();
  for (const std::string& id : leaving_) plan_->change(slots_.at(id));
}

void Planner::begin_anew() { plan_ = std::make_unique<Tentative>(pool_, *plan_); }

std::vector<Planner::Change> Planner::decide() {
  std::vector<Change> changes;
  if (!make_plan(*plan_)) {
    plan_->settle();
    return changes;
  }
  std::vector<Slot> touched = plan_->touched();
  std::sort(touched.begin(), touched.end(),
            [&](Slot a, Slot b) { return plan_->share(a).number < plan_->share(b).number; });
  std::vector<Slot> started;
  for (const Slot slot : touched) {
    const Share& share = plan_->share(slot);
    if (!share.known) continue;
    const JobView& job = *share.job;
    const bool placed = share.is.admitted && !share.is.frozen && share.taken_for == kNoSlot;
    const bool taken = share.taken_for != kNoSlot;
    if (taken ? false : placed ? job.running && share.places == job.places : !job.suspended || !is_leaving(job))
      continue;
    Decision decision = decision_of(*plan_, slot);
    if (decision.running == job.running && decision.places == job.places) continue;
    if (decision.running && !job.running) started.push_back(slot);
    changes.push_back({job.id, std::move(decision)});
  }
  plan_->settle();
  for (const Change& change : changes) adopt(slots_.at(change.id), change.decision);
  skip_earlier(started);
  return changes;
}

void Planner::adopt(Slot slot, const Decision& decision) {
  JobView& job = views_[slot];
  if (job.running && !decision.running) {  // its GPUs are taken for others
    job.suspended = true;
    plan_->change(slot);
    note_leaving(job);
    return;
  }
  job.running = decision.running;
  for (size_t v = 0; job.suspended && v < job.places.size(); ++v) {
    if (job.places[v].on_gpu() && decision.places[v].parked()) job.keeps.insert(job.places[v]);
  }
  if (!decision.running) return;
  if (job.suspended || (job.spared && job.places != decision.places)) plan_->change(slot);  // it keeps what it has got
  job.places = decision.places;
  note_leaving(job);
}

// Each that has started has passed all that were submitted before it and wait.
void Planner::skip_earlier(const std::vector<Slot>& started) {
  std::vector<uint64_t> numbers;  // ascending, as `started` is
  for (const Slot slot : started) numbers.push_back(plan_->share(slot).number);
  if (numbers.empty()) return;
  plan_->for_waiting_before(numbers.back(), [&](Slot slot) {
    JobView& view = views_[slot];
    if (view.skipped >= kSkipsMax) return;
    const auto later = std::upper_bound(numbers.begin(), numbers.end(), plan_->share(slot).number);
    view.skipped = uint32_t(std::min<size_t>(view.skipped + size_t(numbers.end() - later), kSkipsMax));
    if (view.skipped == kSkipsMax) plan_->change(slot);
  });
}

std::string Planner::why(const std::string& id) const {
  const auto found = slots_.find(id);
  return found == slots_.end() ? "" : reason_of(*plan_, found->second);
}

const JobView* Planner::view(const std::string& id) const {
  const auto found = slots_.find(id);
  return found == slots_.end() ? nullptr : &views_[found->second];
}

}  // namespace tide::sched
