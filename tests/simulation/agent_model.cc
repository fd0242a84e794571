// A model of tide-agent and its workers, which keeps the contract of scheduler/control.capnp: its own code runs in the
// world of sessions. One lease has one worker, which stands for all processes of its vGPU.

#include <capnp/rpc-twoparty.h>

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "scheduler/enter.h"
#include "scheduler/remote_error.h"
#include "tests/simulation/pool.h"

namespace tide::simulation {
namespace {

constexpr auto kConnectPatience = 10 * kj::SECONDS;  // server/agent_service.cc
constexpr uint32_t kBackoffFirstMs = 200, kBackoffLastMs = 5000;
constexpr auto kReleasePatience = 5 * kj::SECONDS;  // server/agent.cc
constexpr uint64_t kGpuBytes = 16ull << 30;
constexpr uint64_t kSilence = 30 * kS;  // then the stream between two workers counts as broken

LeaseKey key_of(control::Lease::Reader lease) { return {lease.getJob().cStr(), lease.getVgpu(), lease.getEpoch()}; }

}  // namespace

class AgentModel {
 public:
  AgentModel(SimServer& server, std::shared_ptr<Machine> machine);
  ~AgentModel();
  SimServer& server() { return server_; }
  SimIo& io() const { return *io_; }

  Outcome place(control::Lease::Reader lease);
  kj::Promise<void> release(const std::string& job, uint32_t vgpu, uint64_t epoch);
  kj::Promise<void> move(const LeaseKey& from, control::Lease::Reader to, const std::string& destination);
  void cancel(const LeaseKey& key) { forget(key); }
  void call_off_moves();
  Outcome hold(const LeaseKey& key, bool on);
  bool is_full() { return server_.pool_.network().chance().one_in(8); }  // no room for a parked vGPU
  void describe(const std::string& job, control::Agent::StatsResults::Builder results) const;
  // A call that waits ends with the process.
  kj::Promise<void> while_here(kj::Promise<void> call) { return calls_.wrap(kj::mv(call)); }

 private:
  struct Connection {
    explicit Connection(kj::Own<kj::AsyncIoStream> s)
        : stream(kj::mv(s)), client(*stream), pool(sched::enter(client, control::Caller::AGENT)) {}
    kj::Own<kj::AsyncIoStream> stream;
    capnp::TwoPartyClient client;
    control::Pool::Client pool;
  };
  kj::Promise<void> keep_registered();
  kj::Promise<void> connect_once();
  kj::Promise<void> heartbeat(control::Registration::Client registration, uint32_t every_ms);
  void describe(control::ServerInfo::Builder info) const;
  void forget(const LeaseKey& key);
  // The steps of a move.
  kj::Promise<void> step(std::shared_ptr<PoolMove> move, MoveStep step, uint64_t most_ms);
  kj::Promise<void> look(std::shared_ptr<PoolMove> move);
  kj::Promise<void> admit(std::shared_ptr<PoolMove> move);
  kj::Promise<void> copy(std::shared_ptr<PoolMove> move);
  kj::Promise<void> rest(std::shared_ptr<PoolMove> move);
  kj::Promise<void> send(std::shared_ptr<PoolMove> move);
  kj::Promise<void> decide(std::shared_ptr<PoolMove> move);

  SimServer& server_;
  std::unique_ptr<SimIo> io_;
  kj::Canceler calls_;
  control::Agent::Client service_;
  uint32_t backoff_ms_ = kBackoffFirstMs;
  kj::Maybe<kj::Promise<void>> registered_;
};

namespace {

class AgentService final : public control::Agent::Server {
 public:
  explicit AgentService(AgentModel& agent) : agent_(agent) {}

 protected:
  kj::Promise<void> place(PlaceContext context) override { return take(context.getParams().getLease()); }
  kj::Promise<void> prepare(PrepareContext context) override {
    context.getResults().setAddress(agent_.server().name());
    if (context.getParams().getLease().getGpu() == control::PARKED && agent_.is_full())
      return error_for_caller("there is no room");
    return take(context.getParams().getLease());
  }
  kj::Promise<void> release(ReleaseContext context) override {
    const auto p = context.getParams();
    return agent_.while_here(agent_.release(p.getJob(), p.getVgpu(), p.getEpoch()));
  }
  kj::Promise<void> move(MoveContext context) override {
    const auto p = context.getParams();
    context.getResults().initReport().setVgpus(1);
    return agent_.while_here(agent_.move({p.getJob().cStr(), p.getVgpu(), p.getEpoch()}, p.getLease(), p.getAddress()));
  }
  kj::Promise<void> cancel(CancelContext context) override {
    const auto p = context.getParams();
    agent_.cancel({p.getJob().cStr(), p.getVgpu(), p.getEpoch()});
    return kj::READY_NOW;
  }
  kj::Promise<void> stats(StatsContext context) override {
    agent_.describe(context.getParams().getJob(), context.getResults());
    return kj::READY_NOW;
  }
  kj::Promise<void> hold(HoldContext context) override {
    const auto p = context.getParams();
    const Outcome held = agent_.hold({p.getJob().cStr(), p.getVgpu(), p.getEpoch()}, p.getOn());
    if (!held.ok()) return error_for_caller(held.message());
    return kj::READY_NOW;
  }
  kj::Promise<void> ping(PingContext) override { return kj::READY_NOW; }

 private:
  kj::Promise<void> take(control::Lease::Reader lease) {
    const Outcome outcome = agent_.place(lease);
    if (!outcome.ok()) return error_for_caller(outcome.message());
    return kj::READY_NOW;
  }
  AgentModel& agent_;
};

}  // namespace

AgentModel::AgentModel(SimServer& server, std::shared_ptr<Machine> machine)
    : server_(server), io_(server.pool_.new_io(std::move(machine), "agent")), service_(kj::heap<AgentService>(*this)) {
  registered_ = keep_registered().eagerlyEvaluate([](kj::Exception&&) {});
}

AgentModel::~AgentModel() {
  io_->process()->alive = false;
  calls_.cancel("the agent's process has ended");
  registered_ = nullptr;
  server_.pool_.bury(std::move(io_));
}

Outcome AgentModel::place(control::Lease::Reader lease) {
  const LeaseKey key = key_of(lease);
  if (lease.getGpu() >= server_.gpus() && lease.getGpu() != control::PARKED)
    return Outcome::fail("this server has no such GPU");
  for (const auto& [other, held] : server_.leases_) {
    if (other.job == key.job && other.vgpu == key.vgpu && other.epoch > key.epoch) {
      return Outcome::fail("the epoch is older than the present one");
    }
  }
  server_.pool_.leased(key, server_.name(), lease.getGpu());
  AgentLease& held = server_.leases_[key];
  held.gpu = lease.getGpu();
  held.part = lease.getPart();
  held.memory_bytes = lease.getMemoryBytes();
  held.token.assign(reinterpret_cast<const char*>(lease.getToken().begin()), lease.getToken().size());
  return {};
}

void AgentModel::forget(const LeaseKey& key) {
  const auto found = server_.leases_.find(key);
  if (found == server_.leases_.end()) return;
  if (found->second.committed) return server_.hand_over(key);
  server_.undo(found->second);
  if (found->second.worker != nullptr) server_.kill_worker(found->second.worker);
  server_.leases_.erase(found);
}

// Returns when the workers are gone: also those that an earlier call began to end.
kj::Promise<void> AgentModel::release(const std::string& job, uint32_t vgpu, uint64_t epoch) {
  std::vector<LeaseKey> going;
  for (const auto& [key, lease] : server_.leases_) {
    if (key.job != job || key.vgpu != vgpu) continue;
    if (key.epoch > epoch) return error_for_caller("the vGPU has a newer assignment here");
    going.push_back(key);
  }
  for (const LeaseKey& key : going) forget(key);
  kj::Vector<kj::Promise<void>> ends;
  for (const auto& worker : server_.workers_) {
    if (worker->key.job != job || worker->key.vgpu != vgpu || worker->gone) continue;
    auto pair = kj::newPromiseAndFulfiller<void>();
    worker->waiting.push_back(kj::mv(pair.fulfiller));
    ends.add(kj::mv(pair.promise));
  }
  return io_->timer().timeoutAfter(kReleasePatience, kj::joinPromises(ends.releaseAsArray()));
}

kj::Promise<void> AgentModel::move(const LeaseKey& from, control::Lease::Reader to, const std::string& destination) {
  const auto found = server_.leases_.find(from);
  const LeaseKey next = key_of(to);
  if (found == server_.leases_.end()) return error_for_caller("the vGPU is not here in that epoch");
  if (found->second.moving) return error_for_caller("the vGPU is being moved already");
  if (next.epoch <= from.epoch) return error_for_caller("a move must lead to a newer epoch");
  auto going = std::make_shared<PoolMove>();
  going->from = from;
  going->to = next;
  going->source = server_.name();
  going->destination = destination;
  Chance& chance = server_.pool_.network().chance();
  going->rounds = uint32_t(chance.between(1, 4));
  going->processes = chance.one_in(3) ? 2 : 1;
  found->second.moving = true;
  found->second.going = going;
  ++server_.pool_.totals()->pool_moves.begun;
  return step(going, MoveStep::kAdmit, 20)
      .then([this, going] { return admit(going); })
      .then([this, going] { return copy(going); })
      .then([this, going] { return step(going, MoveStep::kReady, 30); })
      .then([this, going] { return step(going, MoveStep::kPause, 40); })
      .then([this, going] { return rest(going); })
      .then([this, going] { return step(going, MoveStep::kSend, 30); })
      .then([this, going] { return send(going); })
      .then([this, going] { return step(going, MoveStep::kThere, 10); })
      .then([this, going] { return decide(going); })
      .then([this, going] { return step(going, MoveStep::kGoesOver, 20); })
      .then(
          [this, from] {
            ++server_.pool_.totals()->pool_moves.moved;
            server_.hand_over(from);
          },
          [this, from, going](kj::Exception&& e) {
            MoveTotals& totals = server_.pool_.totals()->pool_moves;
            ++(going->called_off ? totals.off : totals.failed);
            ++totals.failed_at[size_t(going->step)];
            const auto stays = server_.leases_.find(from);
            if (stays != server_.leases_.end()) server_.undo(stays->second);
            kj::throwRecoverableException(kj::mv(e));
          });
}

// It takes a while, and then all must still be there that it needs. Behind the decision nothing is in its way.
kj::Promise<void> AgentModel::step(std::shared_ptr<PoolMove> move, MoveStep step, uint64_t most_ms) {
  move->step = step;
  Chance& chance = server_.pool_.network().chance();
  const uint64_t us = chance.between(200, most_ms * 1000);
  server_.strike_move(*move, chance);
  auto over = io_->timer().afterDelay(us * kj::MICROSECONDS);
  if (step == MoveStep::kGoesOver) return kj::mv(over);
  return over.then([this, move] { return look(move); });
}

kj::Promise<void> AgentModel::look(std::shared_ptr<PoolMove> move) {
  if (move->called_off) return error_for_caller("the scheduler that had ordered it has gone");
  if (server_.leases_.count(move->from) == 0) return error_for_caller("the vGPU was released meanwhile");
  const auto& arrives = move->arrives;
  if (arrives != nullptr && arrives->dying) return error_for_caller("the destination is gone");
  const auto worker = server_.leases_.at(move->from).worker;
  if (arrives != nullptr && (worker == nullptr || worker->dying)) return error_for_caller("its worker has ended");
  const uint64_t until = server_.pool_.network().cut_until(server_.name(), move->destination);
  const uint64_t now = server_.pool_.world().now();
  if (until <= now) return kj::READY_NOW;
  if (until - now > kSilence) return error_for_caller("the destination is silent");
  return io_->timer().afterDelay((until - now) / kMs * kj::MILLISECONDS + kj::MILLISECONDS).then([this, move] {
    return look(move);
  });
}

// The destination's agent is asked, and its worker begins to receive. Where no process has come there is nothing to
// send.
kj::Promise<void> AgentModel::admit(std::shared_ptr<PoolMove> move) {
  SimServer* there = server_.pool_.server(move->destination);
  if (there == nullptr || !there->up()) return error_for_caller("the destination does not answer");
  const auto lease = there->leases_.find(move->to);
  if (lease == there->leases_.end()) return error_for_caller("the destination has no such lease");
  if (there->is_left(move->to.job, lease->second.gpu)) return error_for_caller("another job's worker has not left yet");
  const auto worker = server_.leases_.at(move->from).worker;
  if (worker == nullptr || worker->dying) return kj::READY_NOW;
  if (lease->second.worker != nullptr) return error_for_caller("somebody is there already");
  move->arrives = lease->second.worker = there->start_worker(move->to, lease->second);
  move->arrives->arriving = true;
  return kj::READY_NOW;
}

kj::Promise<void> AgentModel::copy(std::shared_ptr<PoolMove> move) {
  if (move->rounds-- == 0) return kj::READY_NOW;
  if (server_.pool_.world().strikes(Fault::kNoRoom, 40)) return error_for_caller("the destination is full");
  return step(move, MoveStep::kCopy, 80).then([this, move] { return copy(move); });
}

// All processes, before anything is sent.
kj::Promise<void> AgentModel::rest(std::shared_ptr<PoolMove> move) {
  const auto worker = server_.leases_.at(move->from).worker;
  if (worker != nullptr) worker->at_rest = true;
  if (move->processes == 1) return kj::READY_NOW;
  if (server_.pool_.world().strikes(Fault::kSlowGpu, 20))
    return error_for_caller("its processes do not come to rest at one moment");
  return step(move, MoveStep::kStill, 60);
}

kj::Promise<void> AgentModel::send(std::shared_ptr<PoolMove> move) {
  if (server_.pool_.world().strikes(Fault::kNoRoom, 40)) return error_for_caller("the destination is full");
  if (move->arrives != nullptr) move->arrives->there = true;
  return kj::READY_NOW;
}

// Written down before anybody is told.
kj::Promise<void> AgentModel::decide(std::shared_ptr<PoolMove> move) {
  if (server_.pool_.world().strikes(Fault::kDiskFull, 40)) return error_for_caller("the disk is full");
  server_.leases_.at(move->from).committed = true;
  move->step = MoveStep::kDecided;
  if (!server_.pool_.world().strikes(Fault::kKillAgent, 30)) return kj::READY_NOW;
  server_.note_struck();
  SimServer& server = server_;
  server.pool_.world().at(server.pool_.world().now(), [&server] { server.pool_.kill_agent(server, false); });
  return io_->timer().afterDelay(1 * kj::SECONDS);
}

// What a new scheduler is told shall stay true.
void AgentModel::call_off_moves() {
  for (auto& [key, lease] : server_.leases_) {
    if (lease.going != nullptr && !lease.committed) lease.going->called_off = true;
  }
}

Outcome AgentModel::hold(const LeaseKey& key, bool on) {
  const auto found = server_.leases_.find(key);
  if (found == server_.leases_.end()) return Outcome::fail("the vGPU is not here in that epoch");
  AgentLease& lease = found->second;
  Chance& chance = server_.pool_.network().chance();
  lease.held = on;
  lease.quiet_at = server_.pool_.world().now() + chance.between(kMs, chance.one_in(12) ? 60 * kS : kS);
  if (lease.worker != nullptr) lease.worker->held = on;
  return {};
}

void AgentModel::describe(const std::string& job, control::Agent::StatsResults::Builder results) const {
  std::vector<std::pair<uint32_t, const AgentLease*>> mine;
  for (const auto& [key, lease] : server_.leases_) {
    if (key.job == job) mine.push_back({key.vgpu, &lease});
  }
  auto list = results.initVgpus(uint32_t(mine.size()));
  const uint64_t now = server_.pool_.world().now();
  for (uint32_t i = 0; i < list.size(); ++i) {
    const AgentLease& lease = *mine[i].second;
    list[i].setVgpu(mine[i].first);
    list[i].setQuiet(lease.held && now >= lease.quiet_at);
    list[i].setCommands(lease.held ? std::min(now, lease.quiet_at) : now);
    if (lease.worker != nullptr) list[i].initWorkerPids(1).set(0, 1);
  }
}

void AgentModel::describe(control::ServerInfo::Builder info) const {
  info.setName(server_.name());
  info.setEndpoint(server_.name());
  auto gpus = info.initGpus(server_.gpus());
  for (uint32_t i = 0; i < server_.gpus(); ++i) {
    gpus[i].setIndex(i);
    gpus[i].setName("simulated");
    gpus[i].setMemoryBytes(kGpuBytes);
    gpus[i].setUuid(server_.name() + "-" + std::to_string(i));
    gpus[i].setDeviceInfo(kj::StringPtr("simulated").asBytes());
  }
  const auto& all = server_.leases_;
  const auto counts = [](const auto& each) { return !each.second.committed; };
  auto leases = info.initLeases(uint32_t(std::count_if(all.begin(), all.end(), counts)));
  uint32_t i = 0;
  for (const auto& [key, lease] : all) {
    if (lease.committed) continue;  // not here any more
    leases[i].setJob(key.job);
    leases[i].setVgpu(key.vgpu);
    leases[i].setEpoch(key.epoch);
    leases[i].setGpu(lease.gpu);
    leases[i].setToken(kj::arrayPtr(reinterpret_cast<const kj::byte*>(lease.token.data()), lease.token.size()));
    leases[i].setMemoryBytes(lease.memory_bytes);
    leases[i].setPart(lease.part);
    ++i;
  }
}

// As Registrar of server/agent_service.cc.
kj::Promise<void> AgentModel::keep_registered() {
  return connect_once()
      .catch_([](kj::Exception&&) {})
      .then([this] {
        const uint32_t delay = backoff_ms_;
        backoff_ms_ = std::min(backoff_ms_ * 2, kBackoffLastMs);
        return io_->timer().afterDelay(delay * kj::MILLISECONDS);
      })
      .then([this] { return keep_registered(); });
}

kj::Promise<void> AgentModel::connect_once() {
  auto& network = io_->context().provider->getNetwork();
  auto connecting = network.parseAddress(kSchedulerAddress).then([](kj::Own<kj::NetworkAddress> address) {
    return address->connect().attach(kj::mv(address));
  });
  return io_->timer()
      .timeoutAfter(kConnectPatience, kj::mv(connecting))
      .then([this](kj::Own<kj::AsyncIoStream> stream) {
        auto connection = kj::heap<Connection>(kj::mv(stream));
        call_off_moves();
        auto request = connection->pool.registerRequest();
        describe(request.initServer());
        request.setAgent(service_);
        auto lost = connection->client.onDisconnect();
        auto taken = request.send().then([](capnp::Response<control::Pool::RegisterResults>&& r) { return kj::mv(r); });
        auto lives = io_->timer().timeoutAfter(kConnectPatience, kj::mv(taken)).then([this](auto&& response) {
          backoff_ms_ = kBackoffFirstMs;
          return heartbeat(response.getRegistration(), std::max(response.getLeaseMs() / 3, 100u));
        });
        return lives.exclusiveJoin(kj::mv(lost)).attach(kj::mv(connection));
      });
}

kj::Promise<void> AgentModel::heartbeat(control::Registration::Client registration, uint32_t every_ms) {
  return io_->timer().afterDelay(every_ms * kj::MILLISECONDS).then([this, registration, every_ms]() mutable {
    auto beat = io_->timer().timeoutAfter(kConnectPatience, registration.heartbeatRequest().send().ignoreResult());
    return beat.then([this, registration, every_ms]() mutable { return heartbeat(registration, every_ms); });
  });
}

SimServer::SimServer(SimPool& pool, std::string name, uint32_t gpus)
    : pool_(pool), name_(std::move(name)), gpus_(gpus), machine_(std::make_shared<Machine>()) {
  machine_->name = name_;
}

SimServer::~SimServer() = default;

void SimServer::start() {
  pool_.world().note("agent starts");
  if (!machine_->powered) {
    machine_->powered = true;
    pool_.network().power_is_back(machine_);
  }
  take_over();
  agent_ = kj::heap<AgentModel>(*this, machine_);
}

// The next agent finds the leases written down, and the workers. Those that still receive end with this one.
void SimServer::kill_agent() {
  if (!up()) return;
  pool_.world().note("agent killed");
  note_struck();
  agent_ = nullptr;
  const auto workers = workers_;
  for (const auto& worker : workers) {
    if (worker->arriving && !worker->there) kill_worker(worker);
  }
}

// What an earlier agent left of moves: what was decided is told, the rest is off.
void SimServer::take_over() {
  std::vector<LeaseKey> decided;
  for (auto& [key, lease] : leases_) {
    if (lease.committed) {
      decided.push_back(key);
    } else if (lease.going != nullptr) {
      undo(lease);
    }
  }
  for (const LeaseKey& key : decided) hand_over(key);
}

// Of a move that failed: the source goes on, and what has come there ends.
void SimServer::undo(AgentLease& lease) {
  lease.moving = false;
  if (lease.worker != nullptr) lease.worker->at_rest = false;
  const auto going = std::exchange(lease.going, nullptr);
  if (going == nullptr || going->arrives == nullptr || !going->arrives->arriving) return;
  pool_.server(going->destination)->kill_worker(going->arrives);
}

// The source's worker is told, and its clients go.
void SimServer::hand_over(const LeaseKey& key) {
  const auto found = leases_.find(key);
  if (found == leases_.end()) return;
  const auto going = found->second.going;
  if (found->second.worker != nullptr) kill_worker(found->second.worker);
  if (going != nullptr && going->arrives != nullptr) going->arrives->arriving = false;
  leases_.erase(found);
}

void SimServer::note_struck() {
  for (const auto& [key, lease] : leases_) {
    if (lease.going != nullptr) note_struck(*lease.going);
  }
}

// Once for each step.
void SimServer::note_struck(PoolMove& move) {
  if (!std::exchange(move.struck[size_t(move.step)], true)) ++pool_.totals()->pool_moves.struck[size_t(move.step)];
}

void SimServer::strike_move(PoolMove& move, Chance& chance) {
  World& world = pool_.world();
  if (world.healed() || !chance.one_in(8)) return;
  SimServer* const there = pool_.server(move.destination);
  SimServer* const struck = chance.one_in(2) || there == nullptr ? this : there;
  const uint64_t kind = chance.below(4);
  const Fault fault = kind == 0   ? Fault::kKillWorker
                      : kind == 1 ? Fault::kKillAgent
                      : kind == 2 ? Fault::kPause
                                  : Fault::kPartition;
  if (!world.strikes(fault, 1)) return;
  note_struck(move);
  const bool power = chance.one_in(4);
  const uint64_t ns = pool_.how_long();
  const auto lease = leases_.find(move.from);
  const auto worker = struck == there ? move.arrives : lease == leases_.end() ? nullptr : lease->second.worker;
  if (fault == Fault::kPartition) return pool_.network().cut(name_, move.destination, chance.one_in(6) ? 40 * kS : ns);
  world.after(chance.below(10 * kMs), [this, struck, fault, worker, power, ns] {
    if (fault == Fault::kKillWorker && worker != nullptr && !worker->gone) struck->kill_worker(worker);
    if (fault == Fault::kKillAgent) pool_.kill_agent(*struck, power);
    if (fault == Fault::kPause) struck->pause(ns);
  });
}

void SimServer::lose_power() {
  if (!up()) return;
  pool_.world().note("server lost its power");
  note_struck();
  machine_->powered = false;
  agent_ = nullptr;
  for (auto& [key, lease] : leases_) {
    // What had all of it has lost nothing: its clients find it there.
    const auto arrives = lease.going == nullptr ? nullptr : lease.going->arrives;
    if (arrives == nullptr || !arrives->arriving) continue;
    if (arrives->there) {
      arrives->arriving = false;
    } else {
      pool_.server(lease.going->destination)->kill_worker(arrives);
    }
  }
  leases_.clear();
  const auto workers = workers_;
  for (const auto& worker : workers) end_worker(worker);
}

void SimServer::pause(uint64_t ns) {
  if (!up()) return;
  pool_.world().note("agent paused", ns);
  pool_.world().pause(*agent_->io().process(), ns);
}

void SimServer::kill_some_worker(Chance& chance) {
  if (workers_.empty() || !up()) return;
  pool_.world().note("worker killed");
  kill_worker(workers_[chance.below(workers_.size())]);
}

bool SimServer::paused() const { return up() && agent_->io().process()->paused_until > pool_.world().now(); }

bool SimServer::holds_anything() const { return !leases_.empty() || !workers_.empty(); }

bool SimServer::holds(const std::string& job, uint32_t vgpu, uint32_t gpu) const {
  return std::any_of(leases_.begin(), leases_.end(), [&](const auto& each) {
    return each.first.job == job && each.first.vgpu == vgpu && each.second.gpu == gpu;
  });
}

std::string SimServer::open(const LeaseKey& key, const std::string& token, std::shared_ptr<GpuWorker>* worker) {
  const auto found = leases_.find(key);
  if (found == leases_.end()) return "this server does not hold that vGPU";
  if (found->second.token != token) return "the job's token is wrong";
  if (found->second.moving || found->second.committed) return "the vGPU is being moved";
  if (found->second.worker != nullptr && found->second.worker->arriving) return "the vGPU has not arrived yet";
  if (is_left(key.job, found->second.gpu)) return "another job's worker has not left the GPU yet";
  if (found->second.worker == nullptr) found->second.worker = start_worker(key, found->second);
  *worker = found->second.worker;
  (*worker)->held = found->second.held;
  return {};
}

// Whether somebody else's worker is still there.
bool SimServer::is_left(const std::string& job, uint32_t gpu) const {
  if (gpu == control::PARKED) return false;
  return std::any_of(workers_.begin(), workers_.end(),
                     [&](const auto& worker) { return worker->gpu == gpu && worker->key.job != job && worker->dying; });
}

// Jobs that are on one GPU at once have parts of it that make one at most, and so does their memory.
std::shared_ptr<GpuWorker> SimServer::start_worker(const LeaseKey& key, const AgentLease& lease) {
  const uint32_t gpu = lease.gpu;
  uint64_t parts = lease.part, bytes = lease.memory_bytes;
  std::set<std::string> jobs = {key.job};
  for (const auto& other : workers_) {
    if (other->gpu != gpu || gpu == control::PARKED || !jobs.insert(other->key.job).second) continue;
    parts += other->part;
    bytes += other->memory_bytes;
    if (parts <= sched::kWholeGpu && bytes <= kGpuBytes) continue;
    pool_.world().violate("owner", "GPU %s/%u gets a worker of job %s while one of job %s is there", name_.c_str(), gpu,
                          key.job.c_str(), other->key.job.c_str());
  }
  if (jobs.size() > 1) ++pool_.totals()->shared;
  auto worker = std::make_shared<GpuWorker>();
  worker->key = key;
  worker->gpu = gpu;
  worker->part = lease.part;
  worker->memory_bytes = lease.memory_bytes;
  workers_.push_back(worker);
  pool_.world().note("worker starts", gpu, key.vgpu, key.epoch);
  return worker;
}

// A process that a driver holds is not gone at once.
void SimServer::kill_worker(const std::shared_ptr<GpuWorker>& worker) {
  if (worker->dying) return;
  worker->dying = true;
  World& world = pool_.world();
  uint64_t ns = pool_.network().chance().between(kMs, 60 * kMs);
  if (world.strikes(Fault::kSlowGpu, 4)) ns = pool_.network().chance().between(300 * kMs, 9 * kS);
  world.after(ns, [this, worker] { end_worker(worker); });
}

void SimServer::end_worker(const std::shared_ptr<GpuWorker>& worker) {
  if (worker->gone) return;
  worker->gone = worker->dying = true;
  workers_.erase(std::find(workers_.begin(), workers_.end(), worker));
  pool_.world().note("worker gone", worker->gpu, worker->key.vgpu, worker->key.epoch);
  for (auto& [key, lease] : leases_) {
    if (lease.worker == worker) lease.worker = nullptr;
  }
  for (auto& waiting : worker->waiting) waiting->fulfill();
  worker->waiting.clear();
}

}  // namespace tide::simulation
