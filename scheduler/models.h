#pragma once

// What queues have of GPUs of one model (`models` of a [[queue]]), as pure functions of a state. They work by saying
// which GPUs a job may not have now (JobView::barred); the policy does the rest, as for a model that a job requires.
//   - A limit: the queue may be on so many GPUs of the model; which ones is chosen anew each time: those that its jobs
//     are on, then free ones. All others of the model are barred for its jobs. So whatever is decided, it is never on
//     more of them than it was, or than the limit.
//   - A quota: of a job that waits and requires the model, and with which its queue stays within the quota, the GPUs
//     that it cannot run without are kept: free ones, those that are being left, those whose jobs can go to other free
//     ones, those that jobs have beyond their minimum, and then those of the newest jobs from which may be taken. Never
//     those of a job that is within such a quota itself. If that is not enough nothing is kept, and nobody disturbed.
//     Who is on them and has no room elsewhere is suspended, and comes back by itself.
// Jobs with a part of a GPU count with the GPU that they are on, for limits; quotas are for whole GPUs.

#include <map>
#include <string>

#include "scheduler/state.h"

namespace tide::sched {

// Whether a queue has such a quota or limit.
bool has_models(const QueueTree& tree);

using KeptGpus = std::map<GpuId, std::string>;  // for which job

// Sets `barred` and `entitled` of the jobs, and takes `preemptible` from those that are within a quota. What is kept.
KeptGpus bar_by_model(State* state);

// What becomes of who is on GPUs that are kept for others, and has got no others.
void displace_by_model(const State& barred, const KeptGpus& kept, Assignment* answer);

// GPUs of the model that the queue's jobs are on, and those below it.
int64_t held_of(const State& state, int32_t queue, const std::string& model);
// GPUs of that model that are usable.
int64_t there_of(const State& state, const std::string& model);

// Why a job that waits cannot have GPUs that are free: a limit of its queue, or one above it, for a model. Empty: none.
std::string why_barred(const State& state, const JobView& job);
// Why it can never have enough of what it requires, whatever else runs; empty: it can.
std::string why_never_by_model(const QueueTree& tree, int32_t leaf, const State& state, const JobView& job,
                               bool min_given);

}  // namespace tide::sched
