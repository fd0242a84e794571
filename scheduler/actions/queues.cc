#include "scheduler/actions/actions.h"

namespace tide::sched {

int64_t need_of(const Share& share) {
  return share.job->is_partial() ? share.job->part : int64_t(share.is.least) * kWholeGpu;
}

void note_shares(Tentative& plan) {
  const QueueTree& tree = plan.queues();
  std::vector<QueueLoad> loads(tree.queues.size());
  std::vector<int64_t> minima(loads.size()), left_behind(loads.size());
  for (size_t i = 0; i < loads.size() && i < plan.used().size(); ++i) loads[i].used = plan.used()[i];
  for (const Share& share : plan.shares()) {
    if (!share.known) continue;
    const size_t leaf = size_t(plan.leaf_of(*share.job));
    const bool partial = share.job->is_partial(), stays = share.is.frozen;
    const int64_t each = partial ? share.job->part : kWholeGpu;
    const int64_t held = int64_t(share.held.size()) * each;
    if (share.is.admitted) loads[leaf].allocated += held;
    if (share.is.admitted) minima[leaf] += stays ? held : need_of(share);
    if (share.is.admitted && share.job->suspended) left_behind[leaf] += held;
    if (!stays) loads[leaf].demand += partial ? share.job->part : int64_t(share.is.most) * kWholeGpu;
    if (stays && share.is.admitted && !share.job->suspended) loads[leaf].demand += held;
  }
  // Who has an odd GPU keeps it: what queues are owed depends on what they have, too.
  QueueShares shares = fair_shares(tree, loads, plan.total() * kWholeGpu, plan.share_rules());
  for (QueueShare& share : shares) share.allocated = 0;
  for (size_t i = 0; i < minima.size(); ++i) allocate(tree, int32_t(i), minima[i], &shares);
  plan.limit_shares = shares;
  for (size_t i = 0; i < minima.size(); ++i) allocate(tree, int32_t(i), -left_behind[i], &shares);
  plan.queue_shares = std::move(shares);
}

void book(Tentative& plan, int32_t leaf, int64_t amount) {
  allocate(plan.queues(), leaf, amount, &plan.queue_shares);
  allocate(plan.queues(), leaf, amount, &plan.limit_shares);
}

int64_t leaving(const Tentative& plan) {
  int64_t gpus = 0;
  for (const Share& share : plan.shares()) {
    const bool leaves = share.known && share.is.admitted && share.job->suspended && !share.job->is_partial();
    if (leaves) gpus += int64_t(share.held.size());
  }
  return gpus;
}

}  // namespace tide::sched
