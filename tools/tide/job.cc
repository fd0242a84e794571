#include <stdio.h>

#include <algorithm>
#include <map>

#include "base/log.h"
#include "scheduler/state.h"
#include "tools/tide/client.h"
#include "tools/tide/commands.h"
#include "tools/tide/deadline.h"
#include "tools/tide/json.h"
#include "tools/tide/options.h"
#include "tools/tide/protection.h"
#include "tools/tide/show.h"
#include "tools/tide/slow_link.h"
#include "tools/tide/times.h"

namespace tide::cli {
namespace {

constexpr size_t kCallsShown = 12;  // on a terminal

// Short times, too: "1.5 s".
std::string time_text(uint64_t ms) { return ms < 60'000 ? format("%.1f s", double(ms) / 1e3) : duration_text(ms); }

using JobAnswer = capnp::Response<control::Pool::JobResults>;

std::string place_of(control::VgpuInfo::Reader vgpu) { return place_text(vgpu.getServer(), vgpu.getGpu()); }

using CallCounts = std::vector<std::pair<std::string, uint64_t>>;

// The functions that waited, of some virtual GPUs together: most first.
CallCounts calls_of(const std::vector<control::VgpuStats::Reader>& vgpus) {
  std::map<std::string, uint64_t> sums;
  for (const auto& stats : vgpus) {
    for (const auto each : stats.getRoundTripCalls()) sums[each.getCall().cStr()] += each.getCount();
  }
  CallCounts calls(sums.begin(), sums.end());
  std::stable_sort(calls.begin(), calls.end(), [](const auto& a, const auto& b) { return a.second > b.second; });
  return calls;
}

void add_stats(Json& json, control::VgpuStats::Reader stats) {
  json.key("worker_pids").list();
  for (const uint32_t pid : stats.getWorkerPids()) json.number(uint64_t(pid));
  json.end();
  json.add("resident_bytes", stats.getResidentBytes()).add("commands", stats.getCommands());
  json.add("round_trips", stats.getRoundTrips())
      .add("bytes_in", stats.getBytesIn())
      .add("bytes_out", stats.getBytesOut())
      .add("saved_in", stats.getSavedIn())
      .add("saved_out", stats.getSavedOut())
      .add("kept_in", stats.getKeptIn());
  json.add("round_trips_per_s", stats.getRoundTripsPerS()).key("round_trip_calls").list();
  for (const auto& [call, count] : calls_of({stats})) json.object().add("call", call).add("count", count).end();
  json.end();
  json.add("wait_ns", stats.getWaitNs()).add("transport", std::string(stats.getTransport()));
  json.add("objects", stats.getObjects()).add("moves", stats.getMoves());
  json.add("kept_in_memory", stats.getKeptInMemory()).add("kept_on_disk", stats.getKeptOnDisk());
  json.add("kept_apart", stats.getKeptApart());
  const auto link = stats.getLink();
  json.key("link").object();
  json.add("round_trip_us", link.getRoundTripUs()).add("bytes_per_s", link.getBytesPerS());
  json.add("window_ms", link.getWindowMs()).add("wait_ms", link.getWaitMs());
  json.add("window_bytes", link.getWindowBytes());
  json.add("landed_direct_bytes", link.getLandedDirect()).add("landed_staged_bytes", link.getLandedStaged()).end();
}

void print_json(const JobAnswer& answer) {
  Json json;
  begin_job(json, answer.getJob());
  json.key("vgpus").list();
  for (const auto vgpu : answer.getJob().getVgpus()) {
    json.object()
        .add("vgpu", vgpu.getVgpu())
        .add("gpu", place_of(vgpu))
        .add("epoch", vgpu.getEpoch())
        .add("moving", vgpu.getMoving());
    if (vgpu.getLastMove().getVgpus() != 0) {
      json.key("last_move").object();
      add_move(json, vgpu.getLastMove());
      json.end();
    }
    if (answer.getJob().getSpec().getProtectMs() != 0) add_protection(json, vgpu.getProtection());
    for (const auto stats : answer.getVgpus()) {
      if (stats.getVgpu() == vgpu.getVgpu()) {
        add_stats(json, stats);
        break;
      }
    }
    json.end();
  }
  json.end().end().print();
}

void print_vgpus(const JobAnswer& answer) {
  printf("\n%-5s %-14s %10s %12s %11s %8s %11s %11s %-9s %s\n", "VGPU", "GPU", "MEMORY", "COMMANDS", "ROUND TRIPS",
         "/ S", "TO GPU", "FROM GPU", "TRANSPORT", "MOVES");
  for (const auto vgpu : answer.getJob().getVgpus()) {
    printf("%-5u %-14s", vgpu.getVgpu(), place_of(vgpu).c_str());
    for (const auto s : answer.getVgpus()) {
      if (s.getVgpu() != vgpu.getVgpu()) continue;
      printf(" %10s %12lu %11lu %8.1f %11s %11s %-9s %u", size_text(s.getResidentBytes()).c_str(),
             (unsigned long)s.getCommands(), (unsigned long)s.getRoundTrips(), s.getRoundTripsPerS(),
             size_text(s.getBytesIn()).c_str(), size_text(s.getBytesOut()).c_str(), s.getTransport().cStr(),
             s.getMoves());
      break;
    }
    puts(vgpu.getMoving() ? "  (moving)" : "");
  }
}

// Where large copies to the GPU went, where they came over a network.
void print_landings(const JobAnswer& answer) {
  for (const auto s : answer.getVgpus()) {
    const uint64_t direct = s.getLink().getLandedDirect(), staged = s.getLink().getLandedStaged();
    if (direct + staged == 0) continue;
    printf("copies to virtual GPU %u: %s landed in its memory as they came, %s in the worker's page-locked memory\n",
           s.getVgpu(), size_text(direct).c_str(), size_text(staged).c_str());
  }
}

void print_last_moves(const JobAnswer& answer) {
  for (const auto vgpu : answer.getJob().getVgpus()) {
    if (vgpu.getLastMove().getVgpus() == 0) continue;
    printf("last move of virtual GPU %u: %s\n", vgpu.getVgpu(), move_text(vgpu.getLastMove()).c_str());
  }
}

// What of it is not usual.
void print_rules(control::JobInfo::Reader job) {
  const auto spec = job.getSpec();
  std::string text;
  const auto add = [&](const std::string& part) { text += (text.empty() ? "" : "; ") + part; };
  if (spec.getJobClass() == control::JobClass::INTERACTIVE) add("interactive");
  if (spec.getJobClass() == control::JobClass::INFERENCE) add("inference");
  if (spec.getPriority() != 0) add("priority " + std::to_string(spec.getPriority()));
  if (spec.getPowersOfTwo()) add("powers of two of GPUs");
  if (spec.getIdleMs() != 0) add("gives its GPUs back after " + time_text(spec.getIdleMs()) + " without work");
  if (spec.getMinRuntimeMs() != 0) add("left alone for its first " + time_text(spec.getMinRuntimeMs()));
  if (!text.empty()) printf("  rules    %s\n", text.c_str());
  if (job.getState() == control::JobState::ENDED) return;
  printf("  ran      usefully for %s; disturbed %u times in the last hour for others\n",
         time_text(job.getUsefulMs()).c_str(), job.getDisturbed());
  if (job.getSpared().size() != 0) printf("  spared   it %s\n", job.getSpared().cStr());
}

void print_protection(control::JobInfo::Reader job) {
  const uint64_t every_ms = job.getSpec().getProtectMs();
  if (every_ms == 0) return;
  for (const auto vgpu : job.getVgpus()) {
    printf("virtual GPU %u: %s\n", vgpu.getVgpu(), protection_text(vgpu.getProtection(), every_ms).c_str());
  }
}

std::string slow_warning_of(const JobAnswer& answer) {
  std::vector<std::string> servers;
  for (const auto vgpu : answer.getJob().getVgpus()) servers.push_back(vgpu.getServer());
  std::vector<control::VgpuStats::Reader> vgpus;
  for (const auto stats : answer.getVgpus()) vgpus.push_back(stats);
  return slow_link(vgpus, servers);
}

// What compression and kept contents saved, where they did.
void print_saved(const JobAnswer& answer) {
  uint64_t in = 0, out = 0, kept = 0;
  for (const auto stats : answer.getVgpus()) {
    in += stats.getSavedIn();
    out += stats.getSavedOut();
    kept += stats.getKeptIn();
  }
  if (in + out == 0) return;
  printf("\nnot carried: %s to GPUs (%s of it the server kept), %s from GPUs\n", size_text(in).c_str(),
         size_text(kept).c_str(), size_text(out).c_str());
}

void print_calls(const JobAnswer& answer) {
  std::vector<control::VgpuStats::Reader> vgpus;
  for (const auto stats : answer.getVgpus()) vgpus.push_back(stats);
  const CallCounts calls = calls_of(vgpus);
  uint64_t all = 0, shown = 0;
  for (const auto& [call, count] : calls) all += count;
  if (all == 0) return;
  const auto row = [all](const char* call, uint64_t count) {
    printf("%-40s %11lu %6.1f %%\n", call, (unsigned long)count, 100.0 * double(count) / double(all));
  };
  printf("\n%-40s %11s %8s\n", "ROUND TRIPS BY FUNCTION", "", "SHARE");
  for (size_t i = 0; i < calls.size() && i < kCallsShown; ++i) {
    row(calls[i].first.c_str(), calls[i].second);
    shown += calls[i].second;
  }
  if (shown < all) row(format("(%zu more)", calls.size() - kCallsShown).c_str(), all - shown);
}

// Where a job without GPUs is, and what it takes there.
void print_kept(const JobAnswer& answer) {
  const std::string where = kept_text(answer.getJob());
  if (where.empty()) return;
  printf("  kept     %s: %s\n", where.c_str(), kept_size_text(kept_of(answer.getVgpus())).c_str());
}

// Where jobs take turns.
void print_turn(control::TurnInfo::Reader turn) {
  if (turn.getLengthMs() == 0) return;
  if (!turn.getTaken()) {
    puts("  turns    none: it keeps its GPUs until it ends (--no-turns)");
  } else if (turn.getLengthMs() == sched::kEndless) {
    puts("  turns    none any more: it keeps its GPUs until it ends");
  } else {
    printf("  turns    of %s", time_text(turn.getLengthMs()).c_str());
    if (turn.getSwitchMs() != 0) printf("; suspending and resuming it took %s", time_text(turn.getSwitchMs()).c_str());
    puts("");
  }
}

// The job that the first word names. `asker` must outlive the answer.
Outcome ask_for_job(Options& options, Asker* asker, kj::Maybe<JobAnswer>* answer) {
  const Outcome outcome = asker->connect(options);
  if (!outcome.ok()) return outcome;
  auto request = asker->pool().jobRequest();
  request.setJob(options.words()[0]);
  return asker->ask(request.send(), answer);
}

struct Said {
  std::string reason, next;
};

// What a job's own state says. `slow`: what is said of its link.
Said said_of(control::JobInfo::Reader info, const std::string& slow) {
  const std::string id = info.getId();
  std::string reason = info.getReason(), next;
  switch (info.getState()) {
    case control::JobState::QUEUED:
      next = "it starts by itself; `tide jobs` lists who holds GPUs, a smaller --min starts sooner";
      if (info.getNext().size() != 0) next = info.getNext();
      break;
    case control::JobState::RUNNING:
      if (reason.empty() && info.getSpec().getPart() != 0) {
        reason = "runs on " + gpus_text(info.getSpec()) + " of a GPU";
      } else if (reason.empty()) {
        reason = format("runs on %u of %u GPUs", info.getPhysicalGpus(), info.getSpec().getGpus());
      }
      next = slow.empty() ? "`tide job " + id + "` shows where" : slow_link_remedy();
      break;
    case control::JobState::SUSPENDED:
      next = "it goes on by itself; `tide jobs` lists who holds GPUs";
      if (info.getNext().size() != 0) next = info.getNext();
      if (info.getSuspended()) {
        next = "anybody who uses this pool can run `tide resume " + id + "`; `tide kill " + id + "` ends it";
      }
      if (info.getIdled()) next = "its program goes on by itself; `tide resume " + id + "` gives it GPUs before that";
      break;
    case control::JobState::ENDED:
      next = "`tide job " + id + "` has the record";
      break;
  }
  return {reason, next};
}

// `tide why JOB --history`
int history(Options& options) {
  Asker asker;
  Outcome outcome = asker.connect(options);
  kj::Maybe<capnp::Response<control::Pool::DecisionsResults>> answer;
  if (outcome.ok()) {
    auto request = asker.pool().decisionsRequest();
    request.setJob(options.words()[0]);
    outcome = asker.ask(request.send(), &answer);
  }
  if (!outcome.ok()) return fail(outcome.message());
  const auto& got = KJ_ASSERT_NONNULL(answer);
  if (options.has("json")) {
    Json json;
    json.object().key("decisions").list();
    for (const auto each : got.getDecisions()) {
      json.object().add("decision", each.getNumber()).add("at_ms", each.getAtMs());
      json.add("what", std::string(each.getWhat())).add("reason", std::string(each.getReason())).end();
    }
    json.end().add("first_kept", got.getJournal().getFirst()).add("last", got.getJournal().getLast()).end().print();
    return kOk;
  }
  printf("%-9s %-19s %s\n", "DECISION", "WHEN", "WHAT AND WHY");
  for (const auto each : got.getDecisions()) {
    const char* const between = each.getReason().size() == 0 ? "" : ": ";
    printf("%-9lu %-19s %s%s%s\n", (unsigned long)each.getNumber(), moment_text(each.getAtMs()).c_str(),
           each.getWhat().cStr(), between, each.getReason().cStr());
  }
  if (got.getDecisions().size() == 0) {
    printf("nothing about this job is in the journal, which goes back to decision %lu\n",
           (unsigned long)got.getJournal().getFirst());
  }
  return kOk;
}

}  // namespace

int job(const Words& words) {
  Options options;
  constexpr const char* kHelp =
      "usage: tide job JOB [--json]\n\n"
      "One job, by its id or its name: its virtual GPUs, where they are, what went over their channels, and\n"
      "which functions of the driver API caused round trips: calls that waited for the GPU's server. Round trips per\n"
      "second (/ S) are of the last second.\n";
  if (!options.parse(words, {{"json", 0, false}}, kHelp) || !options.expect_words(1, "one job"))
    return options.status();
  Asker asker;
  kj::Maybe<JobAnswer> answer;
  const Outcome outcome = ask_for_job(options, &asker, &answer);
  if (!outcome.ok()) return fail(outcome.message());
  const JobAnswer& got = KJ_ASSERT_NONNULL(answer);
  if (options.has("json")) {
    print_json(got);
    return kOk;
  }
  const auto info = got.getJob();
  const auto spec = info.getSpec();
  printf("job %s%s%s  %s\n", info.getId().cStr(), spec.getName().size() != 0 ? " " : "", spec.getName().cStr(),
         state_name(info.getState()));
  if (info.getReason().size() != 0) printf("  %s\n", info.getReason().cStr());
  printf("  command  %s (user %s, process %u)\n", spec.getCommand().cStr(), spec.getUser().cStr(), spec.getPid());
  if (spec.getPart() != 0) {
    const std::string weight = spec.getWeight() > 1 ? ", weight " + std::to_string(spec.getWeight()) : "";
    printf("  GPUs     %s of one that others may share%s; moved %u times\n", gpus_text(spec).c_str(), weight.c_str(),
           info.getMoves());
  } else {
    printf("  GPUs     %u virtual, at least %u physical; now %u, moved %u times\n", spec.getGpus(), spec.getMinGpus(),
           info.getPhysicalGpus(), info.getMoves());
  }
  if (info.getMemoryBytes() != 0) printf("  memory   %s a virtual GPU\n", size_text(info.getMemoryBytes()).c_str());
  if (spec.getQueue().size() != 0) printf("  queue    %s\n", spec.getQueue().cStr());
  print_rules(info);
  if (spec.getReservation().size() != 0) printf("  reservation %s\n", spec.getReservation().cStr());
  print_promise(info);
  print_turn(info.getTurn());
  if (info.getState() == control::JobState::ENDED) {
    printf("  exit     %d\n", info.getExitStatus());
  } else if (info.getState() != control::JobState::QUEUED) {
    print_kept(got);
    print_vgpus(got);
    print_landings(got);
    print_last_moves(got);
    print_protection(info);
    if (const std::string warning = slow_warning_of(got); !warning.empty()) {
      printf("\nwarning: %s\nnext: %s\n", warning.c_str(), slow_link_remedy().c_str());
    }
    print_saved(got);
    print_calls(got);
  }
  return kOk;
}

int why(const Words& words) {
  Options options;
  constexpr const char* kHelp =
      "usage: tide why JOB [--history] [--json]\n\n"
      "One reason why the job waits, has fewer GPUs than it could, was moved, is slow, or how it ended; what speaks "
      "for\n"
      "it, and the next step.\n"
      "  --history  what was decided about it until now, when and why; `tide snapshot --decision N` fetches one of "
      "them\n";
  const std::vector<OptionSpec> specs = {{"json", 0, false}, {"history", 0, false}};
  if (!options.parse(words, specs, kHelp) || !options.expect_words(1, "one job")) return options.status();
  if (options.has("history")) return history(options);
  Asker asker;
  kj::Maybe<JobAnswer> answer;
  Outcome outcome = ask_for_job(options, &asker, &answer);
  kj::Maybe<capnp::Response<control::Pool::WhyResults>> found;
  if (outcome.ok()) {
    auto request = asker.pool().whyRequest();
    request.setJob(KJ_ASSERT_NONNULL(answer).getJob().getId());
    outcome = asker.ask(request.send(), &found);
  }
  if (!outcome.ok()) return fail(outcome.message());
  const auto& tried = KJ_ASSERT_NONNULL(found);
  const auto info = KJ_ASSERT_NONNULL(answer).getJob();
  const std::string id = info.getId(), slow = slow_warning_of(KJ_ASSERT_NONNULL(answer));
  const std::string unprotected = unprotected_text(info), warning = slow.empty() ? unprotected : slow;
  auto [reason, next] = said_of(info, slow);
  if (tried.getReason().size() != 0) reason = tried.getReason();
  if (tried.getReason().size() != 0 && tried.getNext().size() != 0 && slow.empty()) next = tried.getNext();
  if (options.has("json")) {
    Json json;
    json.object()
        .add("id", id)
        .add("state", std::string(state_name(info.getState())))
        .add("reason", reason)
        .add("warning", warning)
        .add("next", next);
    json.key("evidence").list();
    for (const auto line : tried.getEvidence()) json.text(line);
    json.end();
    add_turn(json, info.getTurn());
    json.end().print();
    return kOk;
  }
  printf("job %s is %s: %s\n", id.c_str(), state_name(info.getState()), reason.c_str());
  for (const auto line : tried.getEvidence()) printf("  %s\n", line.cStr());
  if (!warning.empty()) printf("warning: %s\n", warning.c_str());
  printf("next: %s\n", next.c_str());
  return kOk;
}

}  // namespace tide::cli
