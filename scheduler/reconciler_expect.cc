// What jobs are expected to need yet (expect.h): learned from those that end, also from those that ended under an
// earlier scheduler, as they are in the record. Of a job it is reckoned when it comes, when it gets or loses GPUs, when
// it runs into its next step, and not by the clock; so what the policy is told stays what it was between these.

#include <algorithm>

#include "base/clock.h"
#include "base/log.h"
#include "scheduler/reconciler.h"
#include "scheduler/useful.h"

namespace tide::sched {
namespace {

constexpr uint32_t kLearnedFrom = 3000;  // jobs that ended, of the record, the newest; what was before counts little

std::string team_of(const JobRecord& record) {
  return record.user + "\n" + (record.queue.empty() ? kDefaultQueue : record.queue);
}

double gpus_of(const JobRecord& record) {
  return record.part == kWholeGpu ? double(record.gpus) : double(record.part) / kWholeGpu;
}

uint32_t step_at(uint64_t ran_ms) { return run_step_of(double(ran_ms) / 1000); }

// Where it comes into its next step, or is over its estimate.
uint64_t next_at(const JobRecord& record, uint32_t step) {
  uint64_t next_ms = step + 1 < kRunSteps ? uint64_t(run_step_begins_s(step + 1) * 1000) + 1 : UINT64_MAX;
  if (record.estimate_ms > record.useful_ms) next_ms = std::min(next_ms, record.estimate_ms);
  return next_ms;
}

}  // namespace

Outcome Reconciler::learn_from_ended() {
  estimates_ = {};
  std::vector<JobRecord> ended;
  if (Outcome loaded = store_.load_ended(kLearnedFrom, &ended); !loaded.ok()) return loaded;
  for (auto record = ended.rbegin(); record != ended.rend(); ++record) {
    if (record->started_ms == 0) continue;
    came_s_ = std::max(came_s_, double(record->submitted_ms) / 1000);
    const Estimates::Kind kind = estimates_.came(team_of(*record), record->gpus, came_s_);
    // A record of an older release does not say how long it ran usefully.
    const uint64_t lay_ms = record->ended_ms - std::min(record->started_ms, record->ended_ms);
    const uint32_t last = step_at(record->useful_ms != 0 ? record->useful_ms : lay_ms);
    for (uint32_t step = 0; step <= last; ++step) estimates_.reached(kind, step);
    estimates_.ended(kind, last);
  }
  return {};
}

// Whether anything is known of it that was not.
bool Reconciler::learn(Job* job) {
  Expectation& expected = job->expected;
  const JobRecord& record = job->record;
  bool news = false;
  if (!expected.counts) {
    came_s_ = std::max(came_s_, double(record.submitted_ms) / 1000);
    expected.kind = estimates_.came(team_of(record), record.gpus, came_s_);
    expected.counts = news = true;
  }
  if (!job->started) return news;
  if (!expected.began) {
    estimates_.reached(expected.kind, 0);
    expected.began = news = true;
  }
  for (const uint32_t step = step_at(record.useful_ms); expected.step < step; news = true)
    estimates_.reached(expected.kind, ++expected.step);
  return news;
}

// Called in each round for who is looked at.
void Reconciler::expect(Job* job, uint64_t now_ms) {
  Expectation& expected = job->expected;
  if (job->ended() && !expected.counts) return;
  const bool news = learn(job);
  if (job->ended()) {
    expected.counts = false;
    return expected.began ? estimates_.ended(expected.kind, expected.step) : estimates_.left(expected.kind);
  }
  const uint32_t gpus = job->admitted() ? job->physical_gpus() : 0;
  if (news || job->admitted() != expected.admitted || gpus != expected.gpus ||
      job->record.useful_ms >= expected.next_ms)
    reckon(job, now_ms);
  expected.overrun = job->admitted() && !expected.passes.empty() && expected.ends_ms != 0 && expected.ends_ms <= now_ms;
}

void Reconciler::reckon(Job* job, uint64_t now_ms) {
  Expectation& expected = job->expected;
  const JobRecord& record = job->record;
  const bool begins = job->admitted() && !expected.admitted;
  expected.admitted = job->admitted();
  expected.gpus = job->admitted() ? job->physical_gpus() : 0;
  expected.ran_ms = record.useful_ms;
  expected.next_ms = next_at(record, expected.step);
  expected.is = expected_of(estimates_, expected.kind, record.estimate_ms, record.useful_ms);
  if (!job->admitted()) {
    expected.place = place_of({}, record.submitted_ms, expected.is.left_ms, gpus_of(record));
    expected.ends_ms = 0;
    return expected.passes.clear();
  }
  // Who passed another one is held to what was expected of it then.
  if (!begins && !expected.passes.empty()) return;
  const uint32_t gpus = expected.gpus != 0 ? expected.gpus : record.min_gpus;
  const double part = record.part == kWholeGpu ? useful_part(record.gpus, gpus) : 1;
  expected.ends_ms = expected.is.word == Word::kNone ? 0 : now_ms + uint64_t(double(expected.is.left_ms) / part);
}

// Called by the tick. Whether the next round reckons with something else.
bool Reconciler::is_expected_anew(const Job& job, uint64_t now_ms) {
  const Expectation& expected = job.expected;
  if (job.ended() || !job.admitted()) return false;
  const bool over = !expected.passes.empty() && expected.ends_ms != 0 && expected.ends_ms <= now_ms;
  return job.record.useful_ms >= expected.next_ms || over != expected.overrun;
}

}  // namespace tide::sched
