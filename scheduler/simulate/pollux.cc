#include "scheduler/simulate/pollux.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>

#include "base/log.h"

namespace tide::simulate {
namespace {

constexpr double kRound_s = 60, kRestart_s = 30;
constexpr double kFirstQueue_gpu_s = 16 * 3600;

// As few nodes as can be.
Placement packed(uint32_t gpus) {
  Placement placement;
  for (; gpus > 0; gpus -= placement.back()) placement.push_back(std::min(gpus, kPolluxNodeGpus));
  return placement;
}

struct Live {
  uint32_t job = 0;  // index in the trace
  uint32_t gpus = 0;
  double left_s = 0;  // as on packed nodes
  double speed = 1;   // beside these
  double restart_s = 0;
  double had_s = 0;
  double since_s = 0;
  uint32_t queue = 0;
  bool runs = false, started = false;
  std::vector<uint32_t> nodes;  // of each GPU; empty: it has none
};

class Rounds {
 public:
  Rounds(const Trace& trace, const StepTimes& times, uint32_t nodes) : trace_(trace), times_(times), nodes_(nodes) {
    result_.gpus = nodes * kPolluxNodeGpus;
    result_.jobs.resize(trace.jobs.size());
    live_.resize(trace.jobs.size());
    now_ = std::floor(trace.jobs[0].submit_s / kRound_s) * kRound_s;
  }

  Result run() {
    for (size_t ended = 0; ended < live_.size(); ++result_.decisions) {
      for (Live* live : here_) ended += !live->nodes.empty() && work(live);
      now_ += kRound_s;
      const auto is_over = [this](const Live* live) { return result_.jobs[live->job].end_s > 0; };
      std::erase_if(here_, is_over);
      for (auto& queue : queues_) std::erase_if(queue, is_over);
      arrive();
      demote();
      choose();
      place();
    }
    return std::move(result_);
  }

 private:
  // A round's work. True: that was the last.
  bool work(Live* live) {
    const double pause_s = std::min(live->restart_s, kRound_s);
    live->restart_s -= pause_s;
    result_.jobs[live->job].pause_gpu_s += pause_s * live->gpus;
    const double needs_s = live->left_s / live->speed;
    if (needs_s > kRound_s - pause_s) {
      live->left_s -= (kRound_s - pause_s) * live->speed;
      return false;
    }
    const double end_s = now_ + pause_s + std::round(needs_s);
    leave(live, end_s);
    result_.jobs[live->job].end_s = end_s;
    return true;
  }

  void arrive() {
    for (; arrived_ < live_.size() && trace_.jobs[arrived_].submit_s <= now_; ++arrived_) {
      Live& live = live_[arrived_];
      live = {
          .job = arrived_, .gpus = trace_.jobs[arrived_].gpus, .left_s = trace_.jobs[arrived_].duration_s, .nodes = {}};
      here_.push_back(&live);
      queues_[0].push_back(&live);
    }
  }

  void demote() {
    for (Live* live : here_) {
      if (!live->runs) continue;
      live->had_s += kRound_s;
      if (live->queue != 0 || live->had_s * live->gpus < kFirstQueue_gpu_s) continue;
      std::erase(queues_[0], live);
      queues_[1].push_back(live);
      live->queue = 1;
    }
  }

  void choose() {
    uint32_t free = result_.gpus;
    for (const auto& queue : queues_) {
      for (Live* live : queue) {
        live->runs = live->gpus <= free;
        if (live->runs) free -= live->gpus;
        if (live->runs || live->nodes.empty()) continue;
        leave(live, now_);
        ++result_.jobs[live->job].preemptions;
      }
    }
  }

  void place() {
    std::vector<uint32_t> free(nodes_, kPolluxNodeGpus);
    for (const Live* live : here_) {
      for (const uint32_t node : live->nodes) --free[node];
    }
    for (const auto& queue : queues_) {
      for (Live* live : queue) {
        if (live->runs && live->nodes.empty()) start(live, free);
      }
    }
  }

  // From the emptiest node, the first among equals, and so on.
  void start(Live* live, std::vector<uint32_t>& free) {
    Placement placement;
    while (live->nodes.size() < live->gpus) {
      const auto node = std::max_element(free.begin(), free.end());
      const uint32_t take = std::min<uint32_t>(*node, live->gpus - uint32_t(live->nodes.size()));
      live->nodes.insert(live->nodes.end(), take, uint32_t(node - free.begin()));
      *node -= take;
      placement.push_back(take);
    }
    const Job& job = trace_.jobs[live->job];
    live->speed = times_.step_s(job.model, packed(job.gpus), job.batch_size) /
                  times_.step_s(job.model, placement, job.batch_size);
    live->restart_s = kRestart_s;
    live->since_s = now_;
    if (!live->started) result_.jobs[live->job].start_s = now_;
    live->started = true;
  }

  void leave(Live* live, double at_s) {
    JobResult& sums = result_.jobs[live->job];
    sums.running_s += at_s - live->since_s;
    sums.leased_gpu_s += (at_s - live->since_s) * live->gpus;
    result_.turns.push_back({live->job, live->gpus, live->since_s, at_s});
    live->nodes.clear();
  }

  const Trace& trace_;
  const StepTimes& times_;
  const uint32_t nodes_;
  double now_ = 0;
  uint32_t arrived_ = 0;
  std::vector<Live> live_;
  std::vector<Live*> here_;  // in the order of arrival
  std::array<std::vector<Live*>, 2> queues_;
  Result result_;
};

// Of each application and batch size the job to go by: of those on measured placements the one with the most GPUs, else
// the one with the fewest.
class KnownJobs {
 public:
  explicit KnownJobs(const StepTimes& times) : times_(times) {}

  void add(const Job& job) {
    Job& best = jobs_.try_emplace({job.model, job.batch_size}, job).first->second;
    const bool measured = is_measured(job), before = is_measured(best);
    const bool better = measured != before ? measured : measured ? job.gpus > best.gpus : job.gpus < best.gpus;
    if (better) best = job;
  }

  double duration_s(const Job& job) const {
    const Job& by = jobs_.at({job.model, job.batch_size});
    if (is_measured(job) || job.gpus == by.gpus) return job.duration_s;
    return by.duration_s * step_s(job) / step_s(by);
  }

 private:
  bool is_measured(const Job& job) const { return times_.measured(job.model, packed(job.gpus)); }
  double step_s(const Job& job) const { return times_.step_s(job.model, packed(job.gpus), job.batch_size); }

  const StepTimes& times_;
  std::map<std::pair<std::string, uint32_t>, Job> jobs_;
};

}  // namespace

Outcome use_step_times(std::vector<Trace>* parts, const StepTimes& times) {
  KnownJobs known(times);
  for (const Trace& trace : *parts) {
    for (const Job& job : trace.jobs) {
      if (job.batch_size != 0 && times.knows(job.model)) {
        known.add(job);
        continue;
      }
      return Outcome::fail(format("line %u: job %s has no application whose steps were measured, or no batch_size",
                                  job.line, job.id.c_str()));
    }
  }
  for (Trace& trace : *parts) {
    for (Job& job : trace.jobs) job.duration_s = known.duration_s(job);
  }
  return {};
}

Result run_pollux(const Trace& trace, const StepTimes& times, uint32_t nodes) {
  return Rounds(trace, times, nodes).run();
}

}  // namespace tide::simulate
