#include <stdio.h>
#include <sys/resource.h>
#include <sys/statvfs.h>

#include <cstdlib>

#include "base/log.h"
#include "tools/tide/client.h"
#include "tools/tide/commands.h"
#include "tools/tide/home.h"
#include "tools/tide/json.h"
#include "tools/tide/places.h"

namespace tide::cli {
namespace {

struct Finding {
  enum class Level { kGood, kHint, kBad };
  Level level;
  std::string what, next;
};

using Findings = std::vector<Finding>;
using Level = Finding::Level;

void look_at_files(Findings& findings) {
  for (const char* name : {"tide-scheduler", "tide-agent"}) {
    const std::string path = find_program(name);
    if (path.empty()) {
      findings.push_back(
          {Level::kBad, std::string(name) + " is missing", "build it (tools/build) or use a whole bundle"});
    } else {
      findings.push_back({Level::kGood, path, ""});
    }
  }
  std::string looked_in;
  const std::string library = find_library_directory(&looked_in);
  if (library.empty()) {
    findings.push_back(
        {Level::kBad, "libtidecuda.so is missing (looked in " + looked_in + ")", "build it, or set TIDE_LIB"});
  } else {
    findings.push_back({Level::kGood, library + "/libtidecuda.so", ""});
  }
}

void look_at_gpus(Findings& findings) {
  const int gpus = real_gpu_count();
  if (gpus > 0) {
    findings.push_back({Level::kGood, format("%d GPU%s of this machine", gpus, gpus == 1 ? "" : "s"), ""});
  } else {
    findings.push_back({Level::kHint, "no GPU in this machine", "`tide up` uses software GPUs: correct, and slow"});
  }
}

void look_at_limits(Findings& findings) {
  struct statvfs shm;
  const uint64_t free = statvfs("/dev/shm", &shm) == 0 ? uint64_t(shm.f_bavail) * shm.f_frsize : 0;
  if (free < (256u << 20)) {
    findings.push_back({Level::kBad, "/dev/shm has " + size_text(free) + " free",
                        "a virtual GPU needs some 34 MiB and its staging; mount -o remount,size=2G /dev/shm"});
  } else {
    findings.push_back({Level::kGood, "/dev/shm has " + size_text(free) + " free", ""});
  }
  rlimit files;
  if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < 1024) {
    findings.push_back(
        {Level::kBad, format("a process may open %lu files", (unsigned long)files.rlim_cur), "ulimit -n 4096"});
  }
}

void look_at_history(Asker& asker, Findings& findings) {
  kj::Maybe<capnp::Response<control::Pool::StatusResults>> status;
  if (!asker.ask(asker.pool().statusRequest().send(), &status).ok()) return;
  const auto history = KJ_ASSERT_NONNULL(status).getHistory();
  if (!history.getKept()) {
    findings.push_back({Level::kHint, "the pool keeps no history, so `tide report` has nothing to say",
                        "give the scheduler a file: [pool] history = \"PATH\""});
  } else if (history.getProblem().size() != 0) {
    findings.push_back({Level::kBad, history.getProblem().cStr(),
                        format("jobs go on; %lu batches of what happened wait in the record, %lu are lost",
                               (unsigned long)history.getWaiting(), (unsigned long)history.getLost())});
  } else {
    findings.push_back({Level::kGood, std::string("history in ") + history.getPath().cStr(), ""});
  }
}

void look_at_pool(const Options& options, Findings& findings) {
  Asker asker;
  Outcome outcome = asker.connect(options);
  kj::Maybe<capnp::Response<control::Pool::GpusResults>> gpus;
  if (outcome.ok()) outcome = asker.ask(asker.pool().gpusRequest().send(), &gpus);
  KJ_IF_MAYBE (answer, gpus) {
    uint32_t usable = 0;
    for (const auto gpu : answer->getGpus()) usable += gpu.getOnline() && gpu.getInfo().getHealthy() ? 1 : 0;
    const Level level = usable == 0 ? Level::kBad : Level::kGood;
    findings.push_back(
        {level, format("the pool answers: %u GPUs usable", usable), usable == 0 ? "the agents' logs say why" : ""});
    look_at_history(asker, findings);
    return;
  }
  const bool named = options.has("pool") || getenv("TIDE_POOL") != nullptr || !read_daemons(home_directory()).empty();
  findings.push_back({named ? Level::kBad : Level::kHint, outcome.message(), ""});
}

}  // namespace

int doctor(const Words& words) {
  Options options;
  constexpr const char* kHelp =
      "usage: tide doctor [--json]\n\nLooks at this machine's set-up and says what is wrong and how to mend it. Status "
      "1: something is.\n";
  if (!options.parse(words, {{"json", 0, false}}, kHelp) || !options.expect_words(0, "")) return options.status();
  Findings findings;
  look_at_files(findings);
  look_at_gpus(findings);
  look_at_limits(findings);
  look_at_pool(options, findings);
  constexpr const char* kNames[] = {"ok", "note", "WRONG"};
  bool bad = false;
  Json json;
  json.list();
  for (const Finding& finding : findings) {
    const char* level = kNames[int(finding.level)];
    bad |= finding.level == Level::kBad;
    json.object().add("level", std::string(level)).add("what", finding.what).add("next", finding.next).end();
    if (!options.has("json"))
      printf("%-6s %s%s%s\n", level, finding.what.c_str(), finding.next.empty() ? "" : "\n       -> ",
             finding.next.c_str());
  }
  json.end();
  if (options.has("json")) json.print();
  return bad ? kFailed : kOk;
}

}  // namespace tide::cli
