// A job that was started with `tide run --idle-return` gives its GPUs back when it has done nothing for so long, and
// gets some again with its next call: it is suspended and resumed as `tide suspend` and `tide resume` do.

#include <algorithm>

#include "base/clock.h"
#include "base/log.h"
#include "scheduler/reconciler.h"

namespace tide::sched {
namespace {

constexpr uint64_t kLookLeastNs = 100'000'000, kLookMostNs = 2'000'000'000;
constexpr uint64_t kWakeNs = 100'000'000;  // how often it is looked whether a program without GPUs wants them
constexpr uint64_t kOwnCommands = 16;      // that the library may send by itself while its vGPU is copied
constexpr uint64_t kLooks = 8;             // in the time after which it is idle

// On GPUs, and nothing about that is to change.
bool works(const Job& job) { return job.started && job.admitted() && !job.record.suspended && job.is_quiet(); }

// On its way there. What several vGPUs are held for cannot be seen.
bool leaves(const Job& job) { return job.record.idled && job.being_suspended() && job.vgpus.size() == 1; }

// All of it is parked.
bool is_away(const Job& job) { return job.started && !job.admitted() && job.record.suspended && job.record.idled; }

}  // namespace

// Called by the tick.
void Reconciler::look_after_idle(Job* job) {
  const bool away = is_away(*job), here = works(*job) || leaves(*job);
  if (job->record.idle_ms == 0 || job->ended() || job->idle.asked || (!away && !here)) return;
  if (now_ns() < job->idle.look_ns) return;
  job->idle.asked = true;
  tasks_.add(
      look_at_rest(*job, away).then([this, id = job->record.id(), away](Rest rest) { note_rest(id, away, rest); }));
}

void Reconciler::note_rest(const std::string& id, bool away, const Rest& rest) {
  Job* job = ledger_.by_id(id);
  if (job == nullptr || job->ended()) return;
  Idleness& idle = job->idle;
  const uint64_t now = now_ns(), patience = job->record.idle_ms * 1'000'000;
  idle.asked = false;
  idle.look_ns = now + (away ? kWakeNs : std::clamp(patience / kLooks, kLookLeastNs, kLookMostNs));
  if (away) {
    if (!is_away(*job) || rest.busy == rest.silent) return;
    log(LogLevel::kInfo, "job %s has work again", id.c_str());
    (void)resume(job);  // if that cannot be written down, it is tried again
    return;
  }
  if (leaves(*job)) {
    if (rest.commands <= idle.commands + kOwnCommands) return;
    log(LogLevel::kInfo, "job %s has work again before it was suspended", id.c_str());
    (void)resume(job);
    return;
  }
  if (!works(*job) || rest.busy != 0 || rest.commands != idle.commands || idle.since_ns == 0) {
    idle.since_ns = now;
    idle.commands = rest.commands;
    return;
  }
  if (now - idle.since_ns < patience) return;
  log(LogLevel::kInfo, "job %s has done nothing for %lu ms: it gives its GPUs back", id.c_str(),
      (unsigned long)job->record.idle_ms);
  idle = {.commands = rest.commands};
  job->record.idled = true;
  if (!suspend(job).ok()) job->record.idled = false;
}

}  // namespace tide::sched
