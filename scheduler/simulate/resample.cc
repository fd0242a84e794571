#include "scheduler/simulate/resample.h"

#include <algorithm>
#include <cmath>

#include "base/mix.h"

namespace tide::simulate {
namespace {

// Student's t at 97.5 %, by degrees of freedom from 1 on.
constexpr double kStudent[] = {12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
                               2.201,  2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
                               2.080,  2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042};
constexpr double kNormal = 1.960;

double student(size_t degrees) {
  if (degrees <= std::size(kStudent)) return kStudent[degrees - 1];
  return kNormal + (kStudent[std::size(kStudent) - 1] - kNormal) * double(std::size(kStudent)) / double(degrees);
}

class Draws {
 public:
  explicit Draws(uint64_t seed) : state_(mix(seed + 0x5eed)) {}
  // From 0 to 1, without 1.
  double next() { return double(mix(state_++) >> 11) / double(uint64_t(1) << 53); }

 private:
  uint64_t state_;
};

}  // namespace

Trace resample(const Trace& trace, uint64_t seed) {
  const auto& jobs = trace.jobs;
  const double begin_s = jobs.front().submit_s, span_s = jobs.back().submit_s - begin_s;
  const double block_s = span_s / kBlocks;
  Trace made{.name = trace.name, .jobs = {}};
  Draws draws(seed);
  const auto first_from = [&](double at_s) {
    const auto found =
        std::lower_bound(jobs.begin(), jobs.end(), at_s, [](const Job& job, double s) { return job.submit_s < s; });
    return size_t(found - jobs.begin());
  };
  for (uint32_t block = 0; block < kBlocks && span_s > 0; ++block) {
    const double from_s = begin_s + draws.next() * span_s, to_s = from_s + block_s;
    const double shift_s = begin_s + block * block_s - from_s;
    const auto take = [&](double after_s, double before_s, double by_s) {
      for (size_t i = first_from(after_s); i < jobs.size() && jobs[i].submit_s < before_s; ++i) {
        Job job = jobs[i];
        job.submit_s += by_s;
        if (job.deadline_s != 0) job.deadline_s += by_s;
        job.id += "/" + std::to_string(block);
        made.jobs.push_back(std::move(job));
      }
    };
    take(from_s, to_s, shift_s);
    if (to_s > begin_s + span_s) take(begin_s, to_s - span_s, shift_s + span_s);
  }
  if (made.jobs.empty()) made.jobs = jobs;  // all came at once, or every block was without jobs
  return made;
}

double half_width_95(const std::vector<double>& resampled) {
  double mean = 0, squares = 0;
  for (const double value : resampled) mean += value / double(resampled.size());
  for (const double value : resampled) squares += (value - mean) * (value - mean);
  return student(resampled.size() - 1) * std::sqrt(squares / double(resampled.size() - 1));
}

}  // namespace tide::simulate
