#pragma once

// Why a job does not have what it asked for: one reason, what speaks for it, and what helps. Pure: what the reason is,
// is tried out with the policy itself, by asking what it would do if that one thing were otherwise.

#include <optional>
#include <set>
#include <string>
#include <vector>

#include "scheduler/state.h"

namespace tide::sched {

struct Explanation {
  std::string reason, next;
  std::vector<std::string> evidence = {};
};

// Empty, or why no GPU of the pool, or too few that lie together, meet what the job requires, whoever has them.
std::string why_unmet(const State& state, const JobView& job, bool min_given);

// Of a job that waits. None: nothing of what is looked for here; what the policy says is the reason.
std::optional<Explanation> why_waits(const State& state, const std::string& id);

// Jobs that are spared (JobView::spared), and without that it would start. Empty: that is not what it waits for.
std::set<std::string> spared_before(const State& state, const std::string& id);

// Of a job that runs on fewer GPUs than it has virtual ones, or on other ones than it could.
std::optional<Explanation> why_small(const State& state, const std::string& id);

// "4 NVIDIA H100, 2 NVIDIA L40"
std::string models_text(const State& state);

}  // namespace tide::sched
