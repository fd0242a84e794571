#include "server/agent_options.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <vector>

#include "base/limits.h"
#include "base/log.h"
#include "scheduler/config.h"

namespace tide {
namespace {

// Options of the command line are the keys of a [[server]], with '-' for '_'.
Outcome set_option(std::string name, const std::string& value, AgentOptions* o) {
  std::replace(name.begin(), name.end(), '-', '_');
  if (name == "dir") name = "directory";
  if (Outcome outcome = sched::check_server_setting(name, value); !outcome.ok()) return outcome;
  if (name == "scheduler") o->scheduler = value;
  if (name == "name") o->name = value;
  if (name == "directory") o->directory = value;
  if (name == "listen") o->listen = value;
  if (name == "ready_file") o->ready_file = value;
  if (name == "softgpu_memory") o->softgpu_memory = value;
  if (name == "softgpu_devices") o->softgpu_devices = uint32_t(strtoul(value.c_str(), nullptr, 10));
  if (name == "park_directory") o->park_directory = value;
  if (name == "park_memory_mib") o->park_memory_mib = strtoull(value.c_str(), nullptr, 10);
  if (name == "move_rate") o->move_rate = sched::rate_bytes(value);
  if (name == "hold_s") o->hold_s = uint32_t(strtoul(value.c_str(), nullptr, 10));
  if (name == "image_cache_mib") o->image_cache_mib = strtoull(value.c_str(), nullptr, 10);
  return {};
}

std::string host_name() {
  char name[kIdBytes] = {};
  gethostname(name, sizeof(name) - 1);
  return name;
}

// [pool] listen is the scheduler's address; the [[server]] with our name holds the rest.
Outcome read_file(const std::string& path, AgentOptions* o) {
  sched::PoolConfig config;
  std::string errors;
  for (const sched::ConfigError& error : sched::read_config(path, &config)) errors += "\n  " + error.text();
  if (!errors.empty()) return Outcome::fail("the configuration has errors:" + errors);
  o->scheduler = config.listen;
  for (const sched::ServerConfig& server : config.servers) {
    if (server.name != o->name) continue;
    for (const auto& [key, value] : server.settings) {
      if (Outcome outcome = set_option(key, value, o); !outcome.ok()) return outcome;
    }
  }
  return {};
}

Outcome check(AgentOptions* o) {
  if (o->scheduler.empty())
    return Outcome::fail("where is the scheduler? give --scheduler ADDRESS:PORT or --config FILE");
  if (o->directory.empty()) o->directory = "/tmp/tide-agent-" + std::to_string(getuid()) + "-" + o->name;
  return {};
}

}  // namespace

const char* agent_usage() {
  return "usage: tide-agent (--scheduler ADDRESS:PORT | --config FILE) [--name NAME] [--dir DIRECTORY]\n"
         "                  [--listen ADDRESS:PORT] [--softgpu-devices N] [--softgpu-memory SIZE] [--image-cache-mib "
         "N]\n"
         "                  [--park-directory DIRECTORY] [--park-memory-mib N] [--move-rate SIZE/s] [--hold-s "
         "SECONDS]\n"
         "                  [--ready-file FILE]\n"
         "Offers this machine's GPUs to the pool. CUDA_VISIBLE_DEVICES chooses which. Runs in the foreground.\n"
         "SIGTERM ends it and the jobs' workers. After SIGUSR2, or when it is killed, the workers serve on, and an "
         "agent\n"
         "that is started with the same --dir within --hold-s takes them over.\n";
}

Outcome read_agent_options(int argc, char** argv, AgentOptions* options) {
  std::vector<std::pair<std::string, std::string>> given;
  std::string config;
  options->name = host_name();
  for (int i = 1; i < argc; ++i) {
    std::string name = argv[i];
    if (name == "--help" || name == "-h") {
      options->help = true;
      return {};
    }
    if (name.rfind("--", 0) != 0) return Outcome::fail("'" + name + "' is not an option; see tide-agent --help");
    name = name.substr(2);
    std::string value;
    if (const size_t equals = name.find('='); equals != std::string::npos) {
      value = name.substr(equals + 1);
      name.resize(equals);
    } else if (i + 1 < argc) {
      value = argv[++i];
    } else {
      return Outcome::fail("--" + name + " wants a value");
    }
    if (name == "config") config = value;
    if (name == "name") options->name = value;  // that of the file's table, too
    if (name != "config") given.emplace_back(name, value);
  }
  if (!config.empty()) {
    if (Outcome outcome = read_file(config, options); !outcome.ok()) return outcome;
  }
  for (const auto& [name, value] : given) {
    if (Outcome outcome = set_option(name, value, options); !outcome.ok()) {
      return Outcome::fail("--" + name + ": " + outcome.message());
    }
  }
  return check(options);
}

}  // namespace tide
