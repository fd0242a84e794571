#include <stdio.h>

#include <algorithm>

#include "base/clock.h"
#include "base/log.h"
#include "scheduler/room.h"
#include "tools/tide/client.h"
#include "tools/tide/commands.h"
#include "tools/tide/json.h"
#include "tools/tide/options.h"
#include "tools/tide/reservations.h"
#include "tools/tide/servers.h"
#include "tools/tide/show.h"

namespace tide::cli {
namespace {

using control::JobState;
using Jobs = capnp::List<control::JobInfo>::Reader;

uint32_t count(Jobs jobs, JobState state) {
  return uint32_t(std::count_if(jobs.begin(), jobs.end(), [&](auto job) { return job.getState() == state; }));
}

uint32_t count_waiting(Jobs jobs) {
  return uint32_t(std::count_if(jobs.begin(), jobs.end(), [](auto job) { return job.getTurn().getWaits(); }));
}

struct Gpus {
  uint32_t total = 0, busy = 0, shared = 0, left = 0, offline = 0, draining = 0;
};
Gpus count(capnp::List<control::PoolGpu>::Reader gpus) {
  Gpus sum;
  for (const auto gpu : gpus) {
    const bool held = gpu.getJob().size() != 0;
    ++sum.total;
    sum.draining += gpu.getDraining() && gpu.getOnline() ? 1 : 0;
    sum.busy += held ? 1 : 0;
    sum.shared += held && part_left(gpu) != 0 ? 1 : 0;
    sum.left += held ? part_left(gpu) : 0;
    sum.offline += gpu.getOnline() && gpu.getInfo().getHealthy() ? 0 : 1;
  }
  return sum;
}

std::string journal_text(control::JournalInfo::Reader journal) {
  if (journal.getDirectory().size() == 0)
    return "not recorded (`journal` under [policy], and `state` under [pool], of pool.toml)";
  std::string text = format("%lu, recorded from %lu on (%s of %s)", (unsigned long)journal.getLast(),
                            (unsigned long)journal.getFirst(), size_text(journal.getBytes()).c_str(),
                            size_text(journal.getBytesMax()).c_str());
  if (journal.getLast() == 0) text = "none yet";
  if (journal.getLeftOut() != 0) text += format("; %lu could not be recorded", (unsigned long)journal.getLeftOut());
  const std::string problem = journal.getProblem();
  return problem.empty() ? text : text + "; not recorded at present: " + problem;
}

void add_journal(Json& json, control::JournalInfo::Reader journal) {
  json.key("decisions").object().add("directory", std::string(journal.getDirectory()));
  json.add("first", journal.getFirst()).add("last", journal.getLast()).add("bytes", journal.getBytes());
  json.add("bytes_max", journal.getBytesMax()).add("left_out", journal.getLeftOut());
  json.add("problem", std::string(journal.getProblem())).end();
}

}  // namespace

namespace {

void add_history(Json& json, control::HistoryState::Reader history) {
  json.key("history").object().add("kept", history.getKept()).add("path", std::string(history.getPath()));
  json.add("problem", std::string(history.getProblem())).add("waiting", history.getWaiting());
  json.add("lost", history.getLost()).end();
}

void print_history(control::HistoryState::Reader history) {
  if (history.getProblem().size() == 0) return;
  printf("\nhistory    NOT WRITTEN: %s (%lu batches wait, %lu are lost)", history.getProblem().cStr(),
         (unsigned long)history.getWaiting(), (unsigned long)history.getLost());
}

}  // namespace

int status(const Words& words) {
  Options options;
  constexpr const char* kHelp = "usage: tide status [--json]\n\nThe pool at a glance: servers, GPUs, jobs.\n";
  if (!options.parse(words, {{"json", 0, false}}, kHelp) || !options.expect_words(0, "")) return options.status();
  Asker asker;
  Outcome outcome = asker.connect(options);
  kj::Maybe<capnp::Response<control::Pool::StatusResults>> status;
  kj::Maybe<capnp::Response<control::Pool::GpusResults>> gpus;
  kj::Maybe<capnp::Response<control::Pool::JobsResults>> jobs;
  if (outcome.ok()) outcome = asker.ask(asker.pool().statusRequest().send(), &status);
  if (outcome.ok()) outcome = asker.ask(asker.pool().gpusRequest().send(), &gpus);
  if (outcome.ok()) outcome = asker.ask(asker.pool().jobsRequest().send(), &jobs);
  kj::Maybe<capnp::Response<control::Pool::ServersResults>> servers;
  if (outcome.ok()) outcome = asker.ask(asker.pool().serversRequest().send(), &servers);
  kj::Maybe<capnp::Response<control::Pool::DecisionsResults>> decisions;
  if (outcome.ok()) outcome = asker.ask(asker.pool().decisionsRequest().send(), &decisions);
  kj::Maybe<capnp::Response<control::Pool::ReservationsResults>> reserved;
  if (outcome.ok()) outcome = asker.ask(asker.pool().reservationsRequest().send(), &reserved);
  if (!outcome.ok()) return fail(outcome.message());
  const auto journal = KJ_ASSERT_NONNULL(decisions).getJournal();
  const auto all_servers = KJ_ASSERT_NONNULL(servers).getServers();
  const auto& pool = KJ_ASSERT_NONNULL(status);
  const Reservations reservations = KJ_ASSERT_NONNULL(reserved).getReservations();
  const auto [total, busy, shared, left, offline, draining] = count(KJ_ASSERT_NONNULL(gpus).getGpus());
  const auto all_jobs = KJ_ASSERT_NONNULL(jobs).getJobs();
  const uint32_t queued = count(all_jobs, JobState::QUEUED), running = count(all_jobs, JobState::RUNNING);
  const uint32_t suspended = count(all_jobs, JobState::SUSPENDED), waiting = count_waiting(all_jobs);
  const uint64_t now = wall_seconds() * 1000;
  const uint64_t up_ms = now > pool.getStartedMs() ? now - pool.getStartedMs() : 0;
  if (options.has("json")) {
    Json json;
    json.object()
        .add("version", std::string(pool.getVersion()))
        .add("pid", pool.getPid())
        .add("started_ms", pool.getStartedMs());
    json.add("servers", pool.getServers()).add("door", std::string(pool.getDoorAddress())).add("gpus", total);
    json.add("gpus_shared", shared).add("shared_free", left / 1000.0);
    json.add("gpus_busy", busy).add("gpus_unusable", offline).add("jobs_running", running).add("jobs_queued", queued);
    json.add("jobs_suspended", suspended).add("turns", std::string(pool.getTurns()));
    add_history(json, pool.getHistory());
    json.add("jobs_waiting_for_turn", waiting).add("gpus_draining", draining).key("draining").list();
    for (const auto server : all_servers) {
      if (server.getDrainingMs() != 0) add_server(json, server);
    }
    json.end();
    add_journal(json, journal);
    add_reservations(json, reservations);
    json.end().print();
    return kOk;
  }
  printf("scheduler  up for %s (version %s, process %u)\n", duration_text(up_ms).c_str(), pool.getVersion().cStr(),
         pool.getPid());
  printf("servers    %u\n", pool.getServers());
  printf("GPUs       %u: %u busy, %u free", total, busy, total - busy);
  if (shared != 0)
    printf(", %s left of %u that %s shared", sched::part_text(left).c_str(), shared, shared == 1 ? "is" : "are");
  if (offline != 0) printf(", %u not usable", offline);
  if (draining != 0) printf(", %u on servers that are being drained", draining);
  printf("\njobs       %u running, %u queued", running, queued);
  if (suspended != 0) printf(", %u suspended", suspended);
  printf("\nturns      %s", pool.getTurns().cStr());
  if (waiting != 0) printf(": %u job%s for the next", waiting, waiting == 1 ? " waits" : "s wait");
  print_history(pool.getHistory());
  if (const std::string drains = drains_text(all_servers); !drains.empty()) printf("\ndrained    %s", drains.c_str());
  printf("\ndecisions  %s\n", journal_text(journal).c_str());
  puts("");
  print_reservations(reservations);
  return kOk;
}

}  // namespace tide::cli
