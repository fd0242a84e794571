#pragma once

// Whether a job may be disturbed for others' sake now (suspended, shrunk, moved): not before it has run usefully for
// its minimum, and not more often in an hour than it may be. What its user or an administrator does, and what a GPU
// that fails makes necessary, is no such disturbance. Pure: whoever knows the time says it.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "scheduler/config.h"
#include "scheduler/job_class.h"

namespace tide::sched {

inline constexpr uint64_t kHourMs = 3'600'000;
// Where no minimum is written anywhere: nobody is suspended within that of getting its GPUs. GPUs beyond its minimum
// are lent, and may go at any time.
inline constexpr uint64_t kSpareMs = 5'000;

// What pool.toml says of it, of all queues.
struct DisturbanceRules {
  std::optional<uint64_t> min_runtime_ms;
  uint32_t per_hour = kDisturbancesPerHour;  // 0: no limit
  uint64_t idle_return_ms = kIdleReturnMs;   // of the interactive class; 0: never
  struct OfQueue {
    std::optional<uint64_t> min_runtime_ms;
    std::optional<JobClass> job_class;
  };
  std::map<std::string, OfQueue> queues = {};  // what is not there, a queue has from the one above it

  void configure(const std::vector<QueueConfig>& queues, const PolicyConfig& policy);
  // `given_ms`: of the job; 0: it said nothing. None: nobody has.
  std::optional<uint64_t> min_runtime(uint64_t given_ms, const std::string& queue) const;
  JobClass class_of(const std::string& queue) const;
};

// What of a job decides it.
struct Disturbed {
  std::optional<uint64_t> min_runtime_ms;
  uint64_t useful_ms = 0;             // since it got its GPUs
  const std::vector<uint64_t>* when;  // it was disturbed, since 1970, ascending
};

struct Sparing {
  enum class Why : uint8_t { kNone, kRuntime, kHour } why = Why::kNone;
  uint64_t left_ms = 0;  // until it may be disturbed; of useful running where that is the reason
  bool spared() const { return why != Why::kNone; }
};
Sparing sparing_of(const DisturbanceRules& rules, const Disturbed& job, uint64_t now_ms);

// Notes one that happens now, and forgets those that are more than an hour ago.
void note_disturbance(std::vector<uint64_t>* when, uint64_t now_ms);
uint32_t disturbances_in_hour(const std::vector<uint64_t>& when, uint64_t now_ms);

// "has run 12 s of the 600 s for which it is not disturbed", or "was disturbed 60 times in the last hour".
std::string sparing_text(const Sparing& sparing, const Disturbed& job, uint64_t now_ms);

}  // namespace tide::sched
