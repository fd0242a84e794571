#pragma once

// What the servers of a job count of its vGPUs.

#include <kj/async.h>

#include <vector>

#include "scheduler/pool_service.h"

namespace tide::sched {

class JobStats {
 public:
  // Asks all servers of the job at once. One that does not answer in time is left out. Requires: the promise ends
  // before `core`.
  static kj::Promise<JobStats> ask(PoolCore& core, const Job& job);
  // By vGPU. Valid as long as this object.
  const std::vector<control::VgpuStats::Reader>& vgpus() const { return vgpus_; }

 private:
  using Answer = capnp::Response<control::Agent::StatsResults>;
  explicit JobStats(kj::Array<kj::Maybe<Answer>> answers);

  kj::Array<kj::Maybe<Answer>> answers_;
  std::vector<control::VgpuStats::Reader> vgpus_;
};

}  // namespace tide::sched
