#pragma once

// What each queue wants and has while a trace is replayed, and what came of it. Amounts are thousandths of a GPU.

#include <cstdint>
#include <vector>

#include "scheduler/shares.h"
#include "scheduler/simulate/result.h"
#include "scheduler/usage.h"

namespace tide::simulate {

class QueueBooks {
 public:
  QueueBooks(const sched::QueueTree& tree, int64_t pool);

  // A leaf's jobs want, or have, so much more. Also below 0.
  void want(int32_t leaf, int64_t amount) { book(leaf, amount, &wants_); }
  void have(int32_t leaf, int64_t amount) { book(leaf, amount, &has_); }
  // So many seconds go by with things as they are.
  void go_on(double seconds);
  // By queue: the part of the pool that it had (sched::State::used).
  std::vector<double> past(uint64_t half_life_ms);
  std::vector<QueueResult> take_results();

 private:
  void book(int32_t leaf, int64_t amount, std::vector<int64_t>* amounts);

  const sched::QueueTree& tree_;
  const int64_t pool_;
  std::vector<int64_t> wants_, has_;  // by index in the tree, also of inner queues
  std::vector<double> lacks_s_;       // since when, so far
  sched::Usage usage_;
  double unaccounted_s_ = 0;
  std::map<std::string, double> unaccounted_;  // thousandths x seconds of leaves
  std::vector<QueueResult> results_;
};

}  // namespace tide::simulate
