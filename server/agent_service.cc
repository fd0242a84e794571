#include "server/agent_service.h"

#include <capnp/ez-rpc.h>
#include <capnp/rpc-twoparty.h>
#include <cuda.h>
#include <string.h>

#include <algorithm>
#include <fstream>

#include "base/clock.h"
#include "base/log.h"
#include "calls.h"
#include "scheduler/addresses.h"
#include "scheduler/enter.h"
#include "scheduler/remote_error.h"

namespace tide {
namespace {

constexpr auto kConnectPatience = 10 * kj::SECONDS;
constexpr uint32_t kBackoffFirstMs = 200;
constexpr uint32_t kBackoffLastMs = 5000;
// The same with several schedulers.
constexpr auto kPatienceSeveral = 2 * kj::SECONDS;
constexpr uint32_t kBackoffSeveralMs = 400, kBeatSeveralMs = 1000;
constexpr uint64_t kLeaseSharePermille = 800;  // of the scheduler's patience: clocks may go a little differently
constexpr const char* kVersion = "0.1.0";

// By function, and what the clients have of no function.
void tell_trips(const Agent::Stats& from, control::VgpuStats::Builder to) {
  uint64_t named = 0;
  for (const auto& [function, count] : from.round_trips_of) named += count;
  const bool others = from.sum.round_trips > named;
  auto list = to.initRoundTripCalls(uint32_t(from.round_trips_of.size()) + others);
  uint32_t i = 0;
  for (const auto& [function, count] : from.round_trips_of) {
    list[i].setCall(call_name(function));
    list[i++].setCount(count);
  }
  if (!others) return;
  list[i].setCall("other");
  list[i].setCount(from.sum.round_trips - named);
}

Outcome terms_of(control::Lease::Reader lease, LeaseTerms* terms) {
  terms->job = lease.getJob().cStr();
  terms->vgpu = lease.getVgpu();
  terms->gpu = lease.getGpu();
  terms->epoch = lease.getEpoch();
  terms->memory_bytes = lease.getMemoryBytes();
  terms->is_protected = lease.getProtected();
  terms->part = lease.getPart();
  terms->weight = lease.getWeight();
  terms->is_latency = lease.getLatency();
  const auto token = lease.getToken();
  if (token.size() != kTokenBytes) return Outcome::fail(format("a token has %u bytes", kTokenBytes));
  memcpy(terms->token, token.begin(), kTokenBytes);
  return {};
}

class AgentService final : public control::Agent::Server {
 public:
  AgentService(Agent& agent, std::string endpoint) : agent_(agent), endpoint_(std::move(endpoint)) {}

 protected:
  kj::Promise<void> place(PlaceContext context) override { return take(context.getParams().getLease()); }
  kj::Promise<void> release(ReleaseContext context) override {
    const auto p = context.getParams();
    return agent_.release(p.getJob(), p.getVgpu(), p.getEpoch());
  }
  kj::Promise<void> prepare(PrepareContext context) override {
    context.getResults().setAddress(endpoint_);
    return take(context.getParams().getLease());
  }
  kj::Promise<void> move(MoveContext context) override {
    const auto p = context.getParams();
    Agent::MoveOrder order;
    order.job = p.getJob().cStr();
    order.vgpu = p.getVgpu();
    order.epoch = p.getEpoch();
    if (const Outcome read = terms_of(p.getLease(), &order.next); !read.ok()) return refusal(0, read.message());
    order.address = p.getAddress().cStr();
    order.endpoint = p.getEndpoint().cStr();
    return agent_.move(order).then([context](AgentMoveReport report) mutable {
      auto r = context.getResults().initReport();
      r.setBytes(report.bytes);
      r.setPauseMs(report.pause_ms);
      r.setPauseBytes(report.pause_bytes);
      r.setDrainMs(report.drain_ms);
      r.setCopyMs(report.copy_ms);
      r.setRestoreMs(report.restore_ms);
      r.setRounds(report.rounds);
      r.setVgpus(1);
      r.setTotalMs(report.total_ms);
    });
  }
  kj::Promise<void> cancel(CancelContext context) override {
    const auto p = context.getParams();
    agent_.cancel(p.getJob(), p.getVgpu(), p.getEpoch());
    return kj::READY_NOW;
  }
  kj::Promise<void> stats(StatsContext context) override {
    return agent_.stats(context.getParams().getJob()).then([context](std::vector<Agent::Stats> all) mutable {
      auto list = context.getResults().initVgpus(uint32_t(all.size()));
      for (uint32_t i = 0; i < list.size(); ++i) {
        const Agent::Stats& from = all[i];
        auto to = list[i];
        to.setVgpu(from.vgpu);
        to.setMoves(from.moves);
        auto pids = to.initWorkerPids(uint32_t(from.pids.size()));
        for (uint32_t n = 0; n < pids.size(); ++n) pids.set(n, from.pids[n]);
        to.setResidentBytes(from.sum.resident_bytes);
        to.setCommands(from.sum.commands);
        to.setRoundTrips(from.sum.round_trips);
        to.setRoundTripsPerS(from.sum.round_trips_per_s);
        tell_trips(from, to);
        to.setBytesIn(from.sum.bytes_in);
        to.setBytesOut(from.sum.bytes_out);
        to.setSavedIn(from.sum.saved_in);
        to.setSavedOut(from.sum.saved_out);
        to.setKeptIn(from.sum.kept_in);
        to.setWaitNs(from.sum.wait_ns);
        to.setObjects(from.sum.objects);
        to.setKeptInMemory(from.sum.kept_in_memory);
        to.setKeptOnDisk(from.sum.kept_on_disk);
        to.setKeptApart(from.sum.kept_apart);
        to.setTransport(from.sum.transport);
        auto link = to.initLink();
        link.setRoundTripUs(from.sum.link.round_trip_us);
        link.setBytesPerS(from.sum.link.bytes_per_s);
        link.setWindowMs(from.sum.link.window_ns / 1'000'000);
        link.setWaitMs(from.sum.link.wait_ns / 1'000'000);
        link.setWindowBytes(from.sum.link.window_bytes);
        link.setLandedDirect(from.sum.landed_direct);
        link.setLandedStaged(from.sum.landed_staged);
        to.setBusyPermille(from.sum.busy_permille);
        to.setQuiet(from.sum.quiet != 0);
        auto clients = to.initClients(uint32_t(from.clients.size()));
        for (uint32_t n = 0; n < clients.size(); ++n) {
          clients[n].setPid(from.clients[n].pid);
          clients[n].setResidentBytes(from.clients[n].resident_bytes);
        }
      }
    });
  }
  kj::Promise<void> usage(UsageContext context) override {
    return agent_.usage().then([context](std::vector<Agent::Usage> all) mutable {
      auto list = context.getResults().initVgpus(uint32_t(all.size()));
      for (uint32_t i = 0; i < list.size(); ++i) {
        list[i].setJob(all[i].job);
        list[i].setVgpu(all[i].vgpu);
        list[i].setEpoch(all[i].epoch);
        list[i].setGpu(all[i].gpu);
        list[i].setUsedMs(all[i].used_ms);
        list[i].setResidentBytes(all[i].resident_bytes);
        list[i].setBusyPermille(all[i].busy_permille);
      }
    });
  }
  kj::Promise<void> ping(PingContext) override { return kj::READY_NOW; }
  kj::Promise<void> hold(HoldContext context) override {
    const auto p = context.getParams();
    const Outcome outcome = agent_.hold(p.getJob(), p.getVgpu(), p.getEpoch(), p.getOn());
    if (!outcome.ok()) return refusal(0, outcome.message());
    return kj::READY_NOW;
  }
  kj::Promise<void> checkpoint(CheckpointContext context) override {
    const auto p = context.getParams();
    AgentCheckpointOrder order{.job = p.getJob().cStr(),
                               .vgpu = p.getVgpu(),
                               .epoch = p.getEpoch(),
                               .guard = {},
                               .address = p.getAddress().cStr()};
    if (const Outcome read = terms_of(p.getGuard(), &order.guard); !read.ok()) return refusal(0, read.message());
    return agent_.checkpoint(order).then([context](AgentCheckpointReport report) mutable {
      auto r = context.getResults().initReport();
      r.setBytes(report.all.bytes);
      r.setPauseMs(report.all.pause_ms);
      r.setPauseBytes(report.all.pause_bytes);
      r.setRounds(report.all.rounds);
      r.setDrainMs(report.all.drain_ms);
      r.setCopyMs(report.all.copy_ms);
      r.setTotalMs(report.all.total_ms);
      r.setCpuMs(report.cpu_ms);
      r.setSessions(report.sessions);
      r.setRefused(report.refused);
    });
  }
  kj::Promise<void> give(GiveContext context) override {
    const auto p = context.getParams();
    Agent::MoveOrder order;
    order.job = p.getJob().cStr();
    order.vgpu = p.getVgpu();
    order.epoch = p.getEpoch();
    if (const Outcome read = terms_of(p.getLease(), &order.next); !read.ok()) return refusal(0, read.message());
    order.address = p.getAddress().cStr();
    return agent_.give(order).then([context](AgentMoveReport report) mutable {
      auto r = context.getResults().initReport();
      r.setBytes(report.bytes);
      r.setVgpus(1);
    });
  }
  kj::Promise<void> watch(WatchContext context) override {
    context.allowCancellation();  // it waits for as long as its scheduler lives
    const auto p = context.getParams();
    return agent_.watch_vgpu(p.getJob(), p.getVgpu(), p.getEpoch()).then([context](bool lost) mutable {
      context.getResults().setLost(lost);
    });
  }

 private:
  kj::Promise<void> take(control::Lease::Reader lease) {
    LeaseTerms terms;
    Outcome outcome = terms_of(lease, &terms);
    if (outcome.ok()) outcome = agent_.place(terms);
    if (!outcome.ok()) return refusal(0, outcome.message());
    return kj::READY_NOW;
  }

  Agent& agent_;
  const std::string endpoint_;
};

void describe(const Agent& agent, const RegistrationOptions& options, control::ServerInfo::Builder info) {
  info.setName(options.name);
  info.setEndpoint(options.endpoint);
  info.setVersion(kVersion);
  const auto& devices = agent.gpus().devices();
  auto gpus = info.initGpus(uint32_t(devices.size()));
  for (uint32_t i = 0; i < gpus.size(); ++i) {
    const DeviceInfo& device = devices[i];
    gpus[i].setIndex(i);
    gpus[i].setName(device.name);
    gpus[i].setMemoryBytes(device.total_memory);
    gpus[i].setUuid(agent.gpus().uuid(i));
    gpus[i].setDeviceInfo(kj::arrayPtr(reinterpret_cast<const kj::byte*>(&device), sizeof(device)));
    gpus[i].setHealthy(true);
    gpus[i].setSoftware(device.software != 0);
    gpus[i].setCompute(uint32_t(10 * device.attributes[CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR] +
                                device.attributes[CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR]));
  }
  const std::vector<LeaseTerms> held = agent.leases();
  auto leases = info.initLeases(uint32_t(held.size()));
  for (uint32_t i = 0; i < leases.size(); ++i) {
    leases[i].setJob(held[i].job);
    leases[i].setVgpu(held[i].vgpu);
    leases[i].setGpu(held[i].gpu);
    leases[i].setEpoch(held[i].epoch);
    leases[i].setToken(kj::arrayPtr(held[i].token, kTokenBytes));
    leases[i].setMemoryBytes(held[i].memory_bytes);
    leases[i].setProtected(held[i].is_protected);
    leases[i].setPart(held[i].part);
    leases[i].setWeight(held[i].weight);
    leases[i].setLatency(held[i].is_latency);
  }
}

// One connection to the scheduler, as long as it lasts.
class Registrar {
 public:
  Registrar(Agent& agent, RegistrationOptions options)
      : agent_(agent),
        options_(std::move(options)),
        addresses_(options_.scheduler),
        service_(make_agent_service(agent, options_.endpoint)) {}

  kj::Promise<void> run() {
    return connect_once()
        .then([] {},
              [this](kj::Exception&& e) {
                const LogLevel level = complained_ ? LogLevel::kDebug : LogLevel::kWarning;
                log(level, "the scheduler at %s: %s; trying again", addresses_.present().c_str(),
                    network_error(e).c_str());
                complained_ = true;
                const bool silent = e.getType() == kj::Exception::Type::OVERLOADED;
                silent ? addresses_.avoid(addresses_.present()) : addresses_.next();
              })
        .then([this] {
          const uint32_t delay = backoff_ms_;
          backoff_ms_ = std::min(backoff_ms_ * 2, addresses_.several() ? kBackoffSeveralMs : kBackoffLastMs);
          return agent_.io().provider->getTimer().afterDelay(delay * kj::MILLISECONDS);
        })
        .then([this] { return run(); });
  }

 private:
  struct Connection {
    explicit Connection(kj::Own<kj::AsyncIoStream> s) : stream(kj::mv(s)), client(*stream) {}
    kj::Own<kj::AsyncIoStream> stream;
    capnp::TwoPartyClient client;
  };

  kj::Promise<void> connect_once() {
    auto& network = agent_.io().provider->getNetwork();
    return timer()
        .timeoutAfter(patience(),
                      network.parseAddress(addresses_.present()).then([](kj::Own<kj::NetworkAddress> address) {
                        return address->connect().attach(kj::mv(address));
                      }))
        .then([this](kj::Own<kj::AsyncIoStream> stream) {
          auto connection = kj::heap<Connection>(kj::mv(stream));
          agent_.call_off_moves();
          auto lost = connection->client.onDisconnect();
          // What we have to say may be more than is heard of strangers.
          auto entered = sched::enter_or_follow(connection->client, control::Caller::AGENT);
          auto lives = timer().timeoutAfter(patience(), kj::mv(entered)).then([this](sched::Entered&& met) {
            return met.follower ? go_to(met.leader) : serve(kj::mv(met.pool));
          });
          return lives.exclusiveJoin(kj::mv(lost)).attach(kj::mv(connection));
        });
  }

  kj::Promise<void> go_to(const std::string& leader) {
    log(LogLevel::kDebug, "%s does not lead; '%s' does", addresses_.present().c_str(), leader.c_str());
    if (!leader.empty()) {
      addresses_.follow(leader);
      backoff_ms_ = kBackoffFirstMs;
    } else {
      addresses_.next();
    }
    return kj::READY_NOW;
  }

  kj::Promise<void> serve(control::Pool::Client pool) {
    asked_ns_ = boot_ns();
    auto request = pool.registerRequest();
    describe(agent_, options_, request.initServer());
    request.setAgent(service_);
    auto taken = request.send().then([](capnp::Response<control::Pool::RegisterResults>&& r) { return kj::mv(r); });
    return timer().timeoutAfter(kConnectPatience, kj::mv(taken)).then([this](auto&& response) {
      registered();
      lease_ms_ = response.getLeaseMs();
      heard();
      const uint32_t every_ms = std::max(response.getLeaseMs() / 3, 100u);
      return heartbeat(response.getRegistration(),
                       addresses_.several() ? std::min(every_ms, kBeatSeveralMs) : every_ms);
    });
  }

  void registered() {
    log(LogLevel::kInfo, "registered as '%s' with the scheduler at %s", options_.name.c_str(),
        addresses_.present().c_str());
    complained_ = false;
    backoff_ms_ = kBackoffFirstMs;
    if (options_.ready_file.empty()) return;
    std::ofstream(options_.ready_file) << "endpoint=" << options_.endpoint << "\n";
    options_.ready_file.clear();
  }

  kj::Promise<void> heartbeat(control::Registration::Client registration, uint32_t every_ms) {
    return timer().afterDelay(every_ms * kj::MILLISECONDS).then([this, registration, every_ms]() mutable {
      asked_ns_ = boot_ns();
      auto beat = timer().timeoutAfter(patience(), registration.heartbeatRequest().send().ignoreResult());
      return beat.then([this, registration, every_ms]() mutable {
        heard();
        return heartbeat(registration, every_ms);
      });
    });
  }
  // From when we asked at the latest the scheduler counts until it takes this server for lost: before that protected
  // vGPUs must have stopped here, because they may go on elsewhere then.
  void heard() { agent_.renew_leases(asked_ns_ + uint64_t(lease_ms_) * kLeaseSharePermille * 1'000); }
  // Where there are several, one that is silent is soon left for another.
  kj::Duration patience() const { return addresses_.several() ? kPatienceSeveral : kConnectPatience; }
  kj::Timer& timer() { return agent_.io().provider->getTimer(); }

  Agent& agent_;
  RegistrationOptions options_;
  sched::Addresses addresses_;
  control::Agent::Client service_;
  uint64_t asked_ns_ = 0;  // when what was answered last was asked (boot_ns())
  uint32_t lease_ms_ = 0;
  uint32_t backoff_ms_ = kBackoffFirstMs;
  bool complained_ = false;
};

}  // namespace

control::Agent::Client make_agent_service(Agent& agent, std::string endpoint) {
  return kj::heap<AgentService>(agent, std::move(endpoint));
}

kj::Promise<void> keep_registered(Agent& agent, RegistrationOptions options) {
  auto registrar = kj::heap<Registrar>(agent, std::move(options));
  auto running = registrar->run();
  return running.attach(kj::mv(registrar));
}

}  // namespace tide
