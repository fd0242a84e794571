#include "scheduler/actions/actions.h"

namespace tide::sched {

int64_t need_of(const Share& share) {
  return share.job->is_partial() ? share.job->part : int64_t(share.is.least) * kWholeGpu;
}

QueueShares shares_by_minima(const Tentative& plan) {
  std::vector<QueueLoad> loads(plan.queues().queues.size());
  for (size_t i = 0; i < loads.size() && i < plan.used().size(); ++i) loads[i].used = plan.used()[i];
  for (const Share& share : plan.shares()) {
    if (!share.known) continue;
    QueueLoad& load = loads[size_t(plan.leaf_of(*share.job))];
    const bool partial = share.job->is_partial();
    const int64_t each = partial ? share.job->part : kWholeGpu;
    const bool stays = share.is.frozen;
    const int64_t has = stays ? int64_t(share.held.size()) * each : need_of(share);
    if (share.is.admitted) load.allocated += has;
    if (share.is.admitted && stays) load.demand += has;
    if (!stays) load.demand += partial ? share.job->part : int64_t(share.is.most) * kWholeGpu;
  }
  return fair_shares(plan.queues(), loads, plan.total() * kWholeGpu, plan.share_rules());
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
