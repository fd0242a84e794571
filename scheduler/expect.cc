#include "scheduler/expect.h"

#include <algorithm>
#include <cmath>

#include "base/log.h"
#include "scheduler/useful.h"

namespace tide::sched {
namespace {

constexpr double kMs = 1000;
constexpr double kFarthestMs = 1e15;  // so that sums cannot overflow

uint64_t ms_of(double seconds) { return uint64_t(std::clamp(seconds * kMs, 1.0, kFarthestMs)); }

std::string basis_text(const Estimates::Basis& basis) {
  using Of = Estimates::Basis::Of;
  const unsigned long jobs = basis.jobs;
  if (basis.of == Of::kTeam) return format("%lu jobs of its user in its queue with as many GPUs", jobs);
  if (basis.of == Of::kSize) return format("%lu jobs with as many GPUs", jobs);
  return format("all %lu jobs that ended", jobs);
}

}  // namespace

Expected expected_of(const Estimates& estimates, const Estimates::Kind& kind, uint64_t given_ms, uint64_t ran_ms) {
  if (given_ms != 0) {
    const double given_s = double(given_ms) / kMs, ran_s = double(ran_ms) / kMs;
    return {.word = Word::kGiven, .left_ms = ms_of(ran_ms < given_ms ? given_s - ran_s : given_left_s(given_s, ran_s))};
  }
  const Estimates::Basis basis = estimates.basis(kind);
  const double left_s = estimates.left_s(kind, run_step_of(double(ran_ms) / kMs));
  return {.word = basis.jobs < Estimates::kEnoughJobs ? Word::kNone : Word::kLearned,
          .left_ms = ms_of(left_s),
          .basis = basis};
}

int64_t place_of(const OrderRules& rules, uint64_t submitted_ms, uint64_t left_ms, double gpus) {
  const double place_s = place_in_line(rules, double(submitted_ms) / kMs, double(left_ms) / kMs * gpus);
  return int64_t(std::min(place_s * kMs, 4 * kFarthestMs));
}

uint64_t end_if_started(const JobView& job, uint64_t now_ms) {
  if (job.left_ms == 0) return 0;
  const double part = job.is_partial() ? 1 : useful_part(job.vgpus, std::clamp(job.min_gpus, 1u, job.vgpus));
  return now_ms + uint64_t(std::min(double(job.left_ms) / part, kFarthestMs));
}

void note_start(const Decision& decision, uint64_t now_ms, JobView* job) {
  job->ends_ms = end_if_started(*job, now_ms);
  job->passes = decision.passes;
  job->overrun = false;
}

std::string about_text(uint64_t ms) {
  constexpr struct {
    uint64_t ms;
    const char* name;
  } kUnits[] = {{24 * 3'600'000, "days"}, {3'600'000, "h"}, {60'000, "min"}};
  for (const auto& unit : kUnits) {
    if (ms >= 2 * unit.ms) return format("about %lu %s", (unsigned long)((ms + unit.ms / 2) / unit.ms), unit.name);
  }
  return format("about %lu s", (unsigned long)std::max<uint64_t>((ms + 500) / 1000, 1));
}

std::string to_text(const Expected& expected) {
  if (expected.word == Word::kNone) return "not known: it came without --estimate, and too few jobs have ended yet";
  const std::string left = about_text(expected.left_ms) + " more on all its GPUs, ";
  return left + (expected.word == Word::kGiven ? "by its --estimate" : "learned from " + basis_text(expected.basis));
}

}  // namespace tide::sched
