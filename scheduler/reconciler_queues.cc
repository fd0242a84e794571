// What queues have had (usage.h): counted while jobs hold GPUs, kept in the record of jobs, so that a restart does
// not forget who was served. What a scheduler that is killed had not written yet is lost: kUsageSaveMs at most.

#include <algorithm>

#include "base/clock.h"
#include "base/log.h"
#include "scheduler/reconciler.h"

namespace tide::sched {
namespace {

constexpr uint64_t kMs = 1'000'000;

int64_t thousandths_of(const Job& job) { return job.ended() ? 0 : int64_t(job.physical_gpus()) * job.record.part; }

}  // namespace

Outcome Reconciler::remember_usage() {
  uint64_t at_ms = 0;
  const Outcome loaded = store_.load_usage(&ledger_.queues.usage, &at_ms);
  if (!loaded.ok()) return loaded;
  const uint64_t now_ms = wall_seconds() * 1000;
  // A clock that went back forgets nothing.
  const double gone_ms = at_ms != 0 && now_ms > at_ms ? double(now_ms - at_ms) : 0;
  account(&ledger_.queues.usage, {}, gone_ms, ledger_.queues.half_life_ms);
  return {};
}

void Reconciler::count_usage(uint64_t now) {
  const uint64_t since = counted_ns_ == 0 ? now : counted_ns_;
  counted_ns_ = now;
  std::map<std::string, int64_t> allocated;
  for (const auto& [number, job] : ledger_.jobs.read()) {
    const int64_t has = thousandths_of(job);
    if (has > 0) allocated[job.record.queue.empty() ? kDefaultQueue : job.record.queue] += has;
  }
  account(&ledger_.queues.usage, allocated, double(now - since) / double(kMs), ledger_.queues.half_life_ms);
  if (save_usage_ns_ == 0) save_usage_ns_ = now + kUsageSaveMs * kMs;
  if (now >= save_usage_ns_) save_usage(now);
}

void Reconciler::save_usage(uint64_t now) {
  save_usage_ns_ = now + kUsageSaveMs * kMs;
  if (ledger_.queues.usage.empty()) return;
  const Outcome saved = store_.save_usage(ledger_.queues.usage, wall_seconds() * 1000);
  if (!saved.ok()) log(LogLevel::kWarning, "what queues have had was not written: %s", saved.message().c_str());
}

}  // namespace tide::sched
