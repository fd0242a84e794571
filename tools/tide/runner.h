#pragma once

// One job from submission to its end, for `tide run` and `tide env`: holds the job's handle and gets it back when the
// scheduler was restarted.

#include <kj/async-io.h>

#include <string>

#include "base/outcome.h"
#include "tools/tide/client.h"
#include "tools/tide/submission.h"

namespace tide::cli {

class Runner {
 public:
  Runner(kj::AsyncIoContext& io, const Options& options) : io_(io), options_(options) {}

  Outcome submit(const Ask& ask, const std::string& command);
  const Granted& granted() const { return granted_; }
  // Fulfilled when the job runs. Meanwhile prints, on standard error, each new reason why it waits.
  kj::Promise<void> running(bool quiet);
  // Fulfilled with the reason when the pool has ended the job. A scheduler that is away is waited for.
  kj::Promise<std::string> ended_by_pool();
  // Tells the pool how the command ended, if it can be told within two seconds.
  void report(int exit_status);

 private:
  kj::Promise<void> say_why();
  kj::Promise<std::string> reattach();
  kj::Promise<std::string> try_again();

  kj::AsyncIoContext& io_;
  const Options& options_;
  kj::Own<Connection> connection_;
  kj::Maybe<control::JobHandle::Client> handle_;
  Granted granted_;
  std::string said_;
  uint64_t away_ns_ = 0;  // since when the scheduler does not answer
  bool said_away_ = false;
};

}  // namespace tide::cli
