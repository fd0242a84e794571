// Agents with vGPUs that are on no GPU.

#include <tuple>

#include "tests/server/agents.h"

namespace tide {
namespace {

constexpr uint64_t kBase = vgpu_range_base(2);
constexpr uint32_t kParked = control::PARKED;

class ParkTest : public AgentTest {
 protected:
  // From epoch_ on `from` to the next one on `to`, with the client behind it.
  void go(const std::string& from, const std::string& to, uint32_t gpu, const char* transport = "shm") {
    auto moving = move(from, to, epoch_, prepare(to, epoch_ + 1, gpu), gpu).eagerlyEvaluate(nullptr);
    await([&] {
      client_.link().progress();
      return client_.page().state.load() == uint64_t(ChannelState::kMoved) && client_.page().next_epoch == epoch_ + 1;
    });
    client_.disconnect();
    DoorOpen open = wish(++epoch_);
    strcpy(open.transport, transport);
    open.attempt = ++attempt_;
    ASSERT_TRUE(client_.open_door(client_.page().next_endpoint, open));
    const auto response = moving.wait(io_.waitScope);
    EXPECT_GT(response.getReport().getBytes(), 0u);
    await([&] { return client_.link().progress(), client_.page().epoch.load() == epoch_; });
    EXPECT_TRUE(from == to || worker_pids(from).empty());
    EXPECT_EQ(worker_pids(to).size(), 1u);
  }
  void begin(const char* transport = "shm") {
    place("one", 1);
    DoorOpen open = wish(1);
    strcpy(open.transport, transport);
    open.attempt = ++attempt_;
    ASSERT_TRUE(client_.open_door(servers_["one"].endpoint, open));
    std::vector<std::byte> found;
    client_.make_context();
    client_.send(Call::tideMapMemory, command::MapMemory{kBase, 8 * kChunkBytes});
    client_.load_library(1, kTestImage, &found);
    for (uint64_t i = 0; i < 8; ++i) client_.copy_in(kBase + i * kChunkBytes, &i, sizeof(i));
    ASSERT_EQ(client_.call(uint16_t(Call::tideNull), {}, nullptr), CUDA_SUCCESS);
  }
  void add() { client_.launch(uint64_t{1} << 32, {kBase, 1, 1}), ++added_; }
  void expect_contents() {
    for (uint64_t i = 0; i < 8; ++i) {
      const auto bytes = client_.copy_out(kBase + i * kChunkBytes, 8);
      ASSERT_EQ(bytes.size(), 8u);
      EXPECT_EQ(*reinterpret_cast<const uint64_t*>(bytes.data()), i == 0 ? added_ : i);
    }
    EXPECT_EQ(client_.page().errors.load(), 0u);
  }
  void expect_parked() {
    const uint64_t before = client_.page().acknowledged.load();
    add();
    await_ms(150);
    client_.link().progress();
    EXPECT_EQ(client_.page().acknowledged.load(), before);
    EXPECT_EQ(client_.page().state.load(), uint64_t(ChannelState::kPaused));
  }
  void await_ms(uint32_t ms) { io_.provider->getTimer().afterDelay(ms * kj::MILLISECONDS).wait(io_.waitScope); }
  uint64_t kept(const std::string& name) {
    auto request = agent(name).statsRequest();
    request.setJob("job-1");
    uint64_t bytes = 0;
    const auto response = request.send().wait(io_.waitScope);
    for (const auto vgpu : response.getVgpus()) bytes += vgpu.getKeptInMemory() + vgpu.getKeptOnDisk();
    return bytes;
  }

  TestClient client_;
  uint64_t epoch_ = 1, added_ = 0;
  uint32_t attempt_ = 0;
};

TEST_F(ParkTest, is_kept_on_no_gpu_here_or_elsewhere_and_goes_on_anywhere) {
  ASSERT_NO_FATAL_FAILURE(begin());
  for (const auto& [keeper, then] : {std::pair("two", "one"), {"one", "one"}, {"one", "two"}, {"one", "one"}}) {
    const std::string from = worker_pids("one").empty() ? "two" : "one";
    add();
    ASSERT_NO_FATAL_FAILURE(go(from, keeper, kParked));
    EXPECT_GE(kept(keeper), 7 * kChunkBytes);
    ASSERT_NO_FATAL_FAILURE(expect_parked());
    ASSERT_NO_FATAL_FAILURE(go(keeper, then, 0));
    EXPECT_EQ(kept(then), 0u);
    ASSERT_NO_FATAL_FAILURE(expect_contents());
  }
}

TEST_F(ParkTest, a_process_that_begins_meanwhile_is_told_why_it_has_to_wait) {
  ASSERT_NO_FATAL_FAILURE(begin());
  ASSERT_NO_FATAL_FAILURE(go("one", "two", kParked));
  TestClient other;
  const auto opened = other.open_door(servers_["two"].endpoint, wish(epoch_, 9));
  EXPECT_FALSE(opened);
  EXPECT_NE(std::string(opened.message()).find("the job is suspended; `tide resume job-1`"), std::string::npos)
      << opened.message();
  EXPECT_EQ(worker_pids("two").size(), 1u);
  ASSERT_NO_FATAL_FAILURE(go("two", "one", 0));
  EXPECT_TRUE(other.open_door(servers_["one"].endpoint, wish(epoch_, 9)));
  ASSERT_NO_FATAL_FAILURE(expect_contents());
}

TEST_F(ParkTest, an_agent_that_is_started_again_finds_its_keepers) {
  ASSERT_NO_FATAL_FAILURE(begin());
  for (int round = 0; round < 3; ++round) {
    ASSERT_NO_FATAL_FAILURE(go("one", "one", kParked));
    const std::vector<uint32_t> before = worker_pids("one");
    one_->stop(SIGKILL);
    ASSERT_NO_FATAL_FAILURE(restart_one());
    EXPECT_EQ(servers_["one"].lease_gpus, std::vector<uint32_t>{kParked});
    EXPECT_EQ(worker_pids("one"), before);
    ASSERT_NO_FATAL_FAILURE(expect_parked());
    ASSERT_NO_FATAL_FAILURE(go("one", "one", 0));
    ASSERT_NO_FATAL_FAILURE(expect_contents());
  }
}

// The source's agent is killed at any moment of a suspension, or of what ends one. Whatever came of it, the vGPU is in
// one place, with all that it had.
TEST_F(ParkTest, a_suspension_or_resumption_whose_agent_dies_has_one_end) {
  ASSERT_NO_FATAL_FAILURE(begin());
  uint32_t went = 0, stayed = 0;
  // On a busy machine none may come so far: then some wait longer.
  for (uint32_t round = 0; round < 16 || (went == 0 && round < 40); ++round) {
    const bool parks = round % 2 == 0;
    if (!parks) {
      ASSERT_NO_FATAL_FAILURE(go("one", "one", kParked));
    }
    const uint32_t gpu = parks ? kParked : 0;
    auto moving =
        move("one", "two", epoch_, prepare("two", epoch_ + 1, gpu), gpu).ignoreResult().eagerlyEvaluate(nullptr);
    await_ms((round * 17 % 100) * (1 + round / 16 * 3));
    one_->stop(SIGKILL);
    KJ_IF_MAYBE (e, kj::runCatchingExceptions([&] { moving.wait(io_.waitScope); })) {
      EXPECT_EQ(e->getType(), kj::Exception::Type::DISCONNECTED);
    }
    ASSERT_NO_FATAL_FAILURE(restart_one());
    const bool stays = !servers_["one"].leases.empty();
    ++(stays ? stayed : went);
    const uint64_t void_epoch = epoch_ + 1;
    if (!stays) {
      await([&] { return client_.page().state.load() == uint64_t(ChannelState::kMoved); });
      client_.disconnect();
      ASSERT_TRUE(client_.open_door(client_.page().next_endpoint, wish(epoch_ + 1)));
    }
    epoch_ += stays ? 0 : 1;
    if (parks != stays) {
      ASSERT_NO_FATAL_FAILURE(expect_parked());
    }
    add();
    ASSERT_NO_FATAL_FAILURE(go(stays ? "one" : "two", "one", 0));
    if (stays) release("two", void_epoch);  // as a scheduler does that finds it still here
    ASSERT_NO_FATAL_FAILURE(expect_contents());
  }
  EXPECT_GT(stayed, 0u);
  if (went == 0) GTEST_SKIP() << "this machine is too busy: no move came to its end before its agent was killed";
}

// The connection broke, and the session does not lose anything by it.
TEST_F(ParkTest, a_client_whose_connection_broke_comes_back_to_its_keeper) {
  ASSERT_NO_FATAL_FAILURE(begin("sim"));
  ASSERT_NO_FATAL_FAILURE(go("one", "one", kParked, "sim"));
  for (int round = 0; round < 2; ++round) {
    ASSERT_NO_FATAL_FAILURE(expect_parked());
    DoorOpen again = wish(epoch_);
    strcpy(again.transport, "sim");
    again.flags = kOpenAgain;
    again.attempt = ++attempt_;
    ASSERT_TRUE(client_.open_door(servers_["one"].endpoint, again));
    ASSERT_NO_FATAL_FAILURE(expect_parked());
  }
  ASSERT_NO_FATAL_FAILURE(go("one", "one", 0, "sim"));
  ASSERT_NO_FATAL_FAILURE(expect_contents());
}

TEST_F(ParkTest, a_keeper_that_is_killed_is_one_clear_error) {
  ASSERT_NO_FATAL_FAILURE(begin());
  ASSERT_NO_FATAL_FAILURE(go("one", "one", kParked));
  kill(pid_t(worker_pids("one").at(0)), SIGKILL);
  await([&] { return !client_.link().alive() && worker_pids("one").empty(); });
  DoorOpen again = wish(epoch_);
  again.flags = kOpenAgain;
  TestClient other;
  const auto opened = other.open_door(servers_["one"].endpoint, again);
  EXPECT_FALSE(opened);
  EXPECT_NE(std::string(opened.message()).find("its worker has ended"), std::string::npos) << opened.message();
  EXPECT_EQ(files("/one/workers"), 0u);
}

TEST_F(ParkTest, a_client_that_ends_while_it_is_parked_leaves_nothing) {
  ASSERT_NO_FATAL_FAILURE(begin());
  ASSERT_NO_FATAL_FAILURE(go("one", "one", kParked));
  const std::vector<uint32_t> pids = worker_pids("one");
  ASSERT_EQ(pids.size(), 1u);
  client_.disconnect();
  await([&] { return worker_pids("one").empty() && !runs(pids[0]); });
  EXPECT_EQ(files("/one/workers"), 0u);
  EXPECT_EQ(files("/one/parked"), 0u);
  release("one", epoch_);
}

TEST_F(ParkTest, release_ends_what_is_kept) {
  ASSERT_NO_FATAL_FAILURE(begin());
  ASSERT_NO_FATAL_FAILURE(go("one", "two", kParked));
  const std::vector<uint32_t> pids = worker_pids("two");
  release("two", epoch_);
  EXPECT_FALSE(exists(pids.at(0)));
  EXPECT_THROW(place("two", epoch_, kParked), kj::Exception);
  EXPECT_THROW(place("two", epoch_ + 1, 7), kj::Exception) << "still no such GPU";
}

TEST_F(ParkTest, each_process_of_the_vgpu_is_kept) {
  ASSERT_NO_FATAL_FAILURE(begin());
  TestClient other;
  const uint64_t mark = 4711, later = 4712;
  ASSERT_TRUE(other.open_door(servers_["one"].endpoint, wish(1, 9)));
  other.make_context();
  // The first one's worker gives back what it held while it was alone.
  EXPECT_EQ(client_.call(Call::tideAskMemory, command::AskMemory{8 * kChunkBytes}, nullptr), CUDA_SUCCESS);
  other.send(Call::tideMapMemory, command::MapMemory{kBase, kChunkBytes});
  other.copy_in(kBase, &mark, sizeof(mark));
  TestClient* const clients[] = {&client_, &other};
  for (const auto& [from, to, gpu] : {std::tuple("one", "two", kParked), {"two", "one", 0u}}) {
    auto moving = move(from, to, epoch_, prepare(to, epoch_ + 1, gpu), gpu).eagerlyEvaluate(nullptr);
    ++epoch_;
    for (TestClient* client : clients) {
      await([&] { return client->page().next_epoch == epoch_; });
      client->disconnect();
      ASSERT_TRUE(client->open_door(client->page().next_endpoint, wish(epoch_, client == &other ? 9 : 0x33)));
    }
    moving.wait(io_.waitScope);
    EXPECT_EQ(worker_pids(to).size(), 2u);
    if (gpu == kParked) other.copy_in(kBase + 8, &later, sizeof(later));
  }
  const auto bytes = other.copy_out(kBase, 16);
  EXPECT_EQ(memcmp(bytes.data(), &mark, 8), 0);
  EXPECT_EQ(memcmp(bytes.data() + 8, &later, 8), 0);
  ASSERT_NO_FATAL_FAILURE(expect_contents());
}

// They may have memory of it: it goes with them, and ends where one of them is served.
TEST_F(ParkTest, what_was_of_a_process_that_ended_meanwhile_stays_for_the_others) {
  ASSERT_NO_FATAL_FAILURE(begin());
  TestClient killed, another, *other = &killed;
  const auto go_both = [&](const std::string& from, const std::string& to, uint32_t gpu, bool both) {
    auto moving = move(from, to, epoch_, prepare(to, epoch_ + 1, gpu), gpu).eagerlyEvaluate(nullptr);
    ++epoch_;
    for (TestClient* client : {&client_, other}) {
      if (client == other && !both) continue;
      await([&] { return client->page().next_epoch == epoch_; });
      client->disconnect();
      ASSERT_TRUE(client->open_door(client->page().next_endpoint, wish(epoch_, client == other ? 9 : 0x33)));
    }
    moving.wait(io_.waitScope);
  };
  const auto add_other = [&] {
    ASSERT_TRUE(other->open_door(servers_["one"].endpoint, wish(epoch_, 9)));
    other->make_context();
    EXPECT_EQ(other->call(uint16_t(Call::tideNull), {}, nullptr), CUDA_SUCCESS);
  };
  ASSERT_NO_FATAL_FAILURE(add_other());
  ASSERT_NO_FATAL_FAILURE(go_both("one", "two", kParked, true));
  other->disconnect();
  await_ms(300);
  EXPECT_EQ(worker_pids("two").size(), 2u);
  two_->stop(SIGKILL);
  const int before = servers_["two"].times;
  two_ = std::make_unique<AgentProcess>("two", address_, directory_ + "/two");
  await([&] { return servers_["two"].times > before && worker_pids("two").size() == 2; });
  ASSERT_NO_FATAL_FAILURE(go_both("two", "one", kParked, false));
  EXPECT_EQ(worker_pids("one").size(), 2u);
  ASSERT_NO_FATAL_FAILURE(go_both("one", "one", 0, false));
  await([&] { return worker_pids("one").size() == 1; });
  ASSERT_NO_FATAL_FAILURE(expect_contents());
  // When nobody is left, nothing is.
  other = &another;
  ASSERT_NO_FATAL_FAILURE(add_other());
  ASSERT_NO_FATAL_FAILURE(go_both("one", "two", kParked, true));
  other->disconnect();
  await_ms(200);
  client_.disconnect();
  await([&] { return worker_pids("two").empty(); });
}

// Where there is no process of the job yet there is nothing to keep, and the vGPU is parked all the same.
TEST_F(ParkTest, a_vgpu_that_nobody_uses_is_parked_and_goes_on) {
  place("one", 1);
  move("one", "two", 1, prepare("two", 2, kParked), kParked).wait(io_.waitScope);
  EXPECT_FALSE(client_.open_door(servers_["two"].endpoint, wish(2)));
  move("two", "one", 2, prepare("one", 3)).wait(io_.waitScope);
  EXPECT_TRUE(client_.open_door(servers_["one"].endpoint, wish(3)));
}

// Several vGPUs with the same contents, of one job or not.
class ReplicasTest : public AgentTest {
 protected:
  static constexpr uint64_t kChunks = 40;
  struct Replica {
    Which which;
    TestClient client;
    uint64_t epoch = 1;
    uint64_t own = 0;  // in its last chunk
    uint64_t base() const { return vgpu_range_base(which.vgpu); }
  };
  void begin(Replica* replica) {
    which_ = replica->which;
    place("one", 1);
    ASSERT_TRUE(replica->client.open_door(servers_["one"].endpoint, wish(1)));
    replica->client.make_context();
    replica->client.send(Call::tideMapMemory, command::MapMemory{replica->base(), (kChunks + 1) * kChunkBytes});
    for (uint64_t i = 1; i <= kChunks; ++i) {
      replica->client.copy_in(replica->base() + (i - 1) * kChunkBytes, &i, sizeof(i));
    }
    replica->own = 1000 + replica->which.vgpu;
    replica->client.copy_in(replica->base() + kChunks * kChunkBytes, &replica->own, 8);
    ASSERT_EQ(replica->client.call(uint16_t(Call::tideNull), {}, nullptr), CUDA_SUCCESS);
  }
  // How many of its chunks have travelled.
  uint64_t go(Replica* replica, const std::string& from, const std::string& to, uint32_t gpu) {
    which_ = replica->which;
    TestClient& client = replica->client;
    const uint64_t next = ++replica->epoch;
    auto moving = move(from, to, next - 1, prepare(to, next, gpu), gpu).eagerlyEvaluate(nullptr);
    await([&] { return client.link().progress(), client.page().next_epoch.load() == next; });
    client.disconnect();
    EXPECT_TRUE(client.open_door(client.page().next_endpoint, wish(next)));
    return moving.wait(io_.waitScope).getReport().getBytes() / kChunkBytes;
  }
  void expect_contents(Replica* replica) {
    for (uint64_t i = 0; i <= kChunks; ++i) {
      const auto bytes = replica->client.copy_out(replica->base() + i * kChunkBytes, kChunkBytes);
      ASSERT_EQ(bytes.size(), kChunkBytes);
      EXPECT_EQ(*reinterpret_cast<const uint64_t*>(bytes.data()), i < kChunks ? i + 1 : replica->own) << i;
      EXPECT_EQ(*reinterpret_cast<const uint64_t*>(bytes.data() + kChunkBytes - 8), 0u);
    }
    EXPECT_EQ(replica->client.page().errors.load(), 0u);
  }
};

TEST_F(ReplicasTest, what_keepers_of_the_job_have_on_a_server_does_not_travel_there_again) {
  Replica first{.which = {"job-1", 2}, .client = {}}, second{.which = {"job-1", 3}, .client = {}};
  Replica stranger{.which = {"job-2", 2}, .client = {}};
  for (Replica* replica : {&first, &second, &stranger}) {
    ASSERT_NO_FATAL_FAILURE(begin(replica));
  }
  EXPECT_EQ(go(&first, "one", "two", kParked), kChunks + 1);
  EXPECT_EQ(go(&second, "one", "two", kParked), 1u) << "all but its own";
  EXPECT_EQ(go(&stranger, "one", "two", kParked), kChunks + 1) << "nobody learns what another job has";
  EXPECT_EQ(go(&first, "two", "two", 0), 0u) << "it is there";
  ASSERT_NO_FATAL_FAILURE(expect_contents(&first));
  // Of the first one's own the last copy went with its keeper; the second one's still has what both have.
  EXPECT_EQ(go(&first, "two", "one", 0), kChunks + 1) << "nothing is kept there";
  EXPECT_EQ(go(&first, "one", "two", 0), 1u) << "back where a copy is kept";
  ASSERT_NO_FATAL_FAILURE(expect_contents(&first));
  EXPECT_EQ(go(&second, "two", "one", kParked), kChunks + 1);
  EXPECT_EQ(go(&second, "one", "one", 0), 0u);
  EXPECT_EQ(go(&stranger, "two", "one", 0), kChunks + 1);
  for (Replica* replica : {&first, &second, &stranger}) {
    ASSERT_NO_FATAL_FAILURE(expect_contents(replica));
  }
}

// It takes from what others keep while they go.
TEST_F(ReplicasTest, a_keeper_that_is_killed_meanwhile_costs_nobody_else_anything) {
  Replica first{.which = {"job-1", 2}, .client = {}}, second{.which = {"job-1", 3}, .client = {}};
  for (Replica* replica : {&first, &second}) {
    ASSERT_NO_FATAL_FAILURE(begin(replica));
  }
  go(&first, "one", "two", kParked);
  const std::vector<uint32_t> keepers = worker_pids("two");
  ASSERT_EQ(keepers.size(), 1u);
  which_ = second.which;
  auto moving = move("one", "two", 1, prepare("two", 2, kParked), kParked).ignoreResult().eagerlyEvaluate(nullptr);
  await([&] { return worker_pids("two").size() == 2; });
  kill(pid_t(keepers[0]), SIGKILL);
  await([&] { return second.client.page().next_epoch.load() == 2; });
  second.client.disconnect();
  ASSERT_TRUE(second.client.open_door(second.client.page().next_endpoint, wish(2)));
  moving.wait(io_.waitScope);
  second.epoch = 2;
  go(&second, "two", "one", 0);
  ASSERT_NO_FATAL_FAILURE(expect_contents(&second));
}

}  // namespace
}  // namespace tide
