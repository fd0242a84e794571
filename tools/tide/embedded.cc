#include "tools/tide/embedded.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <functional>

#include "base/clock.h"
#include "base/log.h"
#include "scheduler/config.h"
#include "tools/tide/client.h"
#include "tools/tide/home.h"
#include "tools/tide/places.h"

namespace tide::cli {
namespace {

constexpr uint32_t kStartMs = 60'000;
constexpr uint32_t kStopMs = 15'000;  // the scheduler gives agents 10 s to release everything

// Held while somebody starts or stops the pool.
class Lock {
 public:
  explicit Lock(const std::string& home) : fd_(open((home + "/lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600)) {
    held_ = fd_ >= 0 && flock(fd_, LOCK_EX) == 0;
  }
  ~Lock() { close(fd_); }
  Lock(const Lock&) = delete;
  Lock& operator=(const Lock&) = delete;
  bool held() const { return held_; }

 private:
  int fd_;
  bool held_ = false;
};

bool wait_for(uint32_t limit_ms, const std::function<bool()>& done) {
  const uint64_t end = now_ns() + uint64_t(limit_ms) * 1'000'000;
  while (!done()) {
    if (now_ns() > end) return false;
    sleep_us(20'000);
  }
  return true;
}

Launch base_launch(const EmbeddedOptions& options, const std::string& log) {
  Launch launch;
  launch.log_path = options.home + "/" + log;
  launch.ends_with_us = options.ends_with_us;
  // A daemon is no job, also when `tide up` is typed in a job's shell.
  for (const char* name : {"LD_PRELOAD", "TIDE_DOOR", "TIDE_JOB", "TIDE_TOKEN", "TIDE_VGPUS"})
    launch.environment.push_back({name, ""});
  return launch;
}

// Where the pool keeps what `tide config apply` gives it. What an earlier pool was given here is not this one's.
Outcome begin_file(const std::string& path) {
  const std::string text =
      "# This pool was started without a file. `tide config apply FILE` puts another one here.\n[pool]\n";
  std::string there;
  if (sched::read_config_text(path, &there).empty()) {
    if (there == text) return {};
    (void)rename(path.c_str(), (path + ".before").c_str());
  }
  std::ofstream file(path);
  file << text;
  file.close();
  return file ? Outcome() : Outcome::fail("cannot write " + path);
}

Outcome start_scheduler(const EmbeddedOptions& options, Daemon* daemon) {
  const std::string program = find_program("tide-scheduler");
  if (program.empty())
    return Outcome::fail("tide-scheduler is not beside `tide`; build it (tools/build) or use a whole bundle");
  Launch launch = base_launch(options, "scheduler.log");
  // The embedded pool's own state and ports, unless the file says otherwise.
  sched::PoolConfig config;
  config.listen = "127.0.0.1:0";
  const std::string file = options.config.empty() ? options.home + "/pool.toml" : options.config;
  if (options.config.empty()) {
    if (const Outcome begun = begin_file(file); !begun.ok()) return begun;
  } else {
    std::string errors;
    for (const auto& error : sched::read_config(file, &config)) errors += "\n  " + error.text();
    if (!errors.empty()) return Outcome::fail("the configuration has errors:" + errors);
  }
  if (!config.etcd.members.empty()) {
    return Outcome::fail("`tide up` starts one scheduler, with its record in a file: leave `store` out of " +
                         options.config + ", or start tide-scheduler with it");
  }
  if (config.state.empty()) config.state = options.home + "/state";
  launch.command = {program,     "--config", file,         "--listen",     config.listen,           "--door",
                    config.door, "--state",  config.state, "--ready-file", ready_path(options.home)};
  Outcome outcome = cli::launch(launch, "tide-scheduler", daemon);
  if (!outcome.ok()) return outcome;
  const bool ready = wait_for(10'000, [&] { return read_ready(options.home).count("pool") != 0 || !alive(*daemon); });
  if (ready && alive(*daemon)) return {};
  return Outcome::fail("the scheduler did not start; its log " + launch.log_path + " ends:\n" +
                       tail_of(launch.log_path, 5));
}

struct AgentShare {
  uint32_t index = 0, first_gpu = 0, gpus = 0;
  bool software = true;
};

Outcome start_agent(const EmbeddedOptions& options, const std::string& address, const AgentShare& share,
                    Daemon* daemon) {
  const std::string program = find_program("tide-agent");
  if (program.empty())
    return Outcome::fail("tide-agent is not beside `tide`; build it (tools/build) or use a whole bundle");
  const std::string name = "node" + std::to_string(share.index);
  const std::string directory = options.home + "/" + name;
  mkdir(directory.c_str(), 0700);
  Launch launch = base_launch(options, name + ".log");
  launch.command = {program, "--scheduler", address, "--name", name, "--dir", directory};
  if (!options.config.empty()) launch.command.insert(launch.command.end(), {"--config", options.config});
  if (share.software) {
    launch.command.insert(launch.command.end(), {"--softgpu-devices", std::to_string(share.gpus)});
    if (!options.gpu_memory.empty())
      launch.command.insert(launch.command.end(), {"--softgpu-memory", options.gpu_memory});
  } else {
    std::string devices;
    for (uint32_t i = 0; i < share.gpus; ++i) devices += (i == 0 ? "" : ",") + std::to_string(share.first_gpu + i);
    launch.environment.push_back({"CUDA_VISIBLE_DEVICES", devices});
  }
  return cli::launch(launch, "tide-agent", daemon);
}

// Servers that have registered; -1: the scheduler does not answer.
int servers_online(kj::AsyncIoContext& io, control::Pool::Client& pool) {
  kj::Maybe<uint32_t> servers;
  const auto asked =
      await<uint32_t>(io, pool.statusRequest().send().then([](auto&& r) { return r.getServers(); }), &servers, 2000);
  KJ_IF_MAYBE (count, servers) {
    if (asked.ok()) return int(*count);
  }
  return -1;
}

Outcome wait_for_agents(const EmbeddedOptions& options, const std::string& address,
                        const std::vector<Daemon>& daemons) {
  auto io = kj::setupAsyncIo();
  kj::Own<Connection> connection;
  const Outcome opened = Connection::open(io, address, &connection);
  if (!opened.ok()) return opened;
  const Daemon* dead = nullptr;
  const bool ended = wait_for(kStartMs, [&] {
    for (const Daemon& daemon : daemons) {
      if (!alive(daemon)) dead = &daemon;
    }
    return dead != nullptr || servers_online(io, connection->pool()) == int(options.servers);
  });
  if (ended && dead == nullptr) return {};
  std::string logs;
  for (uint32_t i = 0; i < options.servers; ++i) {
    const std::string path = options.home + "/node" + std::to_string(i) + ".log";
    logs += "\n" + path + " ends:\n" + tail_of(path, 5);
  }
  return Outcome::fail(
      (dead != nullptr ? dead->role + " ended at once" : std::string("not all agents came up within a minute")) + logs);
}

Outcome start_all(const EmbeddedOptions& options, const EmbeddedPool& wanted, EmbeddedPool* pool,
                  std::vector<Daemon>* daemons) {
  Daemon daemon;
  Outcome outcome = start_scheduler(options, &daemon);
  if (daemon.pid != 0) daemons->push_back(daemon);
  if (outcome.ok()) outcome = write_daemons(options.home, *daemons);
  if (!outcome.ok()) return outcome;
  pool->address = read_ready(options.home)["pool"];
  uint32_t first = 0;
  for (uint32_t i = 0; i < options.servers; ++i) {
    const uint32_t share = wanted.gpus / options.servers + (i < wanted.gpus % options.servers ? 1 : 0);
    outcome = start_agent(options, pool->address, {i, first, share, wanted.software}, &daemon);
    if (outcome.ok()) daemons->push_back(daemon);
    if (outcome.ok()) outcome = write_daemons(options.home, *daemons);
    if (!outcome.ok()) return outcome;
    first += share;
  }
  return wait_for_agents(options, pool->address, *daemons);
}

// Asks the scheduler to end the jobs and go; it may be dead.
void ask_to_stop(const std::string& home) {
  const auto ready = read_ready(home);
  if (ready.count("pool") == 0) return;
  auto io = kj::setupAsyncIo();
  kj::Own<Connection> connection;
  if (!Connection::open(io, ready.at("pool"), &connection).ok()) return;
  auto answered = connection->pool().shutdownRequest().send().then([](auto&&) { return true; });
  kj::Maybe<bool> done;
  (void)await<bool>(io, answered.exclusiveJoin(connection->gone().then([] { return false; })), &done, kStopMs);
}

}  // namespace

Outcome start_pool(const EmbeddedOptions& options, EmbeddedPool* pool) {
  Outcome outcome = prepare_home(options.home);
  if (!outcome.ok()) return outcome;
  const Lock lock(options.home);
  if (!lock.held()) return Outcome::fail("cannot lock " + options.home + "/lock; is the disk full or read-only?");
  std::vector<Daemon> daemons = read_daemons(options.home);
  if (!daemons.empty() && alive(daemons[0])) {
    return Outcome::fail(
        format("a pool is running here already (%s, process %d); use it with `tide run`, or stop it with `tide down`",
               options.home.c_str(), int(daemons[0].pid)));
  }
  terminate(daemons, 3000);  // what a pool left whose scheduler died
  remove_traces(options.home);
  daemons.clear();

  const int real = real_gpu_count();
  EmbeddedPool wanted;
  wanted.software = real == 0;
  wanted.gpus =
      options.gpus != 0 ? options.gpus : std::max<uint32_t>(real > 0 ? uint32_t(real) : kSoftwareGpus, options.servers);
  if (real > 0 && wanted.gpus > uint32_t(real)) {
    return Outcome::fail(format("this machine has %d GPUs, not %u", real, wanted.gpus));
  }
  if (wanted.gpus < options.servers) {
    return Outcome::fail(format("%u GPUs cannot be split over %u servers; ask for more --gpus or fewer --servers",
                                wanted.gpus, options.servers));
  }
  *pool = wanted;
  outcome = start_all(options, wanted, pool, &daemons);
  if (!outcome.ok()) {
    terminate(daemons, 3000);
    remove_traces(options.home);
  }
  return outcome;
}

Outcome stop_pool(const std::string& home, bool* was_running) {
  *was_running = false;
  if (access(home.c_str(), F_OK) != 0) return {};
  const Lock lock(home);
  const std::vector<Daemon> daemons = read_daemons(home);
  *was_running = std::any_of(daemons.begin(), daemons.end(), group_alive);
  if (!daemons.empty() && alive(daemons[0])) ask_to_stop(home);
  terminate(daemons, 5000);
  const bool left = std::any_of(daemons.begin(), daemons.end(), group_alive);
  if (left)
    return Outcome::fail("some processes of the pool do not end; `ps -o pid,stat,args` of " + pids_path(home) +
                         " shows them");
  remove_traces(home);
  return {};
}

}  // namespace tide::cli
