// Two processes of one vGPU are moved at one moment, and somebody is killed at a step of that.

#include <sstream>

#include "tests/server/agents.h"

namespace tide {
namespace {

constexpr uint64_t kBase = vgpu_range_base(2);
constexpr uint64_t kAdd = uint64_t{1} << 32, kSlow = kAdd + 1;
constexpr uint64_t kSlowMs = 1000;
constexpr uint64_t kBytes = 16 * kChunkBytes;  // more than is on its way at once

// Where the first one is, and the second one not yet.
enum class Step {
  kAtRest,  // it has said so, and waits for the word to send
  kSent,    // it has been sent, and waits for the decision
};
enum class Victim { kFirstSource, kSecondSource, kFirstTarget, kSecondTarget, kSourceAgent, kTargetAgent };

class TogetherTest : public AgentTest {
 protected:
  void begin() {
    place("one", 1);
    std::vector<std::byte> found;
    for (uint8_t i = 0; i < 2; ++i) {
      ASSERT_TRUE(clients_[i].open_door(servers_["one"].endpoint, wish(1, i)));
      clients_[i].make_context();
      EXPECT_EQ(clients_[i].call(Call::tideAskMemory, command::AskMemory{kBytes}, nullptr), CUDA_SUCCESS);
      clients_[i].send(Call::tideMapMemory, command::MapMemory{kBase, kBytes});
      clients_[i].load_library(1, kTestImage, &found);
      const uint32_t mark = 1000u * i;
      clients_[i].copy_in(kBase, &mark, 4);
      ASSERT_EQ(clients_[i].call(uint16_t(Call::tideNull), {}, nullptr), CUDA_SUCCESS);
    }
    sources_ = worker_pids("one");
    ASSERT_EQ(sources_.size(), 2u);
  }
  void begin_move() {
    auto moving = move("one", "two", 1, prepare("two", 2)).ignoreResult().eagerlyEvaluate(nullptr);
    moving_ = std::make_unique<kj::Promise<void>>(kj::mv(moving));
  }
  // The move is under way, at that step.
  void come_to(Step step) {
    clients_[1].launch(kSlow, {kSlowMs});
    clients_[1].launch(kAdd, {kBase, kBytes / 4, 1}), ++added_[1];
    begin_move();
    await([&] { return clients_[0].page().state.load() == uint64_t(ChannelState::kPaused); });
    for (size_t i = 0; i < 2; ++i) targets_[i] = partner_of(sources_[i]);
    if (step == Step::kAtRest) return;
    kill(pid_t(targets_[1]), SIGSTOP);
    await([&] { return slots_of(targets_[0]).empty(); });
    ASSERT_NE(clients_[0].page().state.load(), uint64_t(ChannelState::kMoved));
  }
  void strike(Victim victim) {
    switch (victim) {
      case Victim::kFirstSource:
      case Victim::kSecondSource:
        kill(pid_t(sources_[victim == Victim::kSecondSource]), SIGKILL);
        return;
      case Victim::kFirstTarget:
      case Victim::kSecondTarget:
        kill(pid_t(targets_[victim == Victim::kSecondTarget]), SIGKILL);
        return;
      case Victim::kSourceAgent:
        one_->stop(SIGKILL);
        return;
      case Victim::kTargetAgent:
        two_->stop(SIGKILL);
        return;
    }
  }
  void let_it_end() {
    if (targets_[1] != 0) kill(pid_t(targets_[1]), SIGCONT);
    moved_ = kj::runCatchingExceptions([&] { moving_->wait(io_.waitScope); }) == nullptr;
  }
  // Both, as if nothing had been, and what was prevented works now.
  void expect_stay() {
    EXPECT_FALSE(moved_);
    for (uint32_t i = 0; i < 2; ++i) expect_works(i);
    EXPECT_EQ(worker_pids("one"), sources_);
    begin_move();
    for (uint8_t i = 0; i < 2; ++i) follow(i);
    moving_->wait(io_.waitScope);
  }
  void follow(uint8_t i) {
    await([&] { return clients_[i].page().next_epoch.load() == 2; });
    clients_[i].disconnect();
    ASSERT_TRUE(clients_[i].open_door(clients_[i].page().next_endpoint, wish(2, i)));
    expect_works(i);
  }
  void expect_works(uint32_t i) {
    clients_[i].launch(kAdd, {kBase, 1, 1});
    const auto bytes = clients_[i].copy_out(kBase, 4);
    ASSERT_EQ(bytes.size(), 4u);
    EXPECT_EQ(*reinterpret_cast<const uint32_t*>(bytes.data()), 1000u * i + ++added_[i]);
    EXPECT_EQ(clients_[i].page().errors.load(), 0u);
  }
  // Its session has ended with its worker.
  void expect_lost(uint8_t i) {
    const auto gone = [&] { return !clients_[i].link().alive(); };
    EXPECT_EQ(wait_until(clients_[i].link(), Side::kClient, gone, kTestTimeoutUs), WaitResult::kReady);
    DoorOpen again = wish(2, i);
    again.flags = kOpenAgain;
    await([&] { return worker_pids("two").size() == 1; });
    TestClient other;
    const auto opened = other.open_door(servers_["two"].endpoint, again);
    EXPECT_FALSE(opened);
    EXPECT_NE(std::string(opened.message()).find("its worker has ended"), std::string::npos) << opened.message();
  }
  // The memory that a source and its destination map; "": none.
  static std::string slots_of(uint32_t pid) {
    std::ifstream maps("/proc/" + std::to_string(pid) + "/maps");
    for (std::string line; std::getline(maps, line);) {
      if (line.find("tide-move-slots") == std::string::npos) continue;
      std::istringstream words(line);
      std::string range, mode, offset, device, inode;
      words >> range >> mode >> offset >> device >> inode;
      return inode;
    }
    return "";
  }
  uint32_t partner_of(uint32_t source) {
    for (const uint32_t pid : worker_pids("two")) {
      if (!slots_of(pid).empty() && slots_of(pid) == slots_of(source)) return pid;
    }
    ADD_FAILURE() << "nobody receives from worker " << source;
    return 0;
  }

  TestClient clients_[2];
  std::vector<uint32_t> sources_;
  uint32_t targets_[2] = {};
  uint32_t added_[2] = {};
  std::unique_ptr<kj::Promise<void>> moving_;  // whose destructor may throw
  bool moved_ = false;
};

TEST_F(TogetherTest, a_destination_that_dies_while_they_wait_for_the_word_to_send_undoes_it) {
  ASSERT_NO_FATAL_FAILURE(begin());
  ASSERT_NO_FATAL_FAILURE(come_to(Step::kAtRest));
  strike(Victim::kFirstTarget);
  let_it_end();
  ASSERT_NO_FATAL_FAILURE(expect_stay());
}

TEST_F(TogetherTest, a_destination_that_dies_when_it_has_all_undoes_it_while_another_one_is_sent) {
  ASSERT_NO_FATAL_FAILURE(begin());
  ASSERT_NO_FATAL_FAILURE(come_to(Step::kSent));
  strike(Victim::kFirstTarget);
  await([&] { return clients_[0].page().state.load() == uint64_t(ChannelState::kLive); });
  let_it_end();
  ASSERT_NO_FATAL_FAILURE(expect_stay());
}

// Its worker waits for it for a time only, and the move may take longer than that.
TEST_F(TogetherTest, a_client_that_comes_back_is_not_kept_waiting_for_the_end_of_the_move) {
  ASSERT_NO_FATAL_FAILURE(begin());
  ASSERT_NO_FATAL_FAILURE(come_to(Step::kSent));
  DoorOpen again = wish(1, 0);
  again.flags = kOpenAgain;
  TestClient same;  // over a transport on which nothing goes on: it is answered, and the move is off
  EXPECT_FALSE(same.open_door(servers_["one"].endpoint, again));
  await([&] { return clients_[0].page().state.load() == uint64_t(ChannelState::kLive); });
  ASSERT_NO_FATAL_FAILURE(expect_works(0));
  let_it_end();
  ASSERT_NO_FATAL_FAILURE(expect_stay());
}

TEST_F(TogetherTest, a_destination_that_dies_while_it_is_sent_to_undoes_it_for_who_had_been_sent) {
  ASSERT_NO_FATAL_FAILURE(begin());
  ASSERT_NO_FATAL_FAILURE(come_to(Step::kSent));
  strike(Victim::kSecondTarget);
  let_it_end();
  ASSERT_NO_FATAL_FAILURE(expect_stay());
}

// What it had is lost; the other one goes where both were to go.
TEST_F(TogetherTest, a_source_that_dies_while_it_waits_for_the_word_to_send_is_one_lost_session) {
  ASSERT_NO_FATAL_FAILURE(begin());
  ASSERT_NO_FATAL_FAILURE(come_to(Step::kAtRest));
  strike(Victim::kFirstSource);
  let_it_end();
  EXPECT_TRUE(moved_);
  ASSERT_NO_FATAL_FAILURE(follow(1));
  ASSERT_NO_FATAL_FAILURE(expect_lost(0));
}

TEST_F(TogetherTest, a_source_that_dies_while_it_is_sent_is_one_lost_session) {
  ASSERT_NO_FATAL_FAILURE(begin());
  ASSERT_NO_FATAL_FAILURE(come_to(Step::kSent));
  strike(Victim::kSecondSource);
  let_it_end();
  EXPECT_TRUE(moved_);
  ASSERT_NO_FATAL_FAILURE(follow(0));
  ASSERT_NO_FATAL_FAILURE(expect_lost(1));
}

// Nobody had told its client to go, but all that it had is at the destination.
TEST_F(TogetherTest, a_source_that_dies_when_it_was_sent_goes_on_at_the_destination) {
  ASSERT_NO_FATAL_FAILURE(begin());
  ASSERT_NO_FATAL_FAILURE(come_to(Step::kSent));
  strike(Victim::kFirstSource);
  let_it_end();
  EXPECT_TRUE(moved_);
  ASSERT_NO_FATAL_FAILURE(follow(1));
  EXPECT_FALSE(clients_[0].link().alive());
  clients_[0].disconnect();
  ASSERT_TRUE(clients_[0].open_door(servers_["two"].endpoint, wish(2, 0)));
  ASSERT_NO_FATAL_FAILURE(expect_works(0));
}

TEST_F(TogetherTest, the_source_s_agent_dies_between_the_word_to_send_and_the_decision) {
  ASSERT_NO_FATAL_FAILURE(begin());
  ASSERT_NO_FATAL_FAILURE(come_to(Step::kSent));
  strike(Victim::kSourceAgent);
  let_it_end();
  ASSERT_NO_FATAL_FAILURE(restart_one());
  EXPECT_EQ(servers_["one"].leases.size(), 1u);
  ASSERT_NO_FATAL_FAILURE(expect_stay());
}

TEST_F(TogetherTest, the_destination_s_agent_dies_between_the_word_to_send_and_the_decision) {
  ASSERT_NO_FATAL_FAILURE(begin());
  ASSERT_NO_FATAL_FAILURE(come_to(Step::kSent));
  strike(Victim::kTargetAgent);
  let_it_end();
  const int before = servers_["two"].times;
  two_ = std::make_unique<AgentProcess>("two", address_, directory_ + "/two");
  await([this, before] { return servers_["two"].times > before; });
  ASSERT_NO_FATAL_FAILURE(expect_stay());
}

}  // namespace
}  // namespace tide
