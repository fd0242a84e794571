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

// Between queues it is their shares that decide, and their limits; in a queue the smallest job grows first.
void share_by_queue(Tentative& plan) {
  for (auto& shrinking : plan.shrinking()) {
    while (!shrinking.empty())
      set_count(plan, shrinking.begin()->second, plan.share(shrinking.begin()->second).is.least);
  }
  const QueueTree& tree = plan.queues();
  QueueShares shares = plan.limit_shares;
  for (int64_t left = plan.left_last; left > 0; --left) {
    std::vector<int64_t> needs(tree.queues.size());
    for (size_t i = 0; i < needs.size(); ++i) {
      const bool may = !plan.growing()[i].empty() && headroom(tree, shares, int32_t(i)) >= kWholeGpu;
      needs[i] = may ? kWholeGpu : 0;
    }
    const int32_t leaf = next_queue(tree, shares, needs);
    if (leaf == kNoQueue) return;
    give(plan, plan.growing()[size_t(leaf)].begin()->second);
    allocate(tree, leaf, kWholeGpu, &shares);
  }
}

}  // namespace

// From the shares of the last round, so that little changes where little has: each GPU beyond the minima belongs to who
// comes first by what it has without it, and by age; whatever order they are given in, the same ones are.
void share_out(Tentative& plan, int64_t reserved) {
  if (plan.has_queues()) return share_by_queue(plan);
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
