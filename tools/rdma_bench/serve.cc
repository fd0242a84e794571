#include "tools/rdma_bench/serve.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>

#include "base/clock.h"
#include "base/log.h"
#include "tools/rdma_bench/benchmarks.h"
#include "tools/tide/options.h"

namespace tide::fabric {
namespace {

constexpr int kEndingMs = 2'000;
constexpr uint32_t kDurationMax = 600'000;

// One client, in a process of its own: whatever happens to it, the next one finds a fresh server.
class Served {
 public:
  explicit Served(Control& control) : control_(control) {}

  Outcome greet(bool busy) {
    std::string payload;
    Outcome outcome = control_.expect(Word::kHello, &payload);
    if (outcome.ok() &&
        (!unpack(payload, &hello_) || hello_.duration_ms > kDurationMax || hello_.timeout_ms > kDurationMax)) {
      outcome = Outcome::fail("the greeting is not understood");
    }
    control_.wait_at_least(hello_.timeout_ms);
    if (outcome.ok() && busy) outcome = Outcome::fail("it is measuring with another client; try again later");
    if (outcome.ok()) return control_.send(Word::kWelcome, pack(this_machine()));
    (void)control_.send(Word::kError, outcome.message());  // may be gone
    return outcome;
  }

  // Until the client goes.
  Outcome obey() {
    for (;;) {
      Word word;
      std::string payload;
      // What a client does alone: as long as a measurement, and a little.
      const Outcome outcome = control_.receive(&word, &payload, control_.timeout_ms() + 4 * hello_.duration_ms);
      if (!outcome.ok()) return control_.gone(0) ? Outcome{} : outcome;
      Outcome done;
      if (word == Word::kOpen) done = open(payload);
      if (word == Word::kRun) done = run(payload);
      if (word == Word::kClose) done = close();
      // Other words belong to a measurement that has failed here.
      if (!done.ok()) (void)control_.send(Word::kError, done.message());
    }
  }

 private:
  Outcome open(const std::string& payload) {
    Opening opening;
    if (!unpack(payload, &opening)) return Outcome::fail("the path to open is not understood");
    const PathKind* kind = path_named(opening.path);
    if (kind == nullptr) return Outcome::fail("there is no path '" + opening.path + "'");
    if (!opening.devices.empty() && !kind->over_devices()) return Outcome::fail(opening.path + " has no devices");
    channel_ = make_channel(*kind, control_, opening.devices);
    std::string mine, theirs;
    Outcome outcome = channel_->offer(&mine);
    if (outcome.ok()) outcome = control_.send(Word::kOffer, mine);
    if (outcome.ok()) outcome = control_.expect(Word::kOffer, &theirs);
    if (outcome.ok()) outcome = channel_->join(theirs);
    if (outcome.ok()) outcome = control_.send(Word::kReady);
    if (outcome.ok()) outcome = control_.expect(Word::kReady, &theirs);
    if (!outcome.ok()) channel_.reset();
    return outcome;
  }

  Outcome run(const std::string& payload) {
    Run run;
    if (!unpack(payload, &run)) return Outcome::fail("the order to measure is not understood");
    const Benchmark* benchmark = benchmark_named(run.test);
    if (channel_ == nullptr || benchmark == nullptr || !benchmark->both_sides || run.bytes < kMessageMin ||
        run.bytes > kMessageMax || run.duration_ms > kDurationMax) {
      return Outcome::fail("cannot measure '" + run.test + "' now");
    }
    Outcome outcome = channel_->set_bytes(run.bytes);
    if (outcome.ok()) outcome = control_.send(Word::kReady);
    if (!outcome.ok()) return outcome;
    Session session{control_, *channel_, run};
    Row row;
    return benchmark->measure(session, &row);
  }

  Outcome close() {
    const Facts facts = channel_ == nullptr ? Facts{} : channel_->facts();
    const Outcome outcome = control_.send(Word::kClosed, pack(facts));
    channel_.reset();  // after that, because UCX closes when both ends make progress
    return outcome;
  }

  Control& control_;
  Hello hello_;
  std::unique_ptr<Channel> channel_;
};

int serve_one(int fd, const std::string& from, const Settings& settings, bool busy) {
  Control control(settings.timeout_ms);
  control.adopt(fd, from);
  Served served(control);
  Outcome outcome = served.greet(busy);
  if (outcome.ok()) outcome = served.obey();
  if (!outcome.ok()) fprintf(stderr, "rdma-bench: client %s\n", outcome.message().c_str());
  return outcome.ok() ? cli::kOk : cli::kFailed;
}

// In a child: a client that makes UCX abort ends only its own session.
pid_t start_one(int fd, const std::string& from, const Settings& settings, bool busy) {
  fflush(stdout);
  const pid_t pid = fork();
  if (pid != 0) return pid;
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  _exit(serve_one(fd, from, settings, busy));
}

// Ended children. The one that measures gets a moment: its client was gone before this one came.
void reap(pid_t* measuring) {
  for (int i = 0; i < kEndingMs / 10 && *measuring > 0; ++i) {
    int status = 0;
    if (waitpid(*measuring, &status, WNOHANG) == 0) {
      sleep_us(10'000);
      continue;
    }
    *measuring = -1;
    if (WIFSIGNALED(status)) fprintf(stderr, "rdma-bench: a measurement ended by signal %d\n", WTERMSIG(status));
  }
  while (waitpid(-1, nullptr, WNOHANG) > 0) {
  }
}

}  // namespace

int serve(const Settings& settings) {
  uint32_t port = settings.port;
  int listener = -1;
  const Outcome outcome = listen_on(settings.listen, &port, &listener);
  if (!outcome.ok()) {
    fprintf(stderr, "rdma-bench: %s\n", outcome.message().c_str());
    return cli::kFailed;
  }
  printf("rdma-bench: listening on %s port %u\n", settings.listen.c_str(), port);
  pid_t measuring = -1;
  for (;;) {
    fflush(stdout);
    sockaddr_storage address{};
    socklen_t bytes = sizeof address;
    const int fd = accept4(listener, reinterpret_cast<sockaddr*>(&address), &bytes, SOCK_CLOEXEC);
    reap(&measuring);
    if (fd < 0 && (errno == EINTR || errno == ECONNABORTED)) continue;
    if (fd < 0) {
      fprintf(stderr, "rdma-bench: cannot accept connections: %s\n", strerror(errno));
      return cli::kFailed;
    }
    const std::string from = address_text(&address, true);
    const bool busy = measuring > 0;
    const pid_t pid = start_one(fd, from, settings, busy);
    close(fd);
    if (pid < 0) fprintf(stderr, "rdma-bench: client %s: cannot fork: %s\n", from.c_str(), strerror(errno));
    if (!busy) measuring = pid;
    if (!busy && pid > 0) printf("rdma-bench: measuring with %s\n", from.c_str());
  }
}

}  // namespace tide::fabric
