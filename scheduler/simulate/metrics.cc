#include "scheduler/simulate/metrics.h"

#include <algorithm>
#include <cmath>

namespace tide::simulate {
namespace {

constexpr double kShortest_s = 10;  // below, slowdowns say nothing
constexpr double kDay_s = 86400;
constexpr double kWindowsMax = 4096;  // 11 years; windows of longer traces are longer

// GPUs asked for by all jobs that were there, summed over time.
class Demand {
 public:
  Demand(const Trace& trace, const Result& result) {
    std::map<double, double> change;
    for (size_t i = 0; i < trace.jobs.size(); ++i) {
      change[trace.jobs[i].submit_s] += trace.jobs[i].gpus;
      change[result.jobs[i].end_s] -= trace.jobs[i].gpus;
    }
    double sum = 0, rate = 0, last = 0;
    for (const auto& [time, by] : change) {
      sum += rate * (time - last);
      times_.push_back(time);
      sums_.push_back(sum);
      last = time;
      rate += by;
    }
  }
  // Requires: a job came or ended at each of the two.
  double mean(double from_s, double to_s) const { return (at(to_s) - at(from_s)) / (to_s - from_s); }

 private:
  double at(double time) const {
    return sums_[size_t(std::lower_bound(times_.begin(), times_.end(), time) - times_.begin())];
  }
  std::vector<double> times_, sums_;
};

void measure_rho(const Trace& trace, const Result& result, Metrics* metrics) {
  const Demand demand(trace, result);
  std::vector<double> rhos;
  for (size_t i = 0; i < trace.jobs.size(); ++i) {
    const Job& job = trace.jobs[i];
    const double end_s = result.jobs[i].end_s;
    const double crowd = std::max(demand.mean(job.submit_s, end_s) / result.gpus, 1.0);
    rhos.push_back((end_s - job.submit_s) / (job.duration_s * crowd));
  }
  const auto above = std::count_if(rhos.begin(), rhos.end(), [](double rho) { return rho > 1 + 1e-9; });
  metrics->rho_above_1 = double(above) / double(rhos.size());
  metrics->rho = spread_of(std::move(rhos));
}

// What teams asked for and had in one window.
struct Share {
  double asked = 0, had = 0;
};
using Window = std::map<std::string, Share>;

// The level up to which everybody has what he asks for, when all have `total` together.
double fill_level(const Window& window, double total) {
  std::vector<double> asked;
  for (const auto& [team, share] : window) asked.push_back(share.asked);
  std::sort(asked.begin(), asked.end());
  for (size_t i = 0; i < asked.size(); ++i) {
    const double level = total / double(asked.size() - i);
    if (asked[i] >= level) return level;
    total -= asked[i];
  }
  return asked.empty() ? 0 : asked.back();
}

double jain_of(const Window& window, double total) {
  const double level = fill_level(window, total);
  double sum = 0, squares = 0, count = 0;
  for (const auto& [team, share] : window) {
    if (share.asked <= 0) continue;
    const double x = share.had / std::min(share.asked, level);
    sum += x;
    squares += x * x;
    ++count;
  }
  return squares == 0 ? 1 : sum * sum / (count * squares);
}

struct Windows {
  double origin_s = 0, length_s = kDay_s;
};

template <class Add>
void over_windows(double from_s, double to_s, const Windows& windows, const Add& add) {
  for (double at = from_s; at < to_s;) {
    const size_t window = size_t((at - windows.origin_s) / windows.length_s);
    const double window_end_s = windows.origin_s + double(window + 1) * windows.length_s;
    const double end = std::min(to_s, std::max(window_end_s, std::nextafter(at, 1e300)));
    add(window, end - at);
    at = end;
  }
}

void measure_teams(const Trace& trace, const Result& result, Metrics* metrics) {
  std::map<size_t, Window> windows;
  const Windows times{trace.jobs[0].submit_s, std::max(kDay_s, metrics->makespan_s / kWindowsMax)};
  for (size_t i = 0; i < trace.jobs.size(); ++i) {
    const Job& job = trace.jobs[i];
    over_windows(job.submit_s, result.jobs[i].end_s, times,
                 [&](size_t at, double s) { windows[at][job.team].asked += s * job.gpus; });
  }
  for (const Turn& turn : result.turns) {
    over_windows(turn.from_s, turn.to_s, times,
                 [&](size_t at, double s) { windows[at][trace.jobs[turn.job].team].had += s * turn.gpus; });
  }
  double sum = 0;
  for (const auto& [at, window] : windows) {
    const double jain = jain_of(window, times.length_s * result.gpus);
    sum += jain;
    metrics->jain_day_least = std::min(metrics->jain_day_least, jain);
  }
  metrics->jain_day_mean = sum / double(windows.size());
}

}  // namespace

Spread spread_of(std::vector<double> values, Quantiles quantiles) {
  if (values.empty()) return {};
  double sum = 0;
  for (const double value : values) sum += value;
  std::sort(values.begin(), values.end());
  const auto quantile = [&](double part) {
    if (quantiles == Quantiles::kValues) return values[size_t(part * double(values.size()))];
    const double at = part * double(values.size() - 1);
    const size_t below = size_t(at), above = std::min(below + 1, values.size() - 1);
    return std::lerp(values[below], values[above], at - double(below));
  };
  return {sum / double(values.size()), quantile(0.5), quantile(0.95), quantile(0.99), values.back()};
}

Metrics measure(const Trace& trace, const Result& result, Quantiles quantiles) {
  Metrics metrics;
  std::vector<double> jct, slowdown, queue, stopped, wide_stopped;
  double end_s = 0;
  for (size_t i = 0; i < trace.jobs.size(); ++i) {
    const Job& job = trace.jobs[i];
    const JobResult& got = result.jobs[i];
    jct.push_back(got.end_s - job.submit_s);
    slowdown.push_back(std::max(jct.back(), kShortest_s) / std::max(job.duration_s, kShortest_s));
    queue.push_back(got.start_s - job.submit_s);
    stopped.push_back(std::max(jct.back() - got.running_s, 0.0));
    if (job.gpus > kWideGpus) wide_stopped.push_back(stopped.back());
    end_s = std::max(end_s, got.end_s);
    metrics.preemptions_per_job += got.preemptions / double(trace.jobs.size());
    metrics.moves_per_job += got.moves / double(trace.jobs.size());
    metrics.leased_gpu_s += got.leased_gpu_s;
    metrics.useful_gpu_s += job.work_gpu_s();
    metrics.pause_gpu_s += got.pause_gpu_s;
    metrics.lost_gpu_s += got.lost_gpu_s;
  }
  metrics.jct_s = spread_of(std::move(jct), quantiles);
  metrics.slowdown = spread_of(std::move(slowdown), quantiles);
  metrics.queue_s = spread_of(std::move(queue), quantiles);
  metrics.stopped_s = spread_of(std::move(stopped), quantiles);
  metrics.wide_stopped_s = spread_of(std::move(wide_stopped), quantiles);
  metrics.makespan_s = end_s - trace.jobs[0].submit_s;
  metrics.utilisation = metrics.useful_gpu_s / (result.gpus * metrics.makespan_s);
  metrics.allocation = metrics.leased_gpu_s / (result.gpus * metrics.makespan_s);
  measure_rho(trace, result, &metrics);
  measure_teams(trace, result, &metrics);
  return metrics;
}

std::map<double, int64_t> leased_over_time(const Result& result) {
  std::map<double, int64_t> leased;
  for (const Turn& turn : result.turns) {
    leased[turn.from_s] += turn.gpus;
    leased[turn.to_s] -= turn.gpus;
  }
  int64_t sum = 0;
  for (auto& [time, gpus] : leased) gpus = sum += gpus;
  return leased;
}

}  // namespace tide::simulate
