// suspend, resume: jobs without a GPU, and back.

#include <capnp/message.h>
#include <stdio.h>

#include "base/log.h"
#include "scheduler/pool_service.h"
#include "tools/tide/client.h"
#include "tools/tide/commands.h"
#include "tools/tide/json.h"
#include "tools/tide/options.h"
#include "tools/tide/show.h"

namespace tide::cli {
namespace {

constexpr auto kLookPause = 300 * kj::MILLISECONDS;

using JobAnswer = capnp::Response<control::Pool::JobResults>;

Outcome look(Asker& asker, const std::string& job, kj::Maybe<JobAnswer>* answer) {
  auto request = asker.pool().jobRequest();
  request.setJob(job);
  return asker.ask(request.send(), answer);
}

// Of one job: what was asked and what came of it.
template <typename Results>
struct Change {
  std::string id;
  uint32_t gpus_before = 0;
  kj::Own<capnp::RemotePromise<Results>> asked;
};

// Asks for all jobs at once, and calls `told` with each answer in turn; a job that fails does not hinder the others.
template <typename Results, typename Ask, typename Told>
int change_all(Asker& asker, const Words& names, Ask ask, Told told) {
  std::vector<Change<Results>> changes;
  int status = kOk;
  for (const std::string& name : names) {
    kj::Maybe<JobAnswer> before;
    const Outcome outcome = look(asker, name, &before);
    if (!outcome.ok()) {
      status = fail(outcome.message());
      continue;
    }
    const auto job = KJ_ASSERT_NONNULL(before).getJob();
    changes.push_back({.id = job.getId(), .gpus_before = job.getPhysicalGpus(), .asked = {}});
  }
  for (auto& change : changes) change.asked = kj::heap(ask(change.id));
  for (auto& change : changes) {
    kj::Maybe<capnp::Response<Results>> answer;
    Outcome outcome = asker.ask(kj::mv(*change.asked), &answer, 0);
    if (outcome.ok()) outcome = told(change, KJ_ASSERT_NONNULL(answer));
    if (!outcome.ok()) status = fail(outcome.message());
  }
  return status;
}

// As of `tide migrate --json`, with what the job does now.
void print_json(const std::string& id, uint32_t before, control::JobInfo::Reader now,
                control::MoveReport::Reader report, const std::string& queued) {
  Json out;
  out.object().add("job", id).add("gpus_before", before).add("gpus_after", now.getPhysicalGpus());
  add_move(out, report).add("vgpus", report.getVgpus()).add("total_ms", report.getTotalMs());
  out.add("state", std::string(state_name(now.getState()))).add("queued", queued).end().print();
}

// Until it runs on GPUs; fails when it ends, or when somebody suspends it again.
Outcome wait_until_running(Asker& asker, const std::string& id, kj::Maybe<JobAnswer>* answer) {
  while (true) {
    const Outcome looked = look(asker, id, answer);
    if (!looked.ok()) return looked;
    const auto job = KJ_ASSERT_NONNULL(*answer).getJob();
    if (job.getState() == control::JobState::ENDED) {
      return Outcome::fail("job " + id + " ended: " + std::string(job.getReason()));
    }
    if (job.getSuspended()) return Outcome::fail("job " + id + " was suspended again");
    if (job.getState() == control::JobState::RUNNING && kept_text(job).empty()) return {};
    asker.io().provider->getTimer().afterDelay(kLookPause).wait(asker.io().waitScope);
  }
}

// The moves that brought it to its GPUs.
void fill_last_moves(control::JobInfo::Reader job, control::MoveReport::Builder report) {
  sched::MoveTotals totals;
  for (const auto vgpu : job.getVgpus()) {
    if (vgpu.getLastMove().getVgpus() != 0) totals.add(sched::totals_of(vgpu.getLastMove()));
  }
  sched::fill_report(report, totals);
}

}  // namespace

int suspend(const Words& words) {
  Options options;
  constexpr const char* kHelp =
      "usage: tide suspend JOB [JOB ...] [--json]\n\n"
      "Takes all GPUs from running jobs, for others. Their programs stay, wait, and lose nothing; the memory of their\n"
      "virtual GPUs is kept on the GPU servers, in memory or on disk, until `tide resume`. Returns when no GPU is "
      "held\n"
      "any more. A job that cannot be suspended runs on, and the reason is printed. --json: one object a line for "
      "each.\n";
  if (!options.parse(words, {{"json", 0, false}}, kHelp)) return options.status();
  if (options.words().empty()) return options.usage_error("expects one job or more");
  Asker asker;
  const Outcome outcome = asker.connect(options);
  if (!outcome.ok()) return fail(outcome.message());
  using Results = control::Pool::SuspendResults;
  const auto ask = [&](const std::string& id) {
    auto request = asker.pool().suspendRequest();
    request.setJob(id);
    return request.send();
  };
  const auto told = [&](const Change<Results>& change, const capnp::Response<Results>& answer) {
    kj::Maybe<JobAnswer> now;
    if (const Outcome looked = look(asker, change.id, &now); !looked.ok()) return looked;
    const JobAnswer& got = KJ_ASSERT_NONNULL(now);
    if (options.has("json")) {
      print_json(change.id, change.gpus_before, got.getJob(), answer.getReport(), "");
      return Outcome();
    }
    show_move(change.id, change.gpus_before, got.getJob().getPhysicalGpus(), answer.getReport(), false);
    printf("  kept: %s; %s\n", kept_text(got.getJob()).c_str(), kept_size_text(kept_of(got.getVgpus())).c_str());
    return Outcome();
  };
  return change_all<Results>(asker, options.words(), ask, told);
}

int resume(const Words& words) {
  Options options;
  constexpr const char* kHelp =
      "usage: tide resume JOB [JOB ...] [--wait] [--json]\n\n"
      "Gives suspended jobs GPUs again: those that are free, or that others have beyond their minimum. Returns when\n"
      "they run; where a job has to wait, it says why at once, and the job runs by itself when it is its turn (in the\n"
      "order of submission). --wait: returns when it runs. --json: one object a line for each.\n";
  if (!options.parse(words, {{"json", 0, false}, {"wait", 0, false}}, kHelp)) return options.status();
  if (options.words().empty()) return options.usage_error("expects one job or more");
  Asker asker;
  const Outcome outcome = asker.connect(options);
  if (!outcome.ok()) return fail(outcome.message());
  using Results = control::Pool::ResumeResults;
  const auto ask = [&](const std::string& id) {
    auto request = asker.pool().resumeRequest();
    request.setJob(id);
    return request.send();
  };
  const auto told = [&](const Change<Results>& change, const capnp::Response<Results>& answer) {
    std::string queued = answer.getQueued();
    kj::Maybe<JobAnswer> now;
    capnp::MallocMessageBuilder message;
    auto report = message.initRoot<control::MoveReport>();
    const bool waits = !queued.empty() && options.has("wait");
    const Outcome looked = waits ? wait_until_running(asker, change.id, &now) : look(asker, change.id, &now);
    if (!looked.ok()) return looked;
    const auto job = KJ_ASSERT_NONNULL(now).getJob();
    if (waits) {
      queued.clear();
      fill_last_moves(job, report);
    } else {
      sched::fill_report(report, sched::totals_of(answer.getReport()));
    }
    if (options.has("json")) {
      print_json(change.id, change.gpus_before, job, report, queued);
    } else if (queued.empty()) {
      show_move(change.id, change.gpus_before, job.getPhysicalGpus(), report, false);
    } else {
      printf("job %s waits: %s\n  it runs by itself when there is room\n", change.id.c_str(), queued.c_str());
    }
    return Outcome();
  };
  return change_all<Results>(asker, options.words(), ask, told);
}

}  // namespace tide::cli
