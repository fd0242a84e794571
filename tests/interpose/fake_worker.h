#pragma once

// A worker in a thread of the test: speaks the rings, keeps memory, runs streams in order, and does as it is told where
// a real one would ask a driver. What it saw is for the test to look at.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "api/device_info.h"
#include "api/library_info.h"
#include "api/payload.h"
#include "calls.h"
#include "commands.h"
#include "interpose/process.h"
#include "transport/link.h"
#include "transport/ring.h"

namespace tide {

struct FakeKernel {
  std::string name;
  std::vector<ParamEntry> params;
  uint32_t param_bytes = 0;
  uint32_t max_threads = 1024;
};

struct SeenCommand {
  Call call{};
  uint32_t context = 0, stream = 0;
  uint64_t sequence = 0;
  std::vector<std::byte> payload;
  template <class T>
  T as() const {
    T t{};
    memcpy(&t, payload.data(), std::min(sizeof t, payload.size()));
    return t;
  }
};

// What another worker needs to go on from there.
struct FakeCheckpoint {
  uint64_t sequence = 0, answers = 0;
  std::vector<std::byte> memory;
  std::map<uint32_t, uint64_t> events;
  std::vector<FakeKernel> kernels;
};

class FakeWorker {
 public:
  FakeWorker();
  // Begins when the client has set the region back.
  FakeWorker(std::unique_ptr<Link> link, uint64_t epoch, const FakeCheckpoint& from);
  // Over a link that was accepted; goes on where the worker before it stopped.
  explicit FakeWorker(std::unique_ptr<Link> link, uint64_t epoch, const FakeWorker* before = nullptr);
  ~FakeWorker();
  void stop();

  Region region() const { return region_; }
  std::unique_ptr<Link> make_link();

  // Commands are read but nothing on streams is executed while held.
  void hold(bool held) { held_ = held; }
  void die() { alive_ = false; }
  // Closes the line to the client. After stop().
  void disconnect() { link_.reset(); }
  void set_error(CUresult code, bool sticky);
  void set_moved(const char* endpoint, uint64_t epoch);

  // What a tideLoadLibrary finds; `load_result` other than success refuses with `load_message`.
  std::vector<FakeKernel> kernels;
  CUresult load_result = CUDA_SUCCESS;
  std::string load_message;
  std::map<std::string, std::pair<uint64_t, uint64_t>> globals;
  // Answers of generated sync calls.
  std::function<CUresult(const SeenCommand&, std::vector<std::byte>* out)> answer_call;

  // Whether tidePeerAddress is answered; how the next tideFetches end (then: well), from whose memory.
  bool gives_memory = false;
  std::deque<FetchState> fetches_end;
  FakeWorker* peer = nullptr;

  std::atomic<uint64_t> mapped_bytes{0};
  std::vector<SeenCommand> seen(Call call) const;
  size_t count(Call call) const { return seen(call).size(); }
  std::vector<std::byte> staged(uint64_t stage) const;
  void print(const std::string& text);
  // While the program does nothing, and has read all answers. The client hears of it.
  FakeCheckpoint checkpoint();
  // A byte of the device's memory.
  std::byte& memory(uint64_t address) { return *at(address); }

 private:
  void run();
  bool take_commands();
  bool run_streams();
  bool execute(const SeenCommand& c);  // false: not yet (a signal is missing)
  void at_once(const SeenCommand& c, bool wants_answer);
  void answer(AnswerKind kind, uint64_t sequence, int result, const void* payload, size_t bytes, uint64_t offset = 0,
              uint16_t flags = 0);
  void answer_library(uint64_t sequence);
  void map_host(const SeenCommand& c);
  void fetch(const SeenCommand& c);
  std::byte* at(uint64_t address);

  void begin();
  void be_recovered();

  int fd_ = -1;
  int host_fd_ = -1;            // the program's host memory, once it came
  std::unique_ptr<Link> link_;  // null: over memory of the same process
  Region region_;
  CommandReader reader_;
  AnswerWriter writer_;
  std::atomic<bool> stop_{false}, alive_{true}, held_{false};
  uint64_t recovered_ = 0;  // the epoch, of one from a checkpoint
  mutable std::mutex mu_;
  std::vector<SeenCommand> seen_;
  void* arena_ = nullptr;  // stands for all device memory, at the address's offset in its range
  std::map<uint64_t, std::vector<std::byte>> stages_;
  std::map<uint32_t, std::deque<SeenCommand>> streams_;
  std::map<uint32_t, uint64_t> events_;
  std::mutex answer_mu_;
  std::thread thread_;
};

// Attributes of a plausible GPU.
DeviceInfo fake_device();

}  // namespace tide
