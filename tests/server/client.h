#pragma once

// A client's side of a session with a real tide-worker process, for the tests: it speaks through the rings, and plays
// the agent over the control socket.

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "api/library_info.h"
#include "api/payload.h"
#include "base/clock.h"
#include "base/limits.h"
#include "calls.h"
#include "commands.h"
#include "driver.h"
#include "server/control.h"
#include "server/outbox.h"
#include "transport/door.h"
#include "transport/ring.h"
#include "transport/wait.h"

namespace tide {

inline constexpr uint64_t kTestTimeoutUs = 20'000'000;
inline constexpr uint32_t kTestContext = 1;
inline constexpr uint32_t kTestLegacy = 0;  // stream slot
inline const char* const kTestImage = "kernel add 24\nkernel slow 8\nkernel fault 0\nglobal counter 4096\n";

std::string worker_path();  // from the environment of the test
ControlSession test_session(uint32_t vgpu, uint64_t epoch);

// A worker process and its control socket.
class WorkerProcess {
 public:
  WorkerProcess();
  ~WorkerProcess();
  pid_t pid() const { return pid_; }
  int control() const { return control_; }
  // The next message, within the test's time.
  ::testing::AssertionResult await(ControlType type, ControlMessage* message);
  // Waits for its end; the exit status, or 128 + signal.
  int exit_status();
  // Ends its TCP connections, as a network does that forgets them: both ends lose what is under way. How many there
  // were; fewer than 0: the system does not let us.
  int break_connections() const;

 private:
  pid_t pid_ = -1;
  int control_ = -1;
};

// The region and the connection to whichever worker serves it.
class TestClient {
 public:
  TestClient();
  ~TestClient();
  ::testing::AssertionResult open(WorkerProcess& worker, const ControlSession& session);
  // Through an agent's door, as a real client does.
  ::testing::AssertionResult open_door(const std::string& endpoint, const DoorOpen& wish);
  void disconnect() { link_.reset(); }
  // The last command that the worker had which was opened last, where it had its session from a checkpoint; else 0.
  uint64_t recovered_to() const { return recovered_to_; }

  // Publishes a command; data follows the struct at 16.
  template <class C>
  uint64_t send(Call call, const C& command, uint32_t stream = kNoStream, const void* data = nullptr, size_t bytes = 0,
                uint16_t flags = 0) {
    std::vector<std::byte> payload((sizeof(C) + 15) / 16 * 16 + bytes);
    memcpy(payload.data(), &command, sizeof(C));
    if (bytes != 0) memcpy(payload.data() + payload.size() - bytes, data, bytes);
    if (bytes == 0) payload.resize(sizeof(C));
    return send_raw(uint16_t(call), payload, stream, flags);
  }
  uint64_t send_raw(uint16_t call, const std::vector<std::byte>& payload, uint32_t stream, uint16_t flags,
                    uint32_t context = kTestContext);
  // The next answer record.
  ::testing::AssertionResult receive(AnswerHeader* header, std::vector<std::byte>* payload);
  // Sends with kCommandAnswer and gives the result.
  CUresult call(uint16_t call, const std::vector<std::byte>& payload, std::vector<std::byte>* answer,
                uint32_t context = kTestContext);
  template <class C>
  CUresult call(Call number, const C& command, std::vector<std::byte>* answer, const void* data = nullptr,
                size_t bytes = 0) {
    const uint64_t sequence = send(number, command, kNoStream, data, bytes, kCommandAnswer);
    return await_result(sequence, answer);
  }
  CUresult await_result(uint64_t sequence, std::vector<std::byte>* answer);
  ::testing::AssertionResult reach(uint32_t stream, uint64_t sequence);
  ::testing::AssertionResult reach_event(uint32_t event, uint64_t sequence);

  // A context with its legacy stream, and the test image as library 1.
  void make_context();
  void load_library(uint64_t library, const std::string& image, std::vector<std::byte>* found);
  uint64_t launch(uint64_t kernel, std::vector<uint64_t> params, uint32_t stream = kTestLegacy);
  uint64_t copy_in(uint64_t address, const void* data, size_t bytes, uint32_t stream = kTestLegacy);
  // Bytes of device memory, through tideCopyOut.
  std::vector<std::byte> copy_out(uint64_t address, size_t bytes, uint32_t stream = kTestLegacy);

  Region region() const { return region_; }
  WorkerPage& page() { return region_.worker(); }
  Link& link() { return *link_; }

 private:
  ::testing::AssertionResult await_opened(int socket, const char* transport);
  void set_back(const DoorOpened& opened);

  int fd_ = -1;
  Region region_;
  CommandWriter writer_;
  AnswerReader answers_;
  std::unique_ptr<Link> link_;
  uint64_t recovered_to_ = 0;
};

std::vector<std::byte> bytes_of(const std::vector<uint64_t>& words);

}  // namespace tide
