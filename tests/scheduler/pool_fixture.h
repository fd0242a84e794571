#pragma once

// A scheduler with fake agents in one process, over real sockets of the loopback interface.

#include <capnp/message.h>
#include <capnp/rpc-twoparty.h>
#include <gtest/gtest.h>
#include <kj/async-io.h>
#include <stdlib.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "scheduler/daemon.h"
#include "scheduler/enter.h"
#include "scheduler/remote_error.h"
#include "tests/scheduler/fake_agent.h"

namespace tide::sched {

// One end of a connection to the scheduler's control port; falls with it.
struct Peer {
  kj::Own<kj::AsyncIoStream> stream;
  kj::Own<capnp::TwoPartyClient> client;
  control::Pool::Client pool;
  Peer(kj::AsyncIoContext& io, const std::string& address, control::Caller caller = control::Caller::TIDE)
      : stream(
            io.provider->getNetwork().parseAddress(address.c_str()).wait(io.waitScope)->connect().wait(io.waitScope)),
        client(kj::heap<capnp::TwoPartyClient>(*stream)),
        pool(enter(*client, caller)) {}
};

struct Submitted {
  std::string id, token, door;
  kj::Maybe<control::JobHandle::Client> handle;
};

class PoolFixture : public testing::Test {
 public:
  ~PoolFixture() noexcept override {}

 protected:
  void SetUp() override {
    char path[] = "/tmp/tide-pool-XXXXXX";
    ASSERT_NE(mkdtemp(path), nullptr);
    directory_ = path;
    setenv("TIDE_CHECK_PLANNER", "1", 1);  // in every round
    start();
  }
  void TearDown() override {
    agents_.clear();
    stop();
    std::filesystem::remove_all(directory_);
  }

  void start() {
    PoolConfig config;
    config.listen = config.door = "127.0.0.1:0";
    config.state = directory_ + "/state";
    EXPECT_TRUE(parse_turns(turns_, &config.turns));
    config.queues = queues_;
    config.policy = policy_;
    const Outcome opened = Daemon::open(config, io_, &daemon_);
    ASSERT_TRUE(opened.ok()) << opened.message();
    daemon_->listen().wait(io_.waitScope);
    peer_ = std::make_unique<Peer>(io_, daemon_->address());
  }
  // As SIGTERM does: jobs stay in the record.
  void stop() {
    if (daemon_ != nullptr) daemon_->stop();
    peer_.reset();
    daemon_.reset();
  }

  void add_server(const std::string& name, uint32_t gpus, std::vector<control::Lease::Reader> leases = {}) {
    agents_.push_back(std::make_unique<Peer>(io_, daemon_->address(), control::Caller::AGENT));
    auto request = agents_.back()->pool.registerRequest();
    fill_server_info(request.initServer(), name, gpus, 16);
    auto list = request.getServer().initLeases(uint32_t(leases.size()));
    for (uint32_t i = 0; i < list.size(); ++i) list.setWithCaveats(i, leases[i]);
    request.setAgent(make_fake_agent(name, log_, io_.provider->getTimer()));
    registrations_.push_back(request.send().wait(io_.waitScope).getRegistration());
  }
  // With the leases that it has.
  void add_again(const std::string& server, uint32_t gpus) {
    capnp::MallocMessageBuilder message;
    auto list = message.initRoot<control::ServerInfo>().initLeases(uint32_t(log_.leases.size()));
    std::vector<control::Lease::Reader> leases;
    for (const auto& [key, epoch] : log_.leases) {
      if (log_.servers[key] != server) continue;
      auto lease = list[uint32_t(leases.size())];
      lease.setJob(key.first);
      lease.setVgpu(key.second);
      lease.setGpu(log_.gpus[key]);
      lease.setEpoch(epoch);
      leases.push_back(lease.asReader());
    }
    add_server(server, gpus, leases);
  }
  // The scheduler is started again; `tide run` of these jobs comes back, and the agents with what they serve.
  void restart(const std::vector<Submitted*>& jobs, const std::vector<std::string>& servers, uint32_t gpus) {
    stop();
    for (Submitted* job : jobs) job->handle = nullptr;
    agents_.clear();
    registrations_.clear();
    start();
    for (Submitted* job : jobs) {
      auto request = peer_->pool.reattachRequest();
      request.setId(job->id);
      request.setToken(kj::StringPtr(job->token.c_str(), job->token.size()).asBytes());
      job->handle = request.send().wait(io_.waitScope).getHandle();
    }
    for (const std::string& server : servers) add_again(server, gpus);
  }
  void lose_server(size_t number) {
    registrations_.erase(registrations_.begin() + long(number));
    agents_.erase(agents_.begin() + long(number));
  }

  // "" or what the scheduler said against it.
  std::string submit(uint32_t gpus, uint32_t min_gpus, Submitted* job, bool min_given = true) {
    auto request = peer_->pool.submitRequest();
    request.getSpec().setGpus(gpus);
    request.getSpec().setMinGpus(min_gpus);
    request.getSpec().setMinGiven(min_given);
    return error_of(request.send().then([job](auto&& answer) {
      job->id = answer.getId();
      job->token = std::string(reinterpret_cast<const char*>(answer.getToken().begin()), answer.getToken().size());
      job->door = answer.getDoorAddress();
      job->handle = answer.getHandle();
    }));
  }
  Submitted run(uint32_t gpus, uint32_t min_gpus = 1) {
    Submitted job;
    EXPECT_EQ(submit(gpus, min_gpus, &job), "");
    EXPECT_EQ(error_of(KJ_ASSERT_NONNULL(job.handle).runningRequest().send().ignoreResult()), "");
    return job;
  }

  std::string error_of(kj::Promise<void> promise) {
    std::string text;
    auto limited = io_.provider->getTimer().timeoutAfter(20 * kj::SECONDS, kj::mv(promise));
    KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&] { limited.wait(io_.waitScope); }))
      text = remote_error(*exception);
    return text;
  }
  std::string resize(const std::string& id, uint32_t gpus, MoveTotals* totals) {
    auto request = peer_->pool.resizeRequest();
    request.setJob(id);
    request.setGpus(gpus);
    return error_of(request.send().then([totals](auto&& answer) { *totals = totals_of(answer.getReport()); }));
  }

  std::string suspend(const std::string& id, MoveTotals* totals) { return error_of(suspending(id, totals)); }
  kj::Promise<void> suspending(const std::string& id, MoveTotals* totals) {
    auto request = peer_->pool.suspendRequest();
    request.setJob(id);
    return request.send().then([totals](auto&& answer) { *totals = totals_of(answer.getReport()); });
  }
  std::string resume(const std::string& id, MoveTotals* totals, std::string* queued) {
    auto request = peer_->pool.resumeRequest();
    request.setJob(id);
    return error_of(request.send().then([totals, queued](auto&& answer) {
      *totals = totals_of(answer.getReport());
      *queued = answer.getQueued();
    }));
  }

  // "running on node0/0 node0/1", "suspended on node0/parked", "queued: REASON", "ended: REASON".
  std::string describe(const std::string& id) {
    auto request = peer_->pool.jobRequest();
    request.setJob(id);
    auto answer = request.send().wait(io_.waitScope);
    const auto job = answer.getJob();
    if (job.getState() == control::JobState::ENDED) return std::string("ended: ") + job.getReason().cStr();
    if (job.getState() == control::JobState::QUEUED) return std::string("queued: ") + job.getReason().cStr();
    std::string text = job.getState() == control::JobState::SUSPENDED ? "suspended on" : "running on";
    for (const auto v : job.getVgpus()) text += " " + to_text(GpuId{v.getServer(), v.getGpu()});
    return text;
  }
  // Lets the loop run until it says so, or 30 seconds: longer than any lease.
  void wait_for(const std::string& id, const std::string& description) {
    const uint64_t end = now_ns() + 30'000'000'000;
    while (describe(id) != description && now_ns() < end) {
      for (auto& held : registrations_) held.heartbeatRequest().send().ignoreResult().detach([](kj::Exception&&) {});
      pause(10);
    }
    EXPECT_EQ(describe(id), description);
  }
  void pause(uint32_t ms) { io_.provider->getTimer().afterDelay(ms * kj::MILLISECONDS).wait(io_.waitScope); }

  bool called(const std::string& call) const {
    return std::find(log_.calls.begin(), log_.calls.end(), call) != log_.calls.end();
  }

  kj::AsyncIoContext io_ = kj::setupAsyncIo();
  std::string directory_;
  std::string turns_ = "off";  // of the next scheduler
  std::vector<QueueConfig> queues_;
  PolicyConfig policy_;
  FakeAgentLog log_;
  std::unique_ptr<Daemon> daemon_;
  std::unique_ptr<Peer> peer_;
  std::vector<std::unique_ptr<Peer>> agents_;
  std::vector<control::Registration::Client> registrations_;
};

}  // namespace tide::sched
