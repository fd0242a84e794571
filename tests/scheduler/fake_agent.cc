#include "tests/scheduler/fake_agent.h"

#include <utility>

#include "base/log.h"
#include "scheduler/remote_error.h"

namespace tide {
namespace {

class FakeAgent final : public control::Agent::Server {
 public:
  FakeAgent(std::string server, FakeAgentLog& log, kj::Timer& timer)
      : server_(std::move(server)), log_(log), timer_(timer) {}

 protected:
  kj::Promise<void> place(PlaceContext context) override {
    const auto lease = context.getParams().getLease();
    note("place", lease);
    if (fails("place")) return error_for_caller(log_.fail["place"]);
    log_.leases[{lease.getJob(), lease.getVgpu()}] = lease.getEpoch();
    log_.shares[{lease.getJob(), lease.getVgpu()}] = std::to_string(lease.getPart()) + " x " +
                                                     std::to_string(lease.getWeight()) +
                                                     (lease.getLatency() ? " first" : "");
    log_.gpus[{lease.getJob(), lease.getVgpu()}] = lease.getGpu();
    log_.servers[{lease.getJob(), lease.getVgpu()}] = server_;
    return kj::READY_NOW;
  }

  kj::Promise<void> release(ReleaseContext context) override {
    const auto params = context.getParams();
    log_.calls.push_back(format("release %s:%u from %s epoch %lu", params.getJob().cStr(), params.getVgpu(),
                                server_.c_str(), (unsigned long)params.getEpoch()));
    if (fails("release")) return error_for_caller(log_.fail["release"]);
    const auto found = log_.leases.find({params.getJob(), params.getVgpu()});
    if (found != log_.leases.end() && found->second > params.getEpoch()) return error_for_caller("an older epoch");
    if (found != log_.leases.end()) log_.leases.erase(found);
    return kj::READY_NOW;
  }

  kj::Promise<void> prepare(PrepareContext context) override {
    const auto lease = context.getParams().getLease();
    note("prepare", lease);
    if (fails("guard") && lease.getGpu() == control::GUARDING) return error_for_caller(log_.fail["guard"]);
    if (lease.getGpu() == control::GUARDING) {
      log_.guards[vgpu_text(lease.getJob(), lease.getVgpu())] = server_;
      log_.guard_epochs[vgpu_text(lease.getJob(), lease.getVgpu())] = lease.getEpoch();
    }
    const auto room = log_.room.find(server_);
    if (lease.getGpu() == control::PARKED && room != log_.room.end() && kept() >= room->second)
      return error_for_caller("the disk of " + server_ + " is full");
    context.getResults().setAddress("address of " + server_);
    return kj::READY_NOW;
  }

  kj::Promise<void> move(MoveContext context) override {
    const auto params = context.getParams();
    note("move", params.getLease());
    if (fails("move")) return error_for_caller(log_.fail["move"]);
    const std::string to = std::string(params.getAddress()).substr(std::string("address of ").size());
    if (log_.unreachable.count(to) != 0) return error_for_caller(log_.unreachable[to]);
    ++log_.moves_at_once;
    log_.moves_at_once_max = std::max(log_.moves_at_once_max, log_.moves_at_once);
    const auto key = std::pair<std::string, uint32_t>(params.getJob(), params.getVgpu());
    const uint64_t epoch = params.getLease().getEpoch();
    const uint32_t gpu = params.getLease().getGpu();
    return timer_.afterDelay(log_.move_ms * kj::MILLISECONDS).then([this, context, key, epoch, gpu, to]() mutable {
      --log_.moves_at_once;
      // All servers of a test share one log, so the destination's lease is ours to write.
      log_.leases[key] = epoch;
      log_.gpus[key] = gpu;
      log_.servers[key] = to;
      log_.held.erase(key);
      auto report = context.getResults().initReport();
      report.setBytes(1000);
      report.setPauseMs(double(epoch));
      report.setRounds(1);
      report.setPauseBytes(100);
      report.setDrainMs(0.25);
      report.setCopyMs(0.5);
      report.setRestoreMs(0.125 * double(epoch));
      report.setVgpus(1);
    });
  }

  kj::Promise<void> cancel(CancelContext context) override {
    const auto params = context.getParams();
    log_.calls.push_back(
        format("cancel %s:%u epoch %lu", params.getJob().cStr(), params.getVgpu(), (unsigned long)params.getEpoch()));
    return kj::READY_NOW;
  }

  kj::Promise<void> usage(UsageContext context) override {
    std::vector<std::pair<std::string, uint32_t>> mine;
    for (const auto& [key, epoch] : log_.leases) {
      if (log_.servers[key] == server_ && log_.gpus[key] < control::GUARDING) mine.push_back(key);
    }
    auto list = context.getResults().initVgpus(uint32_t(mine.size()));
    for (uint32_t i = 0; i < list.size(); ++i) {
      list[i].setJob(mine[i].first);
      list[i].setVgpu(mine[i].second);
      list[i].setEpoch(log_.leases[mine[i]]);
      list[i].setGpu(log_.gpus[mine[i]]);
      list[i].setUsedMs(log_.used_ms);
      list[i].setResidentBytes(1000 + mine[i].second);
    }
    return kj::READY_NOW;
  }

  kj::Promise<void> stats(StatsContext context) override {
    std::vector<uint32_t> mine;
    for (const auto& [key, epoch] : log_.leases) {
      if (key.first == context.getParams().getJob().cStr() && log_.servers[key] == server_) mine.push_back(key.second);
    }
    const std::string job = context.getParams().getJob();
    if (log_.restless) ++log_.commands;
    auto list = context.getResults().initVgpus(uint32_t(mine.size()));
    for (uint32_t i = 0; i < list.size(); ++i) {
      list[i].setVgpu(mine[i]);
      list[i].setRoundTrips(7);
      list[i].setRoundTripsPerS(2.5);
      const std::pair<const char*, uint64_t> calls[] = {{"cuCtxSynchronize", 1}, {"cuMemcpyDtoH_v2", 6}};
      auto trips = list[i].initRoundTripCalls(2);
      for (uint32_t n = 0; n < 2; ++n) trips[n].setCall(calls[n].first), trips[n].setCount(calls[n].second);
      list[i].setTransport("fake");
      list[i].setResidentBytes(1000 + mine[i]);
      list[i].setBusyPermille(250);
      list[i].setCommands(log_.commands);
      const bool parked = log_.gpus[{job, mine[i]}] == control::PARKED;
      list[i].setQuiet(parked ? !log_.waits : log_.at_rest || log_.held.count({job, mine[i]}) != 0);
      list[i].setKeptInMemory(parked ? 3 << 20 : 0);
      list[i].setKeptOnDisk(parked ? 1 << 20 : 0);
      list[i].setKeptApart(parked ? 6 << 20 : 0);
      list[i].initWorkerPids(1).set(0, 7000 + mine[i]);
      auto clients = list[i].initClients(1);
      clients[0].setPid(70 + mine[i]);
      clients[0].setResidentBytes(1000 + mine[i]);
    }
    return kj::READY_NOW;
  }

  kj::Promise<void> hold(HoldContext context) override {
    if (log_.old) return control::Agent::Server::hold(context);
    const auto params = context.getParams();
    log_.calls.push_back(format("%s %s:%u on %s epoch %lu", params.getOn() ? "hold" : "let go", params.getJob().cStr(),
                                params.getVgpu(), server_.c_str(), (unsigned long)params.getEpoch()));
    if (fails("hold")) return error_for_caller(log_.fail["hold"]);
    const std::pair<std::string, uint32_t> key(params.getJob(), params.getVgpu());
    if (params.getOn()) {
      log_.held[key] = true;
    } else {
      log_.held.erase(key);
    }
    return kj::READY_NOW;
  }

  kj::Promise<void> checkpoint(CheckpointContext context) override {
    const auto params = context.getParams();
    const std::string vgpu = vgpu_text(params.getJob(), params.getVgpu());
    log_.calls.push_back(
        format("checkpoint %s on %s epoch %lu", vgpu.c_str(), server_.c_str(), (unsigned long)params.getEpoch()));
    if (fails("checkpoint")) return error_for_caller(log_.fail["checkpoint"]);
    auto report = context.getResults().initReport();
    report.setSessions(1);
    report.setBytes(1000);
    report.setPauseMs(2.5);
    report.setRefused(log_.refused);
    return kj::READY_NOW;
  }

  kj::Promise<void> give(GiveContext context) override {
    const auto params = context.getParams();
    const std::string vgpu = vgpu_text(params.getJob(), params.getVgpu());
    const std::string to = std::string(params.getAddress()).substr(std::string("address of ").size());
    log_.calls.push_back(format("give %s from %s to %s/%u epoch %lu", vgpu.c_str(), server_.c_str(), to.c_str(),
                                params.getLease().getGpu(), (unsigned long)params.getLease().getEpoch()));
    if (fails("give")) return error_for_caller(log_.fail["give"]);
    if (log_.guards[vgpu] != server_ || log_.guard_epochs[vgpu] != params.getEpoch())
      return error_for_caller("no checkpoint here");
    const std::pair<std::string, uint32_t> key(params.getJob(), params.getVgpu());
    log_.leases[key] = params.getLease().getEpoch();
    log_.gpus[key] = params.getLease().getGpu();
    log_.servers[key] = to;
    return kj::READY_NOW;
  }

  kj::Promise<void> watch(WatchContext context) override {
    context.allowCancellation();
    return await_loss(context);
  }
  kj::Promise<void> await_loss(WatchContext context) {
    return timer_.afterDelay(20 * kj::MILLISECONDS).then([this, context]() mutable -> kj::Promise<void> {
      if (!log_.worker_lost) return await_loss(context);
      log_.worker_lost = false;
      context.getResults().setLost(true);
      return kj::READY_NOW;
    });
  }

  kj::Promise<void> ping(PingContext) override { return kj::READY_NOW; }

 private:
  static std::string vgpu_text(capnp::Text::Reader job, uint32_t vgpu) { return format("%s:%u", job.cStr(), vgpu); }
  void note(const char* what, control::Lease::Reader lease) {
    std::string gpu = lease.getGpu() == control::PARKED ? "parked" : std::to_string(lease.getGpu());
    if (lease.getGpu() == control::GUARDING) gpu = "guard";
    log_.calls.push_back(format("%s %s:%u on %s/%s epoch %lu", what, lease.getJob().cStr(), lease.getVgpu(),
                                server_.c_str(), gpu.c_str(), (unsigned long)lease.getEpoch()));
  }
  uint32_t kept() const {
    uint32_t count = 0;
    for (const auto& [key, gpu] : log_.gpus) count += gpu == control::PARKED && log_.servers[key] == server_ ? 1 : 0;
    return count;
  }
  bool fails(const char* what) const { return log_.fail.count(what) != 0; }

  std::string server_;
  FakeAgentLog& log_;
  kj::Timer& timer_;
};

}  // namespace

control::Agent::Client make_fake_agent(std::string server, FakeAgentLog& log, kj::Timer& timer) {
  return kj::heap<FakeAgent>(std::move(server), log, timer);
}

void fill_server_info(control::ServerInfo::Builder info, const std::string& name, uint32_t gpus,
                      uint64_t memory_bytes) {
  info.setName(name);
  info.setEndpoint("host=test;unix=/nowhere/" + name + ";tcp=127.0.0.1:1");
  info.setVersion("fake");
  auto list = info.initGpus(gpus);
  for (uint32_t i = 0; i < gpus; ++i) {
    list[i].setIndex(i);
    list[i].setName("Fake GPU");
    list[i].setMemoryBytes(memory_bytes);
    list[i].setUuid(name + "-" + std::to_string(i));
    list[i].setSoftware(true);
    list[i].setDeviceInfo(kj::StringPtr("device info").asBytes());
  }
}

}  // namespace tide
