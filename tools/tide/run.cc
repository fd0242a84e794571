#include <kj/async-unix.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "base/log.h"
#include "tools/tide/child.h"
#include "tools/tide/commands.h"
#include "tools/tide/embedded.h"
#include "tools/tide/runner.h"

namespace tide::cli {
namespace {

constexpr int kForwarded[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};

struct Ending {
  enum class By { kCommand, kPool, kSignal };
  By by = By::kCommand;
  int status = 0;      // of wait(), or the signal's number
  std::string reason;  // the pool's
};

int exit_status_of(int status) { return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status); }

// Before there is a command, a signal ends the wait.
kj::Promise<Ending> any_signal(kj::UnixEventPort& port) {
  kj::Promise<Ending> first = kj::NEVER_DONE;
  for (const int number : kForwarded) {
    first = first.exclusiveJoin(port.onSignal(number).then([number](siginfo_t&&) {
      return Ending{Ending::By::kSignal, number, ""};
    }));
  }
  return first;
}

// Passes signals on for ever. What a terminal's key sends reaches the command without us where it is in our group.
kj::Promise<void> forward(kj::UnixEventPort& port, const Child& child, int number) {
  return port.onSignal(number).then([&port, &child, number](siginfo_t&& info) {
    if (child.own_group || info.si_code <= 0) signal_child(child, number);
    return forward(port, child, number);
  });
}

kj::Promise<void> end_child(kj::AsyncIoContext& io, const Child& child) {
  signal_child(child, SIGTERM);
  return io.provider->getTimer().afterDelay(2 * kj::SECONDS).then([&child] { signal_child(child, SIGKILL); });
}

// From the job's start to its command's end; the answer is tide's exit status.
int supervise(kj::AsyncIoContext& io, Runner& runner, const Ask& ask, const std::vector<std::string>& command) {
  std::vector<std::pair<std::string, std::string>> environment;
  Outcome outcome = job_environment(runner.granted(), ask, &environment);
  Child child;
  if (outcome.ok()) outcome = start_child(command, environment, &child);
  if (!outcome.ok()) {
    runner.report(-1);
    return fail(outcome.message(), kTidepoolFailed);
  }
  auto& port = io.unixEventPort;
  kj::Maybe<pid_t> pid = child.pid;
  auto exited = port.onChildExit(pid).fork();
  kj::Promise<void> forwarding = kj::NEVER_DONE;
  for (const int number : kForwarded) forwarding = forwarding.exclusiveJoin(forward(port, child, number));
  forwarding = forwarding.eagerlyEvaluate(nullptr);
  auto by_command = exited.addBranch().then([](int status) { return Ending{Ending::By::kCommand, status, ""}; });
  auto by_pool = runner.ended_by_pool().then([](std::string reason) { return Ending{Ending::By::kPool, 0, reason}; });
  const Ending ending = by_command.exclusiveJoin(kj::mv(by_pool)).wait(io.waitScope);
  if (ending.by == Ending::By::kCommand) {
    // What the command left behind would keep the GPUs that it has no right to any more.
    if (child.own_group) signal_child(child, SIGKILL);
    const int status = exit_status_of(ending.status);
    runner.report(status);
    return status;
  }
  fprintf(stderr, "tide: job %s was ended: %s\n", runner.granted().id.c_str(), ending.reason.c_str());
  auto ended = exited.addBranch().then([](int) {});
  ended.exclusiveJoin(end_child(io, child).then([]() -> kj::Promise<void> { return kj::NEVER_DONE; }))
      .wait(io.waitScope);
  if (child.own_group) signal_child(child, SIGKILL);
  return kTidepoolFailed;
}

int run_job(const Options& options, const Ask& ask, const std::vector<std::string>& command) {
  for (const int number : kForwarded) kj::UnixEventPort::captureSignal(number);
  kj::UnixEventPort::captureChildExit();
  auto io = kj::setupAsyncIo();
  Runner runner(io, options);
  std::string line;
  for (const std::string& word : command) line += (line.empty() ? "" : " ") + word;
  const Outcome submitted = runner.submit(ask, line.substr(0, 1000));
  if (!submitted.ok()) return fail(submitted.message(), kTidepoolFailed);
  Ending ending;
  auto started = runner.running(false).then([] { return Ending{}; });
  KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&] {
                 ending = started.exclusiveJoin(any_signal(io.unixEventPort)).wait(io.waitScope);
               })) {
    return fail("job " + runner.granted().id + " did not start: " + remote_error(*exception), kTidepoolFailed);
  }
  if (ending.by == Ending::By::kSignal) {
    runner.report(128 + ending.status);
    return 128 + ending.status;
  }
  return supervise(io, runner, ask, command);
}

// A pool of its own for one command.
int run_local(const Options& options, const Ask& ask, const std::vector<std::string>& command) {
  char home[] = "/tmp/tide-local-XXXXXX";
  if (mkdtemp(home) == nullptr) return fail("cannot make a directory in /tmp", kTidepoolFailed);
  EmbeddedPool pool;
  const EmbeddedOptions wanted{.home = home,
                               .gpus = ask.gpus,
                               .servers = 1,
                               .gpu_memory = options.get("gpu-memory"),
                               .config = {},
                               .ends_with_us = true};
  const Outcome started = start_pool(wanted, &pool);
  int status = kTidepoolFailed;
  if (started.ok()) {
    setenv("TIDE_HOME", home, 1);
    unsetenv("TIDE_POOL");
    status = run_job(options, ask, command);
  } else {
    fail(started.message());
  }
  bool was_running = false;
  const Outcome stopped = stop_pool(home, &was_running);
  if (!stopped.ok()) fail(stopped.message());
  std::error_code ignored;
  std::filesystem::remove_all(home, ignored);
  return status;
}

}  // namespace

int run(const Words& words) {
  static const std::string kHelp =
      std::string(
          "usage: tide run [-g N|0.N] [--min M] [--gpu-memory SIZE] [--name NAME] [--trace FILE]\n"
          "                [--compress MODE] [--idle-return TIME] [--local] -- COMMAND...\n\n"
          "Runs a command, unchanged, as a job with GPUs of the pool; waits where it must, and says why.\n") +
      kAskHelp +
      "  --local            with a pool of its own that lives only as long as the command\n"
      "Exit status: the command's; 128+N when signal N ended it; 125 when Tidepool failed; 126, 127 when the command\n"
      "cannot be executed or does not exist.\n";
  Options options;
  std::vector<OptionSpec> specs = kAskOptions;
  specs.push_back({"local", 0, false});
  if (!options.parse(words, specs, kHelp.c_str(), true)) return options.status();
  Ask ask;
  if (!read_ask(options, &ask)) return options.status();
  if (options.words().empty()) return options.usage_error("needs a command, like: tide run -g 1 -- ./program");
  std::string why;
  const int wrong = check_command(options.words()[0], &why);
  if (wrong != 0) return fail(why, wrong);
  if (const Outcome begun = begin_trace(&ask); !begun.ok()) return fail(begun.message(), kTidepoolFailed);
  return options.has("local") ? run_local(options, ask, options.words()) : run_job(options, ask, options.words());
}

}  // namespace tide::cli
