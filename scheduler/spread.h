#pragma once

// How one job's vGPUs lie on physical GPUs: what fits, which GPUs to keep, which to add, who goes where.

#include "scheduler/free_gpus.h"
#include "scheduler/state.h"

namespace tide::sched {

// vGPUs of `job` that `gpu` can hold at once; none where it lacks what the job requires.
uint32_t capacity(const JobView& job, const GpuView& gpu);

// Fewest of the GPUs that can hold all of the job's vGPUs, and may lie together if it requires that; more than there
// are GPUs when none can.
uint32_t gpus_for_memory(const std::vector<GpuView>& gpus, const JobView& job);
inline uint32_t gpus_for_memory(const State& state, const JobView& job) { return gpus_for_memory(state.gpus, job); }

// Whether all of its vGPUs find room on these.
bool holds_all(const FreeGpus& gpus, const JobView& job, const GpuSet& set);

// `count` of `held` (or all, when there are fewer), those with the most vGPUs: leaving the others moves the fewest.
GpuSet keep_gpus(const FreeGpus& gpus, const JobView& job, const GpuSet& held, uint32_t count);

// Adds free GPUs to `mine` until it has `count`: first on the servers that the job is on already, then where it fits
// into one server with the least left over; never where resuming it has just failed, or where it lacks what the job
// requires. Fewer than `count`, but `least` of them, where what the job requires leaves no more to it; all of it
// elsewhere, where it requires that they lie together and there is no room where it is. False, and `mine` as it was,
// when there is no set that holds all its vGPUs. Nothing is taken: `gpus` is as it was when this returns.
bool add_gpus(FreeGpus& gpus, const JobView& job, uint32_t least, uint32_t count, GpuSet* mine);

// A place in `mine` for each vGPU, as even as memory allows, moving as few as possible. False when they do not fit;
// `places` is unchanged then.
bool spread(const FreeGpus& gpus, const JobView& job, const GpuSet& mine, std::vector<GpuId>* places);

}  // namespace tide::sched
