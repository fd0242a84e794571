#pragma once

// How long jobs will run yet, learned from those that ran before: pure, without a clock. Of each kind of job (its team
// and how many GPUs it asks for; all of that many GPUs; all) it counts how many reached each step of running time, and
// how many ended in it: so who still runs counts too, for what it has run. The latest count most. Jobs of one kind that
// were submitted shortly one after the other are a batch, and tell most of each other. Memory is bounded by the kinds
// (kKindsMax) and by the batches that have jobs.

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace tide::sched {

// Steps of running time: up to 10 s, then each twice the root of two as long, the last without an end.
inline constexpr uint32_t kRunSteps = 40;
// Where step `step` begins. Requires: step <= kRunSteps.
double run_step_begins_s(uint32_t step);
// The step of a job that has run for so long.
uint32_t run_step_of(double ran_s);

class Estimates {
 public:
  Estimates();

  // Which counts are a job's.
  struct Kind {
    uint32_t size = 0, team = 0, batch = 0;
  };

  // A job comes, and begins to run later: reached(kind, 0). `now_s` does not go back.
  Kind came(const std::string& team, uint32_t gpus, double now_s);
  // The same, and it is in the first step.
  Kind submitted(const std::string& team, uint32_t gpus, double now_s);
  // It has run into the next step, `step`.
  void reached(const Kind& kind, uint32_t step);
  // It ended in `step`.
  void ended(const Kind& kind, uint32_t step);
  // It is gone, and never ran.
  void left(const Kind& kind);

  // Seconds that a job which is in `step` is expected to run yet until it ends, as far as half of such jobs do: what it
  // costs to see one of them end. What lies further ahead is not known well, and is not reckoned with.
  double left_s(const Kind& kind, uint32_t step) const;

  // The narrowest kind of a job of which enough have ended (kEnoughJobs), and how many have.
  struct Basis {
    enum class Of : uint8_t { kAll, kSize, kTeam } of = Of::kAll;
    uint64_t jobs = 0;
    bool operator==(const Basis&) const = default;
  };
  static constexpr uint64_t kEnoughJobs = 3;
  Basis basis(const Kind& kind) const;

  size_t kinds() const { return counts_.size() - free_.size(); }

 private:
  static constexpr size_t kKindsMax = 16384;  // teams x sizes; who comes later is of its size's kind
  struct Counts {
    std::array<double, kRunSteps> reached{}, ended{};
    double keep = 1;     // of the past, with each job that reaches a step
    uint32_t users = 0;  // jobs, of a batch
    uint64_t ends = 0;   // jobs that ended
  };
  struct Batch {
    uint32_t counts = 0;
    double last_s = 0;  // when its latest job came
  };

  uint32_t add(double half_life_jobs);
  uint32_t kind_of(const std::pair<std::string, uint32_t>& name, uint32_t otherwise, double half_life_jobs);
  uint32_t batch_of(uint32_t team, double now_s);
  void leave_batch(const Kind& kind);
  // All jobs', its size's, its team's and its batch's; each once.
  template <class Do>
  void for_each(const Kind& kind, const Do& act) {
    act(counts_[0]);
    if (kind.size != 0) act(counts_[kind.size]);
    if (kind.team != kind.size) act(counts_[kind.team]);
    act(counts_[kind.batch]);
  }
  double part_that_ends(const Kind& kind, uint32_t step) const;

  std::vector<Counts> counts_;  // the first: all jobs'
  std::vector<uint32_t> free_;
  std::map<std::pair<std::string, uint32_t>, uint32_t> kinds_;
  std::map<uint32_t, Batch> batches_;  // the latest, by kind
};

}  // namespace tide::sched
