#pragma once

// The record of jobs as releases before version 4 wrote it: a table each for jobs, their vGPUs and their turns.

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/outcome.h"

struct sqlite3;

namespace tide::sched {

// Reads version 1, 2 or 3 into what it is now (SqliteKv::Upgrade), and drops its tables. Within a transaction.
Outcome upgrade_record(sqlite3* db, const std::string& path, uint64_t version,
                       std::vector<std::pair<std::string, std::string>>* entries);

}  // namespace tide::sched
