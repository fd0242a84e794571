// One body for every transport: what a channel promises, whatever carries it.

#include <algorithm>
#include <thread>

#include "tests/no_threads.h"
#include "tests/transport/channel.h"
#include "transport/rdma.h"

namespace tide {
namespace {

class LinkTest : public testing::TestWithParam<const char*> {
 protected:
  bool slow() const { return strstr(GetParam(), "gbit=") != nullptr; }
  // How much a test moves; less where the link is slow on purpose.
  uint64_t volume(uint64_t bytes) const { return slow() ? bytes / 8 : bytes; }

  ClientRegion memory;
};

TEST_P(LinkTest, echoes_bytes_of_every_length) {
  Connection worker(memory, GetParam());
  ASSERT_TRUE(worker.connected()) << worker.failure();
  peer::Numbers numbers{1};
  for (uint32_t bytes : {0u, 1u, 15u, 16u, 17u, 4096u, 65536u, 100'001u, kCommandPayloadMax}) {
    std::vector<unsigned char> sent(bytes), answer;
    peer::fill(numbers, sent.data(), bytes);
    ASSERT_TRUE(worker.round_trip(peer::kEcho, sent.data(), bytes, &answer)) << bytes;
    ASSERT_TRUE(sent == answer) << bytes;
  }
}

TEST_P(LinkTest, a_record_above_the_maximum_has_no_place) {
  EXPECT_EQ(memory.writer.reserve(kCommandPayloadMax + 1), nullptr);
  EXPECT_NE(memory.writer.reserve(kCommandPayloadMax), nullptr);
}

TEST_P(LinkTest, commands_arrive_in_order_and_exact_over_many_wraps) {
  Connection worker(memory, GetParam());
  ASSERT_TRUE(worker.connected()) << worker.failure();
  peer::Numbers numbers{2};
  uint64_t hash = 0, moved = 0, commands = 0;
  std::vector<unsigned char> bytes(200'000);
  while (moved < volume(5 * kCommandRingBytes)) {
    const uint32_t n = uint32_t(numbers.next() % (commands % 50 == 0 ? bytes.size() : 3000));
    peer::fill(numbers, bytes.data(), n);
    hash = peer::mix(hash, bytes.data(), n);
    ASSERT_NE(worker.send(peer::kHash, bytes.data(), n), 0u);
    moved += n;
    ++commands;
  }
  const peer::Report report = worker.report();
  EXPECT_EQ(report.hash, hash);
  EXPECT_EQ(report.commands, commands + 1);
  EXPECT_EQ(report.first, 1u);
}

TEST_P(LinkTest, answers_arrive_in_order_and_exact_over_many_wraps) {
  Connection worker(memory, GetParam());
  ASSERT_TRUE(worker.connected()) << worker.failure();
  const peer::Burst burst{.count = uint32_t(volume(800)), .bytes_max = 200'000, .seed = 3};
  const uint64_t sequence = worker.send(peer::kBurst, &burst, sizeof burst, kCommandAnswer);
  peer::Numbers numbers{burst.seed};
  std::vector<unsigned char> expected(burst.bytes_max), answer;
  AnswerHeader header;
  for (uint32_t i = 0; i < burst.count; ++i) {
    const uint64_t n = numbers.next() % burst.bytes_max;
    peer::fill(numbers, expected.data(), n);
    ASSERT_TRUE(worker.receive(&header, &answer)) << i;
    ASSERT_EQ(header.kind, uint16_t(AnswerKind::kData));
    ASSERT_EQ(answer.size(), n);
    ASSERT_TRUE(std::equal(answer.begin(), answer.end(), expected.begin())) << i;
  }
  ASSERT_TRUE(worker.receive(&header, &answer));
  EXPECT_EQ(header.kind, uint16_t(AnswerKind::kResult));
  EXPECT_EQ(header.sequence, sequence);
}

TEST_P(LinkTest, words_arrive_after_what_was_published_before_them) {
  Connection worker(memory, GetParam());
  ASSERT_TRUE(worker.connected()) << worker.failure();
  const peer::Burst burst{.count = uint32_t(volume(20'000)), .bytes_max = 400, .seed = 4};
  worker.send(peer::kWords, &burst, sizeof burst, kCommandAnswer);
  WorkerPage& page = memory.region().worker();
  uint64_t answers = 0, event = 0;
  const uint64_t end = now_ns() + kTestTimeoutUs * 1000;
  while (event < burst.count && now_ns() < end) {
    event = page.event_done[kEventSlots - 1].load(std::memory_order_acquire);
    const uint64_t progress = page.stream_progress[peer::kProgressSlot].load(std::memory_order_acquire);
    ASSERT_GE(progress, event);
    Answer answer;
    while (memory.answers.next(&answer) == ReadState::kRecord) {
      memory.answers.consume(answer);
      ++answers;
    }
    ASSERT_GE(answers, progress);
    worker.link().progress();
    notify(worker.link(), Side::kClient);
  }
  EXPECT_EQ(event, burst.count);
}

TEST_P(LinkTest, signals_arrive_after_the_commands_before_them) {
  Connection worker(memory, GetParam());
  ASSERT_TRUE(worker.connected()) << worker.failure();
  Word& signal = memory.region().client().signals[peer::kSignalSlot];
  for (int i = 0; i < int(volume(10'000)); ++i) {
    const uint64_t sequence = worker.send(peer::kHash, "0123456789", 10);
    ASSERT_NE(sequence, 0u);
    signal.store(sequence, std::memory_order_release);
    worker.link().note(signal);
    notify(worker.link(), Side::kClient);
  }
  EXPECT_EQ(worker.report().violations, 0u);
}

// Nothing may be thrown through the driver's functions.
TEST_P(LinkTest, where_the_system_has_no_thread_left_connecting_fails) {
  std::string failure;
  {
    const NoThreads none;
    Connection worker(memory, GetParam());
    failure = worker.failure();
    EXPECT_EQ(worker.connected(), strcmp(GetParam(), "shm") == 0);
  }
  EXPECT_TRUE(failure.empty() || failure.find("ulimit -u") != std::string::npos) << failure;
  Connection worker(memory, GetParam());
  ASSERT_TRUE(worker.connected()) << worker.failure();
  std::vector<unsigned char> answer;
  EXPECT_TRUE(worker.round_trip(peer::kEcho, "x", 1, &answer));
}

// Of a process that has used no UCX yet, as far as that can be had here: a child makes its own context.
TEST_P(LinkTest, where_ucx_reaches_nobody_that_is_said) {
  if (strcmp(GetParam(), "ucx") != 0) GTEST_SKIP() << "is about ucx";
  for (const auto& [name, value] : {std::pair("UCX_NET_DEVICES", "no-such-device"), {"UCX_TLS", "self"}}) {
    fflush(nullptr);
    const pid_t pid = fork();
    if (pid == 0) {
      setenv(name, value, 1);
      std::string data;
      std::unique_ptr<Link> link;
      const Outcome outcome = find_transport("ucx")->accept(-1, -1, &data, &link);
      _exit(outcome.message().find(value) != std::string::npos ? 0 : 1);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    EXPECT_EQ(status, 0) << name;
  }
}

// Before the next one is made; threads may still be about to use it.
TEST_P(LinkTest, a_released_link_is_dead_and_has_nothing_locked) {
  const uint64_t locked = Memlock::now().used;
  Connection worker(memory, GetParam());
  ASSERT_TRUE(worker.connected()) << worker.failure();
  std::vector<unsigned char> answer;
  ASSERT_TRUE(worker.round_trip(peer::kEcho, "x", 1, &answer));
  const std::string transport = worker.link().transport();
  const bool locks = strcmp(GetParam(), "verbs") == 0;
  EXPECT_GE(Memlock::now().used, locked + (locks ? 32u << 20 : 0u));
  worker.link().release();
  worker.link().progress();
  EXPECT_EQ(worker.link().alive(), transport == "shm");
  EXPECT_TRUE(!locks || Memlock::now().used == locked);
}

TEST_P(LinkTest, both_sides_sleep_and_wake) {
  Connection worker(memory, GetParam());
  ASSERT_TRUE(worker.connected()) << worker.failure();
  std::vector<unsigned char> answer;
  for (int i = 0; i < 5; ++i) {
    sleep_us(120'000);  // longer than anybody spins
    ASSERT_TRUE(worker.round_trip(peer::kEcho, &i, sizeof i, &answer));
    const uint32_t ms = 30;  // the client sleeps for the next answer
    worker.send(peer::kSleep, &ms, sizeof ms);
    const uint64_t begin = now_ns();
    ASSERT_TRUE(worker.round_trip(peer::kEcho, &i, sizeof i, &answer));
    EXPECT_GE(now_ns() - begin, 15'000'000u);
  }
}

TEST_P(LinkTest, a_sleep_that_is_about_to_begin_can_be_interrupted) {
  Connection worker(memory, GetParam());
  ASSERT_TRUE(worker.connected()) << worker.failure();
  sleep_us(20'000);
  for (int i = 0; i < 3; ++i) {
    const uint32_t seen = memory.region().worker().wake.load();
    worker.link().interrupt();
    const uint64_t begin = now_ns();
    worker.link().sleep(5'000'000, seen);
    EXPECT_LT(now_ns() - begin, 1'000'000'000u);
  }
}

// Nobody waits: what is published must arrive all the same.
TEST_P(LinkTest, a_command_travels_while_the_client_does_nothing) {
  Connection worker(memory, GetParam());
  ASSERT_TRUE(worker.connected()) << worker.failure();
  ASSERT_TRUE(worker.wait_for_state(ChannelState::kLive));
  sleep_us(150'000);
  const uint64_t sequence = worker.send(peer::kHash, "x", 1);
  const WorkerPage& page = memory.region().worker();
  const uint64_t end = now_ns() + 5'000'000'000;
  while (page.acknowledged.load() < sequence && now_ns() < end) sleep_us(1000);
  EXPECT_EQ(page.acknowledged.load(), sequence);
}

TEST_P(LinkTest, many_threads_may_wait_on_one_channel) {
  Connection worker(memory, GetParam());
  ASSERT_TRUE(worker.connected()) << worker.failure();
  const WorkerPage& page = memory.region().worker();
  const uint32_t ms = 60;
  worker.send(peer::kSleep, &ms, sizeof ms);
  const uint64_t sequence = worker.send(peer::kHash, "x", 1);
  std::vector<std::thread> threads;
  std::atomic<int> ready{0};
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      const auto done = [&] { return page.acknowledged.load(std::memory_order_acquire) >= sequence; };
      if (wait_until(worker.link(), Side::kClient, done, kTestTimeoutUs) == WaitResult::kReady) ++ready;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(ready.load(), 4);
}

TEST_P(LinkTest, a_killed_worker_is_noticed) {
  Connection worker(memory, GetParam());
  ASSERT_TRUE(worker.connected()) << worker.failure();
  std::vector<unsigned char> answer;
  ASSERT_TRUE(worker.round_trip(peer::kEcho, "x", 1, &answer));
  EXPECT_TRUE(worker.link().alive());
  worker.kill_worker();
  const uint64_t begin = now_ns();
  EXPECT_EQ(wait_until(
                worker.link(), Side::kClient, [] { return false; }, kTestTimeoutUs),
            WaitResult::kGone);
  EXPECT_LT(now_ns() - begin, 2'000'000'000u);
  EXPECT_FALSE(worker.link().alive());
}

TEST_P(LinkTest, a_worker_ends_when_the_client_does) {
  Connection worker(memory, GetParam());
  ASSERT_TRUE(worker.connected()) << worker.failure();
  std::vector<unsigned char> answer;
  ASSERT_TRUE(worker.round_trip(peer::kEcho, "x", 1, &answer));
  worker.disconnect();
  EXPECT_EQ(worker.wait_for_exit(), 0);
}

TEST_P(LinkTest, a_wait_ends_when_its_time_is_over) {
  Connection worker(memory, GetParam());
  ASSERT_TRUE(worker.connected()) << worker.failure();
  const uint64_t begin = now_ns();
  EXPECT_EQ(wait_until(
                worker.link(), Side::kClient, [] { return false; }, 30'000),
            WaitResult::kTimeout);
  const uint64_t waited = now_ns() - begin;
  EXPECT_GE(waited, 30'000'000u);
  EXPECT_LT(waited, 2'000'000'000u);
}

// A move: the first worker stops in the middle, commands go on being written, the second takes the same region.
TEST_P(LinkTest, a_second_worker_goes_on_where_the_first_stopped) {
  std::vector<unsigned char> bytes(3000), answer;
  peer::Numbers numbers{6};
  const auto send_some = [&](Connection& worker, int count, uint64_t* hash) {
    for (int i = 0; i < count; ++i) {
      const uint32_t n = uint32_t(numbers.next() % bytes.size());
      peer::fill(numbers, bytes.data(), n);
      *hash = peer::mix(*hash, bytes.data(), n);
      ASSERT_NE(worker.send(peer::kHash, bytes.data(), n), 0u);
    }
  };
  uint64_t first_hash = 0, second_hash = 0;
  const int count = int(volume(8000));  // more than a ring in all
  {
    Connection first(memory, GetParam());
    ASSERT_TRUE(first.connected()) << first.failure();
    send_some(first, count, &first_hash);
    EXPECT_EQ(first.report().hash, first_hash);
    const uint64_t stop = first.send(peer::kStop, nullptr, 0);
    send_some(first, 1000, &second_hash);  // nobody takes these yet
    ASSERT_TRUE(first.wait_for_state(ChannelState::kMoved));
    EXPECT_EQ(memory.region().worker().acknowledged.load(), stop);
    EXPECT_EQ(memory.region().worker().next_epoch.load(), 2u);
    EXPECT_STREQ(memory.region().worker().next_endpoint, "unix=/there");
  }
  Connection second(memory, GetParam());
  ASSERT_TRUE(second.connected()) << second.failure();
  ASSERT_TRUE(second.wait_for_state(ChannelState::kLive));
  send_some(second, count, &second_hash);
  const peer::Report report = second.report();
  EXPECT_EQ(report.hash, second_hash);
  EXPECT_EQ(report.commands, uint64_t(1000 + count + 1));
  EXPECT_EQ(report.first, uint64_t(count + 3));
}

// Answers that the client has not read survive the change of workers too.
TEST_P(LinkTest, unread_answers_survive_a_second_worker) {
  const peer::Burst burst{.count = 20, .bytes_max = 5000, .seed = 9};
  {
    Connection first(memory, GetParam());
    ASSERT_TRUE(first.connected()) << first.failure();
    first.send(peer::kBurst, &burst, sizeof burst, kCommandAnswer);
    first.send(peer::kStop, nullptr, 0);
    ASSERT_TRUE(first.wait_for_state(ChannelState::kMoved));
  }
  Connection second(memory, GetParam());
  ASSERT_TRUE(second.connected()) << second.failure();
  second.send(peer::kEcho, "after", 5, kCommandAnswer);
  AnswerHeader header;
  std::vector<unsigned char> answer;
  for (uint32_t i = 0; i < burst.count + 1; ++i) ASSERT_TRUE(second.receive(&header, &answer)) << i;
  ASSERT_TRUE(second.receive(&header, &answer));
  EXPECT_EQ(std::string(answer.begin(), answer.end()), "after");
}

TEST_P(LinkTest, a_record_of_garbage_is_refused) {
  Connection worker(memory, GetParam());
  ASSERT_TRUE(worker.connected()) << worker.failure();
  std::vector<unsigned char> answer;
  ASSERT_TRUE(worker.round_trip(peer::kEcho, "x", 1, &answer));
  CommandHeader* header = memory.writer.reserve(64);
  ASSERT_NE(header, nullptr);
  header->call = peer::kHash;
  header->sequence += 7;
  memory.writer.publish(header);
  notify(worker.link(), Side::kClient);
  EXPECT_TRUE(worker.wait_for_state(ChannelState::kFailed));
  EXPECT_EQ(memory.region().worker().error.load(), 1u);
  worker.disconnect();
  EXPECT_EQ(worker.wait_for_exit(), peer::kExitMalformed);
}

// PyTorch's data loaders fork while a channel is open.
TEST_P(LinkTest, a_forked_child_that_goes_its_own_way_does_no_harm) {
  Connection worker(memory, GetParam());
  ASSERT_TRUE(worker.connected()) << worker.failure();
  std::vector<unsigned char> answer;
  ASSERT_TRUE(worker.round_trip(peer::kEcho, "x", 1, &answer));
  const pid_t pid = fork();
  if (pid == 0) {
    worker.link().abandon();
    exit(0);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  EXPECT_EQ(status, 0);
  EXPECT_TRUE(worker.link().alive());
  EXPECT_TRUE(worker.round_trip(peer::kEcho, "y", 1, &answer));
}

TEST_P(LinkTest, the_worker_learns_of_the_end_of_a_parent_whose_child_lives_on) {
  Connection worker(memory, GetParam());
  ASSERT_TRUE(worker.connected()) << worker.failure();
  std::vector<unsigned char> answer;
  ASSERT_TRUE(worker.round_trip(peer::kEcho, "x", 1, &answer));
  const pid_t child = fork();
  if (child == 0) {
    worker.link().abandon();
    while (true) pause();
  }
  worker.disconnect();
  EXPECT_EQ(worker.wait_for_exit(), 0);
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
}

std::string test_name(const testing::TestParamInfo<const char*>& info) {
  std::string name = info.param;
  for (char& c : name) {
    if (!isalnum(static_cast<unsigned char>(c))) c = '_';
  }
  return name;
}

INSTANTIATE_TEST_SUITE_P(Transports, LinkTest, testing::Values(TIDE_TEST_TRANSPORTS), test_name);

}  // namespace
}  // namespace tide
