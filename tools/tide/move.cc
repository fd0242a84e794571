// resize, migrate, kill: what changes a running job.

#include <stdio.h>

#include "tools/tide/client.h"
#include "tools/tide/commands.h"
#include "tools/tide/options.h"
#include "tools/tide/show.h"

namespace tide::cli {
namespace {

struct Counted {
  std::string id;
  uint32_t physical = 0;
};

Outcome count_gpus(Asker& asker, const std::string& job, Counted* counted) {
  kj::Maybe<capnp::Response<control::Pool::JobResults>> answer;
  auto request = asker.pool().jobRequest();
  request.setJob(job);
  const Outcome outcome = asker.ask(request.send(), &answer);
  KJ_IF_MAYBE (got, answer) {
    *counted = {got->getJob().getId(), got->getJob().getPhysicalGpus()};
  }
  return outcome;
}

}  // namespace

int resize(const Words& words) {
  Options options;
  constexpr const char* kHelp =
      "usage: tide resize JOB --gpus M [--json]\n\n"
      "Puts M physical GPUs (1 to the job's -g, not less than its --min) under a running job, live. Its virtual GPUs\n"
      "stay what they are. M stays until changed; M = -g lets the job have as many as there are.\n";
  if (!options.parse(words, {{"json", 0, false}, {"gpus", 'g'}}, kHelp) || !options.expect_words(1, "one job"))
    return options.status();
  uint32_t gpus = 0;
  if (!options.has("gpus")) return options.usage_error("needs --gpus M");
  if (!options.number("gpus", 1, 1024, &gpus)) return options.status();
  Asker asker;
  Outcome outcome = asker.connect(options);
  Counted before, after;
  kj::Maybe<capnp::Response<control::Pool::ResizeResults>> answer;
  if (outcome.ok()) outcome = count_gpus(asker, options.words()[0], &before);
  if (outcome.ok()) {
    auto request = asker.pool().resizeRequest();
    request.setJob(before.id);
    request.setGpus(gpus);
    outcome = asker.ask(request.send(), &answer, 0);
  }
  if (outcome.ok()) outcome = count_gpus(asker, before.id, &after);
  if (!outcome.ok()) return fail(outcome.message());
  show_move(before.id, before.physical, after.physical, KJ_ASSERT_NONNULL(answer).getReport(), options.has("json"));
  if (after.physical < gpus && !options.has("json")) {
    printf("  %u more when they fall free\n", gpus - after.physical);
  }
  return kOk;
}

int migrate(const Words& words) {
  Options options;
  constexpr const char* kHelp =
      "usage: tide migrate JOB[:VGPU] GPU [--json]\n\n"
      "Moves a running job, or one of its virtual GPUs, to a physical GPU (SERVER/INDEX, see `tide gpus`) that is "
      "free\n"
      "or the job's own, live.\n";
  if (!options.parse(words, {{"json", 0, false}}, kHelp) || !options.expect_words(2, "JOB[:VGPU] and GPU"))
    return options.status();
  std::string name = options.words()[0];
  const std::string gpu = options.words()[1];
  int32_t vgpu = -1;
  if (const size_t colon = name.rfind(':'); colon != std::string::npos) {
    const auto number = parse_count(name.substr(colon + 1));
    if (!number || *number > 63) return options.usage_error("'" + name + "' is not JOB:VGPU");
    vgpu = int32_t(*number);
    name.resize(colon);
  }
  const size_t slash = gpu.rfind('/');
  const auto index = slash == std::string::npos ? std::nullopt : parse_count(gpu.substr(slash + 1));
  if (!index || *index > UINT32_MAX) return options.usage_error("'" + gpu + "' is not SERVER/INDEX");
  Asker asker;
  Outcome outcome = asker.connect(options);
  Counted before, after;
  kj::Maybe<capnp::Response<control::Pool::MigrateResults>> answer;
  if (outcome.ok()) outcome = count_gpus(asker, name, &before);
  if (outcome.ok()) {
    auto request = asker.pool().migrateRequest();
    request.setJob(before.id);
    request.setVgpu(vgpu);
    request.setServer(gpu.substr(0, slash));
    request.setGpu(uint32_t(*index));
    outcome = asker.ask(request.send(), &answer, 0);
  }
  if (outcome.ok()) outcome = count_gpus(asker, before.id, &after);
  if (!outcome.ok()) return fail(outcome.message());
  show_move(before.id, before.physical, after.physical, KJ_ASSERT_NONNULL(answer).getReport(), options.has("json"));
  return kOk;
}

int kill_job(const Words& words) {
  Options options;
  constexpr const char* kHelp = "usage: tide kill JOB\n\nEnds a job: its command is killed, its GPUs are free.\n";
  if (!options.parse(words, {}, kHelp) || !options.expect_words(1, "one job")) return options.status();
  Asker asker;
  Outcome outcome = asker.connect(options);
  kj::Maybe<capnp::Response<control::Pool::KillResults>> answer;
  if (outcome.ok()) {
    auto request = asker.pool().killRequest();
    request.setJob(options.words()[0]);
    outcome = asker.ask(request.send(), &answer);
  }
  if (!outcome.ok()) return fail(outcome.message());
  printf("job %s was killed\n", options.words()[0].c_str());
  return kOk;
}

}  // namespace tide::cli
