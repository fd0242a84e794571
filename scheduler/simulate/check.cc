#include "scheduler/simulate/check.h"

#include <algorithm>
#include <tuple>

#include "base/log.h"

namespace tide::simulate {
namespace {

constexpr double kSlackS = 1e-6;

struct Change {
  double at_s;
  int64_t gpus;  // ends before beginnings at the same time
  uint32_t job;
  bool operator<(const Change& other) const { return std::tie(at_s, gpus) < std::tie(other.at_s, other.gpus); }
};

std::string check_gpus(const Trace& trace, const Result& result) {
  std::vector<Change> changes;
  for (const Turn& turn : result.turns) {
    if (turn.to_s <= turn.from_s) continue;
    changes.push_back({turn.from_s, int64_t(turn.gpus), turn.job});
    changes.push_back({turn.to_s, -int64_t(turn.gpus), turn.job});
  }
  std::sort(changes.begin(), changes.end());
  int64_t used = 0;
  std::vector<uint32_t> turns(trace.jobs.size());
  for (const Change& change : changes) {
    used += change.gpus;
    turns[change.job] += change.gpus > 0 ? 1 : uint32_t(-1);
    if (used > int64_t(result.gpus))
      return format("at %.3f s jobs have %ld GPUs, and there are %u", change.at_s, long(used), result.gpus);
    if (turns[change.job] > 1)
      return format("at %.3f s job %s has two turns at once", change.at_s, trace.jobs[change.job].id.c_str());
  }
  return "";
}

}  // namespace

std::string what_is_wrong(const Trace& trace, const Result& result) {
  if (result.jobs.size() != trace.jobs.size()) return "jobs are missing";
  for (size_t i = 0; i < trace.jobs.size(); ++i) {
    const JobResult& job = result.jobs[i];
    const char* const id = trace.jobs[i].id.c_str();
    if (job.start_s + kSlackS < trace.jobs[i].submit_s) return format("job %s starts before it is submitted", id);
    if (job.end_s + kSlackS < job.start_s + trace.jobs[i].duration_s)
      return format("job %s ends %.3f s after it has started, and lasts %.3f s", id, job.end_s - job.start_s,
                    trace.jobs[i].duration_s);
  }
  return check_gpus(trace, result);
}

}  // namespace tide::simulate
