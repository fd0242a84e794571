#include "tools/bench_transport/child.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

namespace tide::bench {

Outcome Child::start(const std::string& role) {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) return Outcome::fail("cannot create sockets");
  const std::string number = std::to_string(pair[1]);
  pid_ = fork();
  if (pid_ == 0) {
    fcntl(pair[1], F_SETFD, 0);
    execl("/proc/self/exe", "tide-bench-transport", "--serve", role.c_str(), number.c_str(), nullptr);
    _exit(127);
  }
  close(pair[1]);
  socket_ = pair[0];
  return pid_ > 0 ? Outcome{} : Outcome::fail("cannot start a second process");
}

int Child::release_socket() {
  const int socket = socket_;
  socket_ = -1;
  return socket;
}

Child::~Child() {
  if (socket_ >= 0) close(socket_);
  if (pid_ > 0) waitpid(pid_, nullptr, 0);
}

}  // namespace tide::bench
