#include "scheduler/actions/actions.h"

namespace tide::sched {
namespace {

void set_count(Tentative& plan, Slot slot, uint32_t count) {
  Standing is = plan.share(slot).is;
  is.count = count;
  plan.stand(slot, is);
}

void give(Tentative& plan, Slot slot) { set_count(plan, slot, plan.share(slot).is.count + 1); }
void take(Tentative& plan, Slot slot) { set_count(plan, slot, plan.share(slot).is.count - 1); }

}  // namespace

// From the shares of the last round, so that little changes where little has: each GPU beyond the minima belongs to who
// comes first by what it has without it, and by age; whatever order they are given in, the same ones are.
void share_out(Tentative& plan, int64_t reserved) {
  auto& growing = plan.growing()[0];
  auto& shrinking = plan.shrinking()[0];
  for (int64_t left = plan.left() - reserved; left > 0 && !growing.empty(); --left) give(plan, growing.begin()->second);
  for (int64_t left = plan.left() - reserved; left < 0 && !shrinking.empty(); ++left)
    take(plan, shrinking.rbegin()->second);
  while (!growing.empty() && !shrinking.empty() && growing.begin()->first < shrinking.rbegin()->first) {
    const Slot smallest = growing.begin()->second, largest = shrinking.rbegin()->second;
    take(plan, largest);
    give(plan, smallest);
  }
}

}  // namespace tide::sched
