#include "scheduler/queues.h"

#include <algorithm>

#include "scheduler/actions/actions.h"

namespace tide::sched {

int64_t need_of(const Share& share) {
  return share.job->is_partial() ? share.job->part : int64_t(share.is.least) * kWholeGpu;
}

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
  QueueShares shares = fair_shares(tree, loads, plan.total() * kWholeGpu, plan.share_rules());
  for (QueueShare& share : shares) share.allocated = 0;
  for (size_t i = 0; i < minima.size(); ++i) allocate(tree, int32_t(i), minima[i], &shares);
  plan.limit_shares = shares;
  for (size_t i = 0; i < minima.size(); ++i) allocate(tree, int32_t(i), -left_behind[i], &shares);
  plan.queue_shares = std::move(shares);
}

bool leaves_shares(const Tentative& plan, int32_t leaf, int64_t need) {
  if (is_owed(plan.queues(), plan.queue_shares, leaf, need)) return true;
  int64_t kept = need;
  for (size_t i = 0; i < plan.limit_shares.size(); ++i) {
    if (!plan.queues().queues[i].leaf()) continue;
    const QueueShare& share = plan.queue_shares[i];
    kept += int32_t(i) == leaf ? share.allocated : std::max(share.allocated, std::min(share.fair, plan.usable[i]));
  }
  return kept <= plan.total() * kWholeGpu;
}

void book(Tentative& plan, int32_t leaf, int64_t amount) {
  allocate(plan.queues(), leaf, amount, &plan.queue_shares);
  allocate(plan.queues(), leaf, amount, &plan.limit_shares);
}

int64_t leaving(const Tentative& plan) {
  int64_t gpus = 0;
  if (plan.has_queues()) {
    for (const QueueSums& sums : plan.queue_sums()) gpus += sums.leaving;
    return gpus;
  }
  for (const Share& share : plan.shares()) {
    const bool leaves = share.known && share.is.admitted && share.job->suspended && !share.job->is_partial();
    if (leaves) gpus += int64_t(share.held.size());
  }
  return gpus;
}

bool is_yielded_to(const Tentative& plan, const JobView& job) {
  if (!plan.has_priorities() || plan.turns()) return false;
  const int32_t leaf = plan.leaf_of(job);
  return std::any_of(plan.shares().begin(), plan.shares().end(), [&](const Share& each) {
    return each.known && each.is.admitted && each.job->suspended && each.job->priority < job.priority &&
           plan.leaf_of(*each.job) == leaf;
  });
}

}  // namespace tide::sched
