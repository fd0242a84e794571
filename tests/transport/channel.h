#pragma once

// A client's end of a channel to a worker process (peer_main.cc), for the tests.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "tests/transport/peer.h"
#include "transport/door.h"
#include "transport/ring.h"
#include "transport/wait.h"

namespace tide {

inline constexpr uint64_t kTestTimeoutUs = 30'000'000;

// A region and its producer and consumer: what outlives connections.
class ClientRegion {
 public:
  ClientRegion() {
    const Outcome outcome = create_region(&fd_, &region_);
    EXPECT_TRUE(outcome.ok()) << outcome.message();
    writer = CommandWriter(region_);
    answers = AnswerReader(region_);
  }
  ~ClientRegion() { destroy_region(fd_, region_); }
  int fd() const { return fd_; }
  Region region() const { return region_; }

  CommandWriter writer;
  AnswerReader answers;

 private:
  int fd_ = -1;
  Region region_;
};

// A worker process and the link to it.
class Connection {
 public:
  Connection(ClientRegion& memory, const std::string& transport) : memory_(memory) { open(transport); }
  ~Connection() {
    link_.reset();
    if (pid_ > 0) wait_for_exit();
  }

  Link& link() { return *link_; }
  bool connected() const { return link_ != nullptr; }
  const std::string& failure() const { return failure_; }
  pid_t pid() const { return pid_; }
  void kill_worker() { kill(pid_, SIGKILL); }
  void disconnect() { link_.reset(); }
  // The worker's exit status, or -1 when a signal ended it.
  int wait_for_exit() {
    int status = 0;
    waitpid(pid_, &status, 0);
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

  // Publishes a command; waits for space where there is none.
  uint64_t send(uint16_t call, const void* payload, uint32_t bytes, uint16_t flags = 0) {
    CommandHeader* header = nullptr;
    const auto place = [&] { return (header = memory_.writer.reserve(bytes)) != nullptr; };
    if (wait_until(link(), Side::kClient, place, kTestTimeoutUs) != WaitResult::kReady) return 0;
    header->call = call;
    header->flags = flags;
    if (bytes != 0 && payload != nullptr) memcpy(payload_of(header), payload, bytes);
    const uint64_t sequence = memory_.writer.publish(header);
    notify(link(), Side::kClient);
    return sequence;
  }
  // The next answer, copied; false when the worker is gone or nothing came.
  bool receive(AnswerHeader* header, std::vector<unsigned char>* payload, uint64_t timeout_us = kTestTimeoutUs) {
    const auto ready = [&] { return memory_.answers.ready(); };
    if (wait_until(link(), Side::kClient, ready, timeout_us) != WaitResult::kReady) return false;
    Answer answer;
    if (memory_.answers.next(&answer) != ReadState::kRecord) return false;
    *header = answer.header;
    const auto* bytes = reinterpret_cast<const unsigned char*>(answer.payload);
    payload->assign(bytes, bytes + answer.header.payload_bytes);
    memory_.answers.consume(answer);
    return true;
  }
  bool round_trip(uint16_t call, const void* payload, uint32_t bytes, std::vector<unsigned char>* answer) {
    const uint64_t sequence = send(call, payload, bytes, kCommandAnswer);
    AnswerHeader header;
    return sequence != 0 && receive(&header, answer) && header.sequence == sequence;
  }
  peer::Report report() {
    peer::Report report;
    std::vector<unsigned char> answer;
    EXPECT_TRUE(round_trip(peer::kReport, nullptr, 0, &answer));
    EXPECT_EQ(answer.size(), sizeof report);
    if (answer.size() == sizeof report) memcpy(&report, answer.data(), sizeof report);
    return report;
  }
  bool wait_for_state(ChannelState state) {
    const auto reached = [&] { return memory_.region().worker().state.load() == uint64_t(state); };
    return wait_until(link(), Side::kClient, reached, kTestTimeoutUs) == WaitResult::kReady;
  }

 private:
  void open(const std::string& transport) {
    int sockets[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets), 0);
    const std::string socket = std::to_string(sockets[1]);
    pid_ = fork();
    if (pid_ == 0) {
      fcntl(sockets[1], F_SETFD, 0);
      execl(getenv("TIDE_TEST_PEER"), "transport_peer", socket.c_str(), transport.c_str(), nullptr);
      _exit(127);
    }
    close(sockets[1]);
    const Outcome outcome = shake_hands(sockets[0], transport);
    failure_ = outcome.message();
    if (!outcome.ok()) close(sockets[0]);
  }
  Outcome shake_hands(int socket, const std::string& name) {
    const Transport* transport = find_transport(name.c_str());
    if (transport == nullptr) return Outcome::fail("no transport " + name);
    DoorOpen request;
    Outcome outcome = send_frame(socket, DoorType::kOpen, &request, sizeof request, memory_.fd());
    DoorType type;
    std::string payload;
    if (outcome.ok()) outcome = receive_frame(socket, 10'000, &type, &payload);
    if (!outcome.ok()) return outcome;
    if (type == DoorType::kRefused) return Outcome::fail(reinterpret_cast<const DoorRefused*>(payload.data())->message);
    const auto* opened = reinterpret_cast<const DoorOpened*>(payload.data());
    return transport->connect(memory_.region(), socket, opened->transport_data, &link_);
  }

  ClientRegion& memory_;
  std::unique_ptr<Link> link_;
  pid_t pid_ = -1;
  std::string failure_;
};

}  // namespace tide
