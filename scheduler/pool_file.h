#pragma once

// The scheduler's own pool.toml: the truth of what the pool is, also after a restart. Whoever replaces it keeps the one
// before in FILE.before.

#include <string>
#include <vector>

#include "base/outcome.h"
#include "scheduler/config.h"

namespace tide::sched {

struct PoolFile {
  std::string path;          // absolute; empty: the scheduler was started without one
  std::string text;          // what counts, as it was written
  PoolConfig config;         // that is in it
  bool turns_given = false;  // `turns` is on the scheduler's command line, and counts more
};

std::vector<ConfigError> open_pool_file(const std::string& path, PoolFile* file);

// Makes `text` the contents of the file, on disk before it returns; what is overwritten, or was replaced in the file
// itself since it was read, is in FILE.before. Fails with everything as it was.
Outcome replace_pool_file(const PoolFile& file, const std::string& text);

}  // namespace tide::sched
