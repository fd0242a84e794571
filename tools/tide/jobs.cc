#include <stdio.h>

#include "tools/tide/client.h"
#include "tools/tide/commands.h"
#include "tools/tide/json.h"
#include "tools/tide/options.h"
#include "tools/tide/show.h"

namespace tide::cli {

int jobs(const Words& words) {
  Options options;
  constexpr const char* kHelp =
      "usage: tide jobs [--ended] [--json]\n\n"
      "Jobs that wait, run or are suspended, oldest first; with --ended the last 200 that ended, too.\n";
  if (!options.parse(words, {{"json", 0, false}, {"ended", 0, false}}, kHelp)) return options.status();
  if (!options.expect_words(0, "")) return options.status();
  Asker asker;
  Outcome outcome = asker.connect(options);
  kj::Maybe<capnp::Response<control::Pool::JobsResults>> answer;
  if (outcome.ok()) {
    auto request = asker.pool().jobsRequest();
    request.setEnded(options.has("ended"));
    outcome = asker.ask(request.send(), &answer);
  }
  if (!outcome.ok()) return fail(outcome.message());
  const auto list = KJ_ASSERT_NONNULL(answer).getJobs();
  if (options.has("json")) {
    Json json;
    json.list();
    for (const auto job : list) {
      begin_job(json, job);
      json.end();
    }
    json.end().print();
    return kOk;
  }
  if (list.size() == 0) {
    puts(options.has("ended") ? "no jobs yet" : "no jobs; `tide jobs --ended` lists those that ended");
    return kOk;
  }
  printf("%-5s %-16s %-9s %-9s %-10s %s\n", "JOB", "NAME", "STATE", "GPUS", "USER", "COMMAND");
  for (const auto job : list) {
    const auto spec = job.getSpec();
    const std::string all = gpus_text(spec);
    const std::string now =
        spec.getPart() != 0 && job.getPhysicalGpus() != 0 ? all : std::to_string(job.getPhysicalGpus());
    const std::string gpus = now + " of " + all;
    printf("%-5s %-16s %-9s %-9s %-10s %.60s\n", job.getId().cStr(),
           spec.getName().size() == 0 ? "-" : spec.getName().cStr(), state_name(job.getState()), gpus.c_str(),
           spec.getUser().cStr(), spec.getCommand().cStr());
    if (job.getReason().size() != 0) printf("      %s\n", job.getReason().cStr());
  }
  return kOk;
}

}  // namespace tide::cli
