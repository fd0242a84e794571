#pragma once

// State -> Assignment, a pure function. A physical GPU serves one job at a time, or several that have a part of it each
// (room.h): such a job begins where its part leaves the least over, so that whole GPUs stay free. Each other
// job has between its minimum and its target of them; what is beyond the minima is shared evenly (the smallest
// share grows first, among equals the oldest job). Jobs start in the order of submission; a later one may pass only
// while an earlier one could not start even if all others shrank to their minimum, and only kSkipsMax times. A job that
// shall be suspended has no share: its vGPUs go to where they are parked, and when all are there, its GPUs are free.
// When it is resumed it is like a job that has not started, at its place in the order of submission, and gets no GPU of
// a server on which that has just failed. Who runs is moved where that lets somebody start who waits. Stable: fed with
// its own answer, it changes nothing.
//
// It is worked out by actions (actions/actions.h) on a plan (tentative.h); a planner (planner.h) keeps that plan, and
// answers a change with what changes.

#include "scheduler/state.h"
#include "scheduler/tentative.h"

namespace tide::sched {

inline constexpr uint32_t kSkipsMax = 16;  // then the pool drains for the job that waits

inline constexpr size_t kParkTriesMax = 3;  // servers that are asked to keep a job's vGPU

// A vGPU of a suspended job whose decision is no parked place cannot be kept by any server.
Assignment assign(const State& state);

// One round. False: there is no way to place those that run, and nothing changes.
bool make_plan(Tentative& plan);
// Whether a job that runs is suspended for one that is due (promises.h).
bool yields(const Share& share);
// What the round has decided for a job. Without the reason, which costs more than all the rest.
Decision decision_of(const Tentative& plan, Slot slot);
// Why it waits: one sentence.
std::string reason_of(const Tentative& plan, Slot slot);

// Empty, or why such a job can never start in this pool as it is (what `tide run` is told at once).
std::string why_impossible(const State& state, const JobView& job, bool min_given);

}  // namespace tide::sched
