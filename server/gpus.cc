#include "server/gpus.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <climits>
#include <cstdlib>
#include <cstring>

#include "api/uuid.h"
#include "base/descriptors.h"
#include "base/log.h"

namespace tide {
namespace {

constexpr uint64_t kProbeNs = 60'000'000'000;  // a real driver may take seconds to wake
constexpr size_t kDevicesMax = 64;

std::string find_worker() {
  if (const char* path = getenv("TIDE_WORKER"); path != nullptr && *path != '\0') return path;
  char path[PATH_MAX];
  const ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);
  const std::string self(path, n > 0 ? size_t(n) : 0);
  return self.substr(0, self.rfind('/') + 1) + "tide-worker";
}

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> parts;
  for (size_t at = 0; at <= text.size() && !text.empty();) {
    const size_t end = std::min(text.find(',', at), text.size());
    parts.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return parts;
}

Outcome run_probe(const std::string& program, const Environment& environment, std::string* output) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return Outcome::fail(strerror(errno));
  const std::vector<std::string> strings = changed_environment(environment);
  std::vector<char*> env;
  for (const std::string& s : strings) env.push_back(const_cast<char*>(s.c_str()));
  env.push_back(nullptr);
  char* arguments[] = {const_cast<char*>(program.c_str()), const_cast<char*>("--probe"), nullptr};
  const pid_t pid = fork();
  if (pid == 0) {
    dup2(ends[1], STDOUT_FILENO);
    execve(program.c_str(), arguments, env.data());
    _exit(127);
  }
  close(ends[1]);
  if (pid < 0) {
    close(ends[0]);
    return Outcome::fail(strerror(errno));
  }
  Outcome outcome = read_to_end(ends[0], {kDevicesMax * sizeof(DeviceInfo), kProbeNs}, output);
  close(ends[0]);
  if (!outcome.ok()) kill(pid, SIGKILL);
  int status = 0;
  waitpid(pid, &status, 0);
  if (!outcome.ok()) return outcome;
  if (WIFEXITED(status) && WEXITSTATUS(status) == 127) return Outcome::fail(program + " cannot be started");
  return status == 0 ? Outcome() : Outcome::fail("it failed; its message is above");
}

// Where keepers keep (server/shelf.h). Options count more than what the agent's own environment says.
void add_parking(const AgentOptions& options, Environment* to) {
  const bool chosen = !options.park_directory.empty();
  if (chosen || getenv("TIDE_PARK_DIR") == nullptr) {
    to->push_back({"TIDE_PARK_DIR", chosen ? options.park_directory : options.directory + "/parked"});
  }
  to->push_back({"TIDE_PARK_LEDGER", options.directory + "/parked-memory"});
  if (options.park_memory_mib) to->push_back({"TIDE_PARK_MEMORY_MIB", std::to_string(*options.park_memory_mib)});
}

// Other servers reach the workers where clients reach the door. Nothing where that is each of several addresses.
std::string host_of(const std::string& listen) {
  const std::string host = listen.substr(0, listen.rfind(':'));
  return host == "0.0.0.0" || host == "[::]" ? "" : host;
}

}  // namespace

std::vector<std::string> changed_environment(const Environment& changes) {
  std::vector<std::string> result;
  const auto changed = [&](const std::string& entry) {
    for (const auto& [name, value] : changes) {
      if (entry.compare(0, name.size() + 1, name + "=") == 0) return true;
    }
    return false;
  };
  for (char** entry = environ; *entry != nullptr; ++entry) {
    if (!changed(*entry)) result.push_back(*entry);
  }
  for (const auto& [name, value] : changes) {
    if (!value.empty()) result.push_back(name + "=" + value);
  }
  return result;
}

Outcome Gpus::find(const AgentOptions& options, Gpus* gpus) {
  gpus->program_ = find_worker();
  // The job's stand-in must never be what a worker loads.
  gpus->base_ = {{"LD_PRELOAD", ""},
                 {"TIDE_IMAGE_DIR", options.directory + "/images"},
                 {"TIDE_IMAGE_BYTES", std::to_string(options.image_cache_mib << 20)}};
  const std::string host = host_of(options.listen);
  if (getenv("TIDE_UCX_BIND") == nullptr && !host.empty()) gpus->base_.push_back({"TIDE_UCX_BIND", host});
  add_parking(options, &gpus->base_);
  // An empty one is none: what the agent's own environment says does not count.
  gpus->base_.push_back({"TIDE_MOVE_RATE", options.move_rate == 0 ? "" : std::to_string(options.move_rate)});
  gpus->base_.push_back({"TIDE_MOVE_PAGE", options.directory + "/move-rate"});
  if (options.softgpu_devices != 0) {
    gpus->base_.push_back({"TIDE_DRIVER", "software"});
    gpus->base_.push_back({"SOFTGPU_DEVICES", std::to_string(options.softgpu_devices)});
    gpus->base_.push_back({"SOFTGPU_SEED", options.name});
    gpus->base_.push_back({"CUDA_VISIBLE_DEVICES", ""});
    if (!options.softgpu_memory.empty()) gpus->base_.push_back({"SOFTGPU_MEMORY", options.softgpu_memory});
  } else if (const char* visible = getenv("CUDA_VISIBLE_DEVICES"); visible != nullptr) {
    gpus->visible_ = split(visible);
  }
  std::string output;
  if (Outcome outcome = run_probe(gpus->program_, gpus->base_, &output); !outcome.ok()) {
    return Outcome::fail("cannot look at this machine's GPUs: " + gpus->program_ + " --probe: " + outcome.message());
  }
  if (output.empty() || output.size() % sizeof(DeviceInfo) != 0) return Outcome::fail("this machine has no GPU");
  gpus->devices_.resize(output.size() / sizeof(DeviceInfo));
  memcpy(static_cast<void*>(gpus->devices_.data()), output.data(), output.size());
  for (size_t i = gpus->visible_.size(); i < gpus->devices_.size(); ++i) gpus->visible_.push_back(std::to_string(i));
  return {};
}

std::string Gpus::uuid(uint32_t index) const { return uuid_text(devices_[index].uuid); }

Environment Gpus::environment(uint32_t index) const {
  Environment environment = base_;
  // What the administrator's shell says of launches is not meant for the programs of others.
  std::erase_if(environment, [](const auto& entry) {
    return entry.first == "CUDA_VISIBLE_DEVICES" || entry.first == "CUDA_LAUNCH_BLOCKING";
  });
  environment.push_back({"CUDA_VISIBLE_DEVICES", visible_[index]});
  return environment;
}

}  // namespace tide
