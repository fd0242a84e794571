#pragma once

// Threads for rooms that throw nothing: one that the system does not start is an error like any other.

#include <pthread.h>
#include <signal.h>

#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "base/outcome.h"

namespace tide {

// Joined or detached before its end.
class Thread {
 public:
  Thread() = default;
  Thread(const Thread&) = delete;
  Thread& operator=(const Thread&) = delete;

  // Requires: it does not run.
  Outcome start(std::function<void()> body) {
    auto held = std::make_unique<std::function<void()>>(std::move(body));
    const int error = pthread_create(&thread_, nullptr, run, held.get());
    if (error != 0) {
      return Outcome::fail(std::string("the system starts no thread more (") + strerror(error) +
                           "): see the limit of processes and threads, `ulimit -u` or the container's");
    }
    held.release();
    runs_ = true;
    return {};
  }
  bool joinable() const { return runs_; }
  void join() {
    pthread_join(thread_, nullptr);
    runs_ = false;
  }
  void detach() {
    pthread_detach(thread_);
    runs_ = false;
  }

 private:
  static void* run(void* body) {
    const std::unique_ptr<std::function<void()>> held(static_cast<std::function<void()>*>(body));
    (*held)();
    return nullptr;
  }

  pthread_t thread_ = {};
  bool runs_ = false;
};

// While it lives, neither this thread nor those that it starts take signals: the program's are for its own threads.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t before_;
};

}  // namespace tide
