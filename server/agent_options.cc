#include "server/agent_options.h"

#define TOML_EXCEPTIONS 0
#include <stdlib.h>
#include <toml++/toml.h>
#include <unistd.h>

#include <string_view>

#include "base/limits.h"
#include "base/log.h"

namespace tide {
namespace {

constexpr uint32_t kDevicesMax = 64;
constexpr uint32_t kHoldSecondsMax = 86'400;
constexpr unsigned long long kMibMax = 1ull << 24;

Outcome set_number(const std::string& text, uint32_t* value) {
  char* end = nullptr;
  const unsigned long number = strtoul(text.c_str(), &end, 10);
  if (text.empty() || *end != '\0' || number == 0 || number > kDevicesMax) {
    return Outcome::fail(format("'%s' is not a number from 1 to %u", text.c_str(), kDevicesMax));
  }
  *value = uint32_t(number);
  return {};
}

Outcome set_mib(const std::string& text, uint64_t* mib) {
  char* end = nullptr;
  const unsigned long long number = strtoull(text.c_str(), &end, 10);
  if (text.empty() || text.front() == '-' || *end != '\0' || number > kMibMax) {
    return Outcome::fail(format("'%s' is not a number of MiB, 0 to %llu", text.c_str(), kMibMax));
  }
  *mib = number;
  return {};
}

Outcome set_seconds(const std::string& text, uint32_t* seconds) {
  char* end = nullptr;
  const unsigned long number = strtoul(text.c_str(), &end, 10);
  if (text.empty() || text.front() == '-' || *end != '\0' || number > kHoldSecondsMax) {
    return Outcome::fail(format("'%s' is not a number of seconds, 0 to %u", text.c_str(), kHoldSecondsMax));
  }
  *seconds = uint32_t(number);
  return {};
}

Outcome set_option(const std::string& name, const std::string& value, AgentOptions* o) {
  if (name == "scheduler")
    o->scheduler = value;
  else if (name == "name")
    o->name = value;
  else if (name == "directory" || name == "dir" || name == "runtime-dir")
    o->directory = value;
  else if (name == "listen")
    o->listen = value;
  else if (name == "ready-file")
    o->ready_file = value;
  else if (name == "softgpu-memory" || name == "softgpu_memory")
    o->softgpu_memory = value;
  else if (name == "image-cache-mib" || name == "image_cache_mib")
    return set_mib(value, &o->image_cache_mib);
  else if (name == "hold-s" || name == "hold_s")
    return set_seconds(value, &o->hold_s);
  else if (name == "softgpu-devices" || name == "softgpu_devices")
    return set_number(value, &o->softgpu_devices);
  else
    return Outcome::fail("there is no option '" + name + "'; see tide-agent --help");
  return {};
}

std::string host_name() {
  char name[kIdBytes] = {};
  gethostname(name, sizeof(name) - 1);
  return name;
}

// [pool] listen is the scheduler's address; the [[server]] with our name holds the rest.
Outcome read_file(const std::string& path, AgentOptions* o) {
  const toml::parse_result file = toml::parse_file(path);
  if (!file) {
    return Outcome::fail(format("%s:%u:%u: %s", path.c_str(), unsigned(file.error().source().begin.line),
                                unsigned(file.error().source().begin.column),
                                std::string(file.error().description()).c_str()));
  }
  const toml::table& table = file.table();
  if (o->scheduler.empty()) o->scheduler = table["pool"]["listen"].value_or(std::string());
  const toml::array* servers = table["server"].as_array();
  if (servers == nullptr) return {};
  for (const toml::node& node : *servers) {
    const toml::table* server = node.as_table();
    if (server == nullptr || (*server)["name"].value_or(std::string()) != o->name) continue;
    for (const auto& [key, value] : *server) {
      const std::string name(key.str());
      if (name == "name") continue;
      std::string text = value.value_or(std::string());
      if (const auto number = value.value<int64_t>()) text = std::to_string(*number);
      if (Outcome outcome = set_option(name, text, o); !outcome.ok()) {
        return Outcome::fail(path + ": server '" + o->name + "': " + outcome.message());
      }
    }
  }
  return {};
}

Outcome check(AgentOptions* o) {
  if (o->scheduler.empty())
    return Outcome::fail("where is the scheduler? give --scheduler ADDRESS:PORT or --config FILE");
  if (o->name.empty() || o->name.size() >= kIdBytes || o->name.find('/') != std::string::npos) {
    return Outcome::fail("a server's name has 1 to 63 characters and no '/'");
  }
  if (o->directory.empty()) o->directory = "/tmp/tide-agent-" + std::to_string(getuid()) + "-" + o->name;
  return {};
}

}  // namespace

const char* agent_usage() {
  return "usage: tide-agent (--scheduler ADDRESS:PORT | --config FILE) [--name NAME] [--dir DIRECTORY]\n"
         "                  [--listen ADDRESS:PORT] [--softgpu-devices N] [--softgpu-memory SIZE] [--image-cache-mib "
         "N]\n"
         "                  [--hold-s SECONDS] [--ready-file FILE]\n"
         "Offers this machine's GPUs to the pool. CUDA_VISIBLE_DEVICES chooses which. Runs in the foreground.\n";
}

Outcome read_agent_options(int argc, char** argv, AgentOptions* options) {
  AgentOptions command_line;
  std::string config;
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
    if (name == "config") {
      config = value;
      continue;
    }
    if (Outcome outcome = set_option(name, value, &command_line); !outcome.ok()) {
      return Outcome::fail("--" + name + ": " + outcome.message());
    }
  }
  if (command_line.name.empty()) command_line.name = host_name();
  *options = command_line;
  if (!config.empty()) {
    if (Outcome outcome = read_file(config, options); !outcome.ok()) return outcome;
    // Said again on the command line: that counts.
    if (!command_line.scheduler.empty()) options->scheduler = command_line.scheduler;
    if (!command_line.directory.empty()) options->directory = command_line.directory;
    if (command_line.listen != AgentOptions().listen) options->listen = command_line.listen;
    if (command_line.image_cache_mib != AgentOptions().image_cache_mib)
      options->image_cache_mib = command_line.image_cache_mib;
    if (command_line.hold_s != AgentOptions().hold_s) options->hold_s = command_line.hold_s;
    if (command_line.softgpu_devices != 0) options->softgpu_devices = command_line.softgpu_devices;
    if (!command_line.softgpu_memory.empty()) options->softgpu_memory = command_line.softgpu_memory;
  }
  return check(options);
}

}  // namespace tide
