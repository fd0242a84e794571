#pragma once

// Where a worker is found by an agent that was restarted: a unix socket in a directory of the agent's own (mode 0700),
// bound by the agent that starts the worker and named after the session and its epoch. The worker listens there from
// before it runs, and takes a connection only while it has no agent. Both look at who the other is (SO_PEERCRED).

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "base/outcome.h"

namespace tide {

class Rendezvous {
 public:
  explicit Rendezvous(std::string directory) : directory_(std::move(directory)) {}

  static std::string name_of(const uint8_t session[16], uint64_t epoch);
  // The agent's. The socket is bound and does not listen yet: who listens is who SO_PEERCRED names.
  Outcome bind(const std::string& name, int* socket) const;
  // A connection to the worker, and its process. Fails where nobody listens any more.
  Outcome connect(const std::string& name, int* socket, pid_t* worker) const;
  void remove(const std::string& name) const;
  std::vector<std::string> names() const;

 private:
  const std::string directory_;
};

// The worker's: a connection of an agent of the same user; -1: none has come. Never blocks.
int accept_agent(int listener);

}  // namespace tide
