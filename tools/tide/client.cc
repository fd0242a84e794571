#include "tools/tide/client.h"

#include "scheduler/config.h"
#include "tools/tide/home.h"

namespace tide::cli {

namespace {
constexpr uint32_t kConnectMs = 5'000;
}

Outcome Connection::open(kj::AsyncIoContext& io, const std::string& address, kj::Own<Connection>* connection) {
  if (Outcome fits = sched::check_server_setting("scheduler", address); !fits.ok())
    return Outcome::fail("where is the pool? " + fits.message());
  auto connecting =
      io.provider->getNetwork().parseAddress(address.c_str()).then([](kj::Own<kj::NetworkAddress> parsed) {
        auto promise = parsed->connect();
        return promise.attach(kj::mv(parsed));
      });
  std::string why;
  KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&] {
                 auto limited = io.provider->getTimer().timeoutAfter(kConnectMs * kj::MILLISECONDS, kj::mv(connecting));
                 *connection = kj::heap<Connection>(limited.wait(io.waitScope));
               })) {
    why = network_error(*exception);
  }
  if (why.empty()) return {};
  return Outcome::fail("no scheduler answers at " + address + " (" + why +
                       "). If its pool died, `tide down` cleans up; `tide up` starts a new one");
}

Outcome Asker::connect(const Options& options) {
  std::string address;
  const Outcome found = find_pool(options, &address);
  return found.ok() ? Connection::open(io_, address, &connection_) : found;
}

}  // namespace tide::cli
