#pragma once

// What a round does, in this order, the least disruptive first, each on the plan as the one before has left it. Pure
// functions of the plan: none knows the time, and what they change can be rolled back.

#include <functional>

#include "scheduler/tentative.h"

namespace tide::sched {

// Place: everybody's minimum first. Who has started keeps it, who waits gets it in order, if it can be free when all
// others have theirs. Returns how many GPUs parts need that have none yet.
int64_t start_jobs(Tentative& plan);

// Of a job that does not fit on `left` GPUs: when it is expected to, as those end who run; and how many GPUs it does
// not need then. The number of those that end does not change by itself as time goes by.
struct Opening {
  uint64_t at_ms = 0;  // on the clock of State::now_ms, also in the past; 0: not known
  int64_t spares = 0;
};
Opening opening_for(const Tentative& plan, Slot slot, int64_t left);
// Suspend, once more: while the pool drains for a job, of those that passed it and are not over by when they were
// expected to be; nobody where that would not be enough for it.
void end_overruns(Tentative& plan);

// Grow and shrink: what is beyond the minima is shared evenly, the smallest share grows first. `reserved`: for parts.
void share_out(Tentative& plan, int64_t reserved);

// Consolidate: moving what runs so that what waits can start. Nobody is moved who is spared, pinned, not preemptible,
// or not on GPUs with all it has, and nobody where that does not let somebody start. What is looked at is bounded by
// the constants at the head of consolidate.cc, not by the size of the pool.
//
// Where a job is to be placed and what is free will not do (its model, its labels, together, memory): others go
// elsewhere, the fewest and cheapest. Then `slot` has its GPUs, and `moved` have to be placed anew.
bool make_way(Tentative& plan, Slot slot, std::vector<Slot>* moved);
// Where jobs would shrink for those that start: parts of GPUs are moved together instead. `reserved`: for parts.
void move_instead_of_shrinking(Tentative& plan, int64_t reserved);
// Where jobs wait while enough is free in pieces: parts of GPUs are moved together. The plan is made anew from `before`
// with the moves, by `try_plan`, which says whether there is one; they are taken back where that starts nobody more.
using TryPlan = std::function<bool(Tentative&)>;
void consolidate(Tentative& plan, size_t before, const TryPlan& try_plan);

// Which GPUs: those that a job has, less the ones that cost the fewest moves, plus free ones near them; and where each
// vGPU lies. False when a job cannot be placed so (its memory does not fit on what is free): `failed` says which.
bool choose(Tentative& plan, Slot* failed);

// Suspend: where a queue is owed GPUs that others have beyond their shares (for who waits; up to its quota also for who
// could have more), or who waits has a higher priority than some of its own queue that run, and shrinking has not freed
// enough. Of those that may be disturbed: of the queue with most beyond its share, lower priorities first, inference
// jobs last, and of the rest whom it costs least (cost.h); nobody where that would not be enough. They give everything
// at once, and what they leave is kept for whom they left it (start_jobs).
void reclaim(Tentative& plan);

// ---- what actions know of queues

// Thousandths of GPUs that a job cannot run without.
inline int64_t need_of(uint32_t least, uint32_t part) { return part < kWholeGpu ? part : int64_t(least) * kWholeGpu; }
inline int64_t need_of(const Kind& kind) { return need_of(kind.least, kind.part); }
inline int64_t need_of(const GiverKind& kind) { return need_of(kind.least, kind.part); }
inline int64_t need_of(const Share& share) { return need_of(share.is.least, share.job->part); }
// Works out what queues are owed, and have as if everybody had shrunk to the minimum.
void note_shares(Tentative& plan);
// Whether so much more can be had while every other queue keeps what it is owed and those of it that run can use.
bool leaves_shares(const Tentative& plan, int32_t leaf, int64_t need);
// The largest need for which that is so.
int64_t most_beside_shares(const Tentative& plan, int32_t leaf);
// `amount` more is its own, and its jobs could use `usable` more.
void book(Tentative& plan, int32_t leaf, int64_t amount, int64_t usable = 0);
// For a while others than the plan's are its shares (queue_shares).
void swap_shares(Tentative& plan, QueueShares* shares);
// GPUs of those that are being suspended.
int64_t leaving(const Tentative& plan);
// Whether a job of its queue with a lower priority is being suspended: what that leaves is kept for it.
bool is_yielded_to(const Tentative& plan, const JobView& job);

}  // namespace tide::sched
