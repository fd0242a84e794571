#pragma once

// Traces for tests, a job a word group: "A 0 10 3; B 1 10 4" is A, submitted at 0, 10 s long, on 3 GPUs.

#include <gtest/gtest.h>

#include <sstream>
#include <string>

#include "scheduler/simulate/result.h"
#include "scheduler/simulate/trace.h"

namespace tide::simulate {

inline Trace parse_jobs(const std::string& text) {
  Trace trace;
  std::istringstream jobs(text);
  for (std::string part; std::getline(jobs, part, ';');) {
    Job job;
    std::istringstream words(part);
    words >> job.id >> job.submit_s >> job.duration_s >> job.gpus >> job.team;
    trace.jobs.push_back(job);
  }
  return trace;
}

// "A 0-10; B 10-20 stopped 1": from its first start to its end.
inline std::string to_text(const Trace& trace, const Result& result) {
  std::ostringstream text;
  for (size_t i = 0; i < trace.jobs.size(); ++i) {
    const JobResult& job = result.jobs[i];
    text << (i == 0 ? "" : "; ") << trace.jobs[i].id << " " << job.start_s << "-" << job.end_s;
    if (job.preemptions > 0) text << " stopped " << job.preemptions;
    if (job.moves > 0) text << " moved " << job.moves;
  }
  return text.str();
}

}  // namespace tide::simulate
