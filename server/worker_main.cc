#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

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

}  // namespace

// Started by tide-agent only. --probe prints a DeviceInfo (api/device_info.h) for each GPU, as raw bytes.
int main(int argc, char** argv) {
  tide::set_log_name("tide-worker");
  tide::set_default_log_level(tide::LogLevel::kInfo);
  signal(SIGPIPE, SIG_IGN);
  if (argc == 2 && strcmp(argv[1], "--probe") == 0) return probe();
  const bool waits = argc == 5 && strcmp(argv[3], "--rendezvous") == 0;
  if ((argc == 3 || waits) && strcmp(argv[1], "--control") == 0) {
    for (int i = 2; i < argc; i += 2) fcntl(atoi(argv[i]), F_SETFD, FD_CLOEXEC);  // not for what the driver may start
    tide::ucx_settle_environment();
    auto* worker = new tide::Worker(atoi(argv[2]), waits ? atoi(argv[4]) : -1);
    // Nothing is torn down: the driver's threads may still look at memory of ours, and its own tear-down may wait for
    // work that never ends. The process's end does not.
    _exit(worker->run());
  }
  fprintf(stderr, "usage: tide-worker --probe\n(workers are started by tide-agent)\n");
  return 2;
}
