// Checkpoints of a session go to a guard while it is served; its worker is killed, and another one has it from there.

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <cstdlib>
#include <filesystem>
#include <map>

#include "server/kept.h"
#include "tests/server/client.h"

namespace tide {
namespace {

constexpr uint64_t kBase = vgpu_range_base(0);
constexpr uint64_t kKernel = uint64_t{1} << 32;
constexpr uint64_t kGuardEpoch = 100;

using Contents = std::map<uint64_t, std::vector<std::byte>>;  // by chunk

std::vector<std::byte> pattern(uint64_t seed) {
  std::vector<std::byte> bytes(kChunkBytes);
  for (size_t i = 0; i < bytes.size(); i += 8) {
    const uint64_t word = (seed * 1'000'003 + i) * 0x9e3779b97f4a7c15u;
    memcpy(bytes.data() + i, &word, 8);
  }
  return bytes;
}

class GuardTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/tide-guard-test-XXXXXX";
    directory_ = mkdtemp(name);
    setenv("TIDE_PARK_DIR", (directory_ + "/parked").c_str(), 1);
    setenv("TIDE_PARK_LEDGER", (directory_ + "/ledger").c_str(), 1);
    setenv("TIDE_PARK_MEMORY_MIB", "1024", 1);
    at_ = std::make_unique<WorkerProcess>();
    ASSERT_TRUE(client_.open(*at_, identity(1)));
    client_.make_context();
    ControlMessage message;
    ASSERT_TRUE(at_->await(ControlType::kServing, &message));
    guard_ = std::make_unique<WorkerProcess>();
  }
  void TearDown() override {
    client_.disconnect();
    at_.reset();
    guard_.reset();
    std::filesystem::remove_all(directory_);
  }
  static ControlSession identity(uint64_t epoch) {
    ControlSession session = test_session(0, epoch);
    session.keeps = epoch == kGuardEpoch ? 1 : 0;
    session.is_protected = epoch == kGuardEpoch ? 0 : 1;
    return session;
  }
  static ControlMove order(uint64_t epoch, const std::string& address) {
    ControlMove move;
    move.next_epoch = epoch;
    memset(move.token, 0x5a, sizeof(move.token));
    set_text(move.stream_address, address);
    return move;
  }
  // Where checkpoints are taken, from a source that begins anew.
  std::string address_of_guard() {
    ControlMessage message;
    send_control(guard_->control(), ControlType::kGuard, identity(kGuardEpoch));
    EXPECT_TRUE(guard_->await(ControlType::kReceiving, &message));
    const auto* text = message.as<ControlText>();
    return text == nullptr ? "" : text->text;
  }
  void begin_checkpoint(const std::string& address) {
    send_control(at_->control(), ControlType::kCheckpoint, order(kGuardEpoch, address));
  }
  ControlCheckpointed checkpointed() {
    ControlMessage message;
    const auto said = at_->await(ControlType::kCheckpointed, &message);
    EXPECT_TRUE(said) << said.message();
    const auto* one = message.as<ControlCheckpointed>();
    return one == nullptr ? ControlCheckpointed() : *one;
  }
  // The client reads its answers meanwhile, as real ones do.
  ControlCheckpointed checkpoint(const std::string& address = "") {
    begin_checkpoint(address);
    const ControlCheckpointed made = checkpointed();
    EXPECT_EQ(made.failed, 0u) << made.text;
    EXPECT_EQ(client_.page().safe_sequence.load(), made.sequence);
    EXPECT_LE(client_.page().safe_answers.load(), client_.page().answer_head.load());
    saved_ = expected_;
    return made;
  }
  // What the guard has goes to a new worker; *why: why not.
  bool give(WorkerProcess& to, std::string* why) {
    ControlMessage message;
    send_control(to.control(), ControlType::kReceive, identity(epoch_ + 1));
    EXPECT_TRUE(to.await(ControlType::kReceiving, &message));
    send_control(guard_->control(), ControlType::kGive, order(epoch_ + 1, message.as<ControlText>()->text));
    const auto given = guard_->await(ControlType::kTransferred, &message);
    const auto* text = message.as<ControlText>();
    *why = given ? "" : text != nullptr ? text->text : given.message();
    if (given) {
      EXPECT_TRUE(to.await(ControlType::kRestored, &message));
    }
    return bool(given);
  }
  void lose_worker() {
    kill(at_->pid(), SIGKILL);
    at_->exit_status();
    client_.disconnect();
  }
  void restore() {
    std::string why;
    ControlMessage message;
    auto to = std::make_unique<WorkerProcess>();
    ASSERT_TRUE(give(*to, &why)) << why;
    ASSERT_TRUE(client_.open(*to, identity(++epoch_)));
    ASSERT_TRUE(to->await(ControlType::kServing, &message));
    at_ = std::move(to);
    const auto served = [&] { return client_.page().epoch.load() == epoch_; };
    ASSERT_EQ(wait_until(client_.link(), Side::kClient, served, kTestTimeoutUs), WaitResult::kReady);
    EXPECT_EQ(client_.page().state.load(), uint64_t(ChannelState::kLive));
    expected_ = saved_;
  }
  void map(uint64_t chunk, uint64_t chunks) {
    client_.send(Call::tideMapMemory, command::MapMemory{kBase + chunk * kChunkBytes, chunks * kChunkBytes});
    for (uint64_t i = chunk; i < chunk + chunks; ++i) expected_[i] = std::vector<std::byte>(kChunkBytes);
  }
  void unmap(uint64_t chunk) {
    client_.send(Call::tideUnmapMemory, command::UnmapMemory{kBase + chunk * kChunkBytes, kChunkBytes});
    expected_.erase(chunk);
  }
  void write(uint64_t chunk, const std::vector<std::byte>& bytes) {
    constexpr size_t kPart = kChunkBytes / 4;
    for (size_t at = 0; at < bytes.size(); at += kPart) {
      client_.copy_in(kBase + chunk * kChunkBytes + at, bytes.data() + at, kPart);
    }
    settle();  // the ring has not room for more
    expected_[chunk] = bytes;
  }
  void settle() { ASSERT_EQ(client_.call(uint16_t(Call::tideNull), {}, nullptr), CUDA_SUCCESS); }
  void expect_contents() {
    for (const auto& [chunk, bytes] : expected_) {
      ASSERT_TRUE(client_.copy_out(kBase + chunk * kChunkBytes, kChunkBytes) == bytes) << "chunk " << chunk;
    }
    EXPECT_EQ(client_.page().errors.load(), 0u);
  }

  std::string directory_;
  std::unique_ptr<WorkerProcess> at_, guard_;
  TestClient client_;
  uint64_t epoch_ = 1;
  Contents expected_, saved_;
};

TEST_F(GuardTest, a_killed_workers_session_goes_on_as_its_last_checkpoint_has_it) {
  std::vector<std::byte> found, answer;
  map(0, 20);
  for (uint64_t chunk = 0; chunk < 10; ++chunk) write(chunk, pattern(chunk));
  // A large image, which the second checkpoint needs not carry.
  client_.load_library(1, kTestImage + std::string(500'000, '\n'), &found);
  client_.send(Call::tideCreateStream, command::CreateStream{5, 0, 0, 0});
  client_.send(Call::tideCreateEvent, command::CreateEvent{3, 0});
  ASSERT_EQ(client_.call(Call::tideGlobal, command::Global{1, 8}, &answer, "counter", 8), CUDA_SUCCESS);
  const uint64_t global = reinterpret_cast<const GlobalAnswer*>(answer.data())->address;
  client_.copy_in(global, "first!!", 8);
  settle();
  const ControlCheckpointed first = checkpoint(address_of_guard());
  EXPECT_GE(first.report.bytes, 10 * kChunkBytes);

  // What has changed since, memory that comes and goes, another library; then all of it is in the second one.
  write(3, pattern(1003));
  write(12, pattern(12));
  unmap(5);
  client_.copy_in(global, "second!", 8);
  client_.load_library(2, kTestImage, &found);
  const uint64_t add = client_.launch(kKernel, {kBase + 19 * kChunkBytes, 16, 1}, 5);
  client_.send(Call::tideRecordEvent, command::RecordEvent{3, 0}, 5);
  ASSERT_TRUE(client_.reach(5, add));
  settle();
  for (uint32_t i = 0; i < 16; ++i) memcpy(expected_[19].data() + i * 4, "\1\0\0\0", 4);
  const ControlCheckpointed second = checkpoint();
  EXPECT_GT(second.sequence, first.sequence);
  EXPECT_GE(second.report.bytes, 3 * kChunkBytes);
  EXPECT_LT(second.report.bytes, 5 * kChunkBytes) << "only what has changed is sent";
  EXPECT_GE(first.report.pause_bytes, 500'000u);
  EXPECT_LT(second.report.pause_bytes % kChunkBytes, 100'000u) << "images are named";
  EXPECT_LT(second.report.pause_ns, 2'000'000'000u);

  // This is lost.
  write(3, pattern(2003));
  client_.copy_in(global, "third!!", 8);
  client_.send(Call::tideDestroyStream, command::DestroyStream{5, 0});
  settle();
  lose_worker();
  ASSERT_NO_FATAL_FAILURE(restore());
  EXPECT_EQ(client_.recovered_to(), second.sequence);
  EXPECT_STREQ(reinterpret_cast<const char*>(client_.copy_out(global, 8).data()), "second!");
  ASSERT_NO_FATAL_FAILURE(expect_contents());
  const uint64_t again = client_.launch((uint64_t{2} << 32), {kBase + 19 * kChunkBytes, 16, 1}, 5);
  ASSERT_TRUE(client_.reach(5, again)) << "the stream and the second library are there";
  const uint64_t record = client_.send(Call::tideRecordEvent, command::RecordEvent{3, 0}, 5);
  EXPECT_TRUE(client_.reach_event(3, record));
  for (uint32_t i = 0; i < 16; ++i) memcpy(expected_[19].data() + i * 4, "\2\0\0\0", 4);

  // The guard still has it; the next worker's checkpoints replace it.
  write(7, pattern(3007));
  lose_worker();
  ASSERT_NO_FATAL_FAILURE(restore());
  EXPECT_EQ(client_.recovered_to(), second.sequence);
  ASSERT_NO_FATAL_FAILURE(expect_contents());
  write(8, pattern(4008));
  const ControlCheckpointed third = checkpoint(address_of_guard());
  write(8, pattern(5008));
  lose_worker();
  ASSERT_NO_FATAL_FAILURE(restore());
  EXPECT_EQ(client_.recovered_to(), third.sequence);
  ASSERT_NO_FATAL_FAILURE(expect_contents());
}

TEST_F(GuardTest, a_worker_that_dies_in_a_checkpoint_leaves_the_one_before) {
  map(0, 64);
  for (uint64_t chunk = 0; chunk < 4; ++chunk) write(chunk, pattern(chunk));
  const ControlCheckpointed first = checkpoint(address_of_guard());
  for (uint64_t chunk = 0; chunk < 48; ++chunk) write(chunk, pattern(1000 + chunk));
  for (const uint32_t after_us : {500u, 15'000u, 60'000u}) {
    begin_checkpoint(epoch_ == 1 ? "" : address_of_guard());
    sleep_us(after_us);
    lose_worker();
    ASSERT_NO_FATAL_FAILURE(restore());
    if (client_.recovered_to() != first.sequence) break;  // it was fast enough to be whole
    ASSERT_NO_FATAL_FAILURE(expect_contents());
    for (uint64_t chunk = 0; chunk < 48; ++chunk) write(chunk, pattern(1000 * epoch_ + chunk));
  }
  EXPECT_GE(epoch_, 2u);
}

TEST_F(GuardTest, a_guard_that_dies_costs_the_job_nothing_and_the_next_one_begins_from_nothing) {
  map(0, 48);
  for (uint64_t chunk = 0; chunk < 40; ++chunk) write(chunk, pattern(chunk));
  begin_checkpoint(address_of_guard());
  sleep_us(5'000);
  kill(guard_->pid(), SIGKILL);
  const ControlCheckpointed failed = checkpointed();
  if (failed.failed != 0) {  // else it had been whole before
    EXPECT_EQ(failed.refused, 0u);
    EXPECT_EQ(client_.page().safe_sequence.load(), 0u);
  }
  write(2, pattern(1002));
  ASSERT_NO_FATAL_FAILURE(expect_contents());
  guard_ = std::make_unique<WorkerProcess>();
  begin_checkpoint("");
  EXPECT_EQ(checkpointed().failed, 1u) << "there is no stream any more";
  const ControlCheckpointed made = checkpoint(address_of_guard());
  EXPECT_GE(made.report.bytes, 40 * kChunkBytes);
  write(2, pattern(2002));
  lose_worker();
  ASSERT_NO_FATAL_FAILURE(restore());
  ASSERT_NO_FATAL_FAILURE(expect_contents());
}

TEST_F(GuardTest, a_guard_whose_disk_is_full_keeps_the_checkpoint_that_it_has) {
  setenv("TIDE_PARK_MEMORY_MIB", "0", 1);
  guard_ = std::make_unique<WorkerProcess>();
  map(0, 24);
  for (uint64_t chunk = 0; chunk < 4; ++chunk) write(chunk, pattern(chunk));
  const ControlCheckpointed first = checkpoint(address_of_guard());
  const rlimit limit = {8 * kChunkBytes, 8 * kChunkBytes};
  ASSERT_EQ(prlimit(guard_->pid(), RLIMIT_FSIZE, &limit, nullptr), 0);
  for (uint64_t chunk = 0; chunk < 12; ++chunk) write(chunk, pattern(1000 + chunk));
  begin_checkpoint("");
  const ControlCheckpointed failed = checkpointed();
  EXPECT_EQ(failed.failed, 1u);
  EXPECT_EQ(failed.refused, 0u);
  EXPECT_NE(std::string(failed.text).find("there is no room to keep the vGPU"), std::string::npos) << failed.text;
  EXPECT_EQ(client_.page().safe_sequence.load(), first.sequence);
  ASSERT_NO_FATAL_FAILURE(expect_contents());  // the job runs on
  lose_worker();
  ASSERT_NO_FATAL_FAILURE(restore());
  EXPECT_EQ(client_.recovered_to(), first.sequence);
  ASSERT_NO_FATAL_FAILURE(expect_contents());
}

TEST_F(GuardTest, page_locked_memory_of_the_worker_comes_back) {
  constexpr uint64_t kHost = kHostZoneBase + (uint64_t{3} << 30), kBytes = 1u << 20;
  std::vector<std::byte> found;
  client_.load_library(1, kTestImage, &found);
  ASSERT_EQ(client_.call(Call::tideMapHost, command::MapHost{kHost, kBytes, 0, 0}, nullptr), CUDA_SUCCESS);
  for (int i = 0; i < 3; ++i) client_.launch(kKernel, {kHost, 16, 1});
  settle();
  checkpoint(address_of_guard());
  ASSERT_TRUE(client_.reach(kTestLegacy, client_.launch(kKernel, {kHost, 16, 1})));
  lose_worker();
  ASSERT_NO_FATAL_FAILURE(restore());
  ASSERT_TRUE(client_.reach(kTestLegacy, client_.launch(kKernel, {kHost, 16, 10})));
  std::vector<std::byte> answer;
  ASSERT_EQ(client_.call(Call::tideChangedHost, command::ChangedHost{kHost, 4096}, &answer), CUDA_SUCCESS);
  ChangedHostAnswer about;
  ASSERT_GE(answer.size(), sizeof(about) + 8 + 4096);
  memcpy(&about, answer.data(), sizeof(about));
  EXPECT_EQ(about.pages, 1u);
  uint32_t word = 0;
  memcpy(&word, answer.data() + sizeof(about) + 8, 4);
  EXPECT_EQ(word, 13u);
}

TEST_F(GuardTest, what_no_checkpoint_can_hold_is_refused_and_the_job_runs_on) {
  constexpr uint64_t kHost = kHostZoneBase + (uint64_t{3} << 30), kBytes = 1u << 20;
  const int zone = memfd_create("zone", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  ASSERT_EQ(ftruncate(zone, off_t(kHostZoneBytes)), 0);
  ASSERT_EQ(fcntl(zone, F_ADD_SEALS, F_SEAL_SHRINK), 0);
  map(0, 4);
  write(1, pattern(1));
  checkpoint(address_of_guard());
  ASSERT_TRUE(client_.link().give_descriptor(zone));
  ASSERT_EQ(client_.call(Call::tideMapHost, command::MapHost{kHost, kBytes, 1, 0}, nullptr), CUDA_SUCCESS);
  begin_checkpoint("");
  const ControlCheckpointed refused = checkpointed();
  EXPECT_EQ(refused.refused, 1u);
  EXPECT_NE(std::string(refused.text).find("memory of the program"), std::string::npos) << refused.text;
  EXPECT_EQ(client_.page().safe_sequence.load(), ~uint64_t{0});
  ASSERT_NO_FATAL_FAILURE(expect_contents());
  close(zone);
}

TEST_F(GuardTest, what_is_more_than_a_guard_keeps_ends_the_protection_and_says_why) {
  constexpr uint64_t kHost = kHostZoneBase + (uint64_t{3} << 30), kBytes = 1u << 20;
  setenv("TIDE_GUARD_SPARE_MIB", "0", 1);
  guard_ = std::make_unique<WorkerProcess>();
  map(0, 2);
  write(1, pattern(1));
  ControlSession small = identity(kGuardEpoch);
  small.memory_bytes = 8u << 20;
  send_control(guard_->control(), ControlType::kGuard, small);
  ControlMessage message;
  ASSERT_TRUE(guard_->await(ControlType::kReceiving, &message));
  const std::string address = message.as<ControlText>()->text;
  checkpoint(address);
  constexpr uint64_t kPart = kBytes / 4, kMask = kPart / 8;
  std::vector<std::byte> part(kMask + kPart, std::byte{0xff});
  for (uint64_t i = 0; i < 24; ++i) {  // 24 MiB, where 16 may be
    const uint64_t at = kHost + i * kBytes;
    ASSERT_EQ(client_.call(Call::tideMapHost, command::MapHost{at, kBytes, 0, 0}, nullptr), CUDA_SUCCESS);
    for (uint64_t j = 0; j < 4; ++j) {
      memcpy(part.data() + kMask, pattern(4 * i + j).data(), kPart);
      const command::WriteHost write{at + j * kPart, kPart, kMask, 0, 0};
      client_.send(Call::tideWriteHost, write, kNoStream, part.data(), part.size());
    }
    settle();
  }
  begin_checkpoint("");
  const ControlCheckpointed refused = checkpointed();
  EXPECT_EQ(refused.refused, 1u) << refused.text;
  EXPECT_NE(std::string(refused.text).find(kTooMuchKept), std::string::npos) << refused.text;
  EXPECT_EQ(client_.page().safe_sequence.load(), ~uint64_t{0});
  ASSERT_NO_FATAL_FAILURE(expect_contents());
  unsetenv("TIDE_GUARD_SPARE_MIB");
}

TEST_F(GuardTest, a_client_that_has_ended_the_protection_gets_no_checkpoint) {
  client_.region().client().unprotected = uint64_t(Unprotected::kLogFull);
  ControlMessage message;
  EXPECT_TRUE(at_->await(ControlType::kWanted, &message)) << "its agent hears that there is news";
  begin_checkpoint(address_of_guard());
  const ControlCheckpointed refused = checkpointed();
  EXPECT_EQ(refused.refused, 1u);
  EXPECT_NE(std::string(refused.text).find("log of commands was full"), std::string::npos) << refused.text;
}

// What has been answered of a command would not be answered again.
TEST_F(GuardTest, no_command_is_half_done_at_a_checkpoint_and_all_answers_are_read) {
  constexpr uint64_t kBytes = 12 * kChunkBytes;  // more than the ring has room for
  map(0, 12);
  for (uint64_t chunk = 0; chunk < 12; ++chunk) write(chunk, pattern(chunk));
  const std::string address = address_of_guard();
  const uint64_t copy = client_.send(Call::tideCopyOut, command::CopyOut{kBase, kBytes, kBytes, 1, 0, 0, 0, 0, 0}, 0);
  begin_checkpoint(address);
  sleep_us(700'000);
  EXPECT_EQ(client_.page().safe_sequence.load(), 0u);
  for (uint64_t got = 0; got < kBytes;) {
    AnswerHeader header;
    std::vector<std::byte> part;
    ASSERT_TRUE(client_.receive(&header, &part));
    ASSERT_EQ(header.sequence, copy);
    got += part.size();
  }
  const ControlCheckpointed made = checkpointed();
  EXPECT_EQ(made.failed, 0u) << made.text;
  EXPECT_EQ(made.sequence, copy);
  saved_ = expected_;
  lose_worker();
  ASSERT_NO_FATAL_FAILURE(restore());
  ASSERT_NO_FATAL_FAILURE(expect_contents());
}

TEST_F(GuardTest, says_when_its_client_wants_a_checkpoint) {
  ControlMessage message;
  settle();
  client_.region().client().checkpoint_wanted = 2;
  ASSERT_TRUE(at_->await(ControlType::kWanted, &message));
  settle();
  checkpoint(address_of_guard());
}

TEST_F(GuardTest, past_its_lease_nothing_is_executed_until_it_is_renewed) {
  const auto is = [&](ChannelState state) {
    return [&, state] { return client_.page().state.load() == uint64_t(state); };
  };
  map(0, 1);
  settle();
  send_control(at_->control(), ControlType::kLease, ControlLease{boot_ns() + 100'000'000});
  ASSERT_EQ(wait_until(client_.link(), Side::kClient, is(ChannelState::kFenced), kTestTimeoutUs), WaitResult::kReady);
  const uint64_t before = client_.page().acknowledged.load();
  const uint64_t command = client_.send_raw(uint16_t(Call::tideNull), {}, kNoStream, kCommandAnswer);
  sleep_us(200'000);
  EXPECT_EQ(client_.page().acknowledged.load(), before);
  send_control(at_->control(), ControlType::kLease, ControlLease{boot_ns() + 60'000'000'000});
  ASSERT_EQ(wait_until(client_.link(), Side::kClient, is(ChannelState::kLive), kTestTimeoutUs), WaitResult::kReady);
  EXPECT_EQ(client_.await_result(command, nullptr), CUDA_SUCCESS);
}

}  // namespace
}  // namespace tide
