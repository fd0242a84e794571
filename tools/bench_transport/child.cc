#include "tools/bench_transport/child.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <utility>

namespace tide::bench {

Outcome Child::start(const std::vector<std::string>& roles) {
  std::vector<std::string> words{"tide-bench-transport", "--serve"};
  std::vector<int> theirs;
  for (const std::string& role : roles) {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) return Outcome::fail("cannot create sockets");
    sockets_.push_back(pair[0]);
    theirs.push_back(pair[1]);
    words.push_back(role);
    words.push_back(std::to_string(pair[1]));
  }
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  pid_ = fork();
  if (pid_ == 0) {
    keep_to_core(1);
    for (const int fd : theirs) fcntl(fd, F_SETFD, 0);
    execv("/proc/self/exe", arguments.data());
    _exit(127);
  }
  for (const int fd : theirs) close(fd);
  return pid_ > 0 ? Outcome{} : Outcome::fail("cannot start a second process");
}

int Child::take_socket(size_t role) { return std::exchange(sockets_[role], -1); }

Child::~Child() {
  for (const int fd : sockets_) {
    if (fd >= 0) close(fd);
  }
  if (pid_ > 0) waitpid(pid_, nullptr, 0);
}

void keep_to_core(int which) {
  static const cpu_set_t allowed = [] {  // before the first call
    cpu_set_t set;
    CPU_ZERO(&set);
    sched_getaffinity(0, sizeof set, &set);
    return set;
  }();
  if (CPU_COUNT(&allowed) < 2) return;
  cpu_set_t one;
  CPU_ZERO(&one);
  for (int core = 0; CPU_COUNT(&one) == 0 && core < CPU_SETSIZE; ++core) {
    if (CPU_ISSET(core, &allowed) && which-- == 0) CPU_SET(core, &one);
  }
  sched_setaffinity(0, sizeof one, &one);
}

}  // namespace tide::bench
