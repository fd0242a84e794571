#include "scheduler/simulate/muri.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "base/log.h"

namespace tide::simulate {
namespace {

constexpr double kSlower = 1.015;  // an iteration beside its measured time
constexpr double kFar = std::numeric_limits<double>::infinity();
constexpr double kClose = 1e-9;  // ends that are so near, relatively, are one event
constexpr int kQueues = 3;
constexpr double kQueueLimits_gpu_s[kQueues] = {3250, 7200, 18000};
constexpr double kRestartUnknown_s = 10;

// What a restart takes, by model and GPUs: 1, 2, 4, 8, 16, 32.
struct Restart {
  const char* model;
  std::array<double, 6> seconds;
};
constexpr Restart kRestarts[] = {
    {"vgg16", {7, 7, 8, 9, 9, 10}},     {"vgg19", {7, 7, 8, 9, 10, 10}},
    {"resnet18", {4, 5, 5, 7, 7, 7}},   {"shufflenet_v2_x1_0", {4, 4, 5, 5, 7, 8}},
    {"bert", {10, 10, 10, 10, 10, 10}}, {"gpt2", {10, 10, 10, 10, 10, 10}},
    {"a2c", {38, 39, 39, 46, 46, 46}},  {"dqn", {5, 5, 6, 6, 8, 8}},
};

double restart_s(const Job& job) {
  const int size = int(std::lround(std::log2(job.gpus)));
  for (const Restart& row : kRestarts) {
    if (job.model == row.model && size < int(row.seconds.size()) && 1u << size == job.gpus)
      return row.seconds[size_t(size)];
  }
  return kRestartUnknown_s;
}

double iteration_s(const Job& job) { return job.iteration_ms * kSlower / 1000; }

struct Live {
  uint32_t job = 0;  // index in the trace
  uint32_t gpus = 0;
  double iteration_s = 0, restart_s = 0;
  double iterations_left = 0;
  double left = 0;  // by what it is sorted: seconds, or GPU-seconds
  double checked_s = 0;
  double executed_s = 0;
  int queue = 0;
  bool running = false, started = false, placed = false;
};

// GPUs of nodes; a job of several nodes wants whole ones, and one of fewer GPUs lies on one node: the first that fits.
class Nodes {
 public:
  explicit Nodes(uint32_t count) : free_(count, kMuriNodeGpus) {}
  void clear() { std::fill(free_.begin(), free_.end(), kMuriNodeGpus); }

  bool place(uint32_t gpus) {
    if (gpus <= kMuriNodeGpus) return take(gpus);
    const uint32_t whole = gpus / kMuriNodeGpus, rest = gpus % kMuriNodeGpus;
    const std::vector<uint32_t> before = free_;
    bool fits = std::count(free_.begin(), free_.end(), kMuriNodeGpus) >= long(whole);
    for (uint32_t i = 0; i < whole && fits; ++i) *std::find(free_.begin(), free_.end(), kMuriNodeGpus) = 0;
    fits = fits && (rest == 0 || take(rest));
    if (!fits) free_ = before;
    return fits;
  }

 private:
  bool take(uint32_t gpus) {
    const auto node = std::find_if(free_.begin(), free_.end(), [&](uint32_t free) { return free >= gpus; });
    if (node == free_.end()) return false;
    *node -= gpus;
    return true;
  }
  std::vector<uint32_t> free_;
};

// What both of its loops share: arrivals, ends, who runs.
class Base {
 public:
  Base(const Trace& trace, uint32_t nodes)
      : trace_(trace), gpus_(nodes * kMuriNodeGpus), live_(trace.jobs.size()), since_(trace.jobs.size()) {
    result_.gpus = gpus_;
    result_.jobs.resize(trace.jobs.size());
    for (uint32_t i = 0; i < live_.size(); ++i) {
      const Job& job = trace.jobs[i];
      live_[i] = {.job = i,
                  .gpus = job.gpus,
                  .iteration_s = iteration_s(job),
                  .restart_s = restart_s(job),
                  .iterations_left = double(job.iterations),
                  .checked_s = job.submit_s};
    }
  }
  Result take_result() { return std::move(result_); }

 protected:
  double next_arrival_s() const { return arrived_ < live_.size() ? trace_.jobs[arrived_].submit_s : kFar; }

  // All that come with the next, as one event.
  std::vector<Live*> arrive() {
    std::vector<Live*> group;
    const double at = next_arrival_s();
    const auto close = [at](double time) { return std::abs(time - at) <= kClose * std::max(time, at); };
    while (arrived_ < live_.size() && close(trace_.jobs[arrived_].submit_s)) group.push_back(&live_[arrived_++]);
    for (Live* live : group) live->checked_s = trace_.jobs[live->job].submit_s;
    return group;
  }

  void end(Live* live, double now) {
    JobResult& sums = result_.jobs[live->job];
    sums.end_s = now;
    leave(live, now);
    ++ended_;
  }

  // One event's progress: the time since the last, less a restart.
  void advance(Live* live, double now) {
    const double ran_s = now - live->checked_s;
    live->iterations_left -= std::max(ran_s - live->restart_s, 0.0) / live->iteration_s;
    live->executed_s = live->executed_s + now - live->checked_s;
    live->checked_s = now;
    result_.jobs[live->job].pause_gpu_s += std::min(ran_s, live->restart_s) * live->gpus;
  }

  double left_s(const Live& live) const { return live.iterations_left * live.iteration_s; }

  void start(Live* live, double now) {
    live->running = true;
    live->checked_s = now;
    if (!live->started) result_.jobs[live->job].start_s = now;
    live->started = true;
    since_[live->job] = now;
  }

  void stop(Live* live, double now) {
    leave(live, now);
    ++result_.jobs[live->job].preemptions;
  }

  const Trace& trace_;
  const uint32_t gpus_;
  std::vector<Live> live_;
  uint32_t arrived_ = 0, ended_ = 0;
  Result result_;

 private:
  void leave(Live* live, double now) {
    live->running = false;
    const double from = since_[live->job];
    result_.turns.push_back({live->job, live->gpus, from, now});
    result_.jobs[live->job].running_s += now - from;
    result_.jobs[live->job].leased_gpu_s += (now - from) * live->gpus;
  }
  std::vector<double> since_;
};

// Its shortest_first_sim_jobs: all in the order of what they have left, each placed where it fits, from empty nodes.
class ShortestFirst : public Base {
 public:
  ShortestFirst(const Trace& trace, uint32_t nodes, bool by_service)
      : Base(trace, nodes), nodes_(nodes), by_service_(by_service) {}

  bool run() {
    while (ended_ < live_.size()) {
      const double arrival = next_arrival_s(), now = std::min(arrival, end_s_);
      if (now == kFar) return false;
      if (end_s_ <= arrival) {
        for (Live* live : ending_) end(live, now);
        std::erase_if(line_,
                      [&](Live* live) { return std::find(ending_.begin(), ending_.end(), live) != ending_.end(); });
      }
      if (arrival <= end_s_) {
        for (Live* live : arrive()) {
          sort_by(live);
          line_.push_back(live);
        }
      }
      for (Live* live : running_) {
        if (!live->running) continue;
        advance(live, now);
        sort_by(live);
      }
      sort();
      place(now);
      find_ends(now);
      ++result_.decisions;
    }
    return true;
  }

 private:
  void sort_by(Live* live) { live->left = by_service_ ? left_s(*live) * live->gpus : left_s(*live); }

  // Stable, and quick for a line that is nearly in order.
  void sort() {
    for (size_t i = 1; i < line_.size(); ++i) {
      Live* const live = line_[i];
      size_t at = i;
      for (; at > 0 && live->left < line_[at - 1]->left; --at) line_[at] = line_[at - 1];
      line_[at] = live;
    }
  }

  void place(double now) {
    nodes_.clear();
    std::vector<Live*> placed;
    uint32_t free = gpus_;
    for (Live* live : line_) {
      if (free == 0) break;
      if (live->gpus > free || !nodes_.place(live->gpus)) continue;
      free -= live->gpus;
      live->placed = true;
      placed.push_back(live);
    }
    for (Live* live : running_) {
      if (live->running && !live->placed) stop(live, now);
    }
    for (Live* live : placed) {
      live->placed = false;
      if (!live->running) start(live, now);
    }
    running_ = std::move(placed);
  }

  // Ends that are close are one event, at the time of the first of them in line.
  void find_ends(double now) {
    struct Event {
      double time;
      std::vector<Live*> jobs;
    };
    std::vector<Event> events;
    for (Live* live : running_) {
      const double time = now + left_s(*live);
      const auto same = std::find_if(events.begin(), events.end(), [&](const Event& event) {
        return std::abs(event.time - time) <= kClose * std::max(std::abs(event.time), std::abs(time));
      });
      if (same != events.end()) {
        same->jobs.push_back(live);
      } else {
        events.push_back({time, {live}});
      }
    }
    end_s_ = kFar;
    ending_.clear();
    for (Event& event : events) {
      if (event.time >= end_s_) continue;
      end_s_ = event.time;
      ending_ = std::move(event.jobs);
    }
  }

  Nodes nodes_;
  const bool by_service_;
  std::vector<Live*> line_;     // who is there, as sorted last
  std::vector<Live*> running_;  // in the order of the line
  double end_s_ = kFar;         // of the next to end
  std::vector<Live*> ending_;
};

// Its dlas_sim_jobs by GPU time: queues by GPU-seconds had; in a queue who runs stays ahead of who waits. GPUs are only
// counted there, not placed.
class LeastAttained : public Base {
 public:
  LeastAttained(const Trace& trace, uint32_t nodes) : Base(trace, nodes) {}

  bool run() {
    while (ended_ < live_.size()) {
      const double arrival = next_arrival_s(), event = std::min(arrival, end_s_), now = std::min(event, jump_s_);
      if (now == kFar) return false;
      if (now == event && end_s_ <= arrival) {
        for (Live* live : ending_) remove(live, now);
      }
      if (now == event && arrival <= end_s_) {
        for (Live* live : arrive()) queues_[0].push_back(live);
      }
      for (Live* live : running_) {
        if (live->running) advance_and_demote(live, now);
      }
      choose(now);
      find_ends(now);
      ++result_.decisions;
    }
    return true;
  }

 private:
  void remove(Live* live, double now) {
    end(live, now);
    std::erase(queues_[size_t(live->queue)], live);
  }

  void advance_and_demote(Live* live, double now) {
    advance(live, now);
    if (live->queue == kQueues - 1 || live->executed_s * live->gpus < kQueueLimits_gpu_s[live->queue]) return;
    std::erase(queues_[size_t(live->queue)], live);
    queues_[size_t(++live->queue)].push_back(live);
  }

  void choose(double now) {
    uint32_t free = gpus_;
    std::vector<Live*> started;
    for (const auto& queue : queues_) {
      for (Live* live : queue) {
        const bool fits = live->gpus <= free;
        if (fits) free -= live->gpus;
        if (fits && !live->running) started.push_back(live);
        if (!fits && live->running) stop(live, now);
      }
    }
    for (Live* live : started) start(live, now);
    for (auto& queue : queues_) {
      std::stable_partition(queue.begin(), queue.end(), [](Live* live) { return live->running; });
    }
    std::erase_if(running_, [](Live* live) { return !live->running; });
    running_.insert(running_.end(), started.begin(), started.end());
    // In the order of arrival: so it goes over them.
    std::sort(running_.begin(), running_.end(), [](Live* a, Live* b) { return a->job < b->job; });
  }

  void find_ends(double now) {
    end_s_ = jump_s_ = kFar;
    for (Live* live : running_) {
      const double time = now + left_s(*live);
      if (time < end_s_) ending_.clear();
      if (time <= end_s_) ending_.push_back(live);
      end_s_ = std::min(end_s_, time);
      if (live->queue == kQueues - 1) continue;
      const double whole_s = std::ceil(kQueueLimits_gpu_s[live->queue] / live->gpus);
      jump_s_ = std::min(jump_s_, whole_s - live->executed_s + now);
    }
  }

  std::array<std::vector<Live*>, kQueues> queues_;
  std::vector<Live*> running_;
  double end_s_ = kFar, jump_s_ = kFar;  // the next end, the next change of queue
  std::vector<Live*> ending_;
};

template <class Loop>
Outcome finish(Loop loop, Result* result) {
  if (!loop.run()) return Outcome::fail("the nodes are too few for a job that waits; see --gpus");
  *result = loop.take_result();
  return {};
}

}  // namespace

bool find_muri_policy(const std::string& name, MuriPolicy* policy) {
  if (name == "srtf") *policy = MuriPolicy::kSrtf;
  if (name == "srsf") *policy = MuriPolicy::kSrsf;
  if (name == "tiresias-l") *policy = MuriPolicy::kTiresiasL;
  return name == "srtf" || name == "srsf" || name == "tiresias-l";
}

Outcome use_iterations(Trace* trace) {
  for (Job& job : trace->jobs) {
    if (job.iterations == 0 || job.iteration_ms <= 0) {
      return Outcome::fail(format("line %u: job %s has no iterations and iteration_time_ms, which --mode muri needs",
                                  job.line, job.id.c_str()));
    }
    job.duration_s = double(job.iterations) * iteration_s(job);
  }
  return {};
}

Outcome run_muri(const Trace& trace, uint32_t nodes, MuriPolicy policy, Result* result) {
  if (policy == MuriPolicy::kTiresiasL) return finish(LeastAttained(trace, nodes), result);
  return finish(ShortestFirst(trace, nodes, policy == MuriPolicy::kSrsf), result);
}

}  // namespace tide::simulate
