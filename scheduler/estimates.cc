#include "scheduler/estimates.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace tide::sched {
namespace {

constexpr double kFirstStep_s = 10;
constexpr double kBatchGap_s = 3600;    // a job that comes later begins another batch
constexpr double kHalfLife_jobs = 300;  // of a team's jobs of one size, until one counts half
constexpr double kSizeHalfLife_jobs = 900, kAllHalfLife_jobs = 3000;
constexpr double kSizeDoubt_jobs = 4, kTeamDoubt_jobs = 4, kBatchDoubt_jobs = 8;  // that the wider kind counts for
constexpr double kPrior = 0.2;  // of those in a step ends in it, if nothing is known
constexpr double kHalf = 0.5;

std::array<double, kRunSteps + 1> step_starts() {
  std::array<double, kRunSteps + 1> starts{};
  double at = kFirstStep_s;
  for (uint32_t i = 1; i <= kRunSteps; ++i, at *= std::numbers::sqrt2) starts[i] = at;
  return starts;
}
const std::array<double, kRunSteps + 1> kStarts_s = step_starts();

}  // namespace

double run_step_begins_s(uint32_t step) { return kStarts_s[step]; }

uint32_t run_step_of(double ran_s) {
  constexpr double kRounding_s = 1e-6;
  const auto above = std::upper_bound(kStarts_s.begin() + 1, kStarts_s.begin() + kRunSteps, ran_s + kRounding_s);
  return uint32_t(above - kStarts_s.begin()) - 1;
}

Estimates::Estimates() { add(kAllHalfLife_jobs); }

Estimates::Kind Estimates::came(const std::string& team, uint32_t gpus, double now_s) {
  Kind kind;
  kind.size = kind_of({"", gpus}, 0, kSizeHalfLife_jobs);
  kind.team = kind_of({"team " + team, gpus}, kind.size, kHalfLife_jobs);
  kind.batch = batch_of(kind.team, now_s);
  ++counts_[kind.batch].users;
  return kind;
}

Estimates::Kind Estimates::submitted(const std::string& team, uint32_t gpus, double now_s) {
  const Kind kind = came(team, gpus, now_s);
  reached(kind, 0);
  return kind;
}

void Estimates::reached(const Kind& kind, uint32_t step) {
  for_each(kind, [&](Counts& counts) {
    counts.reached[step] = counts.reached[step] * counts.keep + 1;
    counts.ended[step] *= counts.keep;
  });
}

void Estimates::ended(const Kind& kind, uint32_t step) {
  for_each(kind, [&](Counts& counts) {
    ++counts.ended[step];
    ++counts.ends;
  });
  leave_batch(kind);
}

void Estimates::left(const Kind& kind) { leave_batch(kind); }

void Estimates::leave_batch(const Kind& kind) {
  if (--counts_[kind.batch].users > 0) return;
  const auto latest = batches_.find(kind.team);
  if (latest != batches_.end() && latest->second.counts == kind.batch) return;  // another one may join it
  free_.push_back(kind.batch);
}

double Estimates::left_s(const Kind& kind, uint32_t step) const {
  double still_there = 1, spent_s = 0;
  for (; step < kRunSteps && still_there > kHalf; ++step) {
    const double length_s = kStarts_s[step + 1] - kStarts_s[step], end = part_that_ends(kind, step);
    spent_s += still_there * length_s * (1 - end / 2);
    still_there *= 1 - end;
  }
  return spent_s / std::max(1 - still_there, 1e-9);
}

Estimates::Basis Estimates::basis(const Kind& kind) const {
  using Of = Basis::Of;
  if (kind.team != kind.size && counts_[kind.team].ends >= kEnoughJobs) return {Of::kTeam, counts_[kind.team].ends};
  if (kind.size != 0 && counts_[kind.size].ends >= kEnoughJobs) return {Of::kSize, counts_[kind.size].ends};
  return {Of::kAll, counts_[0].ends};
}

// Each kind's own counts, and some jobs that did as the wider kind's.
double Estimates::part_that_ends(const Kind& kind, uint32_t step) const {
  double part = kPrior;
  const auto refine = [&](uint32_t index, double doubt_jobs) {
    const Counts& counts = counts_[index];
    part = std::min((counts.ended[step] + doubt_jobs * part) / (counts.reached[step] + doubt_jobs), 1.0);
  };
  refine(0, kSizeDoubt_jobs);
  if (kind.size != 0) refine(kind.size, kSizeDoubt_jobs);
  if (kind.team != kind.size) refine(kind.team, kTeamDoubt_jobs);
  refine(kind.batch, kBatchDoubt_jobs);
  return part;
}

uint32_t Estimates::add(double half_life_jobs) {
  uint32_t index = uint32_t(counts_.size());
  if (free_.empty()) {
    counts_.emplace_back();
  } else {
    index = free_.back();
    free_.pop_back();
  }
  counts_[index] = {.keep = std::exp2(-1 / half_life_jobs)};
  return index;
}

uint32_t Estimates::kind_of(const std::pair<std::string, uint32_t>& name, uint32_t otherwise, double half_life_jobs) {
  const auto found = kinds_.find(name);
  if (found != kinds_.end()) return found->second;
  if (kinds_.size() == kKindsMax) return otherwise;
  return kinds_[name] = add(half_life_jobs);
}

uint32_t Estimates::batch_of(uint32_t team, double now_s) {
  const auto [found, is_first] = batches_.try_emplace(team);
  Batch& batch = found->second;
  if (is_first || now_s - batch.last_s > kBatchGap_s) {
    if (!is_first && counts_[batch.counts].users == 0) free_.push_back(batch.counts);
    batch.counts = add(kHalfLife_jobs);
  }
  batch.last_s = now_s;
  return batch.counts;
}

}  // namespace tide::sched
