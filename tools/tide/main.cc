// tide: the one command of users and administrators.

#include <kj/exception.h>
#include <signal.h>
#include <stdio.h>

#include <string>

#include "base/log.h"
#include "scheduler/remote_error.h"
#include "tools/tide/commands.h"
#include "tools/tide/options.h"

namespace {

using tide::cli::Words;

struct Command {
  const char* name;
  const char* summary;
  int (*run)(const Words&);
};

constexpr Command kCommands[] = {
    {"up", "start a pool on this machine", tide::cli::up},
    {"down", "stop it; running jobs get a clear end", tide::cli::down},
    {"run", "run a command as a job with GPUs of the pool", tide::cli::run},
    {"env", "make the present shell a job: eval \"$(tide env -g 1)\"", tide::cli::env},
    {"status", "the pool at a glance", tide::cli::status},
    {"jobs", "jobs that wait or run; --ended: those that ended too", tide::cli::jobs},
    {"gpus", "physical GPUs and whom they serve", tide::cli::gpus},
    {"queues", "what queues are owed, what they have, who waits in them", tide::cli::queues},
    {"top", "GPUs, jobs and queues, live", tide::cli::top},
    {"job", "one job: its virtual GPUs, their places, what they did", tide::cli::job},
    {"why", "why a job waits, or how it ended, and the next step", tide::cli::why},
    {"resize", "give a running job another number of physical GPUs", tide::cli::resize},
    {"migrate", "move a running job, or one virtual GPU, to a GPU", tide::cli::migrate},
    {"suspend", "take all GPUs from running jobs; they wait, and lose nothing", tide::cli::suspend},
    {"resume", "give suspended jobs GPUs again", tide::cli::resume},
    {"kill", "end a job", tide::cli::kill_job},
    {"drain", "move everything off a server; it gets nothing new", tide::cli::drain},
    {"undrain", "let it take jobs again", tide::cli::undrain},
    {"config", "check a pool.toml, make it the pool's, or import another scheduler's queues", tide::cli::config},
    {"simulate", "replay a recorded trace of a cluster under other policies, with more GPUs", tide::cli::simulate},
    {"report", "what queues, users or jobs have had of GPUs, and what that costs", tide::cli::report},
    {"snapshot", "a decision of the scheduler, or how the pool is, as a file for `tide simulate`", tide::cli::snapshot},
    {"trace", "what a job asked of the driver (`tide run --trace FILE`)", tide::cli::trace_command},
    {"doctor", "find what is wrong with this machine's set-up", tide::cli::doctor},
    {"version", "the version", tide::cli::version},
};

void print_help(FILE* out) {
  fputs("usage: tide COMMAND [OPTIONS]\n\n", out);
  for (const Command& command : kCommands) {
    fprintf(out, "  %-9s %s\n", command.name, command.summary);
  }
  fputs(
      "\nThe pool is found through --pool ADDRESS, then $TIDE_POOL, then this machine's own (`tide up`).\n"
      "`tide COMMAND --help` says more. A first job:  tide up --gpus 4 && tide run -g 4 -- ./program\n",
      out);
}

int dispatch(Words words) {
  // Before the command only what concerns all of them.
  Words front;
  while (!words.empty() && words[0].rfind("--pool", 0) == 0) {
    const bool joined = words[0].find('=') != std::string::npos;
    const size_t count = joined ? 1 : 2;
    if (words.size() < count) return tide::cli::fail("--pool needs an address", tide::cli::kUsage);
    front.insert(front.end(), words.begin(), words.begin() + long(count));
    words.erase(words.begin(), words.begin() + long(count));
  }
  if (words.empty()) {
    print_help(stderr);
    return tide::cli::kUsage;
  }
  const std::string name = words[0];
  if (name == "--help" || name == "-h" || name == "help") {
    print_help(stdout);
    return tide::cli::kOk;
  }
  if (name == "--version") return tide::cli::version({});
  words.erase(words.begin());
  words.insert(words.begin(), front.begin(), front.end());
  for (const Command& command : kCommands) {
    if (name == command.name) return command.run(words);
  }
  return tide::cli::fail("there is no command '" + name + "'; `tide --help` lists them", tide::cli::kUsage);
}

}  // namespace

int main(int argc, char** argv) {
  tide::set_log_name("tide");
  signal(SIGPIPE, SIG_IGN);
  int status = tide::cli::kFailed;
  KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&] { status = dispatch(Words(argv + 1, argv + argc)); })) {
    const bool run = argc > 1 && std::string(argv[1]) == "run";
    return tide::cli::fail(tide::remote_error(*exception), run ? tide::cli::kTidepoolFailed : tide::cli::kFailed);
  }
  return status;
}
