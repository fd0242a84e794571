// A real scheduler is killed at any moment of a stream of submissions. What it has said stays true.

#include <capnp/message.h>
#include <gtest/gtest.h>
#include <kj/async-io.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <set>

#include "base/mix.h"
#include "tests/scheduler/pool_fixture.h"

namespace tide::sched {
namespace {

constexpr uint32_t kGpus = 64;
constexpr int kKills = 40;

class SchedulerProcess {
 public:
  explicit SchedulerProcess(const std::string& directory) : ready_(directory + "/ready") {
    unlink(ready_.c_str());
    const std::string state = directory + "/state";
    const char* program = getenv("TIDE_SCHEDULER");
    pid_ = fork();
    if (pid_ == 0) {
      execl(program, program, "--state", state.c_str(), "--listen", "127.0.0.1:0", "--ready-file", ready_.c_str(),
            nullptr);
      _exit(127);
    }
  }
  ~SchedulerProcess() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  SchedulerProcess(const SchedulerProcess&) = delete;
  SchedulerProcess& operator=(const SchedulerProcess&) = delete;
  std::string address() const {
    for (int i = 0; i < 2000; ++i, sleep_us(5000)) {
      std::ifstream file(ready_);
      for (std::string line; std::getline(file, line);) {
        if (line.rfind("pool=", 0) == 0) return line.substr(5);
      }
    }
    return "";
  }
  pid_t pid() const { return pid_; }

 private:
  const std::string ready_;
  pid_t pid_ = -1;
};

// What clients were told of a job.
struct Told {
  std::string token;
  bool runs = false;
};

class Restart : public testing::Test {
 public:
  ~Restart() noexcept override {}

 protected:
  void SetUp() override {
    char path[] = "/tmp/tide-restart-XXXXXX";
    ASSERT_NE(mkdtemp(path), nullptr);
    directory_ = path;
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  void connect() {
    tasks_ = nullptr;
    handles_.clear();
    agent_ = nullptr;
    peer_ = nullptr;
    scheduler_ = nullptr;
    scheduler_ = kj::heap<SchedulerProcess>(directory_);
    const std::string address = scheduler_->address();
    ASSERT_NE(address, "");
    peer_ = kj::heap<Peer>(io_, address);
    agent_ = kj::heap<Peer>(io_, address);
    auto request = agent_->pool.registerRequest();
    fill_server_info(request.initServer(), "node0", kGpus, 16);
    auto leases = request.getServer().initLeases(uint32_t(log_.leases.size()));
    uint32_t i = 0;
    for (const auto& [vgpu, epoch] : log_.leases) {
      leases[i].setJob(vgpu.first);
      leases[i].setVgpu(vgpu.second);
      leases[i].setGpu(log_.gpus[vgpu]);
      leases[i++].setEpoch(epoch);
    }
    request.setAgent(make_fake_agent("node0", log_, io_.provider->getTimer()));
    registration_ = request.send().wait(io_.waitScope).getRegistration();
    tasks_ = kj::heap<kj::TaskSet>(ignore_);
  }

  void submit() {
    auto request = peer_->pool.submitRequest();
    request.getSpec().setGpus(1);
    tasks_->add(request.send().then([this](auto&& answer) {
      const std::string id = answer.getId().cStr();
      EXPECT_TRUE(ids_.insert(id).second) << "number " << id << " was given twice";
      told_[id].token = std::string(answer.getToken().asChars().begin(), answer.getToken().size());
      handles_.insert_or_assign(id, answer.getHandle());
      return answer.getHandle().runningRequest().send().then([this, id](auto&&) {
        const auto told = told_.find(id);
        if (told != told_.end()) told->second.runs = true;  // else we have ended it meanwhile
      });
    }));
  }
  // Some end, so that there is room. A job whose end was not answered may have ended or not.
  void end(const std::string& id) {
    const auto handle = handles_.find(id);
    if (handle == handles_.end()) return;
    told_.erase(id);
    tasks_->add(handle->second.endedRequest().send().ignoreResult());
  }
  void check() {
    for (const auto& [id, told] : told_) {
      auto request = peer_->pool.reattachRequest();
      request.setId(id);
      request.setToken(kj::StringPtr(told.token.c_str(), told.token.size()).asBytes());
      KJ_IF_MAYBE (e, kj::runCatchingExceptions([&, name = id] {
                     handles_.insert_or_assign(name, request.send().wait(io_.waitScope).getHandle());
                   })) {
        ADD_FAILURE() << "job " << id << " was acknowledged: " << remote_error(*e);
        continue;
      }
      if (!told.runs) continue;
      const auto info = handles_.at(id).infoRequest().send().wait(io_.waitScope);
      const auto job = info.getJob();
      EXPECT_EQ(job.getState(), control::JobState::RUNNING) << id << ": " << job.getReason().cStr();
      ASSERT_EQ(job.getVgpus().size(), 1u) << id;
      EXPECT_EQ(job.getVgpus()[0].getGpu(), (log_.gpus[{id, 0}])) << id;
      EXPECT_EQ(job.getVgpus()[0].getEpoch(), (log_.leases[{id, 0}])) << id;
    }
  }

  struct Ignore final : kj::TaskSet::ErrorHandler {
    void taskFailed(kj::Exception&&) override {}  // of calls that were not answered
  };
  kj::AsyncIoContext io_ = kj::setupAsyncIo();
  Ignore ignore_;
  std::string directory_;
  FakeAgentLog log_;
  std::map<std::string, Told> told_;
  std::set<std::string> ids_;
  std::map<std::string, control::JobHandle::Client> handles_;
  kj::Own<SchedulerProcess> scheduler_;
  kj::Own<Peer> peer_, agent_;
  kj::Maybe<control::Registration::Client> registration_;
  kj::Own<kj::TaskSet> tasks_;
};

TEST_F(Restart, what_a_killed_scheduler_had_said_stays_true) {
  uint64_t seed = 20;
  const auto up_to = [&seed](uint64_t most) { return (seed = mix(seed)) % most; };
  size_t checked = 0;
  connect();
  for (int kills = 0; kills < kKills; ++kills) {
    const uint64_t end_ns = now_ns() + (1 + up_to(60)) * 1'000'000;
    while (now_ns() < end_ns) {
      if (told_.size() < kGpus / 2) submit();
      if (told_.size() > kGpus / 4) end(std::next(told_.begin(), long(up_to(told_.size())))->first);
      io_.provider->getTimer().afterDelay(kj::MILLISECONDS).wait(io_.waitScope);
    }
    kill(scheduler_->pid(), SIGKILL);
    io_.provider->getTimer().afterDelay(20 * kj::MILLISECONDS).wait(io_.waitScope);  // what was said before arrives
    connect();
    ASSERT_FALSE(HasFatalFailure());
    checked += told_.size();
    check();
    ASSERT_FALSE(HasFailure()) << "after " << kills + 1 << " kills";
  }
  EXPECT_GT(ids_.size(), size_t(kKills));
  EXPECT_GT(checked, size_t(kKills));
  RecordProperty("jobs", int(ids_.size()));
}

}  // namespace
}  // namespace tide::sched
