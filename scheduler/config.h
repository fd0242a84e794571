#pragma once

// pool.toml: what a pool is, in one file, for the scheduler ([pool]) and the agents (each the [[server]] of its name).
// Unknown keys are errors; all errors are reported at once, each with file, line, column and a hint.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/outcome.h"
#include "scheduler/etcd_place.h"
#include "scheduler/price_config.h"
#include "scheduler/queue_config.h"
#include "scheduler/require.h"
#include "scheduler/reservation_config.h"
#include "scheduler/turn_rules.h"
#include "scheduler/usage.h"

namespace tide::sched {

struct ServerConfig {
  std::string name;
  std::map<std::string, std::string> settings;  // of its agent, by key; each of them fits (check_server_setting)
  ServerTraits traits = {};                     // `labels` and `switch`: for the scheduler
};

inline constexpr size_t kConfigBytesMax = 4u << 20;  // of the file
inline constexpr size_t kConfigErrorsMax = 100;      // that are listed; the last one says how many more there are
inline constexpr size_t kServersMax = 4096;
inline constexpr size_t kQueuesMax = 1024;
inline constexpr uint32_t kQueueLevelsMax = 8;

inline constexpr uint32_t kDisturbancesPerHour = 60;
inline constexpr uint64_t kIdleReturnMs = 600'000;

// [policy]
struct PolicyConfig {
  uint64_t half_life_ms = kHalfLifeMs;                    // of what queues had in the past
  double past_weight = 1;                                 // how much that counts (ShareRules)
  std::optional<uint64_t> min_runtime_ms = {};            // before a job is disturbed for others' sake
  uint32_t disturbances_per_hour = kDisturbancesPerHour;  // of one job, for others' sake; 0: no limit
  uint64_t idle_return_ms = kIdleReturnMs;                // of jobs of the interactive class; 0: never
  bool consolidate = true;                                // running jobs may be moved so that others can start
  bool by_estimates = false;                              // who waits starts by what it is expected to need
  uint64_t journal_bytes = 64u << 20;                     // of the journal of decisions; 0: none is kept
};

// [history]
inline constexpr uint64_t kHistoryKeepMs = 400ull * 24 * 3600 * 1000;  // where pool.toml says nothing

struct PoolConfig {
  std::string listen = "127.0.0.1:7411";  // Cap'n Proto; tide and the agents
  std::string door = "127.0.0.1:0";       // the jobs' processes; port 0: any
  std::string state;                      // directory of the record of jobs, where it is SQLite's
  EtcdPlace etcd;                         // with members: the record is there, and several schedulers may share it
  TurnRules turns;                        // whether jobs that wait take turns with those that run
  std::vector<ServerConfig> servers;      // each name once
  std::vector<QueueConfig> queues;        // in the order of the file; none: one without limit
  std::vector<ReservationConfig> reservations;  // in the order of the file
  PolicyConfig policy;
  std::string history;  // the file of what has happened (history.h); empty: in `state`; "off": it is not kept
  uint64_t history_keep_ms = kHistoryKeepMs;
  PriceConfig price;
  uint32_t connections_max = 4096;  // at each of the two ports; not from the file
};

// Where the journal of decisions is; empty: nowhere, the scheduler has no directory.
inline std::string journal_directory(const PoolConfig& config) {
  return config.state.empty() ? "" : config.state + "/decisions";
}

struct ConfigError {
  std::string file;
  uint32_t line = 0, column = 0;
  std::string message, hint;
  std::string text() const;  // "pool.toml:3:1: unknown key 'lisen' in [pool]; did you mean 'listen'?"
};

// Fills `config` only when the answer is empty.
std::vector<ConfigError> read_config(const std::string& path, PoolConfig* config);
// The same for text in memory; `path` is for messages.
std::vector<ConfigError> parse_config(const std::string& text, const std::string& path, PoolConfig* config);

// What is wrong with these queues together: names twice, parents that are not there, cycles, quotas and limits that
// contradict each other. Each alone has been checked.
std::vector<ConfigError> check_queues(const std::vector<QueueConfig>& queues, const std::string& path);
// "sqlite", or "etcd://...": takes it into `config`.
Outcome read_store(const std::string& text, PoolConfig* config);
// What several schedulers need beyond that: addresses that others can reach.
Outcome check_store(const PoolConfig& config);

// The file, whole; an error where it cannot be read or is larger than kConfigBytesMax.
std::vector<ConfigError> read_config_text(const std::string& path, std::string* text);

// Whether an agent can have such a key of its [[server]], and this text as its value.
Outcome check_server_setting(const std::string& key, const std::string& text);
// Of a `move_rate` that fits: bytes a second; 0: no limit.
uint64_t rate_bytes(const std::string& text);

}  // namespace tide::sched
