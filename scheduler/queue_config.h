#pragma once

// One [[queue]] of pool.toml as it was written, checked (config.h): names are unique, parents exist and make no cycle,
// amounts are finite, what children are promised is not more than their parent is, and no limit is below its quota.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "scheduler/job_class.h"

namespace tide::sched {

struct FilePlace {
  uint32_t line = 0, column = 0;  // 0: not written
  bool operator==(const FilePlace&) const = default;
};

// What a queue has of the GPUs whose names have these words (is_model() of require.h). Whole ones.
struct ModelQuota {
  std::string model;
  uint32_t quota = 0;                  // it is owed these when its jobs require that model; part of the queue's quota
  std::optional<uint32_t> limit = {};  // its jobs are never on more of them
  FilePlace at = {}, quota_at = {}, limit_at = {};
  bool operator==(const ModelQuota&) const = default;
};

struct QueueConfig {
  std::string name;
  std::string parent = {};           // empty: of the pool
  double quota = 0;                  // GPUs that it is owed when it has jobs for them; 0.5 is half of one
  std::optional<double> limit = {};  // GPUs that it never has more than; none: the pool's
  double over_quota_weight = 1;  // its part of what is left when all quotas are served; 0: none of it while others ask
  int32_t priority = 0;          // among its siblings: a higher one is served first, within quotas and beyond
  bool preemptible = true;       // false: nothing is ever taken from its jobs, and it gets no more than its quota
  std::optional<uint64_t> min_runtime_ms = {};  // before a job of it is disturbed; none: as the one above it says
  std::optional<JobClass> job_class = {};       // of jobs that do not say; none: as the one above it says
  std::vector<ModelQuota> models = {};          // in the order of their words
  FilePlace at = {}, parent_at = {}, quota_at = {}, limit_at = {};  // of its name or table, and of these values
};

inline constexpr const char* kDefaultQueue = "default";  // the only one where pool.toml has none

}  // namespace tide::sched
