#pragma once

// Where clients come in: a unix socket and a TCP port. Reads one kOpen frame from each connection, checks it, and hands
// the socket to a worker. Garbage is refused and closed; who says nothing is closed after a while.

#include <kj/async-io.h>
#include <kj/async-unix.h>

#include <cstdint>
#include <list>
#include <string>

#include "base/outcome.h"
#include "server/agent.h"

namespace tide {

class AgentDoor : private kj::TaskSet::ErrorHandler {
 public:
  explicit AgentDoor(Agent& agent);
  ~AgentDoor();
  // Listens on DIRECTORY/door.sock and the TCP address. Fails where another agent listens there. Where any port will do
  // it is that of `last`: those who knew the last agent come there.
  Outcome listen(const std::string& directory, const std::string& tcp_address, const std::string& last);
  const std::string& tcp_address() const { return tcp_address_; }
  // For clients and other agents (transport/door.h).
  const std::string& endpoint() const { return endpoint_; }

 private:
  struct Listener;
  struct Connection;
  void taskFailed(kj::Exception&& exception) override;
  void add(int fd);
  kj::Promise<void> accept(Listener* listener);
  bool make_room();
  kj::Promise<void> read_frame(Connection* connection);
  kj::Promise<void> answer(Connection* connection);

  Agent& agent_;
  std::string endpoint_, unix_path_, tcp_address_;
  uint32_t connections_ = 0;
  std::list<Connection*> silent_;  // the oldest first
  kj::Vector<kj::Own<Listener>> listeners_;
  kj::TaskSet tasks_;
};

}  // namespace tide
