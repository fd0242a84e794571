#pragma once

// Tables of pool.toml whose values are not single words and numbers; what config.cc reads them with. Errors go to the
// end of the list, what has none into the configuration.

#include <string>
#include <vector>

#include "scheduler/config.h"
#include "scheduler/toml.h"

namespace tide::sched {

struct ConfigSink {
  const std::string& path;
  std::vector<ConfigError>* errors;
  void error(const toml::source_region& at, std::string message, std::string hint) const {
    errors->push_back({path, at.begin.line, at.begin.column, std::move(message), std::move(hint)});
  }
};

// `models` of a [[queue]]: { H200 = { quota = 4, limit = 8 }, ... }.
std::vector<ModelQuota> read_models(const toml::node& node, const ConfigSink& sink);

void read_reservation(const toml::table& table, const ConfigSink& sink, PoolConfig* config);
// What is wrong with them together, and with the queues that they name.
std::vector<ConfigError> check_reservations(const PoolConfig& config, const std::string& path);

// Milliseconds since 1970; without an offset as this machine's clock on the wall shows it. False: there is no such
// moment.
bool read_moment(const toml::date_time& at, uint64_t* ms);

}  // namespace tide::sched
