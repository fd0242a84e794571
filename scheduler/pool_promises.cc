#include "scheduler/pool_promises.h"

#include <time.h>

#include <algorithm>

#include "base/clock.h"
#include "base/log.h"

namespace tide::sched {
namespace {

constexpr uint64_t kEstimateMsMost = 10ull * 366 * 24 * 3600 * 1000;

uint64_t wall_ms() { return wall_seconds() * 1000; }

// "2026-11-24T18:00:00Z"
std::string date_text(uint64_t ms) {
  const time_t seconds = time_t(ms / 1000);
  tm parts{};
  char text[32];
  if (gmtime_r(&seconds, &parts) == nullptr) return "?";
  strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

std::string time_text(uint64_t ms) {
  const unsigned long s = (ms + 500) / 1000;
  if (s < 120) return format("%lu s", s);
  if (s < 7200) return format("%lu min", s / 60);
  return s % 3600 < 60 ? format("%lu h", s / 3600) : format("%lu h %lu min", s / 3600, s % 3600 / 60);
}

std::string away(uint64_t ms) {
  const uint64_t now = wall_ms();
  return ms >= now ? "in " + time_text(ms - now) : time_text(now - ms) + " ago";
}

control::PromiseState state_of(const Job& job) {
  const JobRecord& record = job.record;
  if (record.deadline_ms == 0) return control::PromiseState::NONE;
  if (job.ended())
    return record.ended_ms <= record.deadline_ms ? control::PromiseState::MET : control::PromiseState::MISSED;
  if (record.useful_ms >= record.estimate_ms) return control::PromiseState::OVERRUN;
  if (wall_ms() >= record.deadline_ms) return control::PromiseState::PASSED;
  return job.promise.is.kept ? control::PromiseState::KEPT : control::PromiseState::LATE;
}

}  // namespace

Outcome read_promise(control::JobSpec::Reader spec, uint64_t now_ms, JobRecord* record) {
  record->estimate_ms = spec.getEstimateMs();
  record->deadline_ms = spec.getDeadlineMs();
  if (record->estimate_ms > kEstimateMsMost) return Outcome::fail("--estimate is at most ten years");
  if (record->deadline_ms == 0) return {};
  if (record->estimate_ms == 0) {
    return Outcome::fail("--deadline needs --estimate: how long the job will run on all its GPUs, as you think");
  }
  if (spec.getReservation().size() != 0)
    return Outcome::fail("--deadline and --reservation exclude each other: what is reserved is promised already");
  if (record->deadline_ms <= now_ms) {
    return Outcome::fail("--deadline " + date_text(record->deadline_ms) + " has passed: it is " + date_text(now_ms));
  }
  return {};
}

Outcome promise_deadline(const Ledger& ledger, State state, JobView job, const JobRecord& record) {
  state.now_ms = wall_ms();
  job.queue = ledger.queues.written ? state.queues.find(record.queue) : 0;
  const Admission asked = may_promise(state, job);
  if (asked.possible) return {};
  const std::string what = "the deadline " + date_text(record.deadline_ms) + " (" + away(record.deadline_ms) +
                           ") cannot be promised to a job that runs for " + time_text(record.estimate_ms) +
                           " on all its GPUs";
  const std::string beside = asked.because.empty() ? "" : " beside " + asked.because;
  if (asked.earliest_ms == 0) {
    return Outcome::fail(what + beside +
                         ", and no other could be: nothing can be taken from the jobs that have its GPUs, or a queue's "
                         "limit is in the way (`tide gpus`, `tide queues`). Leave --deadline out");
  }
  const uint64_t earliest_ms = (asked.earliest_ms + 999) / 1000 * 1000;
  return Outcome::fail(what + beside + ". The earliest that could be is " + date_text(earliest_ms) + " (" +
                       away(earliest_ms) + "); without --deadline it waits like others");
}

void fill_promise(control::PromiseInfo::Builder info, const Job& job) {
  const control::PromiseState state = state_of(job);
  info.setState(state);
  if (job.record.deadline_ms == 0 || job.ended()) return;
  const JobView view = view_of(job);
  info.setLeftMs(left_ms(view));
  if (!job.promise.counts) return;
  info.setGpus(job.promise.is.gpus);
  info.setEndsMs(job.promise.is.ends_ms);
  info.setStartsMs(job.promise.is.starts_ms);
}

Explanation why_promise(const Job& job) {
  const std::string by = date_text(job.record.deadline_ms), id = job.record.id();
  switch (state_of(job)) {
    case control::PromiseState::LATE:
      return {.reason = "it cannot be done by its deadline, " + by + ", any more: " +
                        "fewer GPUs are there for it than when that was promised, or it stood still for too long",
              .next =
                  "it gets what can be had beside other promises; `tide gpus` shows which GPUs are missing, `tide "
                  "undrain` brings those of a server that is being drained back"};
    case control::PromiseState::OVERRUN:
      return {.reason = "it has run longer than its estimate, " + time_text(job.record.estimate_ms) +
                        ", so its deadline is no promise any more: it goes on like other jobs",
              .next = "nothing: it goes on; a larger --estimate next time"};
    case control::PromiseState::PASSED:
      return {.reason = "its deadline, " + by + ", has passed: it goes on like other jobs",
              .next = "nothing: it goes on as GPUs are free"};
    case control::PromiseState::KEPT:
      break;
    default:
      return {};
  }
  if (job.admitted()) {
    if (job.physical_gpus() >= job.record.gpus) return {};
    return {.reason = format("runs on %u of %u GPUs: so many will do for its deadline, ", job.physical_gpus(),
                             job.record.gpus) +
                      by + ", while others want GPUs, too",
            .next = "nothing: it gets more when nobody else wants them, or when it needs them"};
  }
  if (job.promise.is.gpus != 0) {
    return {.reason = "is due: others leave GPUs for it, so that it is done by its deadline, " + by,
            .next = "nothing: it starts by itself as soon as they have left"};
  }
  return {.reason = "waits like others: its deadline, " + by + ", leaves time for that",
          .next = "nothing: it starts when GPUs are free, and " +
                  (job.promise.is.starts_ms == 0 ? "in time for its deadline"
                                                 : away(job.promise.is.starts_ms) + " at the latest") +
                  " whoever has them"};
}

std::vector<std::string> promise_evidence(const Job& job) {
  const JobRecord& record = job.record;
  if (record.deadline_ms == 0) return {};
  std::vector<std::string> lines;
  lines.push_back("promised: done by " + date_text(record.deadline_ms) + " (" + away(record.deadline_ms) +
                  "), if it runs no longer than " + time_text(record.estimate_ms) + " on all its GPUs");
  lines.push_back(format("of that it has run %s, %s are left", time_text(record.useful_ms).c_str(),
                         time_text(left_ms(view_of(job))).c_str()));
  const PromiseView& is = job.promise.is;
  if (!job.promise.counts) return lines;
  std::string gets = format("it has %u GPUs and must have %u now", job.physical_gpus(), is.gpus);
  if (is.ends_ms != 0) gets += "; with these it is done by " + date_text(is.ends_ms);
  lines.push_back(gets);
  return lines;
}

}  // namespace tide::sched
