#pragma once

// The other process of a measurement: this program again.

#include <sys/types.h>

#include <string>

#include "base/outcome.h"

namespace tide::bench {

class Child {
 public:
  ~Child();  // closes the socket, which ends the other process, and waits for it
  Outcome start(const std::string& role);
  int socket() const { return socket_; }
  int release_socket();

 private:
  int socket_ = -1;
  pid_t pid_ = -1;
};

}  // namespace tide::bench
