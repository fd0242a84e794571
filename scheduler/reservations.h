#pragma once

// Reservations in the policy: pure functions of a state. While a reservation lasts, the GPUs that are kept for it are a
// pool of their own, in which its jobs share as they would in any other, without queues; everybody else has the rest.
//   - So many GPUs are kept as its jobs want, but no more than it has; all that it has where it is exclusive. What
//   nobody
//     uses is part of the rest: others borrow it.
//   - Which ones: those that its jobs are on, free ones, those that are being left, those whose jobs can move, those
//     that jobs have beyond their minimum, and then those of the newest jobs from which may be taken. Who is on one of
//     them and has no room elsewhere is suspended, and comes back by itself.
//   - Nothing that cannot be disturbed and may run for longer begins before a reservation, if that could not have its
//     GPUs then.
//   - Before it begins its jobs wait. When it is over, or gone, they are jobs like others.

#include <string>
#include <vector>

#include "scheduler/state.h"

namespace tide::sched {

// What one reservation that lasts has.
struct Reserved {
  size_t index = 0;      // in State::reservations
  std::set<GpuId> gpus;  // kept for it now
  State pool;            // its jobs, and all GPUs: those that are not its own yet, or at all, are unhealthy
};

struct Division {
  State rest;                      // without reservations; GPUs that are kept for one are unhealthy in it
  std::vector<Reserved> reserved;  // those that last
  Assignment waiting;              // who waits for the beginning of one, or for the end
};
Division divide(const State& state);

// Whether its reservation lasts: what it has counts for that.
bool is_reserved(const State& state, const JobView& job);

// The state without reservations and what belongs to them: what queues and turns are about.
State rest_of(const State& state);

// What becomes of those who are on GPUs that are kept for others, when the rest was decided without these.
void displace(const State& state, const Division& division, Assignment* rest);

// "2026-11-24 08:00:00 UTC".
std::string time_text(uint64_t ms);

// GPUs of the pool that it may have.
bool is_for(const Reservation& reservation, const GpuView& gpu);

// For people.
struct ReservationState {
  uint64_t kept = 0;                  // GPUs that are kept for it now
  uint64_t used = 0;                  // that its jobs are on
  uint64_t there = 0;                 // usable ones that it may have
  uint32_t running = 0, waiting = 0;  // its jobs
};
std::vector<ReservationState> states_of(const State& state);  // by index in State::reservations

}  // namespace tide::sched
