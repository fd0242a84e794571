#pragma once

// The other process of a measurement: this program again. It has a thread for each role, and a socket to each, so that
// what is compared meets the same two processes; each of these keeps to one core, where there are two.

#include <sys/types.h>

#include <string>
#include <vector>

#include "base/outcome.h"

namespace tide::bench {

class Child {
 public:
  ~Child();  // waits for its end: when the sockets of all roles are closed
  Outcome start(const std::vector<std::string>& roles);
  // Of a role, in their order; whoever takes it closes it.
  int take_socket(size_t role);

 private:
  std::vector<int> sockets_;
  pid_t pid_ = -1;
};

// Which of the cores that it may use this process keeps to: the first or the second. All, where there is one only.
void keep_to_core(int which);

}  // namespace tide::bench
