// Stands in for tide-agent where only the scheduler and `tide` are tested: registers GPUs that nobody computes on.
// usage: fake-agent --scheduler ADDRESS --name NAME --dir DIR [--softgpu-devices N] [--softgpu-memory SIZE]

#include <capnp/rpc-twoparty.h>
#include <kj/async-unix.h>
#include <signal.h>
#include <stdio.h>

#include <cstdlib>
#include <map>

#include "scheduler/enter.h"
#include "tests/scheduler/fake_agent.h"

int main(int argc, char** argv) {
  std::map<std::string, std::string> options;
  for (int i = 1; i + 1 < argc; i += 2) options[argv[i]] = argv[i + 1];
  const std::string name = options["--name"];
  const uint32_t gpus = options.count("--softgpu-devices") ? uint32_t(atoi(options["--softgpu-devices"].c_str())) : 1;
  kj::UnixEventPort::captureSignal(SIGTERM);
  auto io = kj::setupAsyncIo();
  auto& timer = io.provider->getTimer();
  tide::FakeAgentLog log;
  KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&] {
                 auto address =
                     io.provider->getNetwork().parseAddress(options["--scheduler"].c_str()).wait(io.waitScope);
                 auto stream = address->connect().wait(io.waitScope);
                 capnp::TwoPartyClient client(*stream);
                 auto request = tide::sched::enter(client, tide::control::Caller::AGENT).registerRequest();
                 tide::fill_server_info(request.initServer(), name, gpus, 1ull << 30);
                 request.setAgent(tide::make_fake_agent(name, log, timer));
                 const auto registered = request.send().wait(io.waitScope);
                 auto stopped = io.unixEventPort.onSignal(SIGTERM).then([](siginfo_t&&) {});
                 stopped.exclusiveJoin(client.onDisconnect()).wait(io.waitScope);
               })) {
    fprintf(stderr, "fake-agent: %s\n", exception->getDescription().cStr());
    return 1;
  }
  return 0;
}
