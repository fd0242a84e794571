#include "scheduler/daemon.h"

#include <capnp/rpc-twoparty.h>
#include <capnp/serialize-async.h>

#include "base/clock.h"
#include "base/log.h"
#include "scheduler/change.h"
#include "scheduler/entrance.h"
#include "scheduler/kv_etcd.h"

namespace tide::sched {

namespace {

constexpr uint64_t kSettleNs = 5'000'000'000;
constexpr auto kUnreadPause = 20 * kj::MILLISECONDS;

// Messages within limits that depend on who speaks.
class BoundedMessages final : public capnp::MessageStream {
 public:
  BoundedMessages(kj::AsyncIoStream& stream, kj::Timer& timer) : messages_(stream), timer_(timer) {}
  void count_unread_of(capnp::TwoPartyVatNetwork& network) { network_ = &network; }
  void allow(uint64_t words) { words_max_ = words; }

  kj::Promise<kj::Maybe<capnp::MessageReaderAndFds>> tryReadMessage(kj::ArrayPtr<kj::AutoCloseFd> fds,
                                                                    capnp::ReaderOptions options,
                                                                    kj::ArrayPtr<capnp::word> scratch) override {
    if (network_ != nullptr && network_->getCurrentQueueSize() > kUnreadBytesMax) {
      return timer_.afterDelay(kUnreadPause).then([this, fds, options, scratch] {
        return tryReadMessage(fds, options, scratch);
      });
    }
    options.traversalLimitInWords = words_max_;
    options.nestingLimit = 32;
    return messages_.tryReadMessage(fds, options, scratch);
  }
  kj::Promise<void> writeMessage(kj::ArrayPtr<const int> fds,
                                 kj::ArrayPtr<const kj::ArrayPtr<const capnp::word>> segments) override {
    return messages_.writeMessage(fds, segments);
  }
  kj::Promise<void> writeMessages(kj::ArrayPtr<kj::ArrayPtr<const kj::ArrayPtr<const capnp::word>>> messages) override {
    return messages_.writeMessages(messages);
  }
  kj::Maybe<int> getSendBufferSize() override { return messages_.getSendBufferSize(); }
  kj::Promise<void> end() override { return messages_.end(); }

 private:
  capnp::AsyncIoMessageStream messages_;
  kj::Timer& timer_;
  capnp::TwoPartyVatNetwork* network_ = nullptr;
  uint64_t words_max_ = kMessageWordsMax;
};

}  // namespace

struct Daemon::Connection {
  kj::Own<kj::AsyncIoStream> stream;
  std::shared_ptr<BoundedMessages> messages;
  capnp::TwoPartyVatNetwork network;
  capnp::RpcSystem<capnp::rpc::twoparty::VatId> rpc;

  // The entrance may outlive the connection, where somebody gave it away.
  static kj::Own<Entrance> entrance(control::Pool::Client pool, const std::shared_ptr<BoundedMessages>& messages,
                                    const std::shared_ptr<Port::Place>& place, PoolCore& core) {
    const std::weak_ptr<BoundedMessages> reader = messages;
    const std::weak_ptr<Port::Place> here = place;
    const auto entered = [reader, here](control::Caller caller) {
      if (const auto found = here.lock()) found->known();
      const auto bounds = caller == control::Caller::AGENT ? reader.lock() : nullptr;
      if (bounds != nullptr) bounds->allow(kAgentMessageWordsMax);
    };
    return kj::heap<Entrance>(kj::mv(pool), entered, control::PROTOCOL,
                              [&core] { return Entrance::Elsewhere{.is = core.refuses(), .leader = core.leader()}; });
  }
  Connection(kj::Own<kj::AsyncIoStream> s, kj::Timer& timer, control::Pool::Client pool,
             const std::shared_ptr<Port::Place>& place, PoolCore& core)
      : stream(kj::mv(s)),
        messages(std::make_shared<BoundedMessages>(*stream, timer)),
        network(*messages, capnp::rpc::twoparty::Side::SERVER),
        rpc(capnp::makeRpcServer(network, entrance(kj::mv(pool), messages, place, core))) {
    messages->count_unread_of(network);
    rpc.setFlowLimit(kCallWordsMax);
  }
};

Daemon::Daemon(PoolConfig config, std::unique_ptr<Store> store, kj::AsyncIoContext& io)
    : config_(std::move(config)),
      store_(std::move(store)),
      io_(io),
      core_(*store_, io.provider->getTimer()),
      pool_(kj::heap<PoolService>(core_)),
      door_(core_, io.provider->getTimer()),
      quit_(kj::newPromiseAndFulfiller<void>()),
      control_port_("control port", io.provider->getTimer(), config_.connections_max),
      door_port_("door", io.provider->getTimer(), config_.connections_max) {
  core_.started_ms = wall_seconds() * 1000;
  sched::configure(&core_.ledger, config_);
  core_.recorder.keep(journal_directory(config_), config_.policy.journal_bytes);
  core_.quit = [this] { quit_.fulfiller->fulfill(); };
  if (config_.history != "off" && !(config_.history.empty() && config_.state.empty()))
    core_.reconciler.books().keep_in(config_.history.empty() ? config_.state + "/history.sqlite" : config_.history);
  core_.reconciler.act_only_while([this] { return leads(); });
}

Outcome Daemon::open(const PoolConfig& config, kj::AsyncIoContext& io, std::unique_ptr<Daemon>* daemon, PoolFile file) {
  if (!config.etcd.members.empty()) {
    auto store = std::make_unique<Store>(std::make_unique<EtcdKv>(config.etcd), config.etcd.root);
    store->write_only_in(Election::leader_key(config.etcd.root), Store::kNoTerm);  // before it leads
    daemon->reset(new Daemon(config, std::move(store), io));
    (*daemon)->core_.file = std::move(file);
    (*daemon)->core_.serving = false;
    return {};
  }
  if (config.state.empty())
    return Outcome::fail("no state directory; give --state DIR, or state = \"...\" under [pool]");
  std::unique_ptr<Store> store;
  Outcome outcome = Store::open(config.state, &store);
  if (!outcome.ok()) return outcome;
  std::unique_ptr<Daemon> made(new Daemon(config, std::move(store), io));
  made->core_.file = std::move(file);
  outcome = made->core_.reconciler.recover();
  if (!outcome.ok()) return outcome;
  *daemon = std::move(made);
  return {};
}

kj::Promise<void> Daemon::listen() {
  const auto port_in = [](const std::string& address, uint32_t port) {
    const size_t colon = address.rfind(':');
    return address.rfind("unix:", 0) == 0 ? address : address.substr(0, colon + 1) + std::to_string(port);
  };
  auto& network = io_.provider->getNetwork();
  return network.parseAddress(config_.listen).then([this, port_in, &network](kj::Own<kj::NetworkAddress> address) {
    auto control = address->listen();
    address_ = port_in(config_.listen, control->getPort());
    return network.parseAddress(config_.door)
        .then([this, port_in, control = kj::mv(control)](kj::Own<kj::NetworkAddress> at) mutable {
          auto door = at->listen();
          core_.door_address = port_in(config_.door, door->getPort());
          control_port_.listen(kj::mv(control),
                               [this](auto&& stream, auto&& place) { return serve(kj::mv(stream), place); });
          door_port_.listen(kj::mv(door),
                            [this](auto&& stream, auto&& place) { return door_.serve(kj::mv(stream), place); });
          if (core_.serving) return;
          election_ = std::make_unique<Election>(store_->kv(), store_->root(), io_.provider->getTimer(),
                                                 Election::Me{.control = address_, .door = core_.door_address});
          core_.election = election_.get();
        });
  });
}

kj::Promise<void> Daemon::serve(kj::Own<kj::AsyncIoStream> stream, const std::shared_ptr<Port::Place>& place) {
  auto connection = kj::heap<Connection>(kj::mv(stream), io_.provider->getTimer(), pool_, place, core_);
  auto gone = connection->network.onDisconnect();
  return gone.attach(kj::mv(connection));
}

kj::Promise<Daemon::End> Daemon::run() {
  auto asked = quit_.promise.then([] { return End::kAsked; });
  if (election_ == nullptr) return asked;
  return asked.exclusiveJoin(lead().then([] { return End::kDeposed; }));
}

// Until another one does.
kj::Promise<void> Daemon::lead() {
  return election_->won()
      .then([this]() -> kj::Promise<std::string> {
        store_->write_only_in(election_->leader_key(), election_->term());
        const Outcome recovered = core_.reconciler.recover();
        if (!recovered.ok()) return recovered.message();
        core_.serving = true;
        core_.settles_ns = now_ns() + kSettleNs;
        log(LogLevel::kInfo, "leads the pool, term %lu", (unsigned long)election_->term());
        core_.reconciler.poke();
        return election_->lost([this] { return store_->deposed(); });
      })
      .then([](std::string why) {
        log(LogLevel::kWarning, "leads the pool no longer: %s; running jobs go on", why.c_str());
      });
}

void Daemon::stop() {
  core_.stopping = true;
  core_.reconciler.stop();
  if (election_ != nullptr) election_->resign();
}

}  // namespace tide::sched
