#pragma once

// The policies that others are known for, a row each: who comes first, whether later ones may pass, whether who runs
// may be stopped. Jobs are rigid here (they run on all the GPUs that they ask for, or on none) and GPUs are alike.

#include <compare>
#include <cstdint>
#include <limits>
#include <string>

namespace tide::simulate {

inline constexpr double kNever = std::numeric_limits<double>::infinity();

// What a policy may know of a job at one moment. `left_s` and `duration_s` are an oracle's: the trace knows them.
struct JobView {
  double duration_s = 0;
  double left_s = 0;          // of its duration
  double attained_gpu_s = 0;  // what it has had
  double first_start_s = kNever;
  uint32_t gpus = 1;
};

// The smallest is served first; among equals who was submitted first.
struct Rank {
  double first = 0, second = 0;
  auto operator<=>(const Rank&) const = default;
};

enum class Passing : uint8_t {
  kNone,      // nobody starts before the first in line
  kFits,      // whoever fits starts
  kReserved,  // whoever fits and does not delay the first in line (EASY)
};

struct Policy {
  const char* name;
  const char* summary;
  Rank (*rank)(const JobView& job);
  Passing passing = Passing::kFits;
  bool preempts = false;
  // After how many more seconds of running its rank changes for the worse all at once; null: never.
  double (*change_s)(const JobView& job) = nullptr;
};

// Null: there is none of that name.
const Policy* find_policy(const std::string& name);
std::string policy_names();  // "fifo, fifo-skip, ..."

}  // namespace tide::simulate
