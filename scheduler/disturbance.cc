#include "scheduler/disturbance.h"

#include <algorithm>

#include "base/log.h"

namespace tide::sched {
namespace {

constexpr size_t kKeptMost = 1000;  // of one job's disturbances; more are not told apart

auto first_in_hour(const std::vector<uint64_t>& when, uint64_t now_ms) {
  return std::upper_bound(when.begin(), when.end(), now_ms > kHourMs ? now_ms - kHourMs : 0);
}

}  // namespace

void DisturbanceRules::configure(const std::vector<QueueConfig>& configs, const PolicyConfig& policy) {
  min_runtime_ms = policy.min_runtime_ms;
  per_hour = policy.disturbances_per_hour;
  idle_return_ms = policy.idle_return_ms;
  queues.clear();
  std::map<std::string, const QueueConfig*> by_name;
  for (const QueueConfig& config : configs) by_name[config.name] = &config;
  for (const QueueConfig& config : configs) {
    OfQueue& of = queues[config.name];
    for (const QueueConfig* at = &config; at != nullptr;) {
      if (!of.min_runtime_ms) of.min_runtime_ms = at->min_runtime_ms;
      if (!of.job_class) of.job_class = at->job_class;
      const auto above = by_name.find(at->parent);
      at = above == by_name.end() ? nullptr : above->second;
    }
  }
}

std::optional<uint64_t> DisturbanceRules::min_runtime(uint64_t given_ms, const std::string& queue) const {
  if (given_ms != 0) return given_ms;
  const auto found = queues.find(queue);
  return found != queues.end() && found->second.min_runtime_ms ? found->second.min_runtime_ms : min_runtime_ms;
}

JobClass DisturbanceRules::class_of(const std::string& queue) const {
  const auto found = queues.find(queue);
  return found == queues.end() ? JobClass::kBatch : found->second.job_class.value_or(JobClass::kBatch);
}

Sparing sparing_of(const DisturbanceRules& rules, const Disturbed& job, uint64_t now_ms) {
  const uint32_t often = disturbances_in_hour(*job.when, now_ms);
  if (rules.per_hour != 0 && often >= rules.per_hour) {
    const uint64_t frees = *(job.when->end() - long(rules.per_hour));  // when this one is an hour ago
    return {.why = Sparing::Why::kHour, .left_ms = frees + kHourMs - std::min(now_ms, frees + kHourMs)};
  }
  if (!job.min_runtime_ms || job.useful_ms >= *job.min_runtime_ms) return {};
  return {.why = Sparing::Why::kRuntime, .left_ms = *job.min_runtime_ms - job.useful_ms};
}

void note_disturbance(std::vector<uint64_t>* when, uint64_t now_ms) {
  // A clock that went back must not leave some that never are an hour ago.
  for (uint64_t& each : *when) each = std::min(each, now_ms);
  when->erase(when->begin(), first_in_hour(*when, now_ms));
  if (when->size() >= kKeptMost) when->erase(when->begin());
  when->push_back(now_ms);
}

uint32_t disturbances_in_hour(const std::vector<uint64_t>& when, uint64_t now_ms) {
  return uint32_t(when.end() - first_in_hour(when, now_ms));
}

std::string sparing_text(const Sparing& sparing, const Disturbed& job, uint64_t now_ms) {
  if (sparing.why == Sparing::Why::kHour) {
    return format("was disturbed %u times in the last hour, which is the limit (disturbances_per_hour)",
                  disturbances_in_hour(*job.when, now_ms));
  }
  if (sparing.why == Sparing::Why::kRuntime) {
    return format("has run %lu s of the %lu s for which nothing is taken from it (min_runtime)",
                  (unsigned long)(job.useful_ms / 1000), (unsigned long)((*job.min_runtime_ms + 999) / 1000));
  }
  return "";
}

}  // namespace tide::sched
