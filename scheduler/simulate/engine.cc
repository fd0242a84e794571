#include "scheduler/simulate/engine.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <set>

#include "base/log.h"
#include "scheduler/simulate/waiting.h"

namespace tide::simulate {
namespace {

// A job from its arrival to its end.
struct Live {
  double left_s = 0;  // at `since_s`
  double attained_gpu_s = 0;
  double since_s = 0;     // of this turn
  double pause_s = 0;     // how much of this turn goes by before it goes on
  double end_s = kNever;  // of this turn, if nobody stops it
  double first_start_s = kNever;
  Rank rank;  // who waits: when it began to
  bool stopped_before = false;
};

std::vector<uint32_t> sizes_of(const Trace& trace) {
  std::set<uint32_t> sizes;
  for (const Job& job : trace.jobs) sizes.insert(job.gpus);
  return {sizes.begin(), sizes.end()};
}

// EASY's second question: who is the first in the order of submission that would be over in time? Per size.
class Backfill {
 public:
  explicit Backfill(const Trace& trace) : place_(trace.jobs.size()) {
    for (uint32_t i = 0; i < trace.jobs.size(); ++i) {
      std::vector<uint32_t>& jobs = sizes_[trace.jobs[i].gpus].jobs;
      place_[i] = jobs.size();
      jobs.push_back(i);
    }
    for (auto& [gpus, size] : sizes_) size.waiting = FirstAtMost(size.jobs.size());
  }

  void set(uint32_t gpus, uint32_t job, double duration_s) { sizes_.at(gpus).waiting.set(place_[job], duration_s); }

  struct Hole {
    uint32_t free = 0;   // now
    uint32_t extra = 0;  // that the first in line leaves free when it starts
    double until_s = 0;  // it starts after so long
  };
  // The first that may pass; -1: none.
  int64_t find(const Hole& hole) const {
    int64_t best = -1;
    for (const auto& [gpus, size] : sizes_) {
      if (gpus > hole.free) break;
      const double limit = gpus <= hole.extra ? kLongest : hole.until_s;
      const size_t at = size.waiting.find(limit);
      if (at == size.jobs.size()) continue;
      if (best < 0 || int64_t(size.jobs[at]) < best) best = size.jobs[at];
    }
    return best;
  }

 private:
  static constexpr double kLongest = 1e300;  // of those that wait; the others are kNever
  struct Size {
    std::vector<uint32_t> jobs;
    FirstAtMost waiting{0};
  };
  std::map<uint32_t, Size> sizes_;
  std::vector<size_t> place_;
};

class Replay {
 public:
  Replay(const Trace& trace, uint32_t gpus, const Policy& policy, const Costs& costs)
      : trace_(trace),
        policy_(policy),
        costs_(costs),
        live_(trace.jobs.size()),
        waiting_(sizes_of(trace)),
        free_(gpus) {
    result_.gpus = gpus;
    result_.jobs.resize(trace.jobs.size());
    if (policy.passing == Passing::kReserved) backfill_ = std::make_unique<Backfill>(trace);
  }

  Result run() {
    while (arrived_ < trace_.jobs.size() || !ends_.empty()) {
      now_ = next_event();
      finish();
      arrive();
      while (!changes_.empty() && changes_.begin()->first <= now_) changes_.erase(changes_.begin());
      ++result_.decisions;
      policy_.preempts ? choose_among_all() : choose_among_waiting();
      if (policy_.change_s != nullptr) note_changes();
    }
    return std::move(result_);
  }

 private:
  using Times = std::set<std::pair<double, uint32_t>>;

  const Job& job(uint32_t index) const { return trace_.jobs[index]; }

  double next_event() const {
    double next = arrived_ < trace_.jobs.size() ? job(arrived_).submit_s : kNever;
    if (!ends_.empty()) next = std::min(next, ends_.begin()->first);
    if (!changes_.empty()) next = std::min(next, changes_.begin()->first);
    return std::max(next, now_);
  }

  JobView view(uint32_t index) const {
    const Live& live = live_[index];
    JobView view{job(index).duration_s, live.left_s, live.attained_gpu_s, live.first_start_s, job(index).gpus};
    if (live.end_s == kNever) return view;
    view.left_s = std::min(live.left_s, live.end_s - now_);
    view.attained_gpu_s += (now_ - live.since_s) * job(index).gpus;
    return view;
  }

  void arrive() {
    for (; arrived_ < trace_.jobs.size() && job(arrived_).submit_s <= now_; ++arrived_) {
      live_[arrived_].left_s = job(arrived_).duration_s;
      wait(arrived_);
    }
  }

  void wait(uint32_t index) {
    live_[index].rank = policy_.rank(view(index));
    waiting_.add(job(index).gpus, {live_[index].rank, index});
    if (backfill_) backfill_->set(job(index).gpus, index, job(index).duration_s);
  }

  void start(uint32_t index) {
    Live& live = live_[index];
    waiting_.remove(job(index).gpus, {live.rank, index});
    if (backfill_) backfill_->set(job(index).gpus, index, kNever);
    if (live.first_start_s == kNever) result_.jobs[index].start_s = live.first_start_s = now_;
    live.since_s = now_;
    live.pause_s = live.stopped_before ? costs_.resume_s : 0;
    live.end_s = now_ + live.pause_s + live.left_s;
    ends_.insert({live.end_s, index});
    free_ -= job(index).gpus;
  }

  // Off its GPUs; what it has done is done, but for what was not kept.
  void leave(uint32_t index) {
    Live& live = live_[index];
    JobResult& sums = result_.jobs[index];
    const double ran_s = now_ - live.since_s, gpus = job(index).gpus;
    sums.running_s += ran_s;
    sums.leased_gpu_s += ran_s * gpus;
    sums.pause_gpu_s += std::min(ran_s, live.pause_s) * gpus;
    live.attained_gpu_s += ran_s * gpus;
    live.left_s -= std::max(ran_s - live.pause_s, 0.0);
    result_.turns.push_back({index, job(index).gpus, live.since_s, now_});
    ends_.erase({live.end_s, index});
    live.end_s = kNever;
    free_ += job(index).gpus;
  }

  void finish() {
    bool any = false;
    while (!ends_.empty() && ends_.begin()->first <= now_) {
      const uint32_t index = ends_.begin()->second;
      leave(index);
      result_.jobs[index].end_s = now_;
      live_[index].left_s = 0;
      any = true;
    }
    if (any) std::erase_if(running_, [this](uint32_t index) { return live_[index].end_s == kNever; });
  }

  void stop(uint32_t index) {
    leave(index);
    Live& live = live_[index];
    ++result_.jobs[index].preemptions;
    live.stopped_before = true;
    if (costs_.checkpoint_s > 0) {
      const double lost_s = std::fmod(job(index).duration_s - live.left_s, costs_.checkpoint_s);
      live.left_s += lost_s;
      result_.jobs[index].lost_gpu_s += lost_s * job(index).gpus;
    }
    wait(index);
  }

  void choose_among_waiting() {
    const uint32_t all = std::numeric_limits<uint32_t>::max();
    while (const Waiter* next = waiting_.first(policy_.passing == Passing::kFits ? free_ : all)) {
      const uint32_t index = next->job;
      if (job(index).gpus > free_) return policy_.passing == Passing::kReserved ? pass(index) : void();
      start(index);
    }
  }

  // Who fits and does not delay `head`, which will start when enough of those that run have ended.
  void pass(uint32_t head) {
    while (free_ > 0) {
      Backfill::Hole hole{free_, free_, 0};
      for (auto end = ends_.begin(); hole.extra < job(head).gpus; ++end) {
        hole.extra += job(end->second).gpus;
        hole.until_s = end->first - now_;
      }
      hole.extra -= job(head).gpus;
      const int64_t found = backfill_->find(hole);
      if (found < 0) return;
      start(uint32_t(found));
    }
  }

  // All in line, who runs and who waits: each in its turn has GPUs if there are enough. Among equals who runs stays.
  void choose_among_all() {
    sort_running();
    uint32_t left = result_.gpus;
    std::vector<uint32_t> stopped, started;
    size_t kept = 0;
    for (size_t next = 0;;) {
      while (next < running_.size() && job(running_[next]).gpus > left) stopped.push_back(running_[next++]);
      const Waiter* const first = waiting_.first(left);
      const bool has = next < running_.size();
      if (!has && first == nullptr) break;
      if (has && (first == nullptr || !(first->rank < ranks_[next]))) {
        ranks_[kept] = ranks_[next];
        running_[kept++] = running_[next];
        left -= job(running_[next++]).gpus;
      } else {
        started.push_back(first->job);
        left -= job(first->job).gpus;
        waiting_.remove(job(first->job).gpus, Waiter(*first));
      }
    }
    running_.resize(kept);
    for (const uint32_t index : stopped) stop(index);
    for (const uint32_t index : started) start(index);
    running_.insert(running_.end(), started.begin(), started.end());
  }

  // They were in order, and mostly still are.
  void sort_running() {
    ranks_.resize(running_.size());
    for (size_t i = 0; i < running_.size(); ++i) {
      const uint32_t index = running_[i];
      const Rank rank = policy_.rank(view(index));
      size_t at = i;
      for (; at > 0 && Waiter{rank, index} < Waiter{ranks_[at - 1], running_[at - 1]}; --at) {
        ranks_[at] = ranks_[at - 1];
        running_[at] = running_[at - 1];
      }
      ranks_[at] = rank;
      running_[at] = index;
    }
  }

  void note_changes() {
    changes_.clear();
    for (const uint32_t index : running_) {
      const double after_s = policy_.change_s(view(index));
      if (after_s != kNever) changes_.insert({now_ + after_s, index});
    }
  }

  const Trace& trace_;
  const Policy& policy_;
  const Costs costs_;
  std::vector<Live> live_;
  Waiting waiting_;
  std::unique_ptr<Backfill> backfill_;
  uint32_t free_;
  uint32_t arrived_ = 0;
  double now_ = 0;
  Times ends_, changes_;
  std::vector<uint32_t> running_;  // of a policy that preempts, in the order of rank when it last chose
  std::vector<Rank> ranks_;        // of running_
  Result result_;
};

}  // namespace

Outcome check_sizes(const Trace& trace, uint32_t gpus) {
  for (const Job& job : trace.jobs) {
    if (job.gpus <= gpus) continue;
    return Outcome::fail(
        format("line %u: job %s asks for %u GPUs, the pool has %u", job.line, job.id.c_str(), job.gpus, gpus));
  }
  return {};
}

Result run(const Trace& trace, uint32_t gpus, const Policy& policy, const Costs& costs) {
  return Replay(trace, gpus, policy, costs).run();
}

}  // namespace tide::simulate
