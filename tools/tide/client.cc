#include "tools/tide/client.h"

#include "tools/tide/home.h"

namespace tide::cli {

Outcome Connection::open(kj::AsyncIoContext& io, const std::string& address, kj::Own<Connection>* connection) {
  auto connecting =
      io.provider->getNetwork().parseAddress(address.c_str()).then([](kj::Own<kj::NetworkAddress> parsed) {
        auto promise = parsed->connect();
        return promise.attach(kj::mv(parsed));
      });
  kj::Maybe<kj::Own<kj::AsyncIoStream>> stream;
  const Outcome connected = await<kj::Own<kj::AsyncIoStream>>(io, kj::mv(connecting), &stream, 5000);
  KJ_IF_MAYBE (open, stream) {
    *connection = kj::heap<Connection>(kj::mv(*open));
    return {};
  }
  (void)connected;
  return Outcome::fail("no scheduler answers at " + address +
                       ". If its pool died, `tide down` cleans up; `tide up` starts a new one");
}

Outcome Asker::connect(const Options& options) {
  std::string address;
  const Outcome found = find_pool(options, &address);
  return found.ok() ? Connection::open(io_, address, &connection_) : found;
}

}  // namespace tide::cli
