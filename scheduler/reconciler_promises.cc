// Promised deadlines (promises.h): waking up when something is due, and saying what can not be kept.

#include "base/clock.h"
#include "base/log.h"
#include "scheduler/reconciler.h"

namespace tide::sched {
namespace {

constexpr uint64_t kMs = 1'000'000;

}  // namespace

void Reconciler::note_promises(const Promises& promises) {
  const uint64_t wall_ms = wall_seconds() * 1000;
  promise_due_ns_ = 0;
  if (promises.next_ms != 0)
    promise_due_ns_ = now_ns() + (promises.next_ms > wall_ms ? promises.next_ms - wall_ms : 0) * kMs;
  for (const auto& [number, seen] : ledger_.jobs.read()) {
    Job& job = *ledger_.jobs.quietly(number);  // for people
    const auto found = promises.jobs.find(job.record.id());
    const bool counts = found != promises.jobs.end();
    if (counts && !found->second.kept && (!job.promise.counts || job.promise.is.kept)) {
      log(LogLevel::kWarning, "job %s can not be done by its deadline any more (`tide why %s`)",
          job.record.id().c_str(), job.record.id().c_str());
    }
    job.promise.counts = counts;
    job.promise.is = counts ? found->second : PromiseView();
  }
}

}  // namespace tide::sched
