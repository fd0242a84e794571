// Promised deadlines (promises.h): counting what jobs have run, and waking up when something is due.

#include <algorithm>

#include "base/clock.h"
#include "base/log.h"
#include "scheduler/reconciler.h"
#include "scheduler/useful.h"

namespace tide::sched {
namespace {

constexpr uint64_t kMs = 1'000'000;
constexpr uint64_t kUsefulSaveMs = 30'000;  // what a job has run is written down so often, where something depends on it

// None of it stands still.
bool is_useful(const Job& job) {
  const auto runs = [](const Vgpu& vgpu) { return vgpu.at.on_gpu() && vgpu.doing == Doing::kNothing && !vgpu.missing; };
  return job.started && !job.ended() && std::all_of(job.vgpus.begin(), job.vgpus.end(), runs);
}

}  // namespace

// On the monotonic clock, and nothing for a time in which this process was stopped and saw nothing.
void Reconciler::count_useful(uint64_t now) {
  const uint64_t since = std::max(useful_counted_ns_ == 0 ? now : useful_counted_ns_,
                                  now > kStalledMs * kMs ? now - kStalledMs * kMs : 0);
  std::vector<Job*> save_now;
  bool ended = false;
  for (auto& [number, job] : ledger_.jobs) {
    if (job.record.estimate_ms == 0 || !is_useful(job)) continue;
    JobRecord& record = job.record;
    const bool before = record.useful_ms < record.estimate_ms;
    job.useful_ns += uint64_t(double(now - since) * useful_part(record.gpus, job.physical_gpus()));
    record.useful_ms += job.useful_ns / kMs;
    job.useful_ns %= kMs;
    ended |= before && record.useful_ms >= record.estimate_ms;
    if (record.useful_ms < job.promise.saved_ms + kUsefulSaveMs) continue;
    job.promise.saved_ms = record.useful_ms;
    save_now.push_back(&job);
  }
  useful_counted_ns_ = now;
  if (!save_now.empty()) (void)save(save_now);
  if (ended) poke();
}

void Reconciler::note_promises(const Promises& promises) {
  const uint64_t wall_ms = wall_seconds() * 1000;
  promise_due_ns_ = 0;
  if (promises.next_ms != 0)
    promise_due_ns_ = now_ns() + (promises.next_ms > wall_ms ? promises.next_ms - wall_ms : 0) * kMs;
  for (auto& [number, job] : ledger_.jobs) {
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
