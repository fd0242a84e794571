#pragma once

// Jobs with deadlines, as ElasticFlow (ASPLOS '23) has them: a job is told at once whether it is promised its deadline.
// It is, if all promised jobs can be done in time with it: in the order of their deadlines each is given as few GPUs as
// it needs at every moment. What is free beyond that makes promised jobs faster; who is not promised is not run.

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "scheduler/simulate/trace.h"
#include "scheduler/timetable.h"

namespace tide::simulate {

using sched::Rate;
using sched::Rates;

class Throughputs {
 public:
  // The first table of a CSV as the artifact's were gathered: table, file, then a row of the numbers of GPUs for each
  // file (a model), then a row of iterations/s for each batch. Fails with file and line.
  Outcome read(const std::string& path);
  // Null: was not measured.
  const Rates* find(const std::string& model, uint32_t batch_size) const;

 private:
  Outcome row(const std::vector<std::string>& fields);
  std::string table_, file_;
  std::vector<uint32_t> counts_;
  std::map<std::pair<std::string, uint32_t>, Rates> rates_;
};

struct DeadlineResult {
  uint32_t jobs = 0;
  uint32_t possible = 0;  // in time alone on the pool
  uint32_t promised = 0;
  uint32_t kept = 0;
  double changes_per_job = 0;  // of the GPUs of promised jobs, from start to end
  double late_most_s = 0;      // of a promised job
};

struct DeadlineOptions {
  uint32_t gpus = 512;
  double change_s = 0;  // a job stands so long when it starts and whenever its GPUs change
};

// Fails where a job of `trace` has no deadline, iterations, or measured rates.
Outcome run_deadlines(const Trace& trace, const Throughputs& throughputs, const DeadlineOptions& options,
                      DeadlineResult* result);

}  // namespace tide::simulate
