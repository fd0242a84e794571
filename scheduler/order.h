#pragma once

// Who is served first where jobs may be suspended and may shrink, and how many GPUs each gets then: pure functions of
// what is expected of each job (by learned or given estimates) and of how long ago it was submitted.

#include <cstdint>
#include <vector>

namespace tide::sched {

struct OrderRules {
  // A job is passed only by jobs that were submitted less than `patience` x its expected GPU-seconds after it.
  double patience = 4;
  // So much of the pool serves the jobs that were submitted first, whatever is expected of them.
  double oldest_part = 0.05;
};

// The smallest is served first.
double place_in_line(const OrderRules& rules, double submitted_s, double expected_gpu_s);

// Of a job whose user said how long it would run, roughly: the rest of that; from two thirds of it on half as long
// again as it has run.
double given_left_s(double given_s, double ran_s);

// Of `free` GPUs, as many as make a job of so many vGPUs faster: all that its fullest GPU has to do decides.
uint32_t gpus_that_help(uint32_t vgpus, uint32_t free);

struct Candidate {
  uint32_t vgpus = 1;
  uint32_t granted = 0;  // GPUs
};

// The candidates by their numbers, in two orders.
struct Lines {
  const std::vector<uint32_t>& oldest;    // in the order of submission
  const std::vector<uint32_t>& by_place;  // place_in_line() ascending
};

// Says how many GPUs each has: the oldest share `oldest_gpus` of them, all others are given out in line, to the last
// GPU: who does not fit shrinks. Sets `granted` of all in `lines`.
void share_out(const Lines& lines, uint32_t gpus, uint32_t oldest_gpus, std::vector<Candidate>* candidates);

}  // namespace tide::sched
