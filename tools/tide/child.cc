#include "tools/tide/child.h"

#include <fcntl.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

#include "base/descriptors.h"
#include "tools/tide/options.h"

namespace tide::cli {
namespace {

bool in_foreground_of_terminal() {
  const int terminal = open("/dev/tty", O_RDONLY | O_CLOEXEC | O_NOCTTY);
  if (terminal < 0) return false;
  const bool ours = tcgetpgrp(terminal) == getpgrp();
  close(terminal);
  return ours;
}

bool is_file(const std::string& path) {
  struct stat s;
  return stat(path.c_str(), &s) == 0 && !S_ISDIR(s.st_mode);
}

}  // namespace

int check_command(const std::string& command, std::string* why) {
  if (command.find('/') != std::string::npos) {
    struct stat s;
    if (stat(command.c_str(), &s) != 0) {
      *why = command + ": " + strerror(errno);
      return kNotFound;
    }
    if (S_ISDIR(s.st_mode) || access(command.c_str(), X_OK) != 0) {
      *why = command + (S_ISDIR(s.st_mode) ? " is a directory" : " is not executable; chmod +x makes it so");
      return kNotExecutable;
    }
    return 0;
  }
  const char* variable = getenv("PATH");
  const std::string path = variable == nullptr ? "/usr/bin:/bin" : variable;
  bool seen = false;
  for (size_t start = 0; start <= path.size() && !command.empty();) {
    const size_t end = std::min(path.find(':', start), path.size());
    const std::string full = (end == start ? "." : path.substr(start, end - start)) + "/" + command;
    if (is_file(full) && access(full.c_str(), X_OK) == 0) return 0;
    seen |= is_file(full);
    start = end + 1;
  }
  *why = seen ? command + " is not executable" : command + ": command not found";
  return seen ? kNotExecutable : kNotFound;
}

Outcome start_child(const std::vector<std::string>& command,
                    const std::vector<std::pair<std::string, std::string>>& environment, Child* child) {
  std::vector<char*> arguments;
  for (const std::string& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  child->own_group = !in_foreground_of_terminal();
  const pid_t parent = getpid();
  child->pid = fork();
  if (child->pid < 0) return fork_failure("cannot start a process");
  if (child->pid > 0) {
    if (child->own_group) setpgid(child->pid, child->pid);
    return {};
  }
  if (child->own_group) setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(kTidepoolFailed);
  // The event loop has blocked and caught signals; the command gets what everybody gets.
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGCHLD, SIGPIPE})
    signal(number, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  for (const auto& [name, value] : environment) setenv(name.c_str(), value.c_str(), 1);
  execvp(arguments[0], arguments.data());
  const int error = errno;
  dprintf(2, "tide: cannot execute %s: %s\n", arguments[0], strerror(error));
  _exit(error == ENOENT ? kNotFound : kNotExecutable);
}

void signal_child(const Child& child, int number) { kill(child.own_group ? -child.pid : child.pid, number); }

}  // namespace tide::cli
