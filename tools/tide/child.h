#pragma once

// The command of a job: a child process that ends when `tide run` does.

#include <signal.h>
#include <sys/types.h>

#include <string>
#include <utility>
#include <vector>

#include "base/outcome.h"

namespace tide::cli {

struct Child {
  pid_t pid = 0;
  bool own_group = false;  // else it shares our terminal's foreground group, and Ctrl-C reaches it without us
};

// 0, or the exit status that says what is wrong with it (not found, not executable) and one sentence.
int check_command(const std::string& command, std::string* why);

Outcome start_child(const std::vector<std::string>& command,
                    const std::vector<std::pair<std::string, std::string>>& environment, Child* child);

// To the command and, where it has a group of its own, everything that it started.
void signal_child(const Child& child, int number);

}  // namespace tide::cli
