#pragma once

// One job from submission to its end, for `tide run` and `tide env`: holds the job's handle and gets it back when the
// scheduler was restarted.

#include <kj/async-io.h>

#include <string>

#include "base/outcome.h"
#include "scheduler/addresses.h"
#include "tools/tide/client.h"
#include "tools/tide/submission.h"

namespace tide::cli {

class Runner {
 public:
  Runner(kj::AsyncIoContext& io, const Options& options) : io_(io), options_(options) {}

  Outcome submit(const Ask& ask, const std::string& command);
  const Granted& granted() const { return granted_; }
  // Fulfilled when the job runs. Meanwhile prints, on standard error, each new reason why it waits. Fails, as the next
  // one does, with what the pool says against the job; a scheduler that is away is waited for.
  kj::Promise<void> running(bool quiet);
  // Fulfilled with the reason when the pool has ended the job.
  kj::Promise<std::string> ended_by_pool();
  // Tells the pool how the command ended, if it can be told within two seconds.
  void report(int exit_status);

 private:
  kj::Promise<void> say_why();
  // After a call on the handle that failed: when there is a handle again; fails where none is to be had.
  kj::Promise<void> come_back(kj::Exception&& e);
  kj::Promise<void> reattach();
  kj::Promise<void> try_again();
  kj::Promise<void> take(kj::Own<Connection> connection);
  // Fails when the scheduler is silent and there are others.
  kj::Promise<void> hear_of_it();

  kj::AsyncIoContext& io_;
  const Options& options_;
  kj::Own<Connection> connection_;
  kj::Maybe<control::JobHandle::Client> handle_;
  kj::Own<sched::Addresses> addresses_;  // as they were found last
  std::string found_;
  Granted granted_;
  std::string said_;
  uint64_t away_ns_ = 0;  // since when the scheduler does not answer
  bool said_away_ = false;
  bool started_ = false;
};

}  // namespace tide::cli
