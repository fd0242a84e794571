#pragma once

// Stands in for server/worker_process.h where the agent's own code runs in a simulated world: the same to its callers;
// the process behind it is a model (tests/simulation/machines.h).

#include <kj/async-io.h>
#include <kj/async-unix.h>
#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "base/outcome.h"
#include "server/control.h"
#include "server/gpus.h"

namespace tide {

namespace simulation {
class ControlLine;
}

class WorkerProcess {
 public:
  static Outcome start(kj::UnixEventPort& events, const std::string& program, const Environment& environment,
                       int rendezvous, kj::Own<WorkerProcess>* worker);
  static Outcome adopt(kj::UnixEventPort& events, int control, pid_t pid, kj::Own<WorkerProcess>* worker);
  explicit WorkerProcess(std::shared_ptr<simulation::ControlLine> line);
  ~WorkerProcess();
  WorkerProcess(const WorkerProcess&) = delete;
  WorkerProcess& operator=(const WorkerProcess&) = delete;

  uint32_t pid() const;
  bool gone() const { return gone_; }
  bool send(ControlType type, const void* payload, size_t bytes, const int* fds = nullptr, int fd_count = 0);
  template <class T>
  bool send(ControlType type, const T& payload) {
    return send(type, &payload, sizeof(T));
  }
  kj::Promise<ControlMessage> await(ControlType type);
  void on_shared(std::function<void(const ControlMessage&)> carry) { carry_ = std::move(carry); }
  void on_adopted(std::function<void(ControlMessage*)> take) { adopted_ = std::move(take); }
  void on_wanted(std::function<void()> wanted) { (void)wanted; }
  void on_bereaved(std::function<void()> bereaved) { (void)bereaved; }
  void on_counted(std::function<void(const ControlStats&)> counted) { counted_ = std::move(counted); }
  kj::Promise<void> ended() { return ended_.addBranch(); }
  const std::string& end_reason() const { return reason_; }
  bool ended_well() const { return killed_; }
  bool killed() const { return killed_; }
  void kill();

  // What comes over the line: a word, the end of it, and that the process was reaped.
  void hear(const ControlMessage& message);
  void lose();
  void reap();

 private:
  void take(const ControlMessage& message);
  void reject_all(const std::string& why);

  const std::shared_ptr<simulation::ControlLine> line_;
  bool gone_ = false;
  bool killed_ = false;
  const std::string reason_ = "it ended";
  std::function<void(const ControlMessage&)> carry_;
  std::function<void(ControlMessage*)> adopted_;
  std::function<void(const ControlStats&)> counted_;
  std::multimap<ControlType, kj::Own<kj::PromiseFulfiller<ControlMessage>>> waiting_;
  kj::Own<kj::PromiseFulfiller<void>> reaped_;
  kj::ForkedPromise<void> ended_;
};

}  // namespace tide
