#include <algorithm>
#include <tuple>

#include "scheduler/actions/actions.h"
#include "scheduler/spread.h"

namespace tide::sched {
namespace {

// Who is due before all others; then those who run, of submission; then those who begin, as they were admitted: so each
// finds the room that was found for it then.
std::vector<Slot> in_order_of_placing(Tentative& plan) {
  std::vector<Slot> slots = plan.unplaced();
  const auto key = [&](Slot slot) {
    const Share& share = plan.share(slot);
    return std::tuple(share.job->due_gpus == 0, share.job->running ? 0 : share.began, share.number);
  };
  std::erase_if(slots, [&](Slot slot) {
    const Share& share = plan.share(slot);
    return !share.known || !share.is.admitted || share.is.frozen;
  });
  const auto before = [&](Slot a, Slot b) { return key(a) < key(b); };
  if (!std::is_sorted(slots.begin(), slots.end(), before)) std::sort(slots.begin(), slots.end(), before);
  return slots;
}

bool add_part(Tentative& plan, Slot slot) {
  const JobView& job = *plan.share(slot).job;
  GpuIndex gpu = plan.best_room(job);
  if (gpu == kNoGpu) {
    GpuSet mine;
    if (!add_gpus(plan.gpus(), job, 1, 1, &mine)) return false;
    gpu = mine.front();
  }
  plan.join(slot, gpu);
  return true;
}

bool is_there(const Tentative& plan, const Share& share) {
  const auto& places = share.job->places;
  return places.size() == 1 && share.mine.size() == 1 && share.job->vgpus == 1 &&
         places[0] == plan.gpus().view(share.mine[0]).id;
}

bool place(Tentative& plan, Slot slot) {
  Share& share = plan.share(slot);
  if (share.job->is_partial() && share.mine.empty() && !add_part(plan, slot)) return false;
  if (share.mine.size() < share.is.count) {
    GpuSet mine = share.mine;
    if (!add_gpus(plan.gpus(), *share.job, share.is.least, share.is.count, &mine)) return false;
    if (mine != share.mine) plan.set_mine(slot, mine);
  } else if (!holds_all(plan.gpus(), *share.job, share.mine)) {
    return false;
  }
  if (share.mine.size() < share.is.count) plan.make_sore(slot);
  if (is_there(plan, share)) {
    share.places = share.job->places;
    return true;
  }
  return spread(plan.gpus(), *share.job, share.mine, &share.places);
}

}  // namespace

bool choose(Tentative& plan, Slot* failed) {
  const std::vector<Slot> slots = in_order_of_placing(plan);
  for (const Slot slot : slots) {
    const Share& share = plan.share(slot);
    if (share.job->is_partial() || share.mine.size() <= share.is.count) continue;
    plan.set_mine(slot, keep_gpus(plan.gpus(), *share.job, share.mine, share.is.count));
  }
  std::vector<Slot> moved;
  for (const Slot slot : slots) {
    *failed = slot;
    if (!place(plan, slot) && !(make_way(plan, slot, &moved) && place(plan, slot))) return false;
  }
  for (const Slot slot : moved) {
    *failed = slot;
    if (!place(plan, slot)) return false;
  }
  return true;
}

}  // namespace tide::sched
