#pragma once

// Real tide-agent processes on the fake driver, under a scheduler that is only the test.

#include <capnp/rpc-twoparty.h>
#include <fcntl.h>
#include <kj/async-io.h>
#include <sys/ptrace.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <thread>

#include "scheduler/control.capnp.h"
#include "server/rendezvous.h"
#include "tests/server/client.h"

namespace tide {

// Remembers who has registered.
class FakePool final : public control::Pool::Server {
 public:
  struct Registered {
    std::string endpoint;
    uint32_t gpus = 0;
    std::vector<std::pair<std::string, uint64_t>> leases;
    std::vector<uint32_t> lease_gpus;
    std::vector<std::string> tokens;
    kj::Maybe<control::Agent::Client> agent;
    int times = 0;
  };
  explicit FakePool(std::map<std::string, Registered>& servers) : servers_(servers) {}

 protected:
  class Held final : public control::Registration::Server {
    kj::Promise<void> heartbeat(HeartbeatContext) override { return kj::READY_NOW; }
  };
  kj::Promise<void> register_(RegisterContext context) override {
    const auto info = context.getParams().getServer();
    Registered& server = servers_[info.getName()];
    server.endpoint = info.getEndpoint().cStr();
    server.gpus = info.getGpus().size();
    server.leases.clear();
    server.lease_gpus.clear();
    server.tokens.clear();
    for (const auto lease : info.getLeases()) {
      server.leases.emplace_back(lease.getJob().cStr(), lease.getEpoch());
      server.lease_gpus.push_back(lease.getGpu());
      server.tokens.push_back(std::string(lease.getToken().asChars().begin(), lease.getToken().size()));
    }
    server.agent = context.getParams().getAgent();
    ++server.times;
    context.getResults().setRegistration(kj::heap<Held>());
    context.getResults().setLeaseMs(900);
    return kj::READY_NOW;
  }

 private:
  std::map<std::string, Registered>& servers_;
};

class FakeEntrance final : public control::Entrance::Server {
 public:
  explicit FakeEntrance(control::Pool::Client pool) : pool_(kj::mv(pool)) {}

 protected:
  kj::Promise<void> enter(EnterContext context) override {
    EXPECT_EQ(context.getParams().getProtocol(), control::PROTOCOL);
    context.getResults().setPool(pool_);
    return kj::READY_NOW;
  }

 private:
  control::Pool::Client pool_;
};

class AgentProcess {
 public:
  AgentProcess(const std::string& name, const std::string& scheduler, const std::string& directory,
               const char* hold_s = "60") {
    const char* program = getenv("TIDE_AGENT");
    pid_ = fork();
    if (pid_ == 0) {
      execl(program, program, "--scheduler", scheduler.c_str(), "--name", name.c_str(), "--dir", directory.c_str(),
            "--hold-s", hold_s, nullptr);
      _exit(127);
    }
  }
  ~AgentProcess() { stop(SIGTERM); }
  int stop(int signal) {
    if (pid_ <= 0) return 0;
    kill(pid_, signal);
    int status = 0;
    waitpid(pid_, &status, 0);
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  size_t open_files() const { return entries("/proc/" + std::to_string(pid_) + "/fd"); }
  size_t children() const { return child_pids().size(); }
  std::vector<uint32_t> child_pids() const {
    std::ifstream list("/proc/" + std::to_string(pid_) + "/task/" + std::to_string(pid_) + "/children");
    return {std::istream_iterator<uint32_t>(list), std::istream_iterator<uint32_t>()};
  }

 private:
  static size_t entries(const std::string& folder) {
    size_t n = 0;
    for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(folder)) ++n;
    return n;
  }

  pid_t pid_ = -1;
};

inline bool exists(uint32_t pid) { return kill(pid_t(pid), 0) == 0; }

// Whose parent has died may wait to be reaped by somebody who takes his time.
inline bool runs(uint32_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string text((std::istreambuf_iterator<char>(file)), {});
  const size_t end = text.rfind(')');
  return end != std::string::npos && text.compare(end, 3, ") Z") != 0;
}

// A process that is killed and does not come to its end for a while, as with a driver that gives back much memory.
class SlowEnd {
 public:
  explicit SlowEnd(uint32_t pid)
      : pid_(pid_t(pid)), traced_(ptrace(PTRACE_SEIZE, pid_, nullptr, PTRACE_O_TRACEEXIT) == 0) {}
  bool traced() const { return traced_; }
  void await_kill() { waitpid(pid_, nullptr, __WALL); }
  void let_end() {
    ptrace(PTRACE_CONT, pid_, nullptr, nullptr);
    waitpid(pid_, nullptr, __WALL);
  }

 private:
  const pid_t pid_;
  const bool traced_;
};

// A client that opens while the test does something else.
class Opening {
 public:
  Opening(std::string endpoint, DoorOpen wish)
      : thread_([this, endpoint = std::move(endpoint), wish] {
          served_ = bool(client_.open_door(endpoint, wish));
          answered_ = true;
        }) {}
  ~Opening() {
    if (thread_.joinable()) thread_.join();
  }
  bool answered() const { return answered_; }
  bool served() {
    thread_.join();
    return served_;
  }

 private:
  TestClient client_;
  std::atomic<bool> answered_{false}, served_{false};
  std::thread thread_;
};

// What the test speaks of.
struct Which {
  const char* job = "job-1";
  uint32_t vgpu = 2;
};

class AgentTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/tide-agent-test-XXXXXX";
    directory_ = mkdtemp(name);
    which_ = Which();
    listen();
    one_ = std::make_unique<AgentProcess>("one", address_, directory_ + "/one");
    two_ = std::make_unique<AgentProcess>("two", address_, directory_ + "/two");
    await([this] { return servers_["one"].times > 0 && servers_["two"].times > 0; });
  }
  void TearDown() override {
    one_.reset();
    two_.reset();
    std::filesystem::remove_all(directory_);
  }
  void listen() {
    auto address = io_.provider->getNetwork().parseAddress("127.0.0.1", port_).wait(io_.waitScope);
    scheduler_->receiver = address->listen();
    port_ = scheduler_->receiver->getPort();
    address_ = "127.0.0.1:" + std::to_string(port_);
    scheduler_->server = kj::heap<capnp::TwoPartyServer>(kj::heap<FakeEntrance>(kj::heap<FakePool>(servers_)));
    scheduler_->serving =
        kj::heap<kj::Promise<void>>(scheduler_->server->listen(*scheduler_->receiver).eagerlyEvaluate(nullptr));
  }
  // A client of the agent `one`, after the end of that worker, which let_end() leads to.
  template <class LetEnd>
  void expect_served_only_after(const DoorOpen& wish, uint32_t pid, LetEnd let_end) {
    Opening next(servers_["one"].endpoint, wish);
    sleep_us(400'000);
    EXPECT_FALSE(next.answered()) << "served beside a worker that still holds its memory";
    let_end();
    EXPECT_TRUE(next.served());
    EXPECT_FALSE(runs(pid));
  }
  template <class Condition>
  void await(Condition condition) {
    for (const uint64_t end = now_ns() + kTestTimeoutUs * 1000; !condition();) {
      ASSERT_LT(now_ns(), end) << "it did not happen in time";
      io_.provider->getTimer().afterDelay(5 * kj::MILLISECONDS).wait(io_.waitScope);
    }
  }
  void restart_one() {
    const int before = servers_["one"].times;
    one_ = std::make_unique<AgentProcess>("one", address_, directory_ + "/one");
    await([this, before] { return servers_["one"].times > before; });
  }
  size_t files(const std::string& folder) const {
    size_t n = 0;
    std::error_code error;
    for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(directory_ + folder, error)) ++n;
    return n;
  }
  control::Agent::Client agent(const std::string& name) { return KJ_ASSERT_NONNULL(servers_[name].agent); }
  static void fill(control::Lease::Builder lease, uint64_t epoch, uint32_t gpu = 0) {
    lease.setJob(which_.job);
    lease.setVgpu(which_.vgpu);
    lease.setGpu(gpu);
    lease.setEpoch(epoch);
    kj::byte token[kTokenBytes];
    memset(token, 0x5a, sizeof(token));
    lease.setToken(kj::arrayPtr(token, sizeof(token)));
    lease.setMemoryBytes(1u << 30);
  }
  void place(const std::string& name, uint64_t epoch, uint32_t gpu = 0) {
    auto request = agent(name).placeRequest();
    fill(request.initLease(), epoch, gpu);
    request.send().wait(io_.waitScope);
  }
  std::string prepare(const std::string& name, uint64_t epoch, uint32_t gpu = 0) {
    auto request = agent(name).prepareRequest();
    fill(request.initLease(), epoch, gpu);
    return request.send().wait(io_.waitScope).getAddress().cStr();
  }
  auto move(const std::string& from, const std::string& to, uint64_t epoch, const std::string& address,
            uint32_t gpu = 0) {
    auto request = agent(from).moveRequest();
    request.setJob(which_.job);
    request.setVgpu(which_.vgpu);
    request.setEpoch(epoch);
    fill(request.initLease(), epoch + 1, gpu);
    request.setAddress(address);
    request.setEndpoint(servers_[to].endpoint);
    return request.send();
  }
  void release(const std::string& name, uint64_t epoch) {
    auto request = agent(name).releaseRequest();
    request.setJob(which_.job);
    request.setVgpu(which_.vgpu);
    request.setEpoch(epoch);
    request.send().wait(io_.waitScope);
  }
  std::vector<uint32_t> worker_pids(const std::string& name) {
    auto request = agent(name).statsRequest();
    request.setJob("job-1");
    const auto response = request.send().wait(io_.waitScope);
    std::vector<uint32_t> pids;
    for (const auto vgpu : response.getVgpus()) {
      for (const uint32_t pid : vgpu.getWorkerPids()) pids.push_back(pid);
    }
    return pids;
  }
  static DoorOpen wish(uint64_t epoch, uint8_t session = 0x33) {
    const ControlSession identity = test_session(which_.vgpu, epoch);
    DoorOpen open;
    strcpy(open.job, which_.job);
    memcpy(open.token, identity.token, sizeof(open.token));
    memset(open.session, session, sizeof(open.session));
    open.vgpu = which_.vgpu;
    open.pid = uint32_t(getpid());
    open.epoch = epoch;
    strcpy(open.transport, "shm");
    return open;
  }

  static inline Which which_;
  // Apart, because the destructors of a test may not throw.
  struct Scheduler {
    kj::AsyncIoContext io = kj::setupAsyncIo();
    std::map<std::string, FakePool::Registered> servers;
    kj::Own<kj::ConnectionReceiver> receiver;
    kj::Own<capnp::TwoPartyServer> server;
    kj::Own<kj::Promise<void>> serving;
  };
  std::unique_ptr<Scheduler> scheduler_ = std::make_unique<Scheduler>();
  kj::AsyncIoContext& io_ = scheduler_->io;
  std::map<std::string, FakePool::Registered>& servers_ = scheduler_->servers;
  unsigned port_ = 0;
  std::string address_, directory_;
  std::unique_ptr<AgentProcess> one_, two_;
};

}  // namespace tide
