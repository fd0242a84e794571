#pragma once

// The line to the members of an etcd: HTTP, as its gateway speaks it, on a thread of its own with its own event loop,
// so that who asks can wait for the answer without giving way to anything else. One thread asks, one question at a
// time.

#include <kj/async.h>
#include <kj/thread.h>

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "base/outcome.h"

namespace tide::sched {

inline constexpr uint32_t kEtcdConnectMs = 300;
inline constexpr uint32_t kEtcdAnswerMs = 1000;  // of one member; then the next is asked, if it may be
inline constexpr uint32_t kEtcdPatienceMs = 2000;

class EtcdLine final {
 public:
  struct Answer {
    uint32_t status = 0;  // of HTTP
    std::string body;
  };
  explicit EtcdLine(std::vector<std::string> members);  // "ADDRESS:PORT", at least one
  ~EtcdLine();
  EtcdLine(const EtcdLine&) = delete;
  EtcdLine& operator=(const EtcdLine&) = delete;

  // Asks the member that answered last, else the others in turn. Where `once`, none is asked after one may have heard
  // it.
  Outcome post(const std::string& path, const std::string& body, bool once, Answer* answer);
  // Set when something comes for this question, or may have come unheard; until nobody else has the flag any more.
  std::shared_ptr<std::atomic<bool>> watch(const std::string& path, const std::string& body);

 private:
  class Loop;

  const std::vector<std::string> members_;
  Loop* loop_ = nullptr;  // on the thread's stack
  kj::Own<const kj::Executor> executor_;
  kj::Own<kj::Thread> thread_;
};

}  // namespace tide::sched
