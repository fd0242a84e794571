// What is needed to know whom to disturb for others' sake (disturbance.h, cost.h): how long each job has run usefully,
// how often it was disturbed, and how much it would have to copy.

#include <algorithm>

#include "base/clock.h"
#include "base/log.h"
#include "scheduler/cost.h"
#include "scheduler/reconciler.h"
#include "scheduler/useful.h"

namespace tide::sched {
namespace {

constexpr uint64_t kMs = 1'000'000;
// A scheduler that is killed forgets so much of what a job has run, and, if nothing was promised to it, a tenth of it.
constexpr uint64_t kUsefulSaveMs = 30'000, kUsefulSavePart = 10;

// All its vGPUs are on GPUs, none of them is on its way, and it is not held.
bool runs_usefully(const Job& job) {
  const auto works = [](const Vgpu& vgpu) { return vgpu.at.on_gpu() && !vgpu.missing; };
  return job.started && job.admitted() && !job.record.suspended && job.is_quiet() &&
         std::all_of(job.vgpus.begin(), job.vgpus.end(), works);
}

bool is_own_cause(const Ledger& ledger, const Job& job, const Action& action) {
  const Gpu* const from = ledger.gpu(action.from);
  if (!action.from.on_gpu() || !action.to.on_gpu() || job.vgpus[action.vgpu].wish == action.to) return true;
  if (from == nullptr || !from->healthy || ledger.is_draining(action.from.server)) return true;
  return !may_use(view_of(job), {.id = action.from, .memory_bytes = 0, .traits = from->traits});
}

}  // namespace

// It has just got its GPUs, or has them again.
void Reconciler::begin_useful(Job* job) {
  const bool written = ledger_.disturbance.min_runtime(job->record.min_runtime_ms, job->record.queue).has_value();
  job->useful.began_ms = job->record.useful_ms;
  job->useful.ask_ns = now_ns() + kSizeAskFirstMs * kMs;
  job->kept_until_ns = written ? 0 : now_ns() + kSpareMs * kMs;
}

// Called by the tick, and so nothing is counted of a time in which this process was stopped and saw nothing. Whether it
// has now run for as long as its user thought.
bool Reconciler::count_useful(Job* job, uint64_t now) {
  Useful& useful = job->useful;
  if (job->ended() || !runs_usefully(*job)) {
    useful.counted_ns = 0;
    return false;
  }
  JobRecord& record = job->record;
  const uint64_t gone_ns = useful.counted_ns == 0 ? 0 : std::min(now - useful.counted_ns, kStalledMs * kMs);
  useful.counted_ns = now;
  useful.rest_ns += uint64_t(double(gone_ns) * useful_part(record.gpus, job->physical_gpus()));
  const bool before = record.useful_ms < record.estimate_ms;
  record.useful_ms += useful.rest_ns / kMs;
  useful.rest_ns %= kMs;
  return before && record.useful_ms >= record.estimate_ms;
}

// Called by the tick, seldom for each job: a pool may have thousands. `all`: at the end.
void Reconciler::save_useful(bool all) {
  std::vector<Job*> stale;
  for (const auto& [number, job] : ledger_.jobs.read()) {
    const uint64_t news = job.record.useful_ms - std::min(job.record.useful_ms, job.useful.saved_ms);
    const uint64_t part = job.record.deadline_ms != 0 ? 0 : job.useful.saved_ms / kUsefulSavePart;
    if (!job.ended() && news > (all ? 0 : kUsefulSaveMs + part)) stale.push_back(ledger_.jobs.quietly(number));
  }
  if (!stale.empty()) (void)save(stale);
}

// Called by the tick. Whether it was left alone until now and is not any more, or is from now on: it is nearly done.
bool Reconciler::may_be_disturbed_again(Job* job, uint64_t now) {
  const bool was = job->spared;
  const Disturbed disturbed = job->disturbed(ledger_.disturbance);
  job->spared = job->admitted() && !job->ended() && !job->disturbing &&
                (sparing_of(ledger_.disturbance, disturbed, wall_seconds() * 1000).spared() ||
                 job->kept_until_ns > now || (job->record.estimate_ms != 0 && is_nearly_done(view_of(*job))));
  return was != job->spared;
}

bool Reconciler::suspend_for_others(Job* job) {
  note_disturbance(&job->record.disturbed_ms, wall_seconds() * 1000);
  if (suspend(job).ok()) return true;
  job->record.disturbed_ms.pop_back();
  return false;
}

// It shrinks or is moved. Not where it grows, where somebody asked for it, or where it cannot stay.
void Reconciler::note_moves(Job* job, const std::vector<Action>& actions) {
  if (job->disturbing) return;  // the same one goes on: its vGPUs move one after another
  std::vector<GpuId> then;
  for (const Vgpu& vgpu : job->vgpus) then.push_back(vgpu.at);
  bool any = false;
  for (const Action& action : actions) {
    if (action.kind != Action::Kind::kMove) continue;
    if (is_own_cause(ledger_, *job, action)) return;
    then[action.vgpu] = action.to;
    any = true;
  }
  const size_t after = std::set<GpuId>(then.begin(), then.end()).size();
  const bool resized = job->record.target != 0 && job->physical_gpus() > job->record.target;
  if (!any || resized || after > job->physical_gpus()) return;
  note_disturbance(&job->record.disturbed_ms, wall_seconds() * 1000);
  job->disturbing = true;
}

// Who has nothing left to do lies as the policy wants it.
void Reconciler::note_undisturbed(const std::vector<Action>& left) {
  std::set<std::string> busy;
  for (const Action& action : left) busy.insert(action.job);
  for (const uint64_t number : looked_) {
    Job* const job = ledger_.jobs.quietly(number);
    if (job == nullptr || !job->disturbing || !job->is_quiet() || busy.count(job->record.id()) != 0) continue;
    job->disturbing = false;
    ledger_.jobs.mark(number);
  }
}

// Called by the tick.
void Reconciler::ask_for_size(Job* job, uint64_t now) {
  if (job->ended() || !runs_usefully(*job) || job->useful.ask_ns == 0 || now < job->useful.ask_ns) return;
  job->useful.ask_ns = now + kSizeAskMs * kMs;
  tasks_.add(look_at_rest(*job).then([this, id = job->record.id()](Rest rest) {
    Job* const job = ledger_.jobs.quietly(parse_number(id));
    if (job == nullptr || rest.silent != 0 || job->turn.bytes == rest.bytes) return;
    ledger_.jobs.at(parse_number(id)).turn.bytes = rest.bytes;
  }));
}

}  // namespace tide::sched
