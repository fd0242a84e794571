#pragma once

// The class of a job: what it is for, and so what is done to it. By name in pool.toml and on the command line.

#include <cstdint>
#include <string>

namespace tide::sched {

enum class JobClass : uint8_t { kBatch = 0, kInteractive = 1, kInference = 2 };  // the numbers are in the record

inline const char* to_text(JobClass job_class) {
  const char* const other = job_class == JobClass::kInference ? "inference" : "batch";
  return job_class == JobClass::kInteractive ? "interactive" : other;
}

// False: it is none of "batch", "interactive" and "inference".
inline bool parse_job_class(const std::string& text, JobClass* job_class) {
  for (const JobClass each : {JobClass::kBatch, JobClass::kInteractive, JobClass::kInference}) {
    if (text != to_text(each)) continue;
    *job_class = each;
    return true;
  }
  return false;
}

// Within a queue and a priority somebody who waits for answers starts before a batch.
inline bool comes_before_batch(JobClass job_class) { return job_class != JobClass::kBatch; }

}  // namespace tide::sched
