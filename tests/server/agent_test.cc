// Agents and what they do with leases, clients, moves, and each other's leavings.

#include "tests/server/agents.h"

namespace tide {
namespace {

constexpr uint64_t kBase = vgpu_range_base(2);

TEST_F(AgentTest, serves_a_client_that_shows_token_and_epoch) {
  EXPECT_EQ(servers_["one"].gpus, 1u);
  place("one", 4);
  TestClient client;
  ASSERT_TRUE(client.open_door(servers_["one"].endpoint, wish(4)));
  client.make_context();
  EXPECT_EQ(client.call(uint16_t(Call::tideNull), {}, nullptr), CUDA_SUCCESS);
  EXPECT_EQ(client.page().epoch.load(), 4u);
  EXPECT_EQ(worker_pids("one").size(), 1u);
}

TEST_F(AgentTest, refuses_wrong_tokens_epochs_and_garbage) {
  place("one", 4);
  TestClient client;
  DoorOpen open = wish(4);
  open.token[31] ^= 1;
  EXPECT_FALSE(client.open_door(servers_["one"].endpoint, open));
  EXPECT_FALSE(client.open_door(servers_["one"].endpoint, wish(3)));
  EXPECT_FALSE(client.open_door(servers_["one"].endpoint, wish(5)));
  Endpoint endpoint;
  ASSERT_TRUE(Endpoint::parse(servers_["one"].endpoint, &endpoint).ok());
  for (const bool tcp : {false, true}) {
    int socket = -1;
    ASSERT_TRUE(
        (tcp ? connect_tcp(endpoint.tcp_address, 1000, &socket) : connect_unix(endpoint.unix_path, 1000, &socket))
            .ok());
    const std::string garbage(100'000, 'g');
    EXPECT_GT(send(socket, garbage.data(), garbage.size(), MSG_NOSIGNAL), 0);
    char answer[65536];
    while (recv(socket, answer, sizeof(answer), 0) > 0) {
    }
    close(socket);
  }
  EXPECT_TRUE(worker_pids("one").empty());
  EXPECT_TRUE(client.open_door(servers_["one"].endpoint, wish(4)));
}

TEST_F(AgentTest, a_dead_worker_concerns_its_own_session_only) {
  place("one", 1);
  TestClient first, second;
  ASSERT_TRUE(first.open_door(servers_["one"].endpoint, wish(1, 1)));
  ASSERT_TRUE(second.open_door(servers_["one"].endpoint, wish(1, 2)));
  const std::vector<uint32_t> pids = worker_pids("one");
  ASSERT_EQ(pids.size(), 2u);
  kill(pid_t(pids[0]), SIGKILL);
  await([&] { return worker_pids("one").size() == 1; });
  EXPECT_EQ(second.call(uint16_t(Call::tideNull), {}, nullptr, 0), CUDA_SUCCESS);
  const auto gone = [&] { return !first.link().alive(); };
  EXPECT_EQ(wait_until(first.link(), Side::kClient, gone, kTestTimeoutUs), WaitResult::kReady);
}

TEST_F(AgentTest, release_ends_the_workers_and_refuses_older_epochs) {
  place("one", 5);
  TestClient client;
  ASSERT_TRUE(client.open_door(servers_["one"].endpoint, wish(5)));
  const std::vector<uint32_t> pids = worker_pids("one");
  auto stale = agent("one").releaseRequest();
  stale.setJob("job-1");
  stale.setVgpu(2);
  stale.setEpoch(4);
  EXPECT_THROW(stale.send().wait(io_.waitScope), kj::Exception);
  for (int i = 0; i < 2; ++i) {  // the second time there is nothing left to do
    auto release = agent("one").releaseRequest();
    release.setJob("job-1");
    release.setVgpu(2);
    release.setEpoch(5);
    release.send().wait(io_.waitScope);
  }
  ASSERT_EQ(pids.size(), 1u);
  EXPECT_FALSE(exists(pids[0]));
  EXPECT_FALSE(client.open_door(servers_["one"].endpoint, wish(5)));
}

TEST_F(AgentTest, moves_a_vgpu_with_all_its_sessions_to_another_agent_and_back) {
  place("one", 1);
  TestClient clients[2];
  std::vector<std::byte> found;
  for (uint8_t i = 0; i < 2; ++i) {
    ASSERT_TRUE(clients[i].open_door(servers_["one"].endpoint, wish(1, i)));
    clients[i].make_context();
    clients[i].send(Call::tideMapMemory, command::MapMemory{kBase, kChunkBytes});
    EXPECT_EQ(clients[i].call(Call::tideAskMemory, command::AskMemory{kChunkBytes}, nullptr), CUDA_SUCCESS);
    clients[i].load_library(1, kTestImage, &found);
    const uint32_t mark = 1000u * i;
    clients[i].copy_in(kBase, &mark, 4);
  }
  std::string at = "one";
  for (uint64_t epoch = 1; epoch <= 4; ++epoch) {
    const std::string to = epoch == 4 ? at : at == "one" ? "two" : "one";  // the last one stays on its agent
    auto moving = move(at, to, epoch, prepare(to, epoch + 1)).eagerlyEvaluate(nullptr);
    for (uint8_t i = 0; i < 2; ++i) {
      clients[i].launch(uint64_t{1} << 32, {kBase, 1, 1});
      await([&] {
        return clients[i].page().state.load() == uint64_t(ChannelState::kMoved) &&
               clients[i].page().next_epoch.load() == epoch + 1;
      });
      clients[i].disconnect();
      ASSERT_TRUE(clients[i].open_door(clients[i].page().next_endpoint, wish(epoch + 1, i)));
    }
    const auto response = moving.wait(io_.waitScope);
    EXPECT_GT(response.getReport().getBytes(), 0u);
    EXPECT_GT(response.getReport().getTotalMs(), 0.0);
    EXPECT_LT(response.getReport().getPauseMs(), response.getReport().getTotalMs() + 1);
    EXPECT_EQ(worker_pids(to).size(), 2u);
    at = to;
  }
  for (uint32_t i = 0; i < 2; ++i) {
    const auto bytes = clients[i].copy_out(kBase, 4);
    EXPECT_EQ(*reinterpret_cast<const uint32_t*>(bytes.data()), 1000u * i + 4);
  }
  EXPECT_TRUE(worker_pids(at == "one" ? "two" : "one").empty());
}

TEST_F(AgentTest, a_move_to_nowhere_fails_and_the_vgpu_runs_on) {
  place("one", 1);
  TestClient client;
  ASSERT_TRUE(client.open_door(servers_["one"].endpoint, wish(1)));
  client.make_context();
  // Agent two was not asked to prepare.
  EXPECT_THROW(move("one", "two", 1, servers_["two"].endpoint).wait(io_.waitScope), kj::Exception);
  EXPECT_THROW(move("one", "two", 1, "host=x;tcp=127.0.0.1:1").wait(io_.waitScope), kj::Exception);
  EXPECT_EQ(client.call(uint16_t(Call::tideNull), {}, nullptr), CUDA_SUCCESS);
  EXPECT_EQ(worker_pids("one").size(), 1u);
}

TEST_F(AgentTest, a_vgpu_without_clients_moves_at_once) {
  place("one", 1);
  move("one", "two", 1, prepare("two", 2)).wait(io_.waitScope);
  TestClient client;
  EXPECT_FALSE(client.open_door(servers_["one"].endpoint, wish(1)));
  EXPECT_TRUE(client.open_door(servers_["two"].endpoint, wish(2)));
}

// Who had ordered it would else believe that the source is gone, and wait for its return.
TEST_F(AgentTest, a_destination_that_nobody_reaches_is_no_end_of_the_source) {
  place("one", 1);
  TestClient client;
  ASSERT_TRUE(client.open_door(servers_["one"].endpoint, wish(1)));
  client.make_context();
  const std::string nowhere = "host=another;tcp=127.0.0.1:1";
  KJ_IF_MAYBE (e, kj::runCatchingExceptions([&] { move("one", "two", 1, nowhere).wait(io_.waitScope); })) {
    EXPECT_EQ(e->getType(), kj::Exception::Type::FAILED) << e->getDescription().cStr();
  } else {
    ADD_FAILURE() << "it moved to nowhere";
  }
  EXPECT_EQ(client.call(uint16_t(Call::tideNull), {}, nullptr), CUDA_SUCCESS);
}

TEST_F(AgentTest, lives_through_workers_clients_and_leases_that_end_at_any_moment) {
  const size_t files[2] = {one_->open_files(), two_->open_files()};
  uint64_t epoch = 1;
  for (uint32_t round = 0; round < 32; ++round, epoch += 2) {
    TestClient clients[2];
    place("one", epoch);
    for (uint8_t i = 0; i < 2; ++i) {
      ASSERT_TRUE(clients[i].open_door(servers_["one"].endpoint, wish(epoch, i)));
      clients[i].make_context();
      clients[i].send(Call::tideMapMemory, command::MapMemory{kBase, 8 * kChunkBytes});
      EXPECT_EQ(clients[i].call(Call::tideAskMemory, command::AskMemory{8 * kChunkBytes}, nullptr), CUDA_SUCCESS);
    }
    const std::vector<uint32_t> pids = worker_pids("one");
    ASSERT_EQ(pids.size(), 2u);
    bool over = false;
    auto moving = move("one", "two", epoch, prepare("two", epoch + 1))
                      .then([&](auto&&) { over = true; }, [&](kj::Exception&&) { over = true; })
                      .eagerlyEvaluate(nullptr);
    io_.provider->getTimer().afterDelay(round / 4 * 3 * kj::MILLISECONDS).wait(io_.waitScope);
    switch (round % 4) {
      case 0:  // a worker
        kill(pid_t(pids[round / 4 % 2]), SIGKILL);
        break;
      case 1:  // a client
        clients[0].disconnect();
        break;
      case 2:  // the job, on both sides
        release("one", epoch);
        release("two", epoch + 1);
        break;
      default:  // where it goes
        for (const uint32_t pid : worker_pids("two")) kill(pid_t(pid), SIGKILL);
    }
    for (TestClient& client : clients) client.disconnect();
    await([&] { return over; });
    release("one", epoch);
    release("two", epoch + 1);
    // One that has handed its vGPU over is no longer the lease's, and ends by itself.
    for (const uint32_t pid : pids) await([&] { return !exists(pid); });
  }
  EXPECT_TRUE(worker_pids("one").empty());
  EXPECT_TRUE(worker_pids("two").empty());
  await([&] { return one_->open_files() == files[0] && two_->open_files() == files[1]; });
  EXPECT_EQ(one_->children() + two_->children(), 0u);
  EXPECT_EQ(one_->stop(SIGTERM), 0);
  EXPECT_EQ(two_->stop(SIGTERM), 0);
}

TEST_F(AgentTest, comes_back_to_a_new_scheduler_with_its_leases) {
  place("one", 9);
  TestClient client;
  ASSERT_TRUE(client.open_door(servers_["one"].endpoint, wish(9)));
  servers_.clear();
  scheduler_->serving = nullptr;
  scheduler_->server = nullptr;
  scheduler_->receiver = nullptr;
  listen();
  await([this] { return servers_["one"].times > 0; });
  ASSERT_EQ(servers_["one"].leases.size(), 1u);
  EXPECT_EQ(servers_["one"].leases[0], (std::pair<std::string, uint64_t>("job-1", 9)));
  EXPECT_EQ(client.call(uint16_t(Call::tideNull), {}, nullptr, 0), CUDA_SUCCESS);
}

TEST_F(AgentTest, workers_of_a_killed_agent_serve_on_and_the_next_one_takes_them_over) {
  place("one", 7);
  TestClient clients[2];
  const uint32_t mark = 41;
  for (uint8_t i = 0; i < 2; ++i) {
    ASSERT_TRUE(clients[i].open_door(servers_["one"].endpoint, wish(7, i)));
    clients[i].make_context();
    clients[i].send(Call::tideMapMemory, command::MapMemory{kBase, kChunkBytes});
    clients[i].copy_in(kBase, &mark, 4);
    // The other one's worker shall not keep all of the quota for it.
    EXPECT_EQ(clients[i].call(Call::tideAskMemory, command::AskMemory{kChunkBytes}, nullptr), CUDA_SUCCESS);
  }
  const std::vector<uint32_t> pids = worker_pids("one");
  const std::string endpoint = servers_["one"].endpoint;
  for (int round = 0; round < 3; ++round) {
    one_->stop(round == 1 ? SIGUSR2 : SIGKILL);
    EXPECT_EQ(clients[0].call(uint16_t(Call::tideNull), {}, nullptr), CUDA_SUCCESS) << "nobody is there";
    restart_one();
    EXPECT_EQ(servers_["one"].endpoint, endpoint);
    ASSERT_EQ(servers_["one"].leases.size(), 1u);
    EXPECT_EQ(servers_["one"].leases[0], (std::pair<std::string, uint64_t>("job-1", 7)));
    EXPECT_EQ(servers_["one"].tokens[0], std::string(kTokenBytes, '\x5a'));
    EXPECT_EQ(worker_pids("one"), pids);
    EXPECT_FALSE(TestClient().open_door(endpoint, wish(6)));
    EXPECT_FALSE(TestClient().open_door(endpoint, wish(7, 0))) << "that session is served";
  }
  for (TestClient& client : clients) {
    const auto bytes = client.copy_out(kBase, 4);
    EXPECT_EQ(*reinterpret_cast<const uint32_t*>(bytes.data()), mark);
  }
  TestClient third;
  EXPECT_TRUE(third.open_door(endpoint, wish(7, 3)));
  EXPECT_EQ(worker_pids("one").size(), 3u);
  release("one", 7);
  for (const uint32_t pid : pids) EXPECT_FALSE(runs(pid));
  EXPECT_EQ(files("/one/workers"), 0u);
}

TEST_F(AgentTest, a_lease_that_nobody_uses_yet_survives_its_agent) {
  place("one", 3);
  one_->stop(SIGKILL);
  restart_one();
  ASSERT_EQ(servers_["one"].leases.size(), 1u);
  TestClient client;
  EXPECT_TRUE(client.open_door(servers_["one"].endpoint, wish(3)));
  one_->stop(SIGTERM);
  restart_one();
  EXPECT_TRUE(servers_["one"].leases.empty());
}

TEST_F(AgentTest, a_vgpu_that_an_agent_took_over_moves_away) {
  place("one", 1);
  TestClient client;
  ASSERT_TRUE(client.open_door(servers_["one"].endpoint, wish(1)));
  client.make_context();
  one_->stop(SIGKILL);
  restart_one();
  auto moving = move("one", "two", 1, prepare("two", 2)).eagerlyEvaluate(nullptr);
  const auto sent = [&] { return client.page().state.load() == uint64_t(ChannelState::kMoved); };
  await(sent);
  client.disconnect();
  ASSERT_TRUE(client.open_door(client.page().next_endpoint, wish(2)));
  moving.wait(io_.waitScope);
  EXPECT_EQ(client.call(uint16_t(Call::tideNull), {}, nullptr), CUDA_SUCCESS);
  EXPECT_EQ(worker_pids("two").size(), 1u);
}

// The source is killed at any moment of a move. Whatever came of it, the vGPU is in one place, and goes on there.
TEST_F(AgentTest, a_move_whose_agent_dies_has_one_end) {
  uint32_t went = 0;
  // On a busy machine none may come so far: then some wait longer.
  for (uint64_t epoch = 1; epoch <= 40 || (went == 0 && epoch <= 160); epoch += 2) {
    place("one", epoch);
    TestClient client;
    ASSERT_TRUE(client.open_door(servers_["one"].endpoint, wish(epoch)));
    client.make_context();
    client.send(Call::tideMapMemory, command::MapMemory{kBase, 8 * kChunkBytes});
    const uint64_t mark = 77 + epoch;
    client.copy_in(kBase, &mark, 8);
    auto moving = move("one", "two", epoch, prepare("two", epoch + 1)).ignoreResult().eagerlyEvaluate(nullptr);
    io_.provider->getTimer()
        .afterDelay((epoch * 37 % 120) * (1 + epoch / 41 * 4) * kj::MILLISECONDS)
        .wait(io_.waitScope);
    one_->stop(SIGKILL);
    KJ_IF_MAYBE (e, kj::runCatchingExceptions([&] { moving.wait(io_.waitScope); })) {
      EXPECT_EQ(e->getType(), kj::Exception::Type::DISCONNECTED);
    }
    restart_one();
    const bool stays = !servers_["one"].leases.empty();
    if (!stays) {
      ++went;
      await([&] { return client.page().state.load() == uint64_t(ChannelState::kMoved); });
      client.disconnect();
      ASSERT_TRUE(client.open_door(client.page().next_endpoint, wish(epoch + 1))) << epoch;
    }
    const auto bytes = client.copy_out(kBase, 8);
    ASSERT_EQ(bytes.size(), 8u);
    EXPECT_EQ(*reinterpret_cast<const uint64_t*>(bytes.data()), mark) << epoch;
    client.disconnect();
    if (stays) release("one", epoch);
    release("two", epoch + 1);
    await([&] { return files("/one/workers") == 0 && files("/two/workers") == 0; });
  }
  EXPECT_GT(went, 0u);
  EXPECT_LT(went, 20u);
}

TEST_F(AgentTest, a_worker_whose_agent_does_not_come_back_ends) {
  one_->stop(SIGTERM);
  one_ = std::make_unique<AgentProcess>("one", address_, directory_ + "/one", "1");
  await([this] { return servers_["one"].times > 1; });
  place("one", 1);
  TestClient client;
  ASSERT_TRUE(client.open_door(servers_["one"].endpoint, wish(1)));
  const std::vector<uint32_t> pids = worker_pids("one");
  const uint64_t begin = now_ns();
  one_->stop(SIGKILL);
  const auto gone = [&] { return !client.link().alive(); };
  EXPECT_EQ(wait_until(client.link(), Side::kClient, gone, kTestTimeoutUs), WaitResult::kReady);
  EXPECT_GT(now_ns() - begin, 900'000'000u);
  await([&] { return !runs(pids[0]); });
  restart_one();  // which finds a lease without workers, and no more of it
  EXPECT_EQ(servers_["one"].leases.size(), 1u);
  EXPECT_TRUE(worker_pids("one").empty());
  EXPECT_EQ(files("/one/workers"), 0u);
  DoorOpen again = wish(1);
  again.flags = kOpenAgain;
  EXPECT_FALSE(client.open_door(servers_["one"].endpoint, again));
}

TEST_F(AgentTest, a_worker_hears_only_who_knows_what_its_agent_knew) {
  place("one", 1);
  TestClient client;
  ASSERT_TRUE(client.open_door(servers_["one"].endpoint, wish(1)));
  const Rendezvous rendezvous(directory_ + "/one/workers");
  const DoorOpen known = wish(1);
  const std::string name = Rendezvous::name_of(known.session, 1);
  ControlAdopt words[4];
  for (ControlAdopt& word : words) {
    memcpy(word.token, known.token, sizeof(word.token));
    memcpy(word.session, known.session, sizeof(word.session));
    word.epoch = 1;
  }
  words[0].token[0] ^= 1;
  words[1].session[15] ^= 1;
  words[2].epoch = 2;
  words[3].version += 1;
  const auto is_refused = [&](const ControlAdopt& word) {
    int socket = -1;
    pid_t pid = -1;
    ControlMessage message;
    ASSERT_TRUE(rendezvous.connect(name, &socket, &pid).ok());
    EXPECT_TRUE(send_control(socket, ControlType::kAdopt, word));
    send_control(socket, ControlType::kExit, nullptr, 0);  // which it does not listen to, if it is there at all
    await([&] { return receive_control(socket, &message) == ControlState::kGone; });
    close(socket);
  };
  one_->stop(SIGKILL);
  for (const ControlAdopt& word : words) is_refused(word);
  EXPECT_EQ(client.call(uint16_t(Call::tideNull), {}, nullptr, 0), CUDA_SUCCESS);
  restart_one();
  EXPECT_EQ(worker_pids("one").size(), 1u);
}

// An attempt that the client has given up may be under way for long: it must not take the worker from the newer one.
TEST_F(AgentTest, an_attempt_that_comes_late_displaces_no_newer_connection) {
  place("one", 1);
  TestClient client;
  DoorOpen first = wish(1);
  strcpy(first.transport, "sim");
  first.attempt = 1;
  ASSERT_TRUE(client.open_door(servers_["one"].endpoint, first));
  EXPECT_EQ(client.call(uint16_t(Call::tideNull), {}, nullptr, 0), CUDA_SUCCESS);
  DoorOpen late = first, newer = first;
  late.flags = newer.flags = kOpenAgain;
  late.attempt = 2;
  newer.attempt = 3;
  ASSERT_TRUE(client.open_door(servers_["one"].endpoint, newer));
  EXPECT_EQ(client.call(uint16_t(Call::tideNull), {}, nullptr, 0), CUDA_SUCCESS);
  TestClient stranger;
  const auto opened = stranger.open_door(servers_["one"].endpoint, late);
  EXPECT_FALSE(opened);
  EXPECT_NE(std::string(opened.message()).find("a newer connection"), std::string::npos) << opened.message();
  EXPECT_TRUE(client.link().alive());
  EXPECT_EQ(client.call(uint16_t(Call::tideNull), {}, nullptr, 0), CUDA_SUCCESS);
  EXPECT_EQ(worker_pids("one").size(), 1u);
}

// The worker that is killed when a move fails, or a lease ends, may hold its memory for a while.
TEST_F(AgentTest, a_gpu_is_nobodys_else_before_the_killed_worker_has_ended) {
  place("one", 1);
  TestClient client;
  ASSERT_TRUE(client.open_door(servers_["one"].endpoint, wish(1)));
  const uint32_t pid = worker_pids("one").at(0);
  SlowEnd end(pid);
  if (!end.traced()) GTEST_SKIP() << "processes cannot be traced here";
  auto cancel = agent("one").cancelRequest();
  cancel.setJob("job-1");
  cancel.setVgpu(2);
  cancel.setEpoch(1);
  cancel.send().wait(io_.waitScope);
  end.await_kill();
  place("one", 2);
  expect_served_only_after(wish(2), pid, [&] { end.let_end(); });
}

// The same of workers that were told to leave, when their agent is a new one.
TEST_F(AgentTest, a_gpu_is_nobodys_else_before_the_workers_have_left_that_an_earlier_agent_sent_away) {
  place("one", 1);
  TestClient client;
  ASSERT_TRUE(client.open_door(servers_["one"].endpoint, wish(1)));
  client.make_context();
  const uint32_t pid = worker_pids("one").at(0);
  auto moving = move("one", "two", 1, prepare("two", 2)).ignoreResult().eagerlyEvaluate(nullptr);
  await([&] { return client.page().state.load() == uint64_t(ChannelState::kMoved); });
  kill(pid_t(pid), SIGSTOP);
  one_->stop(SIGKILL);
  EXPECT_THROW(moving.wait(io_.waitScope), kj::Exception);
  restart_one();
  ASSERT_TRUE(servers_["one"].leases.empty());
  if (!runs(pid)) GTEST_SKIP() << "it had left already";
  place("one", 3);
  expect_served_only_after(wish(3, 9), pid, [&] { kill(pid_t(pid), SIGCONT); });
}

// The number of a GPU means another one where the agent is started with other GPUs.
TEST_F(AgentTest, a_lease_ends_where_its_gpu_is_another_one) {
  place("one", 1);
  TestClient client;
  ASSERT_TRUE(client.open_door(servers_["one"].endpoint, wish(1)));
  const uint32_t pid = worker_pids("one").at(0);
  one_->stop(SIGKILL);
  setenv("FAKE_DRIVER_UUID", "8", 1);
  restart_one();
  unsetenv("FAKE_DRIVER_UUID");
  EXPECT_TRUE(servers_["one"].leases.empty());
  await([&] { return !runs(pid); });
  EXPECT_FALSE(client.open_door(servers_["one"].endpoint, wish(1)));
}

TEST_F(AgentTest, a_worker_that_was_stopped_while_many_agents_died_is_found) {
  place("one", 1);
  TestClient client;
  ASSERT_TRUE(client.open_door(servers_["one"].endpoint, wish(1)));
  const uint32_t pid = worker_pids("one").at(0);
  kill(pid_t(pid), SIGSTOP);
  one_->stop(SIGKILL);
  const Rendezvous rendezvous(directory_ + "/one/workers");
  const std::string name = Rendezvous::name_of(wish(1).session, 1);
  for (int n = 0; n < 40; ++n) {
    int socket = -1;
    pid_t found = -1;
    EXPECT_TRUE(rendezvous.connect(name, &socket, &found).ok()) << n;
    if (socket >= 0) close(socket);
  }
  restart_one();
  kill(pid_t(pid), SIGCONT);
  EXPECT_EQ(worker_pids("one"), std::vector<uint32_t>{pid});
  EXPECT_EQ(client.call(uint16_t(Call::tideNull), {}, nullptr, 0), CUDA_SUCCESS);
  await([&] {  // it has found its agent, which can use it
    return servers_["one"].leases.size() == 1u && client.link().alive();
  });
}

TEST_F(AgentTest, what_ended_here_does_not_begin_again) {
  place("one", 5);
  release("one", 5);
  for (int round = 0; round < 2; ++round) {
    EXPECT_THROW(place("one", 5), kj::Exception);
    EXPECT_THROW(place("one", 4), kj::Exception);
    EXPECT_THROW(prepare("one", 5), kj::Exception);
    one_->stop(SIGKILL);
    restart_one();
  }
  place("one", 6);
  EXPECT_THROW(place("one", 5), kj::Exception);
  EXPECT_THROW(move("one", "two", 5, servers_["two"].endpoint).wait(io_.waitScope), kj::Exception);
}

TEST_F(AgentTest, stops_when_told_and_leaves_no_socket) {
  EXPECT_EQ(one_->stop(SIGTERM), 0);
  EXPECT_FALSE(std::filesystem::exists(directory_ + "/one/door.sock"));
}

}  // namespace
}  // namespace tide
