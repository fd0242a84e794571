#pragma once

// The machine's embedded pool: its directory, and the processes that `tide up` started.

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/outcome.h"
#include "tools/tide/options.h"

namespace tide::cli {

// $TIDE_HOME, else $XDG_RUNTIME_DIR/tidepool, else /tmp/tidepool-UID.
std::string home_directory();
// Makes it (mode 0700) or checks that it is ours.
Outcome prepare_home(const std::string& home);

inline std::string ready_path(const std::string& home) { return home + "/scheduler.ready"; }
inline std::string pids_path(const std::string& home) { return home + "/pids"; }

// "pool=127.0.0.1:1234" lines of the scheduler's ready file; empty when there is none.
std::map<std::string, std::string> read_ready(const std::string& home);

// Where the pool is: --pool, $TIDE_POOL, the embedded pool.
Outcome find_pool(const Options& options, std::string* address);

struct Daemon {
  std::string role;      // "tide-scheduler", "tide-agent"
  pid_t pid = 0;         // leader of its own session and process group
  uint64_t started = 0;  // kernel ticks since boot, so that a reused pid is not taken for it
};
std::vector<Daemon> read_daemons(const std::string& home);
Outcome write_daemons(const std::string& home, const std::vector<Daemon>& daemons);

// 0: there is no such process.
uint64_t start_time(pid_t pid);
bool alive(const Daemon& daemon);
// Something of its process group is left (its workers, when it died first).
bool group_alive(const Daemon& daemon);

struct Launch {
  std::vector<std::string> command;
  std::vector<std::pair<std::string, std::string>> environment;  // added; an empty value removes
  std::string log_path;
  bool ends_with_us = false;  // SIGTERM when the calling thread ends, however that comes
};
// A process of its own session that outlives us unless told otherwise, its output in the log.
Outcome launch(const Launch& what, const std::string& role, Daemon* daemon);

// SIGTERM, and SIGKILL to the whole groups after `patience_ms`; returns when nothing of them is left.
void terminate(const std::vector<Daemon>& daemons, uint32_t patience_ms);

// Sockets, the ready file and the list of processes; records and logs stay.
void remove_traces(const std::string& home);

std::string tail_of(const std::string& path, size_t lines);

}  // namespace tide::cli
