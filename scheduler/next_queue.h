#pragma once

// Which queue's next job is tried first: kept while jobs get GPUs one after another, so that only the queues whose
// state has changed are looked at again. Owned by one thread.

#include <cstdint>
#include <tuple>
#include <vector>

#include "scheduler/shares.h"

namespace tide::sched {

// From the pool down the child is taken that stays within its quota and share with its next job, or else within its
// share; then of the higher priority; then with the smaller part of its share taken; then who had less in the past;
// then the file's order.
class NextQueue {
 public:
  // Both must stay where they are. No leaf has a job yet.
  NextQueue(const QueueTree& tree, const QueueShares& shares);

  // What the leaf's next job needs (0 or less: it has none) is that now, and what the leaf and those above it have may
  // have changed; that of others has not.
  void set(int32_t leaf, int64_t need);
  int64_t need(int32_t leaf) const { return kept_[size_t(leaf)].need; }
  int32_t next() const { return best_of(tree_.top).leaf; }  // kNoQueue: no leaf has one

 private:
  // How a queue stands beside its siblings with the next job of the best leaf that is below it, or it itself.
  struct Best {
    int32_t leaf = kNoQueue;
    int64_t need = 0;
    std::tuple<int, int32_t, double, double> standing = {};
  };
  Best best_of(const std::vector<int32_t>& queues) const;
  void stand(int32_t at, const Best& best);

  const QueueTree& tree_;
  const QueueShares& shares_;
  std::vector<Best> kept_;  // by queue
};

// Asked once. `needs`: by index in the tree.
int32_t next_queue(const QueueTree& tree, const QueueShares& shares, const std::vector<int64_t>& needs);

}  // namespace tide::sched
