// Agents with protected vGPUs: one serves, the other one guards.

#include "tests/server/agents.h"

namespace tide {
namespace {

constexpr uint64_t kBase = vgpu_range_base(2);
constexpr uint64_t kGuardEpoch = 50;

class GuardTest : public AgentTest {
 protected:
  static void fill_protected(control::Lease::Builder lease, uint64_t epoch) {
    fill(lease, epoch);
    lease.setProtected(true);
  }
  void begin() {
    auto request = agent("one").placeRequest();
    fill_protected(request.initLease(), 1);
    request.send().wait(io_.waitScope);
    guard_at_ = prepare("two", kGuardEpoch, control::GUARDING);
    ASSERT_TRUE(client_.open_door(servers_["one"].endpoint, wish(1)));
    std::vector<std::byte> found;
    client_.make_context();
    client_.send(Call::tideMapMemory, command::MapMemory{kBase, 8 * kChunkBytes});
    client_.load_library(1, kTestImage, &found);
    add();
  }
  void add() {
    client_.launch(uint64_t{1} << 32, {kBase, 1, 1});
    ++added_;
    ASSERT_EQ(client_.call(uint16_t(Call::tideNull), {}, nullptr), CUDA_SUCCESS);
  }
  void expect_sum() {
    const auto bytes = client_.copy_out(kBase, 4);
    ASSERT_EQ(bytes.size(), 4u);
    EXPECT_EQ(*reinterpret_cast<const uint32_t*>(bytes.data()), added_);
    EXPECT_EQ(client_.page().errors.load(), 0u);
  }
  auto checkpoint(const std::string& name = "one") {
    auto request = agent(name).checkpointRequest();
    request.setJob("job-1");
    request.setVgpu(2);
    request.setEpoch(epoch_);
    fill(request.initGuard(), kGuardEpoch, control::GUARDING);
    request.setAddress(guard_at_);
    return request.send();
  }
  auto watch() {
    auto request = agent("one").watchRequest();
    request.setJob("job-1");
    request.setVgpu(2);
    request.setEpoch(epoch_);
    return request.send();
  }
  // To `name`, with the client behind it.
  void restore(const std::string& name) {
    auto prepared = agent(name).prepareRequest();
    fill_protected(prepared.initLease(), ++epoch_);
    const std::string address = prepared.send().wait(io_.waitScope).getAddress().cStr();
    auto request = agent("two").giveRequest();
    request.setJob("job-1");
    request.setVgpu(2);
    request.setEpoch(kGuardEpoch);
    fill_protected(request.initLease(), epoch_);
    request.setAddress(address);
    EXPECT_GT(request.send().wait(io_.waitScope).getReport().getBytes(), 0u);
    client_.disconnect();
    DoorOpen open = wish(epoch_);
    open.attempt = uint32_t(epoch_);
    ASSERT_TRUE(client_.open_door(servers_[name].endpoint, open));
    EXPECT_GT(client_.recovered_to(), 0u);
    await([&] { return client_.page().epoch.load() == epoch_; });
  }
  uint32_t expect_one_worker() {
    const std::vector<uint32_t> pids = worker_pids("one");
    EXPECT_EQ(pids.size(), 1u);
    return pids.empty() ? 0 : pids[0];
  }
  std::string why_not_again() {
    TestClient other;
    DoorOpen open = wish(epoch_);
    open.flags = kOpenAgain;
    open.attempt = 9;
    return other.open_door(servers_["one"].endpoint, open).message();
  }

  TestClient client_;
  std::string guard_at_;
  uint64_t epoch_ = 1;
  uint32_t added_ = 0;
};

TEST_F(GuardTest, a_killed_worker_is_noticed_and_its_session_goes_on_from_the_guard) {
  ASSERT_NO_FATAL_FAILURE(begin());
  EXPECT_FALSE(watch().wait(io_.waitScope).getLost()) << "a checkpoint of the new session is wanted";
  const auto first = checkpoint().wait(io_.waitScope);
  EXPECT_EQ(first.getReport().getSessions(), 1u);
  EXPECT_GE(first.getReport().getBytes(), kChunkBytes);
  auto news = watch().eagerlyEvaluate(nullptr);
  add();
  const auto second = checkpoint().wait(io_.waitScope);
  EXPECT_EQ(second.getReport().getSessions(), 1u);
  EXPECT_LT(second.getReport().getBytes(), 2 * kChunkBytes);
  client_.launch(uint64_t{1} << 32, {kBase, 1, 1});  // this is lost
  kill(pid_t(expect_one_worker()), SIGKILL);
  EXPECT_TRUE(news.wait(io_.waitScope).getLost());
  EXPECT_NE(why_not_again().find("goes on elsewhere from its checkpoint"), std::string::npos);
  release("one", epoch_);
  ASSERT_NO_FATAL_FAILURE(restore("one"));
  ASSERT_NO_FATAL_FAILURE(expect_sum());
  // And the next checkpoints go to the same guard.
  ASSERT_NO_FATAL_FAILURE(add());
  EXPECT_EQ(checkpoint().wait(io_.waitScope).getReport().getSessions(), 1u);
  kill(pid_t(expect_one_worker()), SIGKILL);
  ASSERT_NO_FATAL_FAILURE(restore("two"));
  ASSERT_NO_FATAL_FAILURE(expect_sum());
}

TEST_F(GuardTest, restarted_agents_find_the_guard_and_miss_the_worker) {
  ASSERT_NO_FATAL_FAILURE(begin());
  checkpoint().wait(io_.waitScope);
  const int before = servers_["two"].times;
  two_->stop(SIGKILL);
  two_ = std::make_unique<AgentProcess>("two", address_, directory_ + "/two");
  await([&] { return servers_["two"].times > before; });
  EXPECT_EQ(servers_["two"].lease_gpus, std::vector<uint32_t>{control::GUARDING});
  guard_at_ = servers_["two"].endpoint;
  ASSERT_NO_FATAL_FAILURE(add());
  checkpoint().wait(io_.waitScope);
  const uint32_t worker = expect_one_worker();
  one_->stop(SIGKILL);
  kill(pid_t(worker), SIGKILL);
  await([&] { return !runs(worker); });
  ASSERT_NO_FATAL_FAILURE(restart_one());
  EXPECT_TRUE(watch().wait(io_.waitScope).getLost());
  release("one", epoch_);
  ASSERT_NO_FATAL_FAILURE(restore("two"));
  ASSERT_NO_FATAL_FAILURE(expect_sum());
}

TEST_F(GuardTest, a_guard_ends_when_it_is_told_and_a_session_that_ends_is_kept_no_more) {
  ASSERT_NO_FATAL_FAILURE(begin());
  checkpoint().wait(io_.waitScope);
  EXPECT_EQ(two_->children(), 1u);
  TestClient other;
  ASSERT_TRUE(other.open_door(servers_["one"].endpoint, wish(1, 9)));
  other.make_context();
  ASSERT_EQ(other.call(uint16_t(Call::tideNull), {}, nullptr), CUDA_SUCCESS);
  EXPECT_EQ(checkpoint().wait(io_.waitScope).getReport().getSessions(), 2u);
  EXPECT_EQ(two_->children(), 2u);
  other.disconnect();
  await([&] { return two_->children() == 1; });
  auto cancel = agent("two").cancelRequest();
  cancel.setJob("job-1");
  cancel.setVgpu(2);
  cancel.setEpoch(kGuardEpoch);
  cancel.send().wait(io_.waitScope);
  await([&] { return two_->children() == 0; });
  EXPECT_THROW(checkpoint().wait(io_.waitScope), kj::Exception);
  ASSERT_NO_FATAL_FAILURE(expect_sum());
}

TEST_F(GuardTest, a_guard_that_was_killed_is_begun_anew_by_the_next_checkpoint) {
  ASSERT_NO_FATAL_FAILURE(begin());
  checkpoint().wait(io_.waitScope);
  kill(pid_t(two_->child_pids().at(0)), SIGKILL);
  await([&] { return two_->children() == 0; });
  ASSERT_NO_FATAL_FAILURE(add());
  EXPECT_EQ(checkpoint().wait(io_.waitScope).getReport().getSessions(), 1u);
  kill(pid_t(expect_one_worker()), SIGKILL);
  ASSERT_NO_FATAL_FAILURE(restore("two"));
  ASSERT_NO_FATAL_FAILURE(expect_sum());
}

// Of two processes one ends its protection: the other's client is told at once, and its agent's lease ends by no clock.
TEST_F(GuardTest, one_process_that_cannot_be_protected_ends_it_for_the_other) {
  ASSERT_NO_FATAL_FAILURE(begin());
  TestClient other;
  DoorOpen open = wish(1);
  open.session[0] ^= 1;
  ASSERT_TRUE(other.open_door(servers_["one"].endpoint, open));
  other.make_context();
  ASSERT_EQ(other.call(uint16_t(Call::tideNull), {}, nullptr), CUDA_SUCCESS);
  EXPECT_EQ(checkpoint().wait(io_.waitScope).getReport().getSessions(), 2u);
  auto news = watch().eagerlyEvaluate(nullptr);
  client_.region().client().unprotected.store(uint64_t(Unprotected::kSharing));
  EXPECT_FALSE(news.wait(io_.waitScope).getLost()) << "that is news";
  const auto refused = checkpoint().wait(io_.waitScope);
  EXPECT_NE(std::string(refused.getReport().getRefused().cStr()).find("CUDA IPC"), std::string::npos);
  await([&] { return other.page().safe_sequence.load() == ~uint64_t{0}; });
  await([&] { return client_.page().safe_sequence.load() == ~uint64_t{0}; });
  add();
  expect_sum();
}

}  // namespace
}  // namespace tide
