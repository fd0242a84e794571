#include <execinfo.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "base/log.h"
#include "server/probe.h"
#include "server/worker.h"
#include "transport/ucx.h"

namespace {

int probe() {
  std::vector<tide::DeviceInfo> devices;
  const tide::Outcome outcome = tide::probe_devices(&devices);
  if (!outcome.ok()) {
    fprintf(stderr, "tide-worker: %s\n", outcome.message().c_str());
    return 1;
  }
  const size_t written = fwrite(devices.data(), sizeof(tide::DeviceInfo), devices.size(), stdout);
  return fflush(stdout) == 0 && written == devices.size() ? 0 : 1;
}

// What was written to the error output last: it is kept for the program (text_capture.h), which gets no more of it.
void tell_last_words(int to) {
  char text[2048];
  const off_t end = lseek(STDERR_FILENO, 0, SEEK_END);
  const ssize_t n = end <= 0 ? 0 : pread(STDERR_FILENO, text, sizeof text, std::max<off_t>(0, end - sizeof text));
  [[maybe_unused]] const ssize_t written = write(to, text, n > 0 ? size_t(n) : 0);
}

// The agent's log shall show where: a worker leaves no core in a pool, and its job gets an error only.
void tell_where(int number) {
  tide::log(tide::LogLevel::kError, "signal %d ends it; its last words, and where it was:", number);
  const int to = tide::log_descriptor();
  tell_last_words(to);
  void* frames[48];
  backtrace_symbols_fd(frames, backtrace(frames, 48), to);
  raise(number);  // SA_RESETHAND: as it would have been
}

void tell_where_it_ends() {
  struct sigaction action {};
  action.sa_handler = tell_where;
  action.sa_flags = SA_RESETHAND | SA_NODEFER;
  for (const int number : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL}) sigaction(number, &action, nullptr);
}

}  // namespace

// Started by tide-agent only. --probe prints a DeviceInfo (api/device_info.h) for each GPU, as raw bytes.
int main(int argc, char** argv) {
  tide::set_log_name("tide-worker");
  tide::set_default_log_level(tide::LogLevel::kInfo);
  signal(SIGPIPE, SIG_IGN);
  signal(SIGXFSZ, SIG_IGN);  // a file that may not grow is an error like any other
  if (argc == 2 && strcmp(argv[1], "--probe") == 0) return probe();
  const bool waits = argc == 5 && strcmp(argv[3], "--rendezvous") == 0;
  if ((argc == 3 || waits) && strcmp(argv[1], "--control") == 0) {
    for (int i = 2; i < argc; i += 2) fcntl(atoi(argv[i]), F_SETFD, FD_CLOEXEC);  // not for what the driver may start
    tell_where_it_ends();
    tide::ucx_settle_environment();
    auto* worker = new tide::Worker(atoi(argv[2]), waits ? atoi(argv[4]) : -1);
    // Nothing is torn down: the driver's threads may still look at memory of ours, and its own tear-down may wait for
    // work that never ends. The process's end does not.
    _exit(worker->run());
  }
  fprintf(stderr, "usage: tide-worker --probe\n(workers are started by tide-agent)\n");
  return 2;
}
