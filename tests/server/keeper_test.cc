// A session is parked in a worker without a GPU, and goes on from there; the client has the same region all the while.

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>

#include "tests/server/client.h"

namespace tide {
namespace {

constexpr uint64_t kBase = vgpu_range_base(0);
constexpr uint64_t kKernel = uint64_t{1} << 32;

std::vector<std::byte> pattern(uint64_t seed) {
  std::vector<std::byte> bytes(kChunkBytes);
  for (size_t i = 0; i < bytes.size(); i += 8) {
    const uint64_t word = (seed * 1'000'003 + i) * 0x9e3779b97f4a7c15u;
    memcpy(bytes.data() + i, &word, 8);
  }
  return bytes;
}

class KeeperTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/tide-keeper-test-XXXXXX";
    directory_ = mkdtemp(name);
    setenv("TIDE_PARK_DIR", (directory_ + "/parked").c_str(), 1);
    setenv("TIDE_PARK_LEDGER", (directory_ + "/ledger").c_str(), 1);
    setenv("TIDE_PARK_MEMORY_MIB", "1024", 1);
    at_ = std::make_unique<WorkerProcess>();
    ASSERT_TRUE(client_.open(*at_, identity(1, false)));
    client_.make_context();
    ControlMessage message;
    ASSERT_TRUE(at_->await(ControlType::kServing, &message));
  }
  void TearDown() override {
    client_.disconnect();
    at_.reset();
    std::filesystem::remove_all(directory_);
  }
  static ControlSession identity(uint64_t epoch, bool keeps) {
    ControlSession session = test_session(0, epoch);
    session.keeps = keeps ? 1 : 0;
    return session;
  }
  // All goes to disk, in the workers that begin from now on.
  static void take_no_memory() { setenv("TIDE_PARK_MEMORY_MIB", "0", 1); }

  // What the source says next: true if it is that, else why the move failed.
  bool said(ControlType type, std::string* why) {
    ControlMessage message;
    const auto awaited = at_->await(type, &message);
    if (awaited) return true;
    const auto* text = message.as<ControlText>();
    const bool failed = message.type == ControlType::kMoveFailed && text != nullptr;
    EXPECT_TRUE(failed) << awaited.message();
    *why = failed ? text->text : awaited.message();
    return false;
  }
  // To `to`, up to the decision. False: it failed, and *why says why.
  bool transfer(WorkerProcess& to, bool parks, std::string* why) {
    ControlMessage message;
    send_control(to.control(), ControlType::kReceive, identity(epoch_ + 1, parks));
    EXPECT_TRUE(to.await(ControlType::kReceiving, &message));
    ControlMove move;
    memcpy(move.stream_address, message.as<ControlText>()->text, sizeof(move.stream_address));
    move.next_epoch = epoch_ + 1;
    memset(move.token, 0x5a, sizeof(move.token));
    strcpy(move.endpoint, ("host=" + this_host_id() + ";unix=/elsewhere").c_str());
    move.parks = parks ? 1 : 0;
    send_control(at_->control(), ControlType::kMove, move);
    if (!said(ControlType::kReady, why)) return false;
    send_control(at_->control(), ControlType::kPause, ControlPause{.alone = 1});
    if (!said(ControlType::kTransferred, why)) return false;
    EXPECT_TRUE(to.await(ControlType::kRestored, &message));
    return true;
  }
  void commit(std::unique_ptr<WorkerProcess> to, bool parks) {
    ControlMessage message;
    send_control(at_->control(), ControlType::kCommit, nullptr, 0);
    const auto moved = [&] {
      return client_.page().state.load() == uint64_t(ChannelState::kMoved) && client_.page().next_epoch == epoch_ + 1;
    };
    ASSERT_EQ(wait_until(client_.link(), Side::kClient, moved, kTestTimeoutUs), WaitResult::kReady);
    client_.disconnect();
    ASSERT_TRUE(client_.open(*to, identity(++epoch_, parks)));
    if (zone_fd_ >= 0) {
      ASSERT_TRUE(client_.link().give_descriptor(zone_fd_));
    }
    ASSERT_TRUE(to->await(ControlType::kServing, &message));
    ASSERT_TRUE(at_->await(ControlType::kLeft, &message));
    EXPECT_EQ(at_->exit_status(), 0);
    at_ = std::move(to);
    const auto served = [&] { return client_.page().epoch.load() == epoch_; };
    ASSERT_EQ(wait_until(client_.link(), Side::kClient, served, kTestTimeoutUs), WaitResult::kReady);
  }
  void go(bool parks) {
    auto to = std::make_unique<WorkerProcess>();
    std::string why;
    ASSERT_TRUE(transfer(*to, parks, &why)) << why;
    ASSERT_NO_FATAL_FAILURE(commit(std::move(to), parks));
  }
  void park() { go(true); }
  void resume() { go(false); }

  ControlStats stats() {
    ControlMessage message;
    send_control(at_->control(), ControlType::kStats, nullptr, 0);
    EXPECT_TRUE(at_->await(ControlType::kStatsReply, &message));
    return *message.as<ControlStats>();
  }
  void map(uint64_t chunk, uint64_t chunks) {
    client_.send(Call::tideMapMemory, command::MapMemory{kBase + chunk * kChunkBytes, chunks * kChunkBytes});
    for (uint64_t i = chunk; i < chunk + chunks; ++i) expected_[i] = std::vector<std::byte>(kChunkBytes);
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
  void expect_nothing_executed() {
    const uint64_t before = client_.page().acknowledged.load();
    client_.send_raw(uint16_t(Call::tideNull), {}, kNoStream, 0);
    sleep_us(150'000);
    EXPECT_EQ(client_.page().acknowledged.load(), before);
    EXPECT_EQ(client_.page().state.load(), uint64_t(ChannelState::kPaused));
  }
  // The keeper's file, which has no name any more.
  int open_file() const {
    for (const auto& entry : std::filesystem::directory_iterator("/proc/" + std::to_string(at_->pid()) + "/fd")) {
      std::error_code error;
      if (std::filesystem::read_symlink(entry, error).string().rfind(directory_ + "/parked/", 0) != 0) continue;
      return open(entry.path().c_str(), O_RDWR | O_CLOEXEC);
    }
    return -1;
  }

  std::string directory_;
  std::unique_ptr<WorkerProcess> at_;
  TestClient client_;
  uint64_t epoch_ = 1;
  int zone_fd_ = -1;
  std::map<uint64_t, std::vector<std::byte>> expected_;
};

TEST_F(KeeperTest, a_parked_session_comes_back_as_it_was) {
  std::vector<std::byte> found, answer;
  map(0, 40);
  for (uint64_t chunk = 0; chunk < 10; ++chunk) write(chunk, pattern(chunk));
  for (uint64_t chunk = 20; chunk < 30; ++chunk) write(chunk, pattern(3));
  client_.load_library(1, kTestImage, &found);
  client_.send(Call::tideCreateStream, command::CreateStream{5, 0, 0, 0});
  client_.send(Call::tideCreateEvent, command::CreateEvent{3, 0});
  client_.send(Call::tideRecordEvent, command::RecordEvent{3, 0}, 5);
  ASSERT_EQ(client_.call(Call::tideGlobal, command::Global{1, 8}, &answer, "counter", 8), CUDA_SUCCESS);
  const uint64_t global = reinterpret_cast<const GlobalAnswer*>(answer.data())->address;
  client_.copy_in(global, "global!", 8);
  settle();
  const uint32_t objects = stats().objects;

  ASSERT_NO_FATAL_FAILURE(park());
  const ControlStats parked = stats();
  EXPECT_EQ(parked.resident_bytes, 0u);
  EXPECT_EQ(parked.objects, objects);
  EXPECT_EQ(parked.kept_on_disk, 0u);
  EXPECT_GE(parked.kept_in_memory, 10 * kChunkBytes);
  EXPECT_LT(parked.kept_in_memory, 12 * kChunkBytes) << "zero chunks take nothing, equal ones are kept once";
  ASSERT_NO_FATAL_FAILURE(expect_nothing_executed());
  for (int i = 0; i < 100; ++i) client_.launch(kKernel, {kBase + 39 * kChunkBytes, 16, 1}, 5);

  ASSERT_NO_FATAL_FAILURE(resume());
  const uint64_t last = client_.launch(kKernel, {kBase + 39 * kChunkBytes, 16, 1}, 5);
  ASSERT_TRUE(client_.reach(5, last));
  for (uint32_t i = 0; i < 16; ++i) {
    const uint32_t sum = 101;
    memcpy(expected_[39].data() + i * 4, &sum, 4);
  }
  EXPECT_STREQ(reinterpret_cast<const char*>(client_.copy_out(global, 8).data()), "global!");
  const uint64_t record = client_.send(Call::tideRecordEvent, command::RecordEvent{3, 0}, 5);
  EXPECT_TRUE(client_.reach_event(3, record));
  ASSERT_NO_FATAL_FAILURE(expect_contents());
  EXPECT_EQ(stats().resident_bytes, 40 * kChunkBytes);
  EXPECT_EQ(stats().kept_in_memory, 0u);
}

TEST_F(KeeperTest, what_finds_no_memory_goes_to_disk_and_comes_back) {
  map(0, 30);
  for (uint64_t chunk = 0; chunk < 10; ++chunk) write(chunk, pattern(chunk));  // which does not shrink
  for (uint64_t chunk = 10; chunk < 20; ++chunk) {
    std::vector<std::byte> bytes(kChunkBytes);
    for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = std::byte(i / 1000 * chunk);
    write(chunk, bytes);
  }
  take_no_memory();
  for (int round = 0; round < 2; ++round) {
    ASSERT_NO_FATAL_FAILURE(park());
    const ControlStats parked = stats();
    EXPECT_EQ(parked.kept_in_memory, 0u);
    EXPECT_GE(parked.kept_on_disk, 10 * kChunkBytes);
    EXPECT_LT(parked.kept_on_disk, 12 * kChunkBytes) << "packed where that helps";
    EXPECT_TRUE(std::filesystem::is_empty(directory_ + "/parked")) << "the file has no name";
    ASSERT_NO_FATAL_FAILURE(expect_nothing_executed());
    ASSERT_NO_FATAL_FAILURE(resume());
    ASSERT_NO_FATAL_FAILURE(expect_contents());
  }
}

TEST_F(KeeperTest, memory_up_to_the_limit_and_the_rest_on_disk) {
  map(0, 20);
  for (uint64_t chunk = 0; chunk < 20; ++chunk) write(chunk, pattern(chunk));
  setenv("TIDE_PARK_MEMORY_MIB", "16", 1);
  ASSERT_NO_FATAL_FAILURE(park());
  EXPECT_EQ(stats().kept_in_memory, 8 * kChunkBytes);
  EXPECT_GE(stats().kept_on_disk, 12 * kChunkBytes);
  ASSERT_NO_FATAL_FAILURE(resume());
  ASSERT_NO_FATAL_FAILURE(expect_contents());
}

// Chunks that change between the rounds take the place of what they were.
TEST_F(KeeperTest, a_job_that_writes_while_it_is_copied_is_kept_as_it_was_at_the_pause) {
  for (const bool on_disk : {false, true}) {
    if (on_disk) take_no_memory();
    expected_.clear();
    map(on_disk ? 100 : 0, 16);
    const uint64_t first = on_disk ? 100 : 0;
    for (uint64_t chunk = first; chunk < first + 16; ++chunk) write(chunk, pattern(chunk));
    auto keeper = std::make_unique<WorkerProcess>();
    ControlMessage message;
    send_control(keeper->control(), ControlType::kReceive, identity(epoch_ + 1, true));
    ASSERT_TRUE(keeper->await(ControlType::kReceiving, &message));
    ControlMove move;
    memcpy(move.stream_address, message.as<ControlText>()->text, sizeof(move.stream_address));
    move.next_epoch = epoch_ + 1;
    memset(move.token, 0x5a, sizeof(move.token));
    move.parks = 1;
    send_control(at_->control(), ControlType::kMove, move);
    ASSERT_TRUE(at_->await(ControlType::kReady, &message));
    for (uint64_t round = 1; round < 4; ++round) {
      for (uint64_t chunk = first; chunk < first + 8; ++chunk) write(chunk, pattern(1000 * round + chunk));
      sleep_us(120'000);
    }
    client_.send(Call::tideUnmapMemory, command::UnmapMemory{kBase + (first + 15) * kChunkBytes, kChunkBytes});
    settle();
    expected_.erase(first + 15);
    send_control(at_->control(), ControlType::kPause, ControlPause{.alone = 1});
    ASSERT_TRUE(at_->await(ControlType::kTransferred, &message));
    ASSERT_TRUE(keeper->await(ControlType::kRestored, &message));
    ASSERT_NO_FATAL_FAILURE(commit(std::move(keeper), true));
    const ControlStats parked = stats();
    EXPECT_LT(parked.kept_in_memory + parked.kept_on_disk, 34 * kChunkBytes);
    ASSERT_NO_FATAL_FAILURE(resume());
    ASSERT_NO_FATAL_FAILURE(expect_contents());
  }
}

TEST_F(KeeperTest, what_changed_on_disk_is_noticed_and_nothing_is_lost_that_is_whole) {
  map(0, 12);
  for (uint64_t chunk = 0; chunk < 12; ++chunk) write(chunk, pattern(chunk));
  take_no_memory();
  ASSERT_NO_FATAL_FAILURE(park());
  const int file = open_file();
  ASSERT_GE(file, 0);
  // In the middle of a chunk, and the last byte of the last piece that is no padding: of the rest.
  uint64_t last = uint64_t(lseek(file, 0, SEEK_END)) - 1;
  for (const uint64_t at : {uint64_t{5 * kChunkBytes + 77}, last}) {
    char was = 0, other = 0;
    ASSERT_EQ(pread(file, &was, 1, off_t(at)), 1);
    other = char(was ^ 4);
    ASSERT_EQ(pwrite(file, &other, 1, off_t(at)), 1);
    for (int round = 0; round < 2; ++round) {
      WorkerProcess destination;
      std::string why;
      EXPECT_FALSE(transfer(destination, false, &why));
      EXPECT_NE(why.find("not what was written"), std::string::npos) << why;
      ASSERT_NO_FATAL_FAILURE(expect_nothing_executed());
    }
    ASSERT_EQ(pwrite(file, &was, 1, off_t(at)), 1);
  }
  // One that ends too early.
  ASSERT_EQ(ftruncate(file, off_t(3 * kChunkBytes)), 0);
  {
    WorkerProcess destination;
    std::string why;
    EXPECT_FALSE(transfer(destination, false, &why));
    EXPECT_NE(why.find("cannot be read back"), std::string::npos) << why;
  }
  close(file);
  ASSERT_NO_FATAL_FAILURE(expect_nothing_executed());
}

TEST_F(KeeperTest, a_full_disk_leaves_the_job_where_it_is) {
  map(0, 12);
  for (uint64_t chunk = 0; chunk < 12; ++chunk) write(chunk, pattern(chunk));
  take_no_memory();
  for (const uint64_t room : {uint64_t{0}, 7 * kChunkBytes}) {
    auto keeper = std::make_unique<WorkerProcess>();
    const rlimit limit = {room, room};
    ASSERT_EQ(prlimit(keeper->pid(), RLIMIT_FSIZE, &limit, nullptr), 0);
    std::string why;
    EXPECT_FALSE(transfer(*keeper, true, &why));
    EXPECT_NE(why.find("there is no room to keep the vGPU"), std::string::npos) << why;
    EXPECT_NE(why.find(directory_), std::string::npos) << why;
    EXPECT_EQ(client_.page().state.load(), uint64_t(ChannelState::kLive));
    ASSERT_NO_FATAL_FAILURE(expect_contents());
  }
  ASSERT_NO_FATAL_FAILURE(park());
  ASSERT_NO_FATAL_FAILURE(resume());
  ASSERT_NO_FATAL_FAILURE(expect_contents());
}

TEST_F(KeeperTest, a_resume_that_fails_leaves_it_parked) {
  map(0, 80);
  for (uint64_t chunk = 0; chunk < 40; ++chunk) write(chunk, pattern(chunk));
  ASSERT_NO_FATAL_FAILURE(park());
  std::string why;
  {  // no room there
    WorkerProcess small;
    ControlMessage message;
    ControlSession session = identity(epoch_ + 1, false);
    session.memory_bytes = 32u << 20;
    send_control(small.control(), ControlType::kReceive, session);
    ASSERT_TRUE(small.await(ControlType::kReceiving, &message));
    ControlMove move;
    memcpy(move.stream_address, message.as<ControlText>()->text, sizeof(move.stream_address));
    move.next_epoch = epoch_ + 1;
    memset(move.token, 0x5a, sizeof(move.token));
    send_control(at_->control(), ControlType::kMove, move);
    EXPECT_FALSE(said(ControlType::kReady, &why));
    EXPECT_NE(why.find("cannot be had here"), std::string::npos) << why;
  }
  {  // the agent changes its mind, the last moment
    WorkerProcess destination;
    ASSERT_TRUE(transfer(destination, false, &why)) << why;
    send_control(at_->control(), ControlType::kAbort, nullptr, 0);
    ControlMessage message;
    ASSERT_TRUE(at_->await(ControlType::kMoveFailed, &message));
    send_control(destination.control(), ControlType::kExit, nullptr, 0);
  }
  ASSERT_NO_FATAL_FAILURE(expect_nothing_executed());
  ASSERT_NO_FATAL_FAILURE(park());  // to another keeper
  ASSERT_NO_FATAL_FAILURE(expect_nothing_executed());
  ASSERT_NO_FATAL_FAILURE(resume());
  ASSERT_NO_FATAL_FAILURE(expect_contents());
}

TEST_F(KeeperTest, memory_that_is_shared_with_the_program_is_shared_again) {
  constexpr uint64_t kHost = kHostZoneBase + (uint64_t{3} << 30), kBytes = 1u << 20;
  zone_fd_ = memfd_create("zone", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  ASSERT_EQ(ftruncate(zone_fd_, off_t(kHostZoneBytes)), 0);
  ASSERT_EQ(fcntl(zone_fd_, F_ADD_SEALS, F_SEAL_SHRINK), 0);
  void* const ours = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, zone_fd_, off_t(kHost - kHostZoneBase));
  ASSERT_NE(ours, MAP_FAILED);
  auto* const words = static_cast<uint32_t*>(ours);
  ASSERT_TRUE(client_.link().give_descriptor(zone_fd_));
  std::vector<std::byte> found;
  client_.load_library(1, kTestImage, &found);
  ASSERT_EQ(client_.call(Call::tideMapHost, command::MapHost{kHost, kBytes, 1, 0}, nullptr), CUDA_SUCCESS);
  words[5] = 1000;
  ASSERT_TRUE(client_.reach(kTestLegacy, client_.launch(kKernel, {kHost, 16, 1})));
  EXPECT_EQ(words[5], 1001u);
  ASSERT_NO_FATAL_FAILURE(park());
  EXPECT_EQ(client_.page().staging_unwanted.load(), 1u);
  words[5] += 50;
  const uint64_t launch = client_.launch(kKernel, {kHost, 16, 1});
  sleep_us(100'000);
  EXPECT_EQ(words[5], 1051u);
  {  // another machine cannot reach it
    WorkerProcess destination;
    ControlMessage message;
    send_control(destination.control(), ControlType::kReceive, identity(epoch_ + 1, false));
    ASSERT_TRUE(destination.await(ControlType::kReceiving, &message));
    ControlMove move;
    memcpy(move.stream_address, message.as<ControlText>()->text, sizeof(move.stream_address));
    move.next_epoch = epoch_ + 1;
    memset(move.token, 0x5a, sizeof(move.token));
    strcpy(move.endpoint, "host=another;tcp=192.0.2.1:1");
    send_control(at_->control(), ControlType::kMove, move);
    std::string why;
    EXPECT_FALSE(said(ControlType::kReady, &why)) << "nothing is copied in vain";
    EXPECT_NE(why.find("share host memory"), std::string::npos) << why;
  }
  ASSERT_NO_FATAL_FAILURE(resume());
  ASSERT_TRUE(client_.reach(kTestLegacy, launch));
  EXPECT_EQ(words[5], 1052u);
  EXPECT_EQ(client_.page().errors.load(), 0u);
  munmap(ours, kBytes);
  close(zone_fd_);
}

TEST_F(KeeperTest, a_client_that_ends_takes_what_is_kept_along) {
  map(0, 4);
  write(1, pattern(1));
  ASSERT_NO_FATAL_FAILURE(park());
  client_.disconnect();
  EXPECT_EQ(at_->exit_status(), 0);
}

TEST_F(KeeperTest, a_keeper_that_is_killed_is_gone) {
  ASSERT_NO_FATAL_FAILURE(park());
  kill(at_->pid(), SIGKILL);
  const auto gone = [&] { return !client_.link().alive(); };
  EXPECT_EQ(wait_until(client_.link(), Side::kClient, gone, kTestTimeoutUs), WaitResult::kReady);
  at_->exit_status();
}

TEST_F(KeeperTest, needs_next_to_no_cpu_while_commands_wait) {
  const auto cpu_ns = [&] {
    uint64_t ns = 0;
    for (const auto& task : std::filesystem::directory_iterator("/proc/" + std::to_string(at_->pid()) + "/task")) {
      uint64_t one = 0;
      std::ifstream(task.path() / "schedstat") >> one;
      ns += one;
    }
    return ns;
  };
  map(0, 4);
  write(1, pattern(1));
  ASSERT_NO_FATAL_FAILURE(park());
  for (int i = 0; i < 10; ++i) client_.send_raw(uint16_t(Call::tideNull), {}, kNoStream, 0);
  sleep_us(1'000'000);  // it sleeps longer and longer
  const uint64_t begin = now_ns(), before = cpu_ns();
  sleep_us(3'000'000);
  const uint64_t took = cpu_ns() - before, in = now_ns() - begin;
  EXPECT_GT(before, 0u) << "the system counts it";
  EXPECT_LT(took, in / 1000) << "more than 0.1 %";
}

}  // namespace
}  // namespace tide
