#pragma once

// A worker as the agent holds it: the process, and the socket over which both talk. It outlives an agent that dies: the
// next one adopts it. One event loop, one thread.

#include <kj/async-io.h>
#include <kj/async-unix.h>
#include <kj/io.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <string>

#include "base/outcome.h"
#include "server/control.h"
#include "server/gpus.h"

namespace tide {

class WorkerProcess {
 public:
  // Starts it; it listens at `rendezvous`. It ends when this object does.
  static Outcome start(kj::UnixEventPort& events, const std::string& program, const Environment& environment,
                       int rendezvous, kj::Own<WorkerProcess>* worker);
  // One that an earlier agent has started. Nothing has been said to it yet.
  static Outcome adopt(kj::UnixEventPort& events, int control, pid_t pid, kj::Own<WorkerProcess>* worker);
  WorkerProcess(kj::UnixEventPort& events, int control, pid_t pid);
  WorkerProcess(kj::UnixEventPort& events, int control, pid_t pid, int process);
  ~WorkerProcess();
  WorkerProcess(const WorkerProcess&) = delete;
  WorkerProcess& operator=(const WorkerProcess&) = delete;

  uint32_t pid() const { return number_; }
  bool gone() const { return gone_; }
  bool send(ControlType type, const void* payload, size_t bytes, const int* fds = nullptr, int fd_count = 0);
  template <class T>
  bool send(ControlType type, const T& payload) {
    return send(type, &payload, sizeof(T));
  }
  // The next message of that type. Fails with the worker's reason when it says that it failed, or ends.
  kj::Promise<ControlMessage> await(ControlType type);
  // What is to be carried to another worker; its descriptors are closed behind the call.
  void on_shared(std::function<void(const ControlMessage&)> carry) { carry_ = std::move(carry); }
  // With descriptors, when it is adopted; they are closed behind the call unless they were taken (-1).
  void on_adopted(std::function<void(ControlMessage*)> take) { adopted_ = std::move(take); }
  // When it wants a checkpoint of itself.
  void on_wanted(std::function<void()> wanted) { wanted_ = std::move(wanted); }
  // Each time that it says what it has counted.
  void on_counted(std::function<void(const ControlStats&)> counted) { counted_ = std::move(counted); }
  // When the process has ended and was reaped; says how. May be asked more than once.
  kj::Promise<void> ended() { return ended_.addBranch(); }
  const std::string& end_reason() const { return reason_; }
  bool ended_well() const { return well_ || killed_; }
  bool killed() const { return killed_; }  // by us
  void kill();

 private:
  kj::Promise<void> listening();
  kj::Promise<void> listen();
  void hear_last_words();
  void take(const ControlMessage& message);
  void reject_all(const std::string& why);

  kj::AutoCloseFd control_;  // closed after the observer is gone
  kj::UnixEventPort::FdObserver observer_;
  kj::AutoCloseFd process_;  // of one that is not our child (pidfd)
  kj::Own<kj::UnixEventPort::FdObserver> process_observer_;
  kj::Maybe<pid_t> pid_;  // of our child
  const uint32_t number_;
  bool gone_ = false;
  bool killed_ = false;
  bool well_ = false;
  std::string reason_;
  bool farewell_ = false;  // it has said that it ends as it should
  std::function<void(const ControlMessage&)> carry_;
  std::function<void(ControlMessage*)> adopted_;
  std::function<void()> wanted_;
  std::function<void(const ControlStats&)> counted_;
  std::multimap<ControlType, kj::Own<kj::PromiseFulfiller<ControlMessage>>> waiting_;
  kj::ForkedPromise<void> ended_;
  kj::Promise<void> listening_;
};

}  // namespace tide
