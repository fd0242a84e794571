// A scheduler of another version, as far as anybody gets who speaks ours. usage: other-scheduler PROTOCOL
// Says its address in a line. PROTOCOL 1 has no entrance, as it was before there were versions.

#include <capnp/rpc-twoparty.h>
#include <kj/async-io.h>

#include <cstdio>
#include <cstdlib>

#include "scheduler/entrance.h"

namespace {

class NoPool final : public tide::control::Pool::Server {};

}  // namespace

int main(int argc, char** argv) {
  const uint32_t protocol = argc == 2 ? uint32_t(atoi(argv[1])) : 1;
  auto io = kj::setupAsyncIo();
  capnp::Capability::Client met = kj::heap<NoPool>();
  if (protocol != 1) {
    met = kj::heap<tide::sched::Entrance>(
        met.castAs<tide::control::Pool>(), [](tide::control::Caller) {}, protocol);
  }
  capnp::TwoPartyServer server(kj::mv(met));
  auto receiver = io.provider->getNetwork().parseAddress("127.0.0.1:0").wait(io.waitScope)->listen();
  printf("127.0.0.1:%u\n", receiver->getPort());
  fflush(stdout);
  server.listen(*receiver).wait(io.waitScope);
  return 0;
}
