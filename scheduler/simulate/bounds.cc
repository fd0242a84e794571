#include "scheduler/simulate/bounds.h"

#include <algorithm>
#include <queue>

namespace tide::simulate {
namespace {

struct Task {
  double key = 0;  // the least is done first
  uint32_t job = 0;
  bool operator>(const Task& other) const { return key != other.key ? key > other.key : job > other.job; }
};

// The one machine: at any moment it does the available job with the least key.
class OneMachine {
 public:
  // `by_work_left`: else by all of its work.
  OneMachine(const Trace& trace, uint32_t gpus, bool by_work_left)
      : trace_(trace), by_work_left_(by_work_left), left_s_(trace.jobs.size()), end_s_(left_s_), busy_(left_s_) {
    for (size_t i = 0; i < left_s_.size(); ++i) left_s_[i] = trace.jobs[i].work_gpu_s() / gpus;
    work_s_ = left_s_;
  }

  void run() {
    size_t arrived = 0;
    while (arrived < left_s_.size() || !available_.empty()) {
      if (available_.empty()) now_ = std::max(now_, submit_s(arrived));
      for (; arrived < left_s_.size() && submit_s(arrived) <= now_; ++arrived) {
        available_.push({left_s_[arrived], uint32_t(arrived)});
      }
      work_until(arrived < left_s_.size() ? submit_s(arrived) : 1e300);
    }
  }

  double mean_flow_s() const { return mean(end_s_); }
  double mean_busy_s() const { return mean(busy_); }

 private:
  double submit_s(size_t job) const { return trace_.jobs[job].submit_s; }

  void work_until(double limit_s) {
    Task task = available_.top();
    available_.pop();
    const uint32_t job = task.job;
    const bool ends = left_s_[job] <= limit_s - now_;
    const double slice_s = ends ? left_s_[job] : limit_s - now_;
    busy_[job] += slice_s / work_s_[job] * (now_ + slice_s / 2);
    left_s_[job] -= slice_s;
    now_ = ends ? now_ + slice_s : limit_s;
    if (ends) {
      end_s_[job] = now_;
      return;
    }
    if (by_work_left_) task.key = left_s_[job];
    available_.push(task);
  }

  double mean(const std::vector<double>& times) const {
    double sum = 0;
    for (size_t i = 0; i < times.size(); ++i) sum += times[i] - submit_s(i);
    return sum / double(times.size());
  }

  const Trace& trace_;
  const bool by_work_left_;
  std::vector<double> left_s_, end_s_, busy_, work_s_;  // busy_: the mean of the times at which it is worked on
  std::priority_queue<Task, std::vector<Task>, std::greater<>> available_;
  double now_ = 0;
};

double makespan_bound_s(const Trace& trace, uint32_t gpus) {
  double least = 0, after_gpu_s = 0;
  for (size_t i = trace.jobs.size(); i-- > 0;) {
    const Job& job = trace.jobs[i];
    after_gpu_s += job.work_gpu_s();
    least = std::max({least, job.submit_s + job.duration_s, job.submit_s + after_gpu_s / gpus});
  }
  return least - trace.jobs[0].submit_s;
}

}  // namespace

Bounds bounds_of(const Trace& trace, uint32_t gpus) {
  Bounds bounds;
  double work_gpu_s = 0;
  for (const Job& job : trace.jobs) {
    bounds.no_wait_s += job.duration_s / double(trace.jobs.size());
    work_gpu_s += job.work_gpu_s();
  }
  OneMachine by_work_left(trace, gpus, true), by_work(trace, gpus, false);
  by_work_left.run();
  by_work.run();
  bounds.one_machine_s = by_work_left.mean_flow_s();
  bounds.mean_busy_s = by_work.mean_busy_s() + bounds.no_wait_s / 2;
  bounds.mean_jct_s = std::max({bounds.no_wait_s, bounds.one_machine_s, bounds.mean_busy_s});
  bounds.makespan_s = makespan_bound_s(trace, gpus);
  bounds.utilisation = work_gpu_s / (gpus * bounds.makespan_s);
  return bounds;
}

}  // namespace tide::simulate
