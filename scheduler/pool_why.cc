// `tide why`: the one reason of a job that waits, is small, or has moved.

#include <algorithm>
#include <tuple>

#include "base/clock.h"
#include "base/log.h"
#include "scheduler/explain.h"
#include "scheduler/pool_promises.h"
#include "scheduler/pool_service.h"
#include "scheduler/rank.h"
#include "scheduler/remote_error.h"
#include "scheduler/room.h"

namespace tide::sched {
namespace {

std::string ago(uint64_t since_ns) {
  const uint64_t now = now_ns(), s = now > since_ns ? (now - since_ns) / 1'000'000'000 : 0;
  return s < 120 ? format("%lu s ago", (unsigned long)s) : format("%lu min ago", (unsigned long)(s / 60));
}

const JobView* view_in(const State& state, const std::string& id) {
  const auto found =
      std::find_if(state.jobs.begin(), state.jobs.end(), [&](const JobView& job) { return job.id == id; });
  return found == state.jobs.end() ? nullptr : &*found;
}

// Who has which GPUs, and what the one that waits asked for.
std::vector<std::string> around(const Ledger& ledger, const Job& waiting) {
  constexpr size_t kShown = 5;
  std::vector<std::pair<uint32_t, std::string>> holders;
  for (const auto& [number, job] : ledger.jobs) {
    if (!job.ended() && job.physical_gpus() != 0) holders.emplace_back(job.physical_gpus(), job.record.id());
  }
  std::stable_sort(holders.begin(), holders.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
  std::string text;
  for (size_t i = 0; i < holders.size() && i < kShown; ++i)
    text += format("%sjob %s has %u", i == 0 ? "" : ", ", holders[i].second.c_str(), holders[i].first);
  if (holders.size() > kShown) text += format(" and %zu more jobs", holders.size() - kShown);
  std::vector<std::string> evidence;
  if (!text.empty()) evidence.push_back("GPUs: " + text);
  if (waiting.record.part == kWholeGpu) {
    evidence.push_back(format("it asked for %u virtual GPUs, on at least %u physical ones", waiting.record.gpus,
                              waiting.record.min_gpus));
  } else {
    evidence.push_back("it asked for " + part_text(waiting.record.part) + " of a GPU");
  }
  return evidence;
}

// Some of those that run could make room for it, and are not to be disturbed now.
std::optional<Explanation> of_spared(const Ledger& ledger, const State& state, const Job& waiting) {
  const uint64_t now_ms = wall_seconds() * 1000;
  std::vector<std::string> evidence;
  uint64_t soonest_ms = UINT64_MAX;
  for (const std::string& id : spared_before(state, waiting.record.id())) {
    const auto found = ledger.jobs.find(parse_number(id));
    if (found == ledger.jobs.end()) continue;
    const Disturbed disturbed = found->second.disturbed(ledger.disturbance);
    const Sparing sparing = sparing_of(ledger.disturbance, disturbed, now_ms);
    if (!sparing.spared()) continue;
    evidence.push_back("job " + id + " " + sparing_text(sparing, disturbed, now_ms));
    soonest_ms = std::min(soonest_ms, sparing.left_ms);
  }
  if (evidence.empty()) return std::nullopt;
  const std::string who = evidence.size() == 1 ? "a job that is" : format("%zu jobs that are", evidence.size());
  return Explanation{
      .reason = "it could have GPUs of " + who + " not to be disturbed now: " + evidence.front(),
      .next = format("it starts by itself, in about %lu s at the earliest where nothing ends before; min_runtime and "
                     "disturbances_per_hour of pool.toml say how long",
                     (unsigned long)((soonest_ms + 999) / 1000)),
      .evidence = std::move(evidence)};
}

Explanation of_waiting(const Ledger& ledger, const State& state, const Job& job) {
  const std::string id = job.record.id();
  if (const auto found = of_spared(ledger, state, job)) return *found;
  if (const auto found = why_waits(state, id)) return *found;
  const JobView* const view = view_in(state, id);
  const QueueReason queue = view == nullptr ? QueueReason() : why_queue_waits(state, *view);
  if (!queue.reason.empty()) return {.reason = queue.reason, .next = queue.next, .evidence = around(ledger, job)};
  return {.reason = {}, .next = {}, .evidence = around(ledger, job)};
}

std::string last_move(const Job& job) {
  double longest = 0;
  for (const Vgpu& vgpu : job.vgpus) longest = std::max(longest, vgpu.last_move.pause_ms);
  return format("moved %u times; last %s, because ", job.record.moves, ago(job.moved_ns).c_str()) + job.moved_because +
         format("; longest pause of a last move %.0f ms", longest);
}

// Of others on its GPUs, where it has a part of one.
std::string beside(const Ledger& ledger, const Job& job) {
  std::string text;
  for (const Vgpu& vgpu : job.vgpus) {
    for (const auto& [id, portion] : ledger.holders(vgpu.at)) {
      if (id == job.record.id() || !vgpu.at.on_gpu()) continue;
      text += (text.empty() ? "shares GPU " + to_text(vgpu.at) + " with job " : ", ") + id + " (" +
              part_text(portion.part) + ")";
    }
  }
  return text;
}

// It has a right to GPUs, and others are on their way off them.
Explanation of_starting(const Ledger& ledger, const Job& job) {
  Explanation why;
  std::string movers;
  for (const auto& [number, other] : ledger.jobs) {
    if (other.ended() || other.moves_for != job.record.id()) continue;
    movers += (movers.empty() ? "" : ", ") + other.record.id();
    for (const Vgpu& vgpu : other.vgpus) {
      if (vgpu.doing != Doing::kMoving) continue;
      why.evidence.push_back("job " + other.record.id() + " is on its way from " + to_text(vgpu.at) + " to " +
                             to_text(vgpu.to));
    }
    if (!other.problem.empty()) why.evidence.push_back("job " + other.record.id() + ": " + other.problem);
  }
  if (movers.empty()) return {};
  why.reason = "what it needs is free in pieces; being moved so that it can start: job " + movers;
  why.next = "it starts by itself when that is done; where a move fails, another one is tried, or the same one later";
  return why;
}

Explanation of_running(const Ledger& ledger, const State& state, const Job& job) {
  Explanation why = job.physical_gpus() == 0 ? of_starting(ledger, job) : Explanation();
  if (!why.reason.empty()) return why;
  if (const auto found = why_small(state, job.record.id())) why = *found;
  const bool moved = job.moved_ns != 0 && !job.moved_because.empty();
  if (moved && why.reason.empty() && job.record.part == kWholeGpu) {
    why.reason = format("runs on %u of %u GPUs; it was moved %s, because ", job.physical_gpus(), job.record.gpus,
                        ago(job.moved_ns).c_str()) +
                 job.moved_because;
    why.next = "nothing: `tide job " + job.record.id() + "` has what the moves took";
  }
  if (moved) why.evidence.push_back(last_move(job));
  if (const std::string others = beside(ledger, job); !others.empty()) why.evidence.push_back(others);
  return why;
}

// Who waits in the same queue and comes first.
size_t count_before(const State& state, const std::string& id) {
  const JobView* const job = view_in(state, id);
  if (job == nullptr) return 0;
  const auto before = [&](const JobView& other) {
    return !other.running && !other.suspended && other.queue == job->queue &&
           std::tuple(start_rank(other), other.place, parse_number(other.id)) <
               std::tuple(start_rank(*job), job->place, parse_number(id));
  };
  return size_t(std::count_if(state.jobs.begin(), state.jobs.end(), before));
}

// What it is expected to need, and what that means for it.
std::vector<std::string> expected_evidence(const Ledger& ledger, const State& state, const Job& job) {
  const Expected expected = expected_now(job);
  std::vector<std::string> lines;
  // That nobody knows is worth a line only where it counts.
  if (expected.word != Word::kNone || ledger.by_estimates)
    lines.push_back("what it is expected to need: " + to_text(expected));
  if (job.admitted() && !job.expected.passes.empty())
    lines.push_back("it started before job " + job.expected.passes +
                    ", for which the pool drains, because it was expected to be over in time");
  if (job.admitted() || !ledger.by_estimates || ledger.turns.on) return lines;
  const size_t before = count_before(state, job.record.id());
  const std::string who = before == 0   ? "nobody that waits"
                          : before == 1 ? "one job that waits"
                                        : format("%zu jobs that wait", before);
  lines.push_back(who + " in its queue is before it, by what each is expected to need and how long it has waited");
  return lines;
}

}  // namespace

kj::Promise<void> PoolService::why(WhyContext context) {
  const std::string name = context.getParams().getJob().cStr();
  const Job* job = core_.ledger.find(name);
  if (job == nullptr || job->ended() || job->record.suspended || !job->problem.empty()) return kj::READY_NOW;
  const State state = core_.reconciler.look();
  const bool turn = job->turn.comes_ns != 0 && !job->admitted();
  Explanation why = turn              ? Explanation{.reason = {}, .next = {}, .evidence = around(core_.ledger, *job)}
                    : job->admitted() ? of_running(core_.ledger, state, *job)
                                      : of_waiting(core_.ledger, state, *job);
  if (const Explanation promise = why_promise(*job); !promise.reason.empty()) {
    why.reason = promise.reason;
    why.next = promise.next;
  }
  for (const std::string& line : promise_evidence(*job)) why.evidence.push_back(line);
  for (std::string& line : expected_evidence(core_.ledger, state, *job)) why.evidence.push_back(std::move(line));
  // Whose turn ends soon has been told so.
  if (job->turn.next.empty()) context.getResults().setReason(why.reason);
  context.getResults().setNext(why.next);
  auto list = context.getResults().initEvidence(uint32_t(why.evidence.size()));
  for (uint32_t i = 0; i < list.size(); ++i) list.set(i, why.evidence[i]);
  return kj::READY_NOW;
}

}  // namespace tide::sched
