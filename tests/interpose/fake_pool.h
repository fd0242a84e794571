#pragma once

// A scheduler's door and an agent's door on unix sockets, with workers in threads of the test behind them.

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "fake_worker.h"
#include "interpose/pool.h"
#include "transport/door.h"

namespace tide {

class FakePool {
 public:
  explicit FakePool(uint32_t vgpus);
  ~FakePool();

  // Sets TIDE_DOOR, TIDE_JOB, TIDE_TOKEN and TIDE_TRANSPORT for this process (and its children).
  void join();
  void leave();
  // What every worker is told of kernels.
  std::vector<FakeKernel> kernels;
  std::function<CUresult(const SeenCommand&, std::vector<std::byte>* out)> answer_call;

  // The worker that serves the vGPU now; null: none yet.
  FakeWorker* worker(uint32_t vgpu);
  // The vGPU goes to another worker with a newer epoch, which takes memory and rings over.
  // `further`: epochs by which it has moved on before the client comes.
  void move(uint32_t vgpu, uint64_t further = 0);
  // A vGPU that nobody uses goes elsewhere.
  void reassign(uint32_t vgpu);
  // The worker ends without a word. `elsewhere`: the scheduler knows a new place with a newer epoch.
  void kill(uint32_t vgpu, bool elsewhere, bool recovers = false);
  // Sessions that are opened from now on are protected, from a first checkpoint with nothing in it.
  std::atomic<bool> protects{false};
  // Requires what FakeWorker::checkpoint() does.
  void checkpoint(uint32_t vgpu);
  // The worker ends without a word, and another one will have the session from the last checkpoint.
  void kill_and_recover(uint32_t vgpu);
  // What kMeasure is answered with.
  PoolUsage usage;
  std::atomic<int> hellos{0}, opens{0}, measures{0};
  std::atomic<bool> refuse_opens{false};
  std::atomic<int> refusal{CUDA_ERROR_DEVICE_UNAVAILABLE};

 private:
  struct Vgpu {
    uint64_t epoch = 1;
    std::unique_ptr<FakeWorker> worker;
    FakeCheckpoint saved;
    bool recovers = false;
    std::vector<std::unique_ptr<FakeWorker>> past;
  };
  void serve_door();
  void serve_agent();
  void talk_to_client(int socket);
  void open(int socket, const std::string& payload, int fd);
  std::string endpoint() const;

  std::string folder_;
  std::mutex mu_;
  std::vector<Vgpu> vgpus_;
  int door_ = -1, agent_ = -1;
  std::atomic<bool> stop_{false};
  std::vector<std::thread> threads_;
};

}  // namespace tide
