#pragma once

// Replays a trace exactly as the simulator of Muri's artifact does (SIGCOMM '22), to the last digit of the numbers that
// it published for SRTF, SRSF and Tiresias-L. It shows that policies, order and arithmetic here mean the same as there;
// it is no model of this pool: at every event every running job loses the time of a restart, stopped or not.
// What that simulator does is in docs/simulate.md.

#include <string>

#include "scheduler/simulate/result.h"
#include "scheduler/simulate/trace.h"

namespace tide::simulate {

inline constexpr uint32_t kMuriNodeGpus = 8;

enum class MuriPolicy : uint8_t { kSrtf, kSrsf, kTiresiasL };

// "srtf", "srsf", "tiresias-l"; false for anything else.
bool find_muri_policy(const std::string& name, MuriPolicy* policy);

// The jobs' durations as that simulator has them: iterations, each as long as measured and 1.5 % more. Fails where the
// trace has no such columns.
Outcome use_iterations(Trace* trace);

// `nodes` of 8 GPUs. Requires: use_iterations() was OK. Fails where a job can never be placed.
Outcome run_muri(const Trace& trace, uint32_t nodes, MuriPolicy policy, Result* result);

}  // namespace tide::simulate
