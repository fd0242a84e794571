#include <algorithm>
#include <map>

#include "scheduler/actions/actions.h"

namespace tide::sched {
namespace {

// GPUs that nobody has any more when those end who are told of, one after the other.
class Freeing {
 public:
  explicit Freeing(const Tentative& plan) : plan_(plan) {}

  int64_t end(Slot slot) {
    const Share& share = plan_.share(slot);
    if (!share.job->is_partial()) return share.is.least;
    int64_t freed = 0;
    for (const GpuIndex gpu : share.mine) freed += ++ended_[gpu] == plan_.sharers(gpu).size() ? 1 : 0;
    return freed;
  }

 private:
  const Tentative& plan_;
  std::map<GpuIndex, size_t> ended_;  // of those with a part of it
};

}  // namespace

Opening opening_for(const Tentative& plan, Slot slot, int64_t left) {
  const int64_t least = plan.share(slot).is.least;
  Opening opening;
  Freeing freeing(plan);
  for (const auto& [ends_ms, ending] : plan.ending()) {
    if (opening.at_ms != 0 && ends_ms != opening.at_ms) break;  // who ends together counts together
    left += freeing.end(ending);
    if (left >= least) opening.at_ms = ends_ms;
  }
  if (opening.at_ms != 0) opening.spares = left - least;
  return opening;
}

void end_overruns(Tentative& plan) {
  if (plan.blocked_by == kNoSlot || plan.blocked_until_ms == 0) return;
  const Share& waiting = plan.share(plan.blocked_by);
  if (waiting.is.admitted || waiting.job->is_partial()) return;
  std::vector<Slot> late;  // by when they were to end
  for (const auto& [ends_ms, slot] : plan.ending()) {
    if (ends_ms > plan.blocked_until_ms) break;  // it could start before
    const Share& share = plan.share(slot);
    if (share.job->suspended || share.taken_for != kNoSlot) return;  // they leave: first that
    if (!share.job->overrun || share.is.frozen || share.job->is_partial() || share.mine != share.held) continue;
    if (share.job->preemptible && !share.job->spared) late.push_back(slot);
  }
  int64_t missing = int64_t(waiting.is.least) - plan.left_last;
  std::vector<Slot> leave;
  for (auto each = late.rbegin(); each != late.rend() && missing > 0; ++each) {
    missing -= plan.share(*each).is.least;
    leave.push_back(*each);
  }
  if (missing > 0) return;
  for (const Slot slot : leave) {
    plan.share(slot).taken_for = plan.blocked_by;
    plan.touch(slot);
  }
}

}  // namespace tide::sched
