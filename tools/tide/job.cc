#include <stdio.h>

#include "base/log.h"
#include "tools/tide/client.h"
#include "tools/tide/commands.h"
#include "tools/tide/json.h"
#include "tools/tide/options.h"
#include "tools/tide/show.h"

namespace tide::cli {
namespace {

using JobAnswer = capnp::Response<control::Pool::JobResults>;

std::string place_of(control::VgpuInfo::Reader vgpu) {
  if (vgpu.getServer().size() == 0) return "-";
  return std::string(vgpu.getServer()) + "/" + std::to_string(vgpu.getGpu());
}

void add_stats(Json& json, control::VgpuStats::Reader stats) {
  json.key("worker_pids").list();
  for (const uint32_t pid : stats.getWorkerPids()) json.number(uint64_t(pid));
  json.end();
  json.add("resident_bytes", stats.getResidentBytes()).add("commands", stats.getCommands());
  json.add("round_trips", stats.getRoundTrips())
      .add("bytes_in", stats.getBytesIn())
      .add("bytes_out", stats.getBytesOut());
  json.add("wait_ns", stats.getWaitNs()).add("transport", std::string(stats.getTransport()));
  json.add("objects", stats.getObjects()).add("moves", stats.getMoves());
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
  printf("\n%-5s %-14s %10s %12s %11s %11s %11s %-9s %s\n", "VGPU", "GPU", "MEMORY", "COMMANDS", "ROUND TRIPS",
         "TO GPU", "FROM GPU", "TRANSPORT", "MOVES");
  for (const auto vgpu : answer.getJob().getVgpus()) {
    printf("%-5u %-14s", vgpu.getVgpu(), place_of(vgpu).c_str());
    for (const auto s : answer.getVgpus()) {
      if (s.getVgpu() != vgpu.getVgpu()) continue;
      printf(" %10s %12lu %11lu %11s %11s %-9s %u", size_text(s.getResidentBytes()).c_str(),
             (unsigned long)s.getCommands(), (unsigned long)s.getRoundTrips(), size_text(s.getBytesIn()).c_str(),
             size_text(s.getBytesOut()).c_str(), s.getTransport().cStr(), s.getMoves());
      break;
    }
    puts(vgpu.getMoving() ? "  (moving)" : "");
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

}  // namespace

int job(const Words& words) {
  Options options;
  constexpr const char* kHelp =
      "usage: tide job JOB [--json]\n\n"
      "One job, by its id or its name: its virtual GPUs, where they are, and what went over their channels.\n";
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
  printf("  GPUs     %u virtual, at least %u physical; now %u, moved %u times\n", spec.getGpus(), spec.getMinGpus(),
         info.getPhysicalGpus(), info.getMoves());
  if (info.getMemoryBytes() != 0) printf("  memory   %s a virtual GPU\n", size_text(info.getMemoryBytes()).c_str());
  if (info.getState() == control::JobState::ENDED) {
    printf("  exit     %d\n", info.getExitStatus());
  } else if (info.getState() == control::JobState::RUNNING) {
    print_vgpus(got);
  }
  return kOk;
}

int why(const Words& words) {
  Options options;
  constexpr const char* kHelp =
      "usage: tide why JOB\n\nOne reason why the job waits, or how it ended, and the next step.\n";
  if (!options.parse(words, {{"json", 0, false}}, kHelp) || !options.expect_words(1, "one job"))
    return options.status();
  Asker asker;
  kj::Maybe<JobAnswer> answer;
  const Outcome outcome = ask_for_job(options, &asker, &answer);
  if (!outcome.ok()) return fail(outcome.message());
  const auto info = KJ_ASSERT_NONNULL(answer).getJob();
  const std::string id = info.getId();
  std::string reason = info.getReason(), next;
  switch (info.getState()) {
    case control::JobState::QUEUED:
      next = "it starts by itself; `tide jobs` lists who holds GPUs, a smaller --min starts sooner";
      break;
    case control::JobState::RUNNING:
      if (reason.empty()) reason = format("runs on %u of %u GPUs", info.getPhysicalGpus(), info.getSpec().getGpus());
      next = "`tide job " + id + "` shows where";
      break;
    case control::JobState::ENDED:
      next = "`tide job " + id + "` has the record";
      break;
  }
  if (options.has("json")) {
    Json json;
    json.object()
        .add("id", id)
        .add("state", std::string(state_name(info.getState())))
        .add("reason", reason)
        .add("next", next)
        .end()
        .print();
    return kOk;
  }
  printf("job %s is %s: %s\nnext: %s\n", id.c_str(), state_name(info.getState()), reason.c_str(), next.c_str());
  return kOk;
}

}  // namespace tide::cli
