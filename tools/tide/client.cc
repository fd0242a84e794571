#include "tools/tide/client.h"

#include <algorithm>

#include "base/clock.h"
#include "scheduler/addresses.h"
#include "scheduler/config.h"
#include "tools/tide/home.h"

namespace tide::cli {

namespace {
constexpr uint32_t kConnectMs = 5'000, kConnectSeveralMs = 1'000;
constexpr uint32_t kEnterSeveralMs = 300;
constexpr auto kLookAgain = 200 * kj::MILLISECONDS;

}  // namespace

kj::Promise<kj::Own<Connection>> Connection::connect(kj::AsyncIoContext& io, const sched::Addresses& addresses,
                                                     uint32_t connect_ms, uint32_t enter_ms) {
  auto connecting =
      io.provider->getNetwork().parseAddress(addresses.present().c_str()).then([](kj::Own<kj::NetworkAddress> parsed) {
        auto promise = parsed->connect();
        return promise.attach(kj::mv(parsed));
      });
  auto& timer = io.provider->getTimer();
  // Where nobody answers the system goes on asking for minutes, ever more rarely.
  return timer.timeoutAfter(connect_ms * kj::MILLISECONDS, kj::mv(connecting))
      .then([&timer, enter_ms, several = addresses.several(),
             at = addresses.present()](kj::Own<kj::AsyncIoStream> stream) {
        auto made = kj::heap<Connection>(kj::mv(stream));
        made->address_ = at;
        Connection& connection = *made;
        auto met =
            sched::enter_or_follow(connection.client_, control::Caller::TIDE).then([&](sched::Entered&& entered) {
              connection.pool_ = kj::mv(entered.pool);
              connection.follower_ = entered.follower;
              connection.leader_ = entered.leader;
            });
        // What failed here the pool says again.
        return timer.timeoutAfter(enter_ms * kj::MILLISECONDS, kj::mv(met))
            .catch_([several](kj::Exception&& e) -> kj::Promise<void> {
              if (several && e.getType() == kj::Exception::Type::OVERLOADED) return kj::mv(e);
              return kj::READY_NOW;
            })
            .then([made = kj::mv(made)]() mutable { return kj::mv(made); });
      });
}

Outcome Connection::open(kj::AsyncIoContext& io, const std::string& addresses, kj::Own<Connection>* connection,
                         uint32_t limit_ms) {
  if (Outcome fits = sched::check_server_setting("scheduler", addresses); !fits.ok())
    return Outcome::fail("where is the pool? " + fits.message());
  sched::Addresses at(addresses);
  const uint64_t until = now_ns() + uint64_t(limit_ms) * 1'000'000;
  const uint32_t connect_ms = at.several() ? kConnectSeveralMs : std::min(kConnectMs, limit_ms);
  // Of several one may be stopped: it is soon left for the others. If all are only slow, they get longer.
  uint32_t enter_ms = at.several() ? kEnterSeveralMs : kEnterMs;
  bool answered = false, hurried = false;
  for (size_t tried = 1;; ++tried) {
    kj::Own<Connection> made;
    std::string why;
    bool silent = false;
    KJ_IF_MAYBE (exception,
                 kj::runCatchingExceptions([&] { made = connect(io, at, connect_ms, enter_ms).wait(io.waitScope); })) {
      why = network_error(*exception);
      silent = exception->getType() == kj::Exception::Type::OVERLOADED;
    } else if (!made->follower()) {
      *connection = kj::mv(made);
      return {};
    }
    answered |= why.empty();
    hurried |= silent && enter_ms < kEnterMs;
    const std::string leader = why.empty() ? made->leader() : "";
    const bool round = tried % at.all().size() == 0;
    if (round && !answered && !hurried) {
      return Outcome::fail("no scheduler answers at " + addresses + " (" + why +
                           "). If its pool died, `tide down` cleans up; `tide up` starts a new one");
    }
    if (now_ns() > until) {
      return Outcome::fail("the schedulers at " + addresses +
                           " have no leader; is a majority of their etcd's members up? Their logs say more");
    }
    silent ? at.avoid(at.present()) : leader.empty() ? at.next() : at.follow(leader);
    if (round) {
      enter_ms = std::min(2 * enter_ms, kEnterMs);
      hurried = false;
    }
    if (round) io.provider->getTimer().afterDelay(kLookAgain).wait(io.waitScope);
  }
}

Outcome Asker::connect(const Options& options, uint32_t limit_ms) {
  std::string address;
  const Outcome found = find_pool(options, &address);
  return found.ok() ? Connection::open(io_, address, &connection_, limit_ms) : found;
}

}  // namespace tide::cli
