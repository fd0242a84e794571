#include "tools/tide/deadline.h"

#include <stdio.h>
#include <time.h>

#include "base/clock.h"
#include "tools/tide/options.h"
#include "tools/tide/times.h"

namespace tide::cli {
namespace {

// "Z", "+01:00", "-0330": seconds east of Greenwich; nothing where it is none.
std::optional<long> parse_zone(const std::string& text) {
  if (text == "Z" || text == "z") return 0;
  unsigned hours = 0, minutes = 0;
  int end = 0;
  const bool colon = text.find(':') != std::string::npos;
  const char* const form = colon ? "%*1[+-]%2u:%2u%n" : "%*1[+-]%2u%2u%n";
  if (sscanf(text.c_str(), form, &hours, &minutes, &end) != 2 || size_t(end) != text.size()) return std::nullopt;
  if (hours > 14 || minutes > 59) return std::nullopt;
  const long east = long(hours * 3600 + minutes * 60);
  return text[0] == '-' ? -east : east;
}

const char* name_of(control::PromiseState state) {
  switch (state) {
    case control::PromiseState::NONE:
      return "none";
    case control::PromiseState::KEPT:
      return "kept";
    case control::PromiseState::LATE:
      return "late";
    case control::PromiseState::OVERRUN:
      return "overrun";
    case control::PromiseState::PASSED:
      return "passed";
    case control::PromiseState::MET:
      return "met";
    case control::PromiseState::MISSED:
      return "missed";
  }
  return "?";
}

std::string promise_text(control::PromiseInfo::Reader promise) {
  switch (promise.getState()) {
    case control::PromiseState::NONE:
      return "";
    case control::PromiseState::KEPT: {
      std::string text = "will be met";
      if (promise.getEndsMs() != 0) text += ": done by " + moment_text(promise.getEndsMs()) + " at the latest";
      return text;
    }
    case control::PromiseState::LATE:
      return "cannot be met any more (`tide why`)";
    case control::PromiseState::OVERRUN:
      return "no promise any more: it runs longer than was estimated";
    case control::PromiseState::PASSED:
      return "has passed";
    case control::PromiseState::MET:
      return "was met";
    case control::PromiseState::MISSED:
      return "was missed";
  }
  return "";
}

}  // namespace

std::optional<uint64_t> parse_deadline(const std::string& text, uint64_t now_ms) {
  if (const auto seconds = parse_seconds(text)) return now_ms + uint64_t(*seconds * 1e3);
  tm parts{};
  const char* rest = nullptr;
  for (const char* form : {"%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"}) {
    parts = {};
    rest = strptime(text.c_str(), form, &parts);
    if (rest != nullptr) break;
  }
  if (rest == nullptr) return std::nullopt;
  const int day = parts.tm_mday;
  parts.tm_isdst = -1;
  time_t at = 0;
  if (*rest == 0) {
    at = mktime(&parts);
  } else {
    const auto east = parse_zone(rest);
    if (!east) return std::nullopt;
    at = timegm(&parts) - *east;
  }
  // The 30th of February is in March.
  return at < 0 || parts.tm_mday != day ? std::nullopt : std::optional(uint64_t(at) * 1000);
}

void print_promise(control::JobInfo::Reader job) {
  const uint64_t estimate = job.getSpec().getEstimateMs(), deadline = job.getSpec().getDeadlineMs();
  const auto expected = job.getExpected();
  if (job.getState() != control::JobState::ENDED && expected.hasText())
    printf("  expected %s\n", expected.getText().cStr());
  if (expected.hasPasses() && expected.getPasses().size() != 0)
    printf("  started before job %s, for which the pool drains\n", expected.getPasses().cStr());
  if (estimate == 0) return;
  printf("  estimate %s on all its GPUs; it has run %s of that\n", duration_text(estimate).c_str(),
         duration_text(job.getUsefulMs()).c_str());
  if (deadline != 0)
    printf("  deadline %s: %s\n", moment_text(deadline).c_str(), promise_text(job.getPromise()).c_str());
}

Json& add_promise(Json& json, control::JobInfo::Reader job) {
  const auto promise = job.getPromise();
  json.add("estimate_ms", job.getSpec().getEstimateMs()).add("deadline_ms", job.getSpec().getDeadlineMs());
  json.key("promise").object();
  json.add("state", std::string(name_of(promise.getState()))).add("left_ms", promise.getLeftMs());
  json.add("gpus", promise.getGpus()).add("ends_ms", promise.getEndsMs()).add("starts_ms", promise.getStartsMs());
  json.end();
  const auto expected = job.getExpected();
  constexpr const char* kBy[] = {"", "user", "learned"};
  const auto by = size_t(expected.getBy());
  json.key("expected").object();
  json.add("by", std::string(by < std::size(kBy) ? kBy[by] : "")).add("left_ms", expected.getLeftMs());
  json.add("jobs", expected.getJobs()).add("ends_ms", expected.getEndsMs());
  json.add("passes", std::string(expected.getPasses().cStr()));
  return json.end();
}

}  // namespace tide::cli
