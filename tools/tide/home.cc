#include "tools/tide/home.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "base/clock.h"
#include "base/descriptors.h"
#include "base/log.h"

namespace tide::cli {
namespace {

struct Stat {
  char state = 0;
  pid_t group = 0;
  uint64_t started = 0;
};

bool read_stat(pid_t pid, Stat* stat) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string line;
  if (!std::getline(file, line)) return false;
  const size_t name_end = line.rfind(')');
  if (name_end == std::string::npos) return false;
  std::istringstream rest(line.substr(name_end + 1));
  std::string word;
  // state is field 3, pgrp 5, starttime 22.
  for (int field = 3; field <= 22 && rest >> word; ++field) {
    if (field == 3) stat->state = word[0];
    if (field == 5) stat->group = pid_t(atoi(word.c_str()));
    if (field == 22) stat->started = strtoull(word.c_str(), nullptr, 10);
  }
  return stat->started != 0;
}

const char* directory_from_environment(const char* name) {
  const char* value = getenv(name);
  return value != nullptr && *value != 0 ? value : nullptr;
}

}  // namespace

std::string home_directory() {
  if (const char* home = directory_from_environment("TIDE_HOME")) return home;
  if (const char* run = directory_from_environment("XDG_RUNTIME_DIR")) return std::string(run) + "/tidepool";
  return "/tmp/tidepool-" + std::to_string(getuid());
}

Outcome prepare_home(const std::string& home) {
  if (mkdir(home.c_str(), 0700) != 0 && errno != EEXIST) {
    return Outcome::fail("cannot create " + home + ": " + strerror(errno) + "; set TIDE_HOME to a directory of yours");
  }
  struct stat s;
  if (lstat(home.c_str(), &s) != 0 || !S_ISDIR(s.st_mode))
    return Outcome::fail(home + " is not a directory; set TIDE_HOME");
  if (s.st_uid != getuid())
    return Outcome::fail(home + " belongs to another user; set TIDE_HOME to a directory of yours");
  if ((s.st_mode & 077) != 0 && chmod(home.c_str(), 0700) != 0) {
    return Outcome::fail("cannot close " + home + " to others: " + strerror(errno));
  }
  return {};
}

std::map<std::string, std::string> read_ready(const std::string& home) {
  std::map<std::string, std::string> values;
  std::ifstream file(ready_path(home));
  for (std::string line; std::getline(file, line);) {
    const size_t equals = line.find('=');
    if (equals != std::string::npos) values[line.substr(0, equals)] = line.substr(equals + 1);
  }
  return values;
}

Outcome find_pool(const Options& options, std::string* address) {
  if (options.has("pool")) {
    *address = options.get("pool");
    return {};
  }
  if (const char* pool = directory_from_environment("TIDE_POOL")) {
    *address = pool;
    return {};
  }
  const std::string home = home_directory();
  const auto ready = read_ready(home);
  if (ready.count("pool") == 0) {
    return Outcome::fail("there is no pool: none is running on this machine (in " + home +
                         "), and neither --pool nor TIDE_POOL names another. `tide up` starts one");
  }
  *address = ready.at("pool");
  return {};
}

std::vector<Daemon> read_daemons(const std::string& home) {
  std::vector<Daemon> daemons;
  std::ifstream file(pids_path(home));
  for (Daemon daemon; file >> daemon.role >> daemon.pid >> daemon.started;) {
    if (daemon.pid > 1) daemons.push_back(daemon);
  }
  return daemons;
}

Outcome write_daemons(const std::string& home, const std::vector<Daemon>& daemons) {
  const std::string part = pids_path(home) + ".part";
  std::ofstream file(part);
  for (const Daemon& daemon : daemons) file << daemon.role << ' ' << daemon.pid << ' ' << daemon.started << '\n';
  file.close();
  if (!file || rename(part.c_str(), pids_path(home).c_str()) != 0) {
    return Outcome::fail("cannot write " + pids_path(home) + ": " + strerror(errno));
  }
  return {};
}

uint64_t start_time(pid_t pid) {
  Stat stat;
  return read_stat(pid, &stat) && stat.state != 'Z' ? stat.started : 0;
}

// Number 0 and 1 are nobody's daemon; kill() would take them for other things.
bool alive(const Daemon& daemon) { return daemon.pid > 1 && start_time(daemon.pid) == daemon.started; }

bool group_alive(const Daemon& daemon) {
  if (daemon.pid <= 1) return false;
  const uint64_t leader = start_time(daemon.pid);
  if (leader != 0) return leader == daemon.started;
  // The leader is gone. As long as anybody is left in its group the kernel gives the number to nobody else.
  DIR* proc = opendir("/proc");
  if (proc == nullptr) return false;
  bool found = false;
  while (const dirent* entry = readdir(proc)) {
    Stat stat;
    const pid_t pid = pid_t(atoi(entry->d_name));
    found |= pid > 0 && read_stat(pid, &stat) && stat.group == daemon.pid && stat.state != 'Z';
  }
  closedir(proc);
  return found;
}

Outcome launch(const Launch& what, const std::string& role, Daemon* daemon) {
  const int out = open(what.log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (out < 0) return Outcome::fail("cannot write " + what.log_path + ": " + strerror(errno));
  std::vector<char*> arguments;
  for (const std::string& word : what.command) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid < 0) {
    close(out);
    return fork_failure("cannot start a process");
  }
  if (pid == 0) {
    setsid();
    if (what.ends_with_us) {
      prctl(PR_SET_PDEATHSIG, SIGTERM);
      if (getppid() != parent) _exit(127);
    }
    const int null = open("/dev/null", O_RDONLY);
    dup2(null, 0);
    dup2(out, 1);
    dup2(out, 2);
    close_range(3, ~0u, 0);
    for (const auto& [name, value] : what.environment) {
      if (value.empty()) {
        unsetenv(name.c_str());
      } else {
        setenv(name.c_str(), value.c_str(), 1);
      }
    }
    execv(arguments[0], arguments.data());
    dprintf(2, "cannot execute %s: %s\n", arguments[0], strerror(errno));
    _exit(127);
  }
  close(out);
  *daemon = {role, pid, start_time(pid)};
  return {};
}

void terminate(const std::vector<Daemon>& daemons, uint32_t patience_ms) {
  for (const Daemon& daemon : daemons) {
    if (alive(daemon)) kill(daemon.pid, SIGTERM);
  }
  const auto any = [&] { return std::any_of(daemons.begin(), daemons.end(), group_alive); };
  const uint64_t end = now_ns() + uint64_t(patience_ms) * 1'000'000;
  while (any() && now_ns() < end) {
    while (waitpid(-1, nullptr, WNOHANG) > 0) {
    }
    sleep_us(20'000);
  }
  for (const Daemon& daemon : daemons) {
    if (group_alive(daemon)) kill(-daemon.pid, SIGKILL);
  }
  for (int i = 0; i < 100 && any(); ++i) {
    while (waitpid(-1, nullptr, WNOHANG) > 0) {
    }
    sleep_us(20'000);
  }
}

void remove_traces(const std::string& home) {
  std::error_code error;
  for (auto it = std::filesystem::recursive_directory_iterator(home, error); !error && it != std::filesystem::end(it);
       it.increment(error)) {
    std::error_code ignored;
    if (it->is_socket(ignored)) std::filesystem::remove(it->path(), ignored);
  }
  unlink(ready_path(home).c_str());
  unlink(pids_path(home).c_str());
}

std::string tail_of(const std::string& path, size_t lines) {
  std::ifstream file(path);
  std::vector<std::string> kept;
  for (std::string line; std::getline(file, line);) {
    kept.push_back("  " + line + "\n");
    if (kept.size() > lines) kept.erase(kept.begin());
  }
  std::string text;
  for (const std::string& line : kept) text += line;
  return text;
}

}  // namespace tide::cli
