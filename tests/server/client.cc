#include "tests/server/client.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <system_error>

namespace tide {

using ::testing::AssertionFailure;
using ::testing::AssertionResult;
using ::testing::AssertionSuccess;

std::string worker_path() {
  const char* path = getenv("TIDE_WORKER");
  return path == nullptr ? "tide-worker" : path;
}

ControlSession test_session(uint32_t vgpu, uint64_t epoch) {
  ControlSession session;
  strcpy(session.job, "job-1");
  memset(session.token, 0x5a, sizeof(session.token));
  memset(session.session, 0x33, sizeof(session.session));
  session.vgpu = vgpu;
  session.epoch = epoch;
  session.memory_bytes = 1u << 30;
  strcpy(session.transport, "shm");
  return session;
}

WorkerProcess::WorkerProcess() {
  int worker = -1;
  const Outcome outcome = make_control_pair(&control_, &worker);
  EXPECT_TRUE(outcome.ok()) << outcome.message();
  const std::string path = worker_path(), number = std::to_string(worker);
  pid_ = fork();
  if (pid_ == 0) {
    fcntl(worker, F_SETFD, 0);
    execl(path.c_str(), path.c_str(), "--control", number.c_str(), nullptr);
    _exit(127);
  }
  close(worker);
}

WorkerProcess::~WorkerProcess() {
  close(control_);
  if (pid_ > 0) exit_status();
}

AssertionResult WorkerProcess::await(ControlType type, ControlMessage* message) {
  const uint64_t end = now_ns() + kTestTimeoutUs * 1000;
  while (now_ns() < end) {
    pollfd wait = {control_, POLLIN, 0};
    poll(&wait, 1, 100);
    const ControlState state = receive_control(control_, message);
    if (state == ControlState::kGone) return AssertionFailure() << "the worker has ended";
    if (state == ControlState::kNothing) continue;
    if (message->type == type) return AssertionSuccess();
    if (message->type == ControlType::kProgress || message->type == ControlType::kFarewell) continue;
    std::string text;
    if (const auto* said = message->as<ControlText>()) text = said->text;
    return AssertionFailure() << "got message " << uint32_t(message->type) << " " << text;
  }
  return AssertionFailure() << "no message in time";
}

int WorkerProcess::exit_status() {
  const uint64_t end = now_ns() + kTestTimeoutUs * 1000;
  int status = 0;
  while (waitpid(pid_, &status, WNOHANG) == 0) {
    if (now_ns() > end) kill(pid_, SIGKILL);
    sleep_us(1000);
  }
  pid_ = -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

namespace {

// Of TCP sockets that are connected.
std::set<std::string> connected_inodes(pid_t pid) {
  std::set<std::string> inodes;
  for (const char* const table : {"tcp", "tcp6"}) {
    std::ifstream file("/proc/" + std::to_string(pid) + "/net/" + table);
    for (std::string line; std::getline(file, line);) {
      std::istringstream words(line);
      std::string word[10];
      for (std::string& each : word) words >> each;
      if (word[3] == "01") inodes.insert("socket:[" + word[9] + "]");
    }
  }
  return inodes;
}

}  // namespace

int WorkerProcess::break_connections() const {
  const std::set<std::string> inodes = connected_inodes(pid_);
  const int process = int(syscall(SYS_pidfd_open, pid_, 0));
  int broken = process < 0 ? -1 : 0;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/" + std::to_string(pid_) + "/fd", error)) {
    if (inodes.count(std::filesystem::read_symlink(entry.path(), error).string()) == 0 || broken < 0) continue;
    const int socket = int(syscall(SYS_pidfd_getfd, process, std::stoi(entry.path().filename()), 0));
    if (socket < 0 && errno == EBADF) continue;  // closed meanwhile
    broken = socket < 0 ? -1 : broken + 1;
    if (socket < 0) break;
    shutdown(socket, SHUT_RDWR);
    close(socket);
  }
  if (process >= 0) close(process);
  return broken;
}

TestClient::TestClient() {
  const Outcome outcome = create_region(&fd_, &region_);
  EXPECT_TRUE(outcome.ok()) << outcome.message();
  writer_ = CommandWriter(region_);
  answers_ = AnswerReader(region_);
}

TestClient::~TestClient() {
  link_.reset();
  destroy_region(fd_, region_);
}

AssertionResult TestClient::open(WorkerProcess& worker, const ControlSession& session) {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) return AssertionFailure() << "socketpair";
  const int fds[2] = {pair[1], fd_};
  send_control(worker.control(), ControlType::kServe, &session, sizeof(session), fds, 2);
  close(pair[1]);
  return await_opened(pair[0], session.transport);
}

AssertionResult TestClient::open_door(const std::string& text, const DoorOpen& wish) {
  Endpoint endpoint;
  int socket = -1;
  Outcome outcome = Endpoint::parse(text, &endpoint);
  if (outcome.ok()) outcome = connect_unix(endpoint.unix_path, 5000, &socket);
  if (outcome.ok()) outcome = send_frame(socket, DoorType::kOpen, &wish, sizeof(wish), fd_);
  if (!outcome.ok()) return AssertionFailure() << outcome.message();
  return await_opened(socket, wish.transport);
}

AssertionResult TestClient::await_opened(int socket, const char* transport) {
  DoorType type;
  std::string payload;
  const Outcome outcome = receive_frame(socket, 20'000, &type, &payload);
  if (!outcome.ok() || type != DoorType::kOpened || payload.size() != sizeof(DoorOpened)) {
    close(socket);
    if (!outcome.ok()) return AssertionFailure() << outcome.message();
    return AssertionFailure() << "refused: " << payload.substr(offsetof(DoorRefused, message)).c_str();
  }
  const auto* opened = reinterpret_cast<const DoorOpened*>(payload.data());
  set_back(*opened);
  const Outcome connected = find_transport(transport)->connect(region_, socket, opened->transport_data, &link_);
  if (!connected.ok()) return AssertionFailure() << connected.message();
  return AssertionSuccess();
}

// As docs/wire.md has it (Recovery): the ring is given up, what is numbered begins behind the checkpoint.
void TestClient::set_back(const DoorOpened& opened) {
  recovered_to_ = (opened.flags & kOpenedRecovered) != 0 ? opened.sequence : 0;
  if ((opened.flags & kOpenedRecovered) == 0) return;
  WorkerPage& mine = page();
  ClientPage& client = region_.client();
  EXPECT_LE(opened.answers, client.answer_tail.load());
  const auto lower = [&](Word& word) { word = std::min(word.load(), opened.sequence); };
  mine.command_tail = client.command_head.load();
  mine.acknowledged = opened.sequence;
  mine.answer_head = client.answer_tail.load();
  for (Word& word : mine.stream_progress) lower(word);
  for (Word& word : mine.event_done) lower(word);
  mine.safe_sequence = opened.sequence;
  writer_ = CommandWriter(region_, opened.sequence);
  answers_ = AnswerReader(region_);
  client.recovered.store(opened.epoch, std::memory_order_release);
}

uint64_t TestClient::send_raw(uint16_t call, const std::vector<std::byte>& payload, uint32_t stream, uint16_t flags,
                              uint32_t context) {
  CommandHeader* header = nullptr;
  const auto place = [&] { return (header = writer_.reserve(uint32_t(payload.size()))) != nullptr; };
  if (wait_until(*link_, Side::kClient, place, kTestTimeoutUs) != WaitResult::kReady) {
    ADD_FAILURE() << "no room in the ring";
    return 0;
  }
  header->call = call;
  header->flags = flags;
  header->context = context;
  header->stream = stream;
  if (!payload.empty()) memcpy(static_cast<void*>(header + 1), payload.data(), payload.size());
  const uint64_t sequence = writer_.publish(header);
  notify(*link_, Side::kClient);
  return sequence;
}

AssertionResult TestClient::receive(AnswerHeader* header, std::vector<std::byte>* payload) {
  const auto ready = [&] { return answers_.ready(); };
  if (wait_until(*link_, Side::kClient, ready, kTestTimeoutUs) != WaitResult::kReady) {
    return AssertionFailure() << "no answer in time";
  }
  Answer answer;
  if (answers_.next(&answer) != ReadState::kRecord) return AssertionFailure() << answers_.reason();
  *header = answer.header;
  payload->assign(answer.payload, answer.payload + answer.header.payload_bytes);
  answers_.consume(answer);
  return AssertionSuccess();
}

CUresult TestClient::call(uint16_t call, const std::vector<std::byte>& payload, std::vector<std::byte>* answer,
                          uint32_t context) {
  return await_result(send_raw(call, payload, kNoStream, kCommandAnswer, context), answer);
}

CUresult TestClient::await_result(uint64_t sequence, std::vector<std::byte>* answer) {
  AnswerHeader header;
  std::vector<std::byte> payload;
  do {
    const AssertionResult received = receive(&header, &payload);
    EXPECT_TRUE(received);
    if (!received) return CUDA_ERROR_UNKNOWN;
  } while (header.kind != uint16_t(AnswerKind::kResult) || header.sequence != sequence);
  if (answer != nullptr) *answer = payload;
  return CUresult(header.result);
}

AssertionResult TestClient::reach(uint32_t stream, uint64_t sequence) {
  const auto done = [&] { return page().stream_progress[stream].load(std::memory_order_acquire) >= sequence; };
  if (wait_until(*link_, Side::kClient, done, kTestTimeoutUs) == WaitResult::kReady) return AssertionSuccess();
  return AssertionFailure() << "stream " << stream << " is at " << page().stream_progress[stream].load() << " of "
                            << sequence;
}

AssertionResult TestClient::reach_event(uint32_t event, uint64_t sequence) {
  const auto done = [&] { return page().event_done[event].load(std::memory_order_acquire) >= sequence; };
  if (wait_until(*link_, Side::kClient, done, kTestTimeoutUs) == WaitResult::kReady) return AssertionSuccess();
  return AssertionFailure() << "event " << event << " is at " << page().event_done[event].load() << " of " << sequence;
}

void TestClient::make_context() {
  send(Call::tideCreateContext, command::CreateContext{kTestContext, kTestLegacy, 0, 1});
}

void TestClient::load_library(uint64_t library, const std::string& image, std::vector<std::byte>* found) {
  send(Call::tideStage, command::Stage{library, image.size(), 0, image.size()}, kNoStream, image.data(), image.size());
  const uint64_t sequence = send(Call::tideLoadLibrary, command::LoadLibrary{library, library});
  AnswerHeader header;
  std::vector<std::byte> part;
  found->clear();
  do {
    ASSERT_TRUE(receive(&header, &part));
    ASSERT_EQ(header.kind, uint16_t(AnswerKind::kLibrary));
    ASSERT_EQ(header.sequence, sequence);
    ASSERT_EQ(header.offset, found->size());
    found->insert(found->end(), part.begin(), part.end());
  } while (!(header.flags & kLibraryLastPart));
}

uint64_t TestClient::launch(uint64_t kernel, std::vector<uint64_t> params, uint32_t stream) {
  command::Launch launch = {};
  launch.kernel = kernel;
  launch.grid_x = launch.grid_y = launch.grid_z = launch.block_x = launch.block_y = launch.block_z = 1;
  launch.param_bytes = uint32_t(params.size() * 8);
  return send(Call::tideLaunch, launch, stream, params.data(), params.size() * 8);
}

uint64_t TestClient::copy_in(uint64_t address, const void* data, size_t bytes, uint32_t stream) {
  return send(Call::tideCopyIn, command::CopyIn{address, bytes, bytes, 1}, stream, data, bytes);
}

std::vector<std::byte> TestClient::copy_out(uint64_t address, size_t bytes, uint32_t stream) {
  const uint64_t sequence = send(Call::tideCopyOut, command::CopyOut{address, bytes, bytes, 1, 0, 0, 0, 0, 0}, stream);
  std::vector<std::byte> all(bytes);
  for (size_t got = 0; got < bytes;) {
    AnswerHeader header;
    std::vector<std::byte> part;
    const AssertionResult received = receive(&header, &part);
    EXPECT_TRUE(received);
    if (!received) return {};
    EXPECT_EQ(header.kind, uint16_t(AnswerKind::kData));
    EXPECT_EQ(header.sequence, sequence);
    EXPECT_LE(header.offset + part.size(), bytes);
    memcpy(all.data() + header.offset, part.data(), part.size());
    got += part.size();
  }
  EXPECT_TRUE(reach(stream, sequence));
  return all;
}

std::vector<std::byte> bytes_of(const std::vector<uint64_t>& words) {
  const auto* from = reinterpret_cast<const std::byte*>(words.data());
  return std::vector<std::byte>(from, from + words.size() * 8);
}

}  // namespace tide
