#pragma once

// What happens to jobs and their GPUs, as the history keeps it: plain data, and its bytes in the outbox (outbox.h).

#include <cstdint>
#include <string>
#include <vector>

#include "base/outcome.h"
#include "scheduler/job_record.h"

namespace tide::sched {

enum class EventKind : uint8_t {  // the numbers are in stores
  kSubmitted = 1,
  kStarted = 2,    // `after`: physical GPUs
  kGrew = 3,       // `before`, `after`
  kShrank = 4,     // the same
  kMoved = 5,      // `vgpu` from `text` to `gpu`, with what it cost
  kSuspended = 6,  // all of it is parked; `text`: why
  kResumed = 7,    // it is on GPUs again
  kRecovered = 8,  // `vgpu` goes on from a checkpoint, on `gpu`
  kEnded = 9,      // `text`: how; `status`: its exit status
  kHeld = 10,      // `vgpu` had `gpu` from `from_ms` to `at_ms`: `held_ms` of it, in which it worked `used_ms`
  kCapacity = 11,  // GPUs of this model were in the pool: `held_ms` together
};
const char* to_text(EventKind kind);

struct Event {
  EventKind kind = EventKind::kSubmitted;
  uint64_t job = 0;                              // 0: of the pool
  uint64_t at_ms = 0;                            // since 1970
  std::string queue = {}, user = {}, name = {};  // of its job; kSubmitted and kHeld
  std::string text = {}, gpu = {}, model = {};   // `gpu`: "SERVER/INDEX"
  uint32_t vgpu = 0, before = 0, after = 0;
  uint64_t from_ms = 0;
  double held_ms = 0;  // of a whole GPU: half of one for a second is 500
  double used_ms = 0;
  double pause_ms = 0;
  uint64_t bytes = 0;
  int32_t status = 0;
};

// Of a job that has just been given its number.
Event submission_of(const JobRecord& job);

std::string to_bytes(const std::vector<Event>& events);
// Fails where the bytes are no events.
Outcome from_bytes(const std::string& bytes, std::vector<Event>* events);

}  // namespace tide::sched
