#include "tests/simulation/network.h"

#include <kj/debug.h>

#include <algorithm>
#include <cstring>

namespace tide::simulation {
namespace {

constexpr uint64_t kTrySynAgain = kS;

kj::Exception broken() {
  return kj::Exception(kj::Exception::Type::DISCONNECTED, "", 0, kj::heapString("the connection broke"));
}

kj::TimePoint time_point(uint64_t ns) { return kj::origin<kj::TimePoint>() + int64_t(ns) * kj::NANOSECONDS; }
uint64_t ns_of(kj::TimePoint time) { return uint64_t((time - kj::origin<kj::TimePoint>()) / kj::NANOSECONDS); }

}  // namespace

// Two ends, 0 and 1. The bytes that go to an end wait in its inbox.
class SimConnection : public std::enable_shared_from_this<SimConnection> {
 public:
  struct End {
    std::shared_ptr<Machine> machine;
    std::shared_ptr<Process> process;
    std::deque<std::byte> inbox;
    uint64_t floor = 0;  // nothing arrives here before what was sent before
    bool eof = false, broken = false, closed = false;
    kj::Own<kj::PromiseFulfiller<size_t>> reader;
    std::byte* into = nullptr;
    size_t least = 0, most = 0;
    kj::Own<kj::PromiseFulfiller<void>> watcher;
  };

  SimConnection(SimNetwork& network, std::shared_ptr<Machine> m0, std::shared_ptr<Process> p0,
                std::shared_ptr<Machine> m1, std::shared_ptr<Process> p1)
      : network_(network), latency_ns_(network.chance().between(50 * kUs, 8 * kMs)) {
    ends_[0].machine = std::move(m0), ends_[0].process = std::move(p0);
    ends_[1].machine = std::move(m1), ends_[1].process = std::move(p1);
  }
  End& end(int i) { return ends_[i]; }
  uint64_t latency() const { return latency_ns_; }

  void write(int from, std::vector<std::byte> bytes) {
    World& world = network_.world();
    if (!ends_[from].process->alive || !ends_[from].machine->powered) return;
    world.note("bytes", uint64_t(from), bytes.size());
    if (world.strikes(Fault::kReset, 250)) break_both();
    send(from, [bytes = std::move(bytes)](End& to) { to.inbox.insert(to.inbox.end(), bytes.begin(), bytes.end()); });
  }
  void finish(int from) {
    send(from, [](End& to) { to.eof = true; });
  }
  void close(int side) {
    End& own = ends_[side];
    own.closed = true;
    own.reader = nullptr;
    own.watcher = nullptr;
    if (!own.machine->powered) return;  // nobody says goodbye
    finish(side);
    break_end(1 - side);  // behind all that was sent
  }
  void break_both() {
    network_.world().note("reset");
    for (const int side : {0, 1}) break_end(side);
  }
  void break_end(int side) {
    send(1 - side, [](End& to) { to.broken = true; });
  }
  void break_for(const Process& process) {
    for (End& own : ends_) {
      if (own.process.get() != &process || own.closed) continue;
      own.eof = own.broken = true;
      serve(own);
    }
  }
  void power_is_back(const std::shared_ptr<Machine>& machine) {
    for (const int side : {0, 1}) {
      if (ends_[side].machine == machine && ends_[side].closed) break_end(1 - side);
    }
  }
  // What has come for that end, as far as its reader asks.
  void serve(End& own) {
    if (own.broken && own.watcher.get() != nullptr) own.watcher->fulfill();
    if (own.reader.get() == nullptr) return;
    if (!own.reader->isWaiting()) {
      own.reader = nullptr;
      return;
    }
    if (own.inbox.size() >= own.least || own.eof) {
      auto reader = kj::mv(own.reader);
      reader->fulfill(take(own, own.into, own.most));
    } else if (own.broken) {
      auto reader = kj::mv(own.reader);
      reader->reject(broken());
    }
  }
  static size_t take(End& own, std::byte* into, size_t most) {
    const size_t n = std::min(most, own.inbox.size());
    std::copy_n(own.inbox.begin(), n, into);
    own.inbox.erase(own.inbox.begin(), own.inbox.begin() + ptrdiff_t(n));
    return n;
  }

 private:
  using What = std::function<void(End&)>;

  void send(int from, What what) {
    World& world = network_.world();
    End& to = ends_[1 - from];
    uint64_t when = world.now() + latency_ns_;
    if (world.strikes(Fault::kDelay, 20)) when += network_.chance().between(kMs, 400 * kMs);
    to.floor = when = std::max(when, to.floor);
    arrive(1 - from, when, std::move(what));
  }
  void arrive(int at, uint64_t when, What what) {
    auto self = shared_from_this();
    network_.world().at(when, [self, at, what = std::move(what)]() mutable {
      World& world = self->network_.world();
      End& to = self->ends_[at];
      const uint64_t until = self->network_.cut_until(to.machine->name, self->ends_[1 - at].machine->name);
      if (until > world.now()) return self->arrive(at, until, std::move(what));
      // As the process, which may be paused; its kernel has it by now.
      what(to);
      if (to.process->alive && !to.closed) world.after(to.process, 0, [self, at] { self->serve(self->ends_[at]); });
    });
  }

  SimNetwork& network_;
  const uint64_t latency_ns_;
  End ends_[2];
};

namespace {

class Stream final : public kj::AsyncIoStream {
 public:
  Stream(std::shared_ptr<SimConnection> connection, int side) : connection_(std::move(connection)), side_(side) {}
  ~Stream() noexcept(false) { connection_->close(side_); }

  kj::Promise<size_t> tryRead(void* buffer, size_t least, size_t most) override {
    auto& own = connection_->end(side_);
    auto* into = static_cast<std::byte*>(buffer);
    if (own.inbox.size() >= least || own.eof) return SimConnection::take(own, into, most);
    if (own.broken) return broken();
    auto pair = kj::newPromiseAndFulfiller<size_t>();
    own.reader = kj::mv(pair.fulfiller);
    own.into = into;
    own.least = least;
    own.most = most;
    return kj::mv(pair.promise);
  }
  kj::Promise<void> write(const void* buffer, size_t size) override {
    const auto* from = static_cast<const std::byte*>(buffer);
    return write_all({from, from + size});
  }
  kj::Promise<void> write(kj::ArrayPtr<const kj::ArrayPtr<const kj::byte>> pieces) override {
    std::vector<std::byte> bytes;
    for (const auto piece : pieces) {
      const auto* from = reinterpret_cast<const std::byte*>(piece.begin());
      bytes.insert(bytes.end(), from, from + piece.size());
    }
    return write_all(std::move(bytes));
  }
  kj::Promise<void> whenWriteDisconnected() override {
    auto pair = kj::newPromiseAndFulfiller<void>();
    connection_->end(side_).watcher = kj::mv(pair.fulfiller);
    return kj::mv(pair.promise);
  }
  void shutdownWrite() override { connection_->finish(side_); }

 private:
  kj::Promise<void> write_all(std::vector<std::byte> bytes) {
    if (connection_->end(side_).broken) return broken();
    connection_->write(side_, std::move(bytes));
    return kj::READY_NOW;
  }
  const std::shared_ptr<SimConnection> connection_;
  const int side_;
};

}  // namespace

class SimListener final : public kj::ConnectionReceiver {
 public:
  SimListener(SimIo& io, std::string address) : io_(io), address_(std::move(address)) {
    io_.network().listener(address_) = this;
  }
  ~SimListener() noexcept(false) {
    SimListener*& known = io_.network().listener(address_);
    if (known == this) known = nullptr;
  }

  kj::Promise<kj::Own<kj::AsyncIoStream>> accept() override {
    if (!come_.empty()) {
      auto stream = kj::mv(come_.front());
      come_.pop_front();
      return kj::mv(stream);
    }
    auto pair = kj::newPromiseAndFulfiller<kj::Own<kj::AsyncIoStream>>();
    waiting_ = kj::mv(pair.fulfiller);
    return kj::mv(pair.promise);
  }
  uint getPort() override { return 7411; }
  SimIo& io() { return io_; }
  void give(kj::Own<kj::AsyncIoStream> stream) {
    come_.push_back(kj::mv(stream));
    if (waiting_.get() == nullptr) return;
    auto waiting = kj::mv(waiting_);
    auto first = kj::mv(come_.front());
    come_.pop_front();
    waiting->fulfill(kj::mv(first));
  }

 private:
  SimIo& io_;
  const std::string address_;
  std::deque<kj::Own<kj::AsyncIoStream>> come_;
  kj::Own<kj::PromiseFulfiller<kj::Own<kj::AsyncIoStream>>> waiting_;
};

namespace {

using StreamFulfiller = kj::PromiseFulfiller<kj::Own<kj::AsyncIoStream>>;

struct Dialler {
  SimNetwork& network;
  std::shared_ptr<Machine> machine;
  std::shared_ptr<Process> process;
  std::string address, host;
  kj::Own<StreamFulfiller> fulfiller;
};

void arrive_at_listener(const std::shared_ptr<Dialler>& dialler);

void knock(const std::shared_ptr<Dialler>& dialler, uint64_t after_ns) {
  dialler->network.world().after(after_ns, [dialler] { arrive_at_listener(dialler); });
}

// A connection that nobody waits for any more is closed again, as the kernel of an ended process does.
void answer(const std::shared_ptr<Dialler>& dialler, std::shared_ptr<SimConnection> connection) {
  World& world = dialler->network.world();
  world.after(2 * kMs, [dialler, connection] {
    auto stream = kj::heap<Stream>(connection, 0);
    if (!dialler->process->alive) return;
    auto held = std::make_shared<kj::Own<Stream>>(kj::mv(stream));
    dialler->network.world().after(dialler->process, 0, [dialler, held] {
      if (dialler->fulfiller->isWaiting()) dialler->fulfiller->fulfill(kj::mv(*held));
    });
  });
}

void arrive_at_listener(const std::shared_ptr<Dialler>& dialler) {
  SimNetwork& network = dialler->network;
  World& world = network.world();
  if (!dialler->process->alive || !dialler->fulfiller->isWaiting()) return;
  const uint64_t until = network.cut_until(dialler->machine->name, dialler->host);
  if (until > world.now()) return knock(dialler, std::min(until - world.now(), kTrySynAgain));
  SimListener* listener = network.listener(dialler->address);
  if (listener == nullptr || !listener->io().process()->alive) {
    world.after(dialler->process, kMs, [dialler] { dialler->fulfiller->reject(broken()); });
    return;
  }
  SimIo& io = listener->io();
  auto connection =
      std::make_shared<SimConnection>(network, dialler->machine, dialler->process, io.machine(), io.process());
  network.add(connection);
  auto held = std::make_shared<kj::Own<kj::AsyncIoStream>>(kj::heap<Stream>(connection, 1));
  world.after(io.process(), 0, [held, &network, address = dialler->address] {
    if (SimListener* there = network.listener(address)) there->give(kj::mv(*held));
  });
  answer(dialler, std::move(connection));
}

class Address final : public kj::NetworkAddress {
 public:
  Address(SimIo& io, std::string text) : io_(io), text_(std::move(text)) {}
  kj::Promise<kj::Own<kj::AsyncIoStream>> connect() override {
    auto pair = kj::newPromiseAndFulfiller<kj::Own<kj::AsyncIoStream>>();
    auto dialler = std::make_shared<Dialler>(Dialler{io_.network(), io_.machine(), io_.process(), text_,
                                                     text_.substr(0, text_.find(':')), kj::mv(pair.fulfiller)});
    knock(dialler, io_.network().chance().between(50 * kUs, 8 * kMs));
    return kj::mv(pair.promise);
  }
  kj::Own<kj::ConnectionReceiver> listen() override { return kj::heap<SimListener>(io_, text_); }
  kj::Own<kj::NetworkAddress> clone() override { return kj::heap<Address>(io_, text_); }
  kj::String toString() override { return kj::heapString(text_.c_str()); }

 private:
  SimIo& io_;
  const std::string text_;
};

class Provider final : public kj::AsyncIoProvider, public kj::Network {
 public:
  Provider(SimIo& io, kj::Timer& timer) : io_(io), timer_(timer) {}
  kj::OneWayPipe newOneWayPipe() override { KJ_UNIMPLEMENTED("a simulated process has no pipes"); }
  kj::TwoWayPipe newTwoWayPipe() override { KJ_UNIMPLEMENTED("a simulated process has no pipes"); }
  kj::Network& getNetwork() override { return *this; }
  PipeThread newPipeThread(kj::Function<void(kj::AsyncIoProvider&, kj::AsyncIoStream&, kj::WaitScope&)>) override {
    KJ_UNIMPLEMENTED("a simulated process has no threads");
  }
  kj::Timer& getTimer() override { return timer_; }
  kj::Promise<kj::Own<kj::NetworkAddress>> parseAddress(kj::StringPtr text, uint) override {
    return kj::Own<kj::NetworkAddress>(kj::heap<Address>(io_, text.cStr()));
  }
  kj::Own<kj::NetworkAddress> getSockaddr(const void*, uint) override { KJ_UNIMPLEMENTED("addresses are names here"); }
  kj::Own<kj::Network> restrictPeers(kj::ArrayPtr<const kj::StringPtr>, kj::ArrayPtr<const kj::StringPtr>) override {
    KJ_UNIMPLEMENTED("a simulated network has no firewall");
  }

 private:
  SimIo& io_;
  kj::Timer& timer_;
};

}  // namespace

void SimNetwork::cut(const std::string& a, const std::string& b, uint64_t ns) {
  uint64_t& until = cuts_[pair_of(a, b)];
  until = std::max(until, world_.now() + ns);
}

uint64_t SimNetwork::cut_until(const std::string& a, const std::string& b) const {
  const auto found = cuts_.find(pair_of(a, b));
  return found == cuts_.end() ? 0 : found->second;
}

void SimNetwork::power_is_back(const std::shared_ptr<Machine>& machine) {
  for (const auto& weak : connections_) {
    if (const auto connection = weak.lock()) connection->power_is_back(machine);
  }
}

void SimNetwork::break_for(const Process& process) {
  for (const auto& weak : std::vector(connections_)) {
    if (const auto connection = weak.lock()) connection->break_for(process);
  }
}

void SimNetwork::add(const std::shared_ptr<SimConnection>& connection) {
  const auto gone = [](const std::weak_ptr<SimConnection>& weak) { return weak.expired(); };
  connections_.erase(std::remove_if(connections_.begin(), connections_.end(), gone), connections_.end());
  connections_.push_back(connection);
}

void SimNetwork::remove(SimIo* io) { ios_.erase(std::find(ios_.begin(), ios_.end(), io)); }

void SimNetwork::plan() {
  for (SimIo* io : ios_) io->plan();
}

SimIo::SimIo(SimNetwork& network, std::shared_ptr<Machine> machine, std::shared_ptr<Process> process,
             kj::WaitScope& wait_scope, kj::UnixEventPort& unused)
    : network_(network),
      machine_(std::move(machine)),
      process_(std::move(process)),
      timer_(time_point(network.world().local_now(*process_))),
      context_{kj::Own<kj::LowLevelAsyncIoProvider>(), kj::heap<Provider>(*this, timer_), wait_scope, unused} {
  network_.add(this);
}

SimIo::~SimIo() { retire(); }

void SimIo::retire() {
  if (*here_) network_.remove(this);
  *here_ = false;
}

void SimIo::plan() {
  KJ_IF_MAYBE (next, timer_.nextEvent()) {
    World& world = network_.world();
    const uint64_t due = ns_of(*next), now = world.local_now(*process_);
    if (planned_ != 0 && planned_ <= due) return;
    planned_ = due;
    world.after(process_, due > now ? due - now + kUs : 0, [this, due, here = here_] {
      if (!*here || planned_ != due) return;
      planned_ = 0;
      timer_.advanceTo(time_point(network_.world().local_now(*process_)));
    });
  }
}

}  // namespace tide::simulation
