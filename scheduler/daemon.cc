#include "scheduler/daemon.h"

#include <capnp/rpc-twoparty.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"

namespace tide::sched {

struct Daemon::Connection {
  kj::Own<kj::AsyncIoStream> stream;
  uint32_t& count;
  capnp::TwoPartyVatNetwork network;
  capnp::RpcSystem<capnp::rpc::twoparty::VatId> rpc;

  static capnp::ReaderOptions limits() {
    capnp::ReaderOptions options;
    options.traversalLimitInWords = kMessageWordsMax;
    options.nestingLimit = 32;
    return options;
  }
  Connection(kj::Own<kj::AsyncIoStream> s, uint32_t& c, control::Pool::Client pool)
      : stream(kj::mv(s)),
        count(c),
        network(*stream, capnp::rpc::twoparty::Side::SERVER, limits()),
        rpc(capnp::makeRpcServer(network, kj::mv(pool))) {
    ++count;
  }
  ~Connection() { --count; }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;
};

Daemon::Daemon(PoolConfig config, std::unique_ptr<Store> store, kj::AsyncIoContext& io)
    : config_(std::move(config)),
      store_(std::move(store)),
      io_(io),
      core_(*store_, io.provider->getTimer()),
      pool_(kj::heap<PoolService>(core_)),
      door_(core_, io.provider->getTimer()),
      quit_(kj::newPromiseAndFulfiller<void>()),
      tasks_(*this) {
  core_.started_ms = wall_seconds() * 1000;
  core_.quit = [this] { quit_.fulfiller->fulfill(); };
}

Outcome Daemon::open(const PoolConfig& config, kj::AsyncIoContext& io, std::unique_ptr<Daemon>* daemon) {
  if (config.state.empty())
    return Outcome::fail("no state directory; give --state DIR, or state = \"...\" under [pool]");
  std::unique_ptr<Store> store;
  Outcome outcome = Store::open(config.state, &store);
  if (!outcome.ok()) return outcome;
  std::unique_ptr<Daemon> made(new Daemon(config, std::move(store), io));
  outcome = made->core_.reconciler.recover();
  if (!outcome.ok()) return outcome;
  *daemon = std::move(made);
  return {};
}

void Daemon::taskFailed(kj::Exception&& exception) {
  log(LogLevel::kDebug, "a connection ended: %s", exception.getDescription().cStr());
}

kj::Promise<void> Daemon::listen() {
  const auto port_in = [](const std::string& address, uint32_t port) {
    const size_t colon = address.rfind(':');
    return address.rfind("unix:", 0) == 0 ? address : address.substr(0, colon + 1) + std::to_string(port);
  };
  auto& network = io_.provider->getNetwork();
  return network.parseAddress(config_.listen)
      .then([this, port_in, &network](kj::Own<kj::NetworkAddress> address) {
        control_receiver_ = address->listen();
        address_ = port_in(config_.listen, control_receiver_->getPort());
        return network.parseAddress(config_.door);
      })
      .then([this, port_in](kj::Own<kj::NetworkAddress> address) {
        door_receiver_ = address->listen();
        core_.door_address = port_in(config_.door, door_receiver_->getPort());
        tasks_.add(accept(*control_receiver_));
        tasks_.add(door_.listen(*door_receiver_));
      });
}

kj::Promise<void> Daemon::accept(kj::ConnectionReceiver& receiver) {
  return receiver.accept().then([this, &receiver](kj::Own<kj::AsyncIoStream> stream) {
    if (connections_ >= kControlConnectionsMax) {
      log(LogLevel::kWarning, "the control port has %u connections, its limit; one more was closed", connections_);
      return accept(receiver);
    }
    auto connection = kj::heap<Connection>(kj::mv(stream), connections_, pool_);
    auto gone = connection->network.onDisconnect();
    tasks_.add(gone.attach(kj::mv(connection)));
    return accept(receiver);
  });
}

kj::Promise<void> Daemon::run() { return kj::mv(quit_.promise); }

void Daemon::stop() {
  core_.stopping = true;
  core_.reconciler.stop();
}

}  // namespace tide::sched
