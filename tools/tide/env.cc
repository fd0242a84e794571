#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

#include "base/descriptors.h"
#include "base/log.h"
#include "tools/tide/commands.h"
#include "tools/tide/home.h"
#include "tools/tide/runner.h"

namespace tide::cli {
namespace {

constexpr uint32_t kWatchMs = 300;

std::string quoted(const std::string& text) {
  std::string out = "'";
  for (const char c : text) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

kj::Promise<std::string> shell_gone(kj::Timer& timer, pid_t shell, uint64_t started) {
  return timer.afterDelay(kWatchMs * kj::MILLISECONDS).then([&timer, shell, started]() -> kj::Promise<std::string> {
    if (start_time(shell) != started) return std::string("the shell ended");
    return shell_gone(timer, shell, started);
  });
}

void say(int pipe, char verdict, const std::string& text) {
  const std::string all = verdict + text;
  [[maybe_unused]] const Outcome heard = write_all(pipe, all.data(), all.size());  // else `tide env` is gone
}

// The background process: holds the job until the shell ends or the pool ends the job.
void keep(const Options& options, const Ask& ask, pid_t shell, int pipe) {
  const uint64_t shell_started = start_time(shell);
  auto io = kj::setupAsyncIo();
  Runner runner(io, options);
  Outcome outcome = runner.submit(ask, "tide env (shell " + std::to_string(shell) + ")");
  std::vector<std::pair<std::string, std::string>> environment;
  if (outcome.ok()) outcome = job_environment(runner.granted(), ask, &environment);
  if (!outcome.ok()) return say(pipe, '!', outcome.message());
  KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&] { runner.running(false).wait(io.waitScope); })) {
    return say(pipe, '!', remote_error(*exception));
  }
  std::string exports;
  for (const auto& [name, value] : environment) exports += "export " + name + "=" + quoted(value) + "\n";
  say(pipe, '=', exports);
  close(pipe);
  const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  for (const int fd : {0, 1, 2}) dup2(null, fd);
  auto gone = shell_gone(io.provider->getTimer(), shell, shell_started);
  gone.exclusiveJoin(runner.ended_by_pool()).wait(io.waitScope);
  runner.report(0);
}

}  // namespace

int env(const Words& words) {
  static const std::string kHelp =
      std::string(
          "usage: tide env [-g N] [--min M] [--gpu-memory SIZE] [--name NAME] [--trace FILE] [--for PID]\n\n"
          "Prints the `export` lines that make the present shell a job: eval \"$(tide env -g 1)\". The job ends with "
          "the\n"
          "shell, or with `tide kill`.\n") +
      kAskHelp + "  --for PID          the process to end with (default: the one that started tide)\n";
  Options options;
  std::vector<OptionSpec> specs = kAskOptions;
  specs.push_back({"for"});
  if (!options.parse(words, specs, kHelp.c_str()) || !options.expect_words(0, "")) return options.status();
  Ask ask;
  uint32_t shell = uint32_t(getppid());
  if (!read_ask(options, &ask) || !options.number("for", 2, 1u << 22, &shell)) return options.status();
  if (const Outcome begun = begin_trace(&ask); !begun.ok()) return fail(begun.message());
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return fail(std::string("cannot make a pipe: ") + strerror(errno));
  const pid_t keeper = fork();
  if (keeper < 0) return fail(fork_failure("cannot start a process").message());
  if (keeper == 0) {
    setsid();
    close(ends[0]);
    // Who waits for our output must not wait for the keeper.
    dup2(STDERR_FILENO, STDOUT_FILENO);
    KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&] { keep(options, ask, pid_t(shell), ends[1]); })) {
      say(ends[1], '!', remote_error(*exception));
    }
    _exit(0);
  }
  close(ends[1]);
  std::string answer;
  if (const Outcome read = read_to_end(ends[0], {}, &answer); !read.ok()) return fail(read.message());
  if (answer.empty() || answer[0] != '=') return fail(answer.empty() ? "the job's keeper died" : answer.substr(1));
  fputs(answer.c_str() + 1, stdout);
  return kOk;
}

}  // namespace tide::cli
