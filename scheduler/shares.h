#pragma once

// Who is owed what: pure functions over the tree of queues. Amounts are thousandths of a GPU, as parts of GPUs are.
//   - Jobs belong to leaves. What an inner queue has is what its leaves have.
//   - fair_shares(): from the pool down, each queue's children divide what it has got. First each gets its quota, then
//     what is left goes by over-quota weight, both by water-filling (nobody gets more than it asks for or may have, and
//     what it leaves goes to the others), higher priorities before lower ones. Beyond quotas whole GPUs are given.
//     Who had much in the past (`used`) weighs less.
//   - A queue may have more than its share while nobody else asks (it borrows); who is below its share may take that
//     back (it reclaims). Never beyond a limit; never from a queue that is not preemptible, which for this gets no more
//     than its quota.
// No clock, no state: the same arguments give the same answer.

#include <cstdint>
#include <string>
#include <vector>

#include "scheduler/queue_config.h"

namespace tide::sched {

inline constexpr int64_t kNoLimit = INT64_MAX;
inline constexpr int32_t kNoQueue = -1;

// A queue in the tree. Its index in QueueTree::queues is what jobs and loads refer to.
struct Queue {
  std::string name;
  int32_t parent = kNoQueue;           // index; kNoQueue: of the pool
  std::vector<int32_t> children = {};  // in the order of the file; none: a leaf
  int64_t quota = 0;
  int64_t limit = kNoLimit;  // its own; those above it count as well (headroom())
  double weight = 1;         // beyond the quota
  int32_t priority = 0;
  bool preemptible = true;  // false also below one that is not
  std::vector<ModelQuota> models = {};
  bool leaf() const { return children.empty(); }
  bool operator==(const Queue&) const = default;
};

struct QueueTree {
  std::vector<Queue> queues;                    // parents before their children
  std::vector<int32_t> top;                     // those of the pool, in the order of the file
  int32_t find(const std::string& name) const;  // kNoQueue: none
  bool empty() const { return queues.empty(); }
  bool operator==(const QueueTree&) const = default;
};

// Requires: checked (queue_config.h). None: one queue `default`.
QueueTree make_tree(const std::vector<QueueConfig>& queues);
// One more leaf of the pool without quota, for jobs whose queue is gone from the file. Its index.
int32_t add_orphan(QueueTree* tree, const std::string& name);

// Of a leaf; of inner queues nothing is read.
struct QueueLoad {
  int64_t demand = 0;     // all that its jobs want now: those that run and those that wait
  int64_t allocated = 0;  // that they have
  double used = 0;        // the part of the pool that it had in the past, 0 to 1 (usage.h)
  bool operator==(const QueueLoad&) const = default;
};

// Of every queue, inner ones too.
struct QueueShare {
  int64_t fair = 0;  // what it is owed now; never more than demand or a limit
  int64_t demand = 0, allocated = 0;
  double used = 0;
  int64_t over() const { return allocated > fair ? allocated - fair : 0; }
};
using QueueShares = std::vector<QueueShare>;  // by index in the tree

struct ShareRules {
  double past_weight = 1;  // how much the past counts against a queue; 0: not at all
  bool operator==(const ShareRules&) const = default;
};

// `loads`: by index in the tree. `pool`: of all GPUs that can be given. O(queues^2) at worst, no less than O(queues).
QueueShares fair_shares(const QueueTree& tree, const std::vector<QueueLoad>& loads, int64_t pool,
                        const ShareRules& rules = {});

// Books `amount` (below 0: given back) for a leaf and all above it. Shares stay what they are.
void allocate(const QueueTree& tree, int32_t leaf, int64_t amount, QueueShares* shares);

// How much more the leaf may get before a limit (of it, of one above it, or the quota of one that is not preemptible)
// stops it; `*by`: whose. kNoLimit where none does.
int64_t headroom(const QueueTree& tree, const QueueShares& shares, int32_t leaf, int32_t* by = nullptr);
// The most that jobs of this leaf can have at all, whatever else runs.
int64_t most_ever(const QueueTree& tree, int32_t leaf, int32_t* by = nullptr);

// How much more the leaf may get while it, and all above it, has no more than its share.
int64_t owed_to(const QueueTree& tree, const QueueShares& shares, int32_t leaf);
// Whether it may get `need` more so: what it may reclaim others' for.
bool is_owed(const QueueTree& tree, const QueueShares& shares, int32_t leaf, int64_t need);
// Whether `leaf` may take from jobs of `victim` to get `need` more: `victim` is preemptible and has more than its
// share, and so has the queue above it that stands beside one of `leaf`; and up to there `leaf` is owed what it needs.
// So who is of one family shares among itself. Never within one leaf.
bool may_reclaim(const QueueTree& tree, const QueueShares& shares, int32_t leaf, int64_t need, int32_t victim);
// The largest need for which there is such a leaf; 0: there is none.
int64_t most_reclaimable(const QueueTree& tree, const QueueShares& shares, int32_t leaf);
// All such leaves, those that have most beyond their shares first.
std::vector<int32_t> reclaimable(const QueueTree& tree, const QueueShares& shares, int32_t leaf, int64_t need);

}  // namespace tide::sched
