// tide-scheduler: the pool's scheduler daemon. Stays in the foreground and logs to standard error.

#include <getopt.h>
#include <kj/async-unix.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>

#include "base/descriptors.h"
#include "base/log.h"
#include "scheduler/daemon.h"
#include "scheduler/remote_error.h"

namespace {

using tide::log;
using tide::LogLevel;

constexpr const char* kHelp =
    "usage: tide-scheduler --config FILE\n"
    "       tide-scheduler --state DIR | --store STORE [--listen ADDRESS] [--door ADDRESS]\n"
    "\n"
    "Decides which physical GPUs serve which jobs.\n"
    "  --config FILE      pool.toml (`tide config check FILE` says what is wrong with it)\n"
    "  --state DIR        where the record of jobs is kept, in a file\n"
    "  --store STORE      etcd://ADDRESS:PORT,...[/NAME]: the record is in this etcd, and of all schedulers that "
    "share\n"
    "                     it one leads, the others wait to take over. sqlite (the default): it is in --state\n"
    "  --listen ADDRESS   for tide and the agents (default 127.0.0.1:7411; port 0: any)\n"
    "  --door ADDRESS     for the jobs' processes (default: any port of 127.0.0.1)\n"
    "  --turns WAY        whether jobs that wait for GPUs take turns with those that run: off (the default), auto, or\n"
    "                     how long a turn is (30s)\n"
    "  --ready-file FILE  written when both are open: pool=, door= and pid=, a line each\n"
    "  --version, --help\n"
    "SIGHUP reads FILE again: what can change while the pool runs counts from then on, a file with errors changes "
    "nothing.\n"
    "SIGTERM stops it; running jobs go on and are taken over when it starts again within 30 s.\n";

struct Options {
  std::vector<std::string> words;  // the command line
  tide::sched::PoolConfig config;  // of the file; what the command line says goes before
  tide::sched::PoolFile file;
  std::string ready_file;
};

// -1: it goes on, as read_options().
int take_turns(const std::string& turns, const std::string& config, Options* options) {
  options->file.turns_given = !turns.empty();
  if (!turns.empty() && !tide::sched::parse_turns(turns, &options->config.turns)) {
    log(LogLevel::kError, "--turns is off, auto, or a time like 30s, not '%s'", turns.c_str());
    return 2;
  }
  if (options->config.turns.on && options->config.policy.preempts) {
    log(LogLevel::kError, "--turns and preempt = true of %s exclude each other; leave one of the two out",
        config.c_str());
    return 2;
  }
  return -1;
}

// -1: go on; else the exit status.
int read_options(int argc, char** argv, Options* options) {
  options->words.assign(argv, argv + argc);
  static const option kLong[] = {{"config", 1, nullptr, 'c'}, {"state", 1, nullptr, 's'},
                                 {"listen", 1, nullptr, 'l'}, {"door", 1, nullptr, 'd'},
                                 {"store", 1, nullptr, 'S'},  {"ready-file", 1, nullptr, 'r'},
                                 {"help", 0, nullptr, 'h'},   {"version", 0, nullptr, 'v'},
                                 {"turns", 1, nullptr, 't'},  {nullptr, 0, nullptr, 0}};
  std::string config, state, store, listen, door, turns;
  for (int c; (c = getopt_long(argc, argv, "", kLong, nullptr)) != -1;) {
    switch (c) {
      case 'c':
        config = optarg;
        break;
      case 's':
        state = optarg;
        break;
      case 'S':
        store = optarg;
        break;
      case 'l':
        listen = optarg;
        break;
      case 't':
        turns = optarg;
        break;
      case 'd':
        door = optarg;
        break;
      case 'r':
        options->ready_file = optarg;
        break;
      case 'h':
        fputs(kHelp, stdout);
        return 0;
      case 'v':
        puts("tide-scheduler " TIDE_VERSION);
        return 0;
      default:
        fputs("tide-scheduler: see tide-scheduler --help\n", stderr);
        return 2;
    }
  }
  if (optind != argc) {
    fprintf(stderr, "tide-scheduler: '%s' is not understood; see tide-scheduler --help\n", argv[optind]);
    return 2;
  }
  if (!config.empty()) {
    const auto errors = tide::sched::open_pool_file(config, &options->file);
    options->config = options->file.config;
    for (const auto& error : errors) fprintf(stderr, "tide-scheduler: %s\n", error.text().c_str());
    if (!errors.empty()) return 1;
  }
  if (!state.empty()) options->config.state = state;
  if (!store.empty()) {
    if (const tide::Outcome read = tide::sched::read_store(store, &options->config); !read.ok()) {
      log(LogLevel::kError, "--store: %s", read.message().c_str());
      return 2;
    }
  }
  if (!listen.empty()) options->config.listen = listen;
  if (!door.empty()) options->config.door = door;
  return take_turns(turns, config, options);
}

// In one piece or not at all: who waits for it must not read half of it.
bool write_ready_file(const std::string& path, const tide::sched::Daemon& daemon) {
  const std::string part = path + ".part";
  FILE* file = fopen(part.c_str(), "we");
  if (file == nullptr) return false;
  fprintf(file, "pool=%s\ndoor=%s\npid=%d\n", daemon.address().c_str(), daemon.door_address().c_str(), int(getpid()));
  const bool written = fclose(file) == 0;
  return written && rename(part.c_str(), path.c_str()) == 0;
}

// SIGHUP, again and again.
kj::Promise<void> watch_for_reload(kj::AsyncIoContext& io, tide::sched::Daemon& daemon) {
  return io.unixEventPort.onSignal(SIGHUP).then([&](siginfo_t&&) {
    tide::sched::reload(daemon.core());
    return watch_for_reload(io, daemon);
  });
}

constexpr uint64_t kDescriptorsLeast = 128;

using End = tide::sched::Daemon::End;

constexpr auto kBetweenTerms = 1 * kj::SECONDS;

// Who leads no longer waits for the next term in a new image of its process: calls of the last term, which may end at
// any later moment, are gone for sure, and pool.toml is read again. It is found where it was. Returns only if it fails.
void begin_anew(const Options& options, const tide::sched::Daemon& daemon) {
  std::vector<std::string> words = options.words;
  const std::vector<std::string> where = {"--listen", daemon.address(), "--door", daemon.door_address()};
  if (words.size() < where.size() || !std::equal(where.begin(), where.end(), words.end() - ptrdiff_t(where.size())))
    words.insert(words.end(), where.begin(), where.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  execv("/proc/self/exe", argv.data());
  log(LogLevel::kError, "cannot begin anew: %s", strerror(errno));
}

// Serves until it is asked to stop, or leads no longer. The exit status.
int serve(const Options& options, kj::AsyncIoContext& io) {
  const auto& config = options.config;
  std::unique_ptr<tide::sched::Daemon> daemon;
  const tide::Outcome opened = tide::sched::Daemon::open(config, io, &daemon, options.file);
  if (!opened.ok()) {
    log(LogLevel::kError, "%s", opened.message().c_str());
    return 1;
  }
  KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&] { daemon->listen().wait(io.waitScope); })) {
    log(LogLevel::kError,
        "cannot listen on %s, or on %s for jobs: %s; does another scheduler run, or is it no address of this machine?",
        config.listen.c_str(), config.door.c_str(), tide::network_error(*exception).c_str());
    return 1;
  }
  log(LogLevel::kInfo, "listens on %s, door %s, record in %s", daemon->address().c_str(),
      daemon->door_address().c_str(), daemon->core().store.path().c_str());
  if (!options.ready_file.empty() && !write_ready_file(options.ready_file, *daemon)) {
    log(LogLevel::kError, "cannot write %s: %s", options.ready_file.c_str(), strerror(errno));
    return 1;
  }
  const auto again = watch_for_reload(io, *daemon).eagerlyEvaluate(nullptr);
  auto asked = [&](int number) {
    return io.unixEventPort.onSignal(number).then([](siginfo_t&&) { return End::kAsked; });
  };
  auto& timer = io.provider->getTimer();
  End end = daemon->run().exclusiveJoin(asked(SIGTERM)).exclusiveJoin(asked(SIGINT)).wait(io.waitScope);
  // The answer to shutdown() is still on its way out.
  if (end == End::kAsked) timer.afterDelay(50 * kj::MILLISECONDS).wait(io.waitScope);
  daemon->stop();
  if (end == End::kAsked) return 0;
  end = timer.afterDelay(kBetweenTerms)
            .then([] { return End::kDeposed; })
            .exclusiveJoin(asked(SIGTERM))
            .exclusiveJoin(asked(SIGINT))
            .wait(io.waitScope);
  if (end == End::kAsked) return 0;
  begin_anew(options, *daemon);
  return 1;
}

int run(Options options) {
  uint64_t descriptors = 0;
  tide::Outcome fits = tide::take_descriptors(kDescriptorsLeast, &descriptors);
  if (fits.ok()) fits = tide::sched::check_store(options.config);
  if (!fits.ok()) {
    log(LogLevel::kError, "%s", fits.message().c_str());
    return 1;
  }
  // Half of them for each port, and some for all else.
  const uint64_t each = (descriptors - kDescriptorsLeast / 2) / 2;
  options.config.connections_max = uint32_t(std::min<uint64_t>(options.config.connections_max, each));
  auto io = kj::setupAsyncIo();
  if (const int status = serve(options, io); status != 0) return status;
  if (!options.ready_file.empty()) unlink(options.ready_file.c_str());
  log(LogLevel::kInfo, "stopped");
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  tide::set_log_name("tide-scheduler");
  tide::set_default_log_level(LogLevel::kInfo);
  Options options;
  const int status = read_options(argc, argv, &options);
  if (status >= 0) return status;
  // A full quota or a closed pipe is an error of that write, not the end of the scheduler.
  signal(SIGPIPE, SIG_IGN);
  signal(SIGXFSZ, SIG_IGN);
  kj::UnixEventPort::captureSignal(SIGTERM);
  kj::UnixEventPort::captureSignal(SIGINT);
  kj::UnixEventPort::captureSignal(SIGHUP);
  int result = 1;
  KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&] { result = run(options); })) {
    log(LogLevel::kError, "%s", exception->getDescription().cStr());
    return 1;
  }
  return result;
}
