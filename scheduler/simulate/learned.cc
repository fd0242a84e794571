#include "scheduler/simulate/learned.h"

#include <algorithm>
#include <cmath>

#include "base/mix.h"
#include "scheduler/estimates.h"
#include "scheduler/simulate/policies.h"

namespace tide::simulate {
namespace {

constexpr double kRounding_s = 1e-6;

struct Live {
  double left_s = 0, ran_s = 0;  // on all its GPUs, at `since_s`
  double since_s = 0, turn_s = 0;
  double pause_until_s = 0;
  double given_s = 0;  // the estimate that it came with
  double place = 0;
  uint32_t gpus = 0, step = 0;
  bool started = false;
  sched::Estimates::Kind kind;
};

class Replay {
 public:
  Replay(const Trace& trace, uint32_t gpus, const LearnedOptions& options)
      : trace_(trace), options_(options), live_(trace.jobs.size()) {
    result_.gpus = gpus;
    result_.jobs.resize(trace.jobs.size());
    for (const Job& job : trace.jobs) candidates_.push_back({.vgpus = job.gpus});
  }

  Result run() {
    while (arrived_ < trace_.jobs.size() || !there_.empty()) {
      now_ = std::max(now_, next_event());
      bool changed = step_or_finish();
      changed = arrive() || changed;
      if (changed && (wanted_ > result_.gpus || was_short_)) {
        share_out();
      } else if (changed) {
        start_all();
      }
    }
    return std::move(result_);
  }

 private:
  // When a running job ends, or comes into its next step of running time.
  struct Running {
    double next_s = 0;
    uint32_t job = 0;
  };

  const Job& job(uint32_t index) const { return trace_.jobs[index]; }

  double next_event() const {
    double next = arrived_ < trace_.jobs.size() ? job(arrived_).submit_s : kNever;
    for (const Running& each : running_) next = std::min(next, each.next_s);
    return next;
  }

  bool arrive() {
    const uint32_t before = arrived_;
    for (; arrived_ < trace_.jobs.size() && job(arrived_).submit_s <= now_; ++arrived_) {
      Live& live = live_[arrived_];
      live.left_s = job(arrived_).duration_s;
      live.given_s = given_s(trace_, arrived_, options_.estimate_error);
      live.kind = estimates_.submitted(job(arrived_).team, job(arrived_).gpus, now_);
      there_.push_back(arrived_);
      wanted_ += job(arrived_).gpus;
      join_line(arrived_);
    }
    return arrived_ > before;
  }

  // False: the line and who is there are as before.
  bool step_or_finish() {
    bool changed = false;
    for (size_t i = 0; i < running_.size();) {
      Running& each = running_[i];
      if (each.next_s > now_) {
        ++i;
        continue;
      }
      Live& live = live_[each.job];
      catch_up(each.job);
      if (live.left_s <= kRounding_s) {
        end(each.job);
        each = running_.back();
        running_.pop_back();
        changed = true;
        continue;
      }
      while (live.step < sched::run_step_of(live.ran_s)) estimates_.reached(live.kind, ++live.step);
      changed = move_in_line(each.job) || changed;
      each.next_s = next_of(live, job(each.job).gpus);
      ++i;
    }
    return changed;
  }

  void end(uint32_t index) {
    end_turn(index);
    estimates_.ended(live_[index].kind, live_[index].step);
    result_.jobs[index].end_s = now_;
    live_[index].gpus = 0;
    wanted_ -= job(index).gpus;
    line_.erase(place_of(index));
    there_.erase(std::lower_bound(there_.begin(), there_.end(), index));
  }

  auto before() const {
    return [this](uint32_t a, uint32_t b) {
      return live_[a].place != live_[b].place ? live_[a].place < live_[b].place : a < b;
    };
  }
  std::vector<uint32_t>::iterator place_of(uint32_t index) {
    return std::lower_bound(line_.begin(), line_.end(), index, before());
  }

  double expected_left_s(const Live& live) const {
    switch (options_.knowledge) {
      case Knowledge::kLearned:
        return estimates_.left_s(live.kind, live.step);
      case Knowledge::kGiven:
        return sched::given_left_s(live.given_s, live.ran_s);
      case Knowledge::kOracle:
        return live.left_s;
    }
    return 0;
  }

  double place_now(uint32_t index) const {
    const Live& live = live_[index];
    return sched::place_in_line(options_.rules, job(index).submit_s, expected_left_s(live) * job(index).gpus);
  }

  void join_line(uint32_t index) {
    live_[index].place = place_now(index);
    line_.insert(place_of(index), index);
  }

  // False: it stays where it was.
  bool move_in_line(uint32_t index) {
    const auto from = place_of(index);
    const auto at = from - line_.begin();
    line_.erase(from);
    join_line(index);
    return place_of(index) - line_.begin() != at;
  }

  void share_out() {
    ++result_.decisions;
    was_short_ = wanted_ > result_.gpus;
    const auto oldest = uint32_t(options_.rules.oldest_part * result_.gpus);
    sched::share_out({there_, line_}, result_.gpus, oldest, &candidates_);
    for (const uint32_t index : there_) {
      if (candidates_[index].granted != live_[index].gpus) change(index, candidates_[index].granted);
    }
    std::erase_if(running_, [this](const Running& each) { return live_[each.job].gpus == 0; });
    for (Running& each : running_) {
      if (live_[each.job].since_s == now_) each.next_s = next_of(live_[each.job], job(each.job).gpus);
    }
  }

  // Enough for everybody, and there was before.
  void start_all() {
    ++result_.decisions;
    for (size_t i = there_.size(); i-- > 0 && live_[there_[i]].gpus == 0;) {
      change(there_[i], job(there_[i]).gpus);
      running_.back().next_s = next_of(live_[there_[i]], job(there_[i]).gpus);
    }
  }

  void change(uint32_t index, uint32_t gpus) {
    Live& live = live_[index];
    JobResult& sums = result_.jobs[index];
    const bool ran = live.gpus > 0;
    if (ran) {
      catch_up(index);
      end_turn(index);
    }
    live.since_s = live.turn_s = now_;
    live.pause_until_s = now_;
    if (gpus == 0) {
      ++sums.preemptions;
    } else if (ran) {
      sums.moves += moved(job(index).gpus, live.gpus, gpus);
      live.pause_until_s += options_.costs.move_s;
    } else {
      running_.push_back({0, index});
      if (live.started) live.pause_until_s += options_.costs.resume_s;
      if (!live.started) sums.start_s = now_;
      live.started = true;
    }
    live.gpus = gpus;
  }

  // vGPUs that change GPUs, where they lie evenly on these.
  static uint32_t moved(uint32_t vgpus, uint32_t from, uint32_t to) {
    const uint32_t more = std::max(from, to), fewer = std::min(from, to);
    return uint32_t((uint64_t(vgpus) * (more - fewer) + more - 1) / more);
  }

  static double speed(const Live& live, uint32_t vgpus) {
    const uint32_t on_the_fullest = (vgpus + live.gpus - 1) / live.gpus;
    return 1.0 / on_the_fullest;
  }

  void catch_up(uint32_t index) {
    Live& live = live_[index];
    const double pause_s = std::clamp(live.pause_until_s - live.since_s, 0.0, now_ - live.since_s);
    const double ran_s = (now_ - live.since_s - pause_s) * speed(live, job(index).gpus);
    live.left_s -= ran_s;
    live.ran_s += ran_s;
    live.since_s = now_;
    result_.jobs[index].pause_gpu_s += pause_s * live.gpus;
  }

  void end_turn(uint32_t index) {
    const Live& live = live_[index];
    result_.jobs[index].running_s += now_ - live.turn_s;
    result_.jobs[index].leased_gpu_s += (now_ - live.turn_s) * live.gpus;
    result_.turns.push_back({index, live.gpus, live.turn_s, now_});
  }

  double next_of(const Live& live, uint32_t vgpus) const {
    double full_s = live.left_s;
    if (live.step + 1 < sched::kRunSteps) {
      full_s = std::min(full_s, sched::run_step_begins_s(live.step + 1) - live.ran_s);
    }
    return std::max(now_, live.pause_until_s) + std::max(full_s, kRounding_s) / speed(live, vgpus);
  }

  const Trace& trace_;
  const LearnedOptions options_;
  sched::Estimates estimates_;
  std::vector<Live> live_;
  std::vector<sched::Candidate> candidates_;  // as in the trace
  std::vector<uint32_t> there_, line_;        // that have not ended, in the order of submission, and of their places
  std::vector<Running> running_;
  uint64_t wanted_ = 0;     // GPUs by all that are there
  bool was_short_ = false;  // when GPUs were given out last, there were not enough
  uint32_t arrived_ = 0;
  double now_ = 0;
  Result result_;
};

}  // namespace

double given_s(const Trace& trace, uint32_t job, double error) {
  const Job& is = trace.jobs[job];
  if (is.estimate_s > 0) return is.estimate_s;
  const double die = double(mix(job + 1) >> 11) * 0x1p-53;
  return is.duration_s * std::pow(error, 2 * die - 1);
}

Result run_learned(const Trace& trace, uint32_t gpus, const LearnedOptions& options) {
  return Replay(trace, gpus, options).run();
}

}  // namespace tide::simulate
