#include "scheduler/simulate/elastic.h"

#include <algorithm>
#include <limits>
#include <map>
#include <sstream>

#include "base/log.h"
#include "scheduler/invariants.h"
#include "scheduler/policy.h"
#include "scheduler/simulate/csv.h"

namespace tide::simulate {
namespace {

constexpr double kFar = std::numeric_limits<double>::infinity();

// What the scheduler knows of a job is sched::JobView; this is what only the trace knows.
struct Live {
  uint32_t job = 0;  // index in the trace
  uint32_t gpus = 0;
  double left_s = 0;  // at full speed
  double speed = 0;
  double pause_until_s = 0;
  double checked_s = 0;
  double turn_s = 0;  // since when it has just these GPUs
  double end_s = kFar;
};

class Replay {
 public:
  Replay(const Trace& trace, const Pool& pool, const ElasticOptions& options) : trace_(trace), options_(options) {
    result_.gpus = pool.gpus;
    result_.jobs.resize(trace.jobs.size());
    for (uint32_t i = 0; i < pool.gpus; ++i) {
      const sched::GpuId id{format("s%06u", i / pool.server_gpus), i % pool.server_gpus};
      state_.gpus.push_back({.id = id, .memory_bytes = 1, .online = true, .healthy = true});
    }
  }

  Outcome run() {
    while (arrived_ < trace_.jobs.size() || !live_.empty()) {
      double next = arrived_ < trace_.jobs.size() ? trace_.jobs[arrived_].submit_s : kFar;
      for (const Live& live : live_) next = std::min(next, live.end_s);
      if (next == kFar) return Outcome::fail("the pool's policy starts none of the jobs that wait");
      now_ = std::max(now_, next);
      finish();
      if (Outcome outcome = arrive(); !outcome.ok()) return outcome;
      if (Outcome outcome = decide(); !outcome.ok()) return outcome;
    }
    return {};
  }

  Result take_result() { return std::move(result_); }

 private:
  JobResult& sums(const Live& live) { return result_.jobs[live.job]; }

  void finish() {
    for (size_t i = 0; i < live_.size();) {
      if (live_[i].end_s > now_) {
        ++i;
        continue;
      }
      end_turn(live_[i]);
      sums(live_[i]).end_s = now_;
      live_.erase(live_.begin() + long(i));
      state_.jobs.erase(state_.jobs.begin() + long(i));
    }
  }

  Outcome arrive() {
    for (; arrived_ < trace_.jobs.size() && trace_.jobs[arrived_].submit_s <= now_; ++arrived_) {
      const Job& job = trace_.jobs[arrived_];
      sched::JobView view{.id = job.id, .vgpus = job.gpus, .places = {}};
      view.min_gpus = job.min_gpus != 0 ? job.min_gpus : options_.min_gpus == 0 ? job.gpus : options_.min_gpus;
      view.min_gpus = std::min(view.min_gpus, job.gpus);
      if (view.min_gpus > result_.gpus) {
        return Outcome::fail(format("line %u: job %s needs %u GPUs at least, the pool has %u", job.line, job.id.c_str(),
                                    view.min_gpus, result_.gpus));
      }
      state_.jobs.push_back(view);
      live_.push_back({.job = arrived_, .left_s = job.duration_s, .checked_s = now_});
    }
    return {};
  }

  // As the reconciler does: asks, and takes what it is told.
  Outcome decide() {
    const sched::Assignment answer = sched::assign(state_);
    const std::string wrong = options_.check ? sched::what_is_wrong(state_, answer) : "";
    if (!wrong.empty()) return Outcome::fail(format("at %.3f s: %s", now_, wrong.c_str()));
    ++result_.decisions;
    for (size_t i = 0; i < live_.size(); ++i) {
      const sched::Decision& decision = answer.at(state_.jobs[i].id);
      if (!decision.running) continue;
      sched::JobView& view = state_.jobs[i];
      if (!view.running) {
        start(i);
      } else if (decision.places == view.places) {
        continue;
      } else {
        move(live_[i], view, decision);
      }
      view.running = true;
      view.places = decision.places;
      set_speed(live_[i], view);
    }
    return {};
  }

  void start(size_t i) {
    sums(live_[i]).start_s = live_[i].checked_s = live_[i].turn_s = now_;
    for (size_t earlier = 0; earlier < i; ++earlier) {
      if (!state_.jobs[earlier].running) ++state_.jobs[earlier].skipped;
    }
  }

  void move(Live& live, const sched::JobView& view, const sched::Decision& decision) {
    for (size_t v = 0; v < view.places.size(); ++v) sums(live).moves += view.places[v] != decision.places[v];
    end_turn(live);
    live.pause_until_s = now_ + options_.costs.move_s;
  }

  // What it did since it was looked at last.
  void end_turn(Live& live) {
    const double pause_s = std::clamp(live.pause_until_s - live.checked_s, 0.0, now_ - live.checked_s);
    live.left_s -= (now_ - live.checked_s - pause_s) * live.speed;
    sums(live).pause_gpu_s += pause_s * live.gpus;
    sums(live).running_s += now_ - live.turn_s;
    sums(live).leased_gpu_s += (now_ - live.turn_s) * live.gpus;
    result_.turns.push_back({live.job, live.gpus, live.turn_s, now_});
    live.checked_s = live.turn_s = now_;
  }

  void set_speed(Live& live, const sched::JobView& view) {
    std::map<sched::GpuId, uint32_t> load;
    uint32_t fullest = 0;
    for (const sched::GpuId& place : view.places) fullest = std::max(fullest, ++load[place]);
    live.gpus = uint32_t(load.size());
    const double part = double(live.gpus) / view.vgpus;
    live.speed = options_.scaling == Scaling::kSlowest  ? 1.0 / fullest
                 : options_.scaling == Scaling::kLinear ? part
                                                        : options_.curve.speed(part);
    live.end_s = std::max(now_, live.pause_until_s) + live.left_s / live.speed;
  }

  const Trace& trace_;
  const ElasticOptions options_;
  sched::State state_;
  std::vector<Live> live_;  // as state_.jobs
  uint32_t arrived_ = 0;
  double now_ = 0;
  Result result_;
};

}  // namespace

Outcome ScalingCurve::read(const std::string& path) {
  std::string text;
  if (const std::string failed = read_whole(path, &text); !failed.empty()) return Outcome::fail(path + ": " + failed);
  std::istringstream lines(text);
  std::vector<std::string> fields;
  uint32_t number = 0;
  points_ = {{0, 0}};
  for (std::string line; std::getline(lines, line);) {
    const char* wrong = nullptr;
    std::pair<double, double> point;
    if (++number == 1) {
      wrong = line == "gpus_part,speed_part" ? nullptr : "the first line must be gpus_part,speed_part";
    } else if (!split_row(line, &fields) || fields.size() != 2 || !parse_number(fields[0], &point.first) ||
               !parse_number(fields[1], &point.second)) {
      wrong = "a row is two numbers";
    } else if (!(point.first > points_.back().first && point.first <= 1 && point.second > 0 && point.second <= 1)) {
      wrong = "both are above 0 and at most 1, and gpus_part above the row's before";
    }
    if (wrong != nullptr) return Outcome::fail(format("%s:%u: %s", path.c_str(), number, wrong));
    if (number > 1) points_.push_back(point);
  }
  if (points_.back() != std::pair(1.0, 1.0)) return Outcome::fail(path + ": the last row must be 1,1");
  return {};
}

double ScalingCurve::speed(double part) const {
  const auto above = std::lower_bound(points_.begin(), points_.end(), std::pair(part, 0.0));
  if (above == points_.end()) return 1;
  const auto below = std::prev(above);
  return below->second + (part - below->first) / (above->first - below->first) * (above->second - below->second);
}

Outcome run_pool(const Trace& trace, const Pool& pool, const ElasticOptions& options, Result* result) {
  Replay replay(trace, pool, options);
  if (Outcome outcome = replay.run(); !outcome.ok()) return outcome;
  *result = replay.take_result();
  return {};
}

}  // namespace tide::simulate
