#include <algorithm>

#include "scheduler/actions/actions.h"
#include "scheduler/rank.h"

namespace tide::sched {
namespace {

void set_count(Tentative& plan, Slot slot, uint32_t count) {
  Standing is = plan.share(slot).is;
  is.count = count;
  plan.stand(slot, is);
}

void give(Tentative& plan, Slot slot) { set_count(plan, slot, plan.share(slot).is.count + 1); }
void take(Tentative& plan, Slot slot) { set_count(plan, slot, plan.share(slot).is.count - 1); }

void shrink_to_minima(Tentative& plan) {
  for (auto& shrinking : plan.shrinking()) {
    while (!shrinking.empty())
      set_count(plan, shrinking.begin()->second, plan.share(shrinking.begin()->second).is.least);
  }
}

struct Step {
  Slot who = kNoSlot;
  uint32_t gpus = 0;
};

// Who of the queue grows next, and by how much: who comes first of those that can use what is left.
Step next_to_grow(Tentative& plan, size_t leaf, int64_t left) {
  for (const auto& [key, slot] : plan.growing()[leaf]) {
    const Share& share = plan.share(slot);
    const uint32_t gpus = next_step(*share.job, share.is.count, share.is.most);
    if (gpus != 0 && int64_t(gpus) <= left) return {slot, gpus};
  }
  return {};
}

void grow(Tentative& plan, const Step& step) { set_count(plan, step.who, plan.share(step.who).is.count + step.gpus); }

// Between queues it is their shares that decide, and their limits; in a queue the higher priority grows first, then the
// smallest job.
void share_by_queue(Tentative& plan) {
  shrink_to_minima(plan);
  const QueueTree& tree = plan.queues();
  QueueShares shares = plan.limit_shares;
  for (int64_t left = plan.left_last; left > 0;) {
    std::vector<int64_t> needs(tree.queues.size());
    std::vector<Step> steps(needs.size());
    for (size_t i = 0; i < needs.size(); ++i) {
      if (plan.growing()[i].empty()) continue;
      steps[i] = next_to_grow(plan, i, std::min(left, headroom(tree, shares, int32_t(i)) / kWholeGpu));
      needs[i] = int64_t(steps[i].gpus) * kWholeGpu;
    }
    const int32_t leaf = next_queue(tree, shares, needs);
    if (leaf == kNoQueue) return;
    grow(plan, steps[size_t(leaf)]);
    left -= steps[size_t(leaf)].gpus;
    allocate(tree, leaf, needs[size_t(leaf)], &shares);
  }
}

// Where some may have powers of two only, what is fair depends on what is left at each step: from the minima on.
void share_in_steps(Tentative& plan, int64_t reserved) {
  shrink_to_minima(plan);
  for (int64_t left = plan.left() - reserved; left > 0;) {
    const Step step = next_to_grow(plan, 0, left);
    if (step.who == kNoSlot) return;
    grow(plan, step);
    left -= step.gpus;
  }
}

}  // namespace

// From the shares of the last round, so that little changes where little has: each GPU beyond the minima belongs to who
// comes first by what it has without it, and by age; whatever order they are given in, the same ones are.
void share_out(Tentative& plan, int64_t reserved) {
  if (plan.has_queues()) return share_by_queue(plan);
  if (plan.has_steps()) return share_in_steps(plan, reserved);
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
