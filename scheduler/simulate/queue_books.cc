#include "scheduler/simulate/queue_books.h"

#include <algorithm>

#include "scheduler/state.h"

namespace tide::simulate {

QueueBooks::QueueBooks(const sched::QueueTree& tree, int64_t pool)
    : tree_(tree),
      pool_(pool),
      wants_(tree.queues.size()),
      has_(tree.queues.size()),
      lacks_s_(tree.queues.size()),
      results_(tree.queues.size()) {
  for (size_t i = 0; i < results_.size(); ++i) {
    const sched::Queue& queue = tree.queues[i];
    results_[i].name = queue.name;
    results_[i].quota = double(queue.quota) / sched::kWholeGpu;
    results_[i].limit = double(std::min(queue.limit, pool)) / sched::kWholeGpu;
  }
}

void QueueBooks::book(int32_t leaf, int64_t amount, std::vector<int64_t>* amounts) {
  for (int32_t at = leaf; at != sched::kNoQueue; at = tree_.queues[size_t(at)].parent) (*amounts)[size_t(at)] += amount;
}

void QueueBooks::go_on(double seconds) {
  if (seconds <= 0) return;
  for (size_t i = 0; i < results_.size(); ++i) {
    const sched::Queue& queue = tree_.queues[i];
    QueueResult& result = results_[i];
    const double each = seconds / sched::kWholeGpu;
    result.had_gpu_s += double(has_[i]) * each;
    result.wanted_gpu_s += double(wants_[i]) * each;
    result.over_limit_gpu_s += double(std::max<int64_t>(has_[i] - queue.limit, 0)) * each;
    const int64_t lack = std::max<int64_t>(std::min(wants_[i], queue.quota) - has_[i], 0);
    result.lack_gpu_s += double(lack) * each;
    lacks_s_[i] = lack > 0 ? lacks_s_[i] + seconds : 0;
    result.lack_longest_s = std::max(result.lack_longest_s, lacks_s_[i]);
    if (queue.leaf()) unaccounted_[queue.name] += double(has_[i]) * seconds;
  }
  unaccounted_s_ += seconds;
}

std::vector<double> QueueBooks::past(uint64_t half_life_ms) {
  std::map<std::string, int64_t> mean;
  for (auto& [name, sum] : unaccounted_) {
    if (unaccounted_s_ > 0) mean[name] = int64_t(sum / unaccounted_s_);
    sum = 0;
  }
  sched::account(&usage_, mean, unaccounted_s_ * 1000, half_life_ms);
  unaccounted_s_ = 0;
  std::vector<double> used(results_.size());
  for (size_t i = 0; i < used.size(); ++i) {
    const auto found = usage_.find(results_[i].name);
    if (found != usage_.end()) used[i] = sched::part_of_past(found->second, pool_, half_life_ms);
  }
  return used;
}

std::vector<QueueResult> QueueBooks::take_results() { return std::move(results_); }

}  // namespace tide::simulate
