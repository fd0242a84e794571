#pragma once

// Who gives its GPUs to whom, and when, where jobs take turns: pure functions of a snapshot with times in it. A turn
// ends only for somebody who waits, has waited longest of those whom that helps, and can start on what it frees and not
// without it; who that is is tried out with the policy itself. All GPUs of a job go together, and where one job does
// not free enough, the turns of several end at once, when each of them has had its own.

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "scheduler/state.h"
#include "scheduler/turn_rules.h"

namespace tide::sched {

inline constexpr uint64_t kTurnLeastMs = 5'000, kTurnMostMs = 600'000;  // of a turn by what switching costs
inline constexpr uint64_t kTurnWorth = 20;                              // switching takes one part in so many
inline constexpr uint64_t kTurnWorthless = 4;                           // or, if it takes this one, it was not worth it
inline constexpr uint32_t kStrainMax = 6;                               // then a turn lasts until the job ends
inline constexpr size_t kShapesMax = 16;                                // jobs whom nobody's end helps, of a kind
inline constexpr size_t kAtOnceMax = 16;                                // who waits while others leave for them
inline constexpr uint64_t kFirstBytesPerMs = 1 << 20;                   // to a keeper and back, before it was measured

struct TurnEnd {
  std::string next;            // whose turn is next
  std::set<std::string> over;  // whose turns end for it; empty: what is free is enough, or will be when who leaves left
  uint64_t in_ms = 0;          // when; 0: now
};
// In the order in which they start; only the last one may have to wait. Who is not in it is behind them, or helped by
// nobody's end. At most kAtOnceMax.
using TurnPlan = std::vector<TurnEnd>;
TurnPlan plan_turns(const State& state);

// About how long each job waits that waits for its turn, in ms, by id: as if nobody ended and nobody came.
std::map<std::string, uint64_t> estimate_waits(const State& state, const TurnPlan& plan);

// What suspending and resuming a job takes.
struct SwitchCost {
  uint64_t suspend_ms = 0, resume_ms = 0;  // of the last time; 0: not measured
  uint64_t bytes = 0;                      // that its vGPUs have in use; 0: not known
};
uint64_t cost_ms(const SwitchCost& cost);

// How long a turn is. `strain` doubles it that many times: it grows where switching fails or is not worth it.
uint64_t turn_length_ms(const TurnRules& rules, const SwitchCost& cost, uint32_t strain);

// The strain behind a switch that cost so much, of a turn of that length.
uint32_t strain_after(uint64_t cost_ms, uint64_t length_ms, uint32_t strain);
inline uint32_t strain_after_failure(uint32_t strain) { return strain < kStrainMax ? strain + 1 : strain; }

}  // namespace tide::sched
