#include "scheduler/queues.h"

#include <algorithm>

#include "scheduler/actions/actions.h"

namespace tide::sched {

namespace {

// What the leaf has, or else is owed and can use.
int64_t keeps(const Tentative& plan, size_t leaf) {
  const QueueShare& share = plan.queue_shares[leaf];
  return std::max(share.allocated, std::min(share.fair, plan.usable[leaf]));
}

int64_t kept_by_all(const Tentative& plan) {
  int64_t kept = 0;
  for (size_t i = 0; i < plan.queue_shares.size(); ++i) kept += plan.queues().queues[i].leaf() ? keeps(plan, i) : 0;
  return kept;
}

}  // namespace

void note_shares(Tentative& plan) {
  const QueueTree& tree = plan.queues();
  std::vector<QueueLoad> loads(tree.queues.size());
  std::vector<int64_t> minima(loads.size()), left_behind(loads.size());
  plan.usable.assign(loads.size(), 0);
  for (size_t i = 0; i < loads.size() && i < plan.used().size(); ++i) loads[i].used = plan.used()[i];
  for (size_t i = 0; i < loads.size(); ++i) {
    const QueueSums& sums = plan.queue_sums()[i];
    loads[i].allocated = sums.allocated;
    loads[i].demand = sums.demand;
    minima[i] = sums.minima;
    left_behind[i] = sums.left_behind;
    plan.usable[i] = sums.usable;
  }
  // Who has an odd GPU keeps it: what queues are owed depends on what they have, too.
  const int64_t pool = plan.total() * kWholeGpu;
  if (plan.owed.pool != pool || plan.owed.loads != loads)
    plan.owed = {loads, pool, fair_shares(tree, loads, pool, plan.share_rules())};
  QueueShares shares = plan.owed.shares;
  for (QueueShare& share : shares) share.allocated = 0;
  for (size_t i = 0; i < minima.size(); ++i) allocate(tree, int32_t(i), minima[i], &shares);
  plan.limit_shares = shares;
  for (size_t i = 0; i < minima.size(); ++i) allocate(tree, int32_t(i), -left_behind[i], &shares);
  plan.queue_shares = std::move(shares);
  plan.kept_by_queues = kept_by_all(plan);
}

bool leaves_shares(const Tentative& plan, int32_t leaf, int64_t need) { return need <= most_beside_shares(plan, leaf); }

int64_t most_beside_shares(const Tentative& plan, int32_t leaf) {
  const int64_t others = plan.kept_by_queues - keeps(plan, size_t(leaf));
  const int64_t left = plan.total() * kWholeGpu - others - plan.queue_shares[size_t(leaf)].allocated;
  return std::max(left, owed_to(plan.queues(), plan.queue_shares, leaf));
}

void book(Tentative& plan, int32_t leaf, int64_t amount, int64_t usable) {
  plan.kept_by_queues -= keeps(plan, size_t(leaf));
  plan.usable[size_t(leaf)] += usable;
  allocate(plan.queues(), leaf, amount, &plan.queue_shares);
  allocate(plan.queues(), leaf, amount, &plan.limit_shares);
  plan.kept_by_queues += keeps(plan, size_t(leaf));
}

void swap_shares(Tentative& plan, QueueShares* shares) {
  std::swap(plan.queue_shares, *shares);
  plan.kept_by_queues = kept_by_all(plan);
}

int64_t leaving(const Tentative& plan) { return plan.leaving(); }

bool is_yielded_to(const Tentative& plan, const JobView& job) {
  if (!plan.has_priorities() || plan.turns()) return false;
  return plan.somebody_leaves_below(plan.leaf_of(job), job.priority);
}

}  // namespace tide::sched
