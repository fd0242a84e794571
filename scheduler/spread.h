#pragma once

// How one job's vGPUs lie on physical GPUs: what fits, which GPUs to keep, which to add, who goes where.

#include <set>

#include "scheduler/state.h"

namespace tide::sched {

// vGPUs of `job` that `gpu` can hold at once; none where it lacks what the job requires.
uint32_t capacity(const JobView& job, const GpuView& gpu);

// Fewest GPUs of the pool that can hold all of the job's vGPUs, and may lie together if it requires that; more than
// there are GPUs when none can.
uint32_t gpus_for_memory(const State& state, const JobView& job);

// `count` of `held` (or all, when there are fewer), those with the most vGPUs: leaving the others moves the fewest.
std::set<GpuId> keep_gpus(const JobView& job, const std::set<GpuId>& held, uint32_t count);

// Takes from `free` into `mine` until it has `count`: first on the servers that the job is on already, then where it
// fits into one server with the least left over; never where resuming it has just failed, or where it lacks what the
// job requires. False when there is no set that holds all its vGPUs.
bool add_gpus(const State& state, const JobView& job, uint32_t count, std::set<GpuId>& mine, std::set<GpuId>& free);

// The same with fewer than `count` where what the job requires leaves no more to it, but `least` of them.
bool add_gpus_down_to(const State& state, const JobView& job, uint32_t least, uint32_t count, std::set<GpuId>& mine,
                      std::set<GpuId>& free);

// A place in `mine` for each vGPU, as even as memory allows, moving as few as possible. False when they do not fit;
// `places` is unchanged then.
bool spread(const State& state, const JobView& job, const std::set<GpuId>& mine, std::vector<GpuId>* places);

}  // namespace tide::sched
