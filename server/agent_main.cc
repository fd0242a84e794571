#include <kj/async-io.h>
#include <kj/async-unix.h>
#include <signal.h>
#include <unistd.h>

#include <cstdio>

#include "base/descriptors.h"
#include "base/log.h"
#include "server/agent.h"
#include "server/agent_door.h"
#include "server/agent_options.h"
#include "server/agent_service.h"
#include "server/agent_state.h"

namespace {

int fail(const tide::Outcome& outcome) {
  fprintf(stderr, "tide-agent: %s\n", outcome.message().c_str());
  return 1;
}

// Each worker takes one of the agent's, or two where it was another agent's, and has as many of its own.
constexpr uint64_t kDescriptorsLeast = 128;

}  // namespace

int main(int argc, char** argv) {
  tide::set_log_name("tide-agent");
  tide::set_default_log_level(tide::LogLevel::kInfo);
  tide::AgentOptions options;
  tide::Outcome outcome = tide::read_agent_options(argc, argv, &options);
  if (!outcome.ok()) {
    fail(outcome);
    return 2;
  }
  if (options.help) {
    fputs(tide::agent_usage(), stdout);
    return 0;
  }
  signal(SIGPIPE, SIG_IGN);
  uint64_t descriptors = 0;
  if (outcome = tide::take_descriptors(kDescriptorsLeast, &descriptors); !outcome.ok()) return fail(outcome);
  if (outcome = tide::claim_directory(options.directory); !outcome.ok()) return fail(outcome);
  // Before the event loop: it takes over the children.
  tide::Gpus gpus;
  if (outcome = tide::Gpus::find(options, &gpus); !outcome.ok()) return fail(outcome);
  kj::UnixEventPort::captureChildExit();
  kj::UnixEventPort::captureSignal(SIGTERM);
  kj::UnixEventPort::captureSignal(SIGINT);
  kj::UnixEventPort::captureSignal(SIGUSR2);
  auto io = kj::setupAsyncIo();
  for (size_t i = 0; i < gpus.devices().size(); ++i) {
    tide::log(tide::LogLevel::kInfo, "GPU %zu: %s", i, gpus.devices()[i].name);
  }
  tide::Agent agent(std::move(gpus), options.hold_s, options.directory, io);
  tide::AgentDoor door(agent);
  if (outcome = door.listen(options.directory, options.listen, agent.last_door()); !outcome.ok()) return fail(outcome);
  agent.take_over();
  agent.keep_door(door.tcp_address());
  tide::log(tide::LogLevel::kInfo, "the door is at %s", door.endpoint().c_str());
  const auto stop = [](siginfo_t&&) {};
  bool leaves_workers = false;
  auto leave = io.unixEventPort.onSignal(SIGUSR2).then([&](siginfo_t&&) { leaves_workers = true; });
  tide::keep_registered(agent, {options.scheduler, options.name, door.endpoint(), options.ready_file})
      .exclusiveJoin(io.unixEventPort.onSignal(SIGTERM).then(stop))
      .exclusiveJoin(io.unixEventPort.onSignal(SIGINT).then(stop))
      .exclusiveJoin(kj::mv(leave))
      .wait(io.waitScope);
  if (leaves_workers) {
    tide::log(tide::LogLevel::kInfo, "stopping; the workers wait for the next agent");
    _exit(0);  // as if killed: all that it needs to know is written down
  }
  tide::log(tide::LogLevel::kInfo, "stopping");
  agent.end_all();
  return 0;
}
