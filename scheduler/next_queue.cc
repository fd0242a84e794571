#include "scheduler/next_queue.h"

#include <algorithm>

namespace tide::sched {

NextQueue::NextQueue(const QueueTree& tree, const QueueShares& shares)
    : tree_(tree), shares_(shares), kept_(tree.queues.size()) {}

void NextQueue::stand(int32_t at, const Best& best) {
  Best& kept = kept_[size_t(at)];
  kept.leaf = best.leaf;
  kept.need = best.need;
  if (best.leaf == kNoQueue) return;
  const Queue& queue = tree_.queues[size_t(at)];
  const QueueShare& share = shares_[size_t(at)];
  const int64_t then = share.allocated + best.need;
  const int rank = then > share.fair ? 2 : then <= queue.quota ? 0 : 1;  // quotas may be more than the pool
  const double taken = share.fair > 0 ? double(share.allocated) / double(share.fair) : 1e18;
  kept.standing = {rank, -queue.priority, taken, share.used / std::max(queue.weight, 1e-9)};
}

NextQueue::Best NextQueue::best_of(const std::vector<int32_t>& queues) const {
  const Best* best = nullptr;
  for (const int32_t each : queues) {
    const Best& kept = kept_[size_t(each)];
    if (kept.leaf != kNoQueue && (best == nullptr || kept.standing < best->standing)) best = &kept;
  }
  return best == nullptr ? Best() : *best;
}

void NextQueue::set(int32_t leaf, int64_t need) {
  stand(leaf, {.leaf = need > 0 ? leaf : kNoQueue, .need = need});
  for (int32_t at = tree_.queues[size_t(leaf)].parent; at != kNoQueue; at = tree_.queues[size_t(at)].parent)
    stand(at, best_of(tree_.queues[size_t(at)].children));
}

int32_t next_queue(const QueueTree& tree, const QueueShares& shares, const std::vector<int64_t>& needs) {
  NextQueue next(tree, shares);
  for (size_t i = 0; i < needs.size(); ++i) {
    if (needs[i] > 0 && tree.queues[i].leaf()) next.set(int32_t(i), needs[i]);
  }
  return next.next();
}

}  // namespace tide::sched
