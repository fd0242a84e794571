#include "tests/simulation/machines.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "api/uuid.h"
#include "server/agent.h"
#include "server/worker_process.h"

namespace tide::simulation {
namespace {

Machines* running_machines = nullptr;
uint32_t last_pid = 0;

constexpr int kFirstDescriptor = 1'000'000;  // no file's: closing one does nothing
constexpr uint64_t kWordLeast = 10 * kUs, kWordMost = 300 * kUs;

}  // namespace

std::string server_of(const std::string& path) { return path.substr(0, path.find('/')); }

// A worker.

WorkerModel::WorkerModel(World& world, std::string server)
    : world_(world), server_(std::move(server)), pid_(++last_pid), process_(world.start_process("worker")) {}

WorkerModel::~WorkerModel() { process_->alive = false; }

void WorkerModel::say(ControlType type, const void* payload, size_t bytes) {
  if (line_ == nullptr) return;
  ControlMessage message;
  message.type = type;
  message.bytes = bytes;
  std::fill(std::begin(message.fds), std::end(message.fds), -1);
  if (bytes != 0) memcpy(message.payload, payload, bytes);
  line_->to_agent(message);
}

// One that a driver holds is not gone at once.
void WorkerModel::kill(const char* why) {
  uint64_t ns = world_.chance().between(kMs, 60 * kMs);
  if (!dead() && world_.strikes(Fault::kSlowGpu, 4)) ns = world_.chance().between(300 * kMs, 9 * kS);
  die(why, ns);
}

void WorkerModel::vanish() {
  if (reaped_) return;
  if (!dead()) die("no power", 0);
  reaped_ = true;
  line_ = caller_ = nullptr;
  Machines::now().forget(*this);
}

void WorkerModel::die(const char* why, uint64_t reaped_after_ns) {
  if (dead()) return;
  const auto self = shared_from_this();
  process_->alive = false;
  on_end(why);
  if (reaped_after_ns == 0) return;
  world_.after(reaped_after_ns, [self] {
    if (self->reaped_) return;
    self->reaped_ = true;
    for (auto& line : {std::exchange(self->line_, nullptr), std::exchange(self->caller_, nullptr)}) {
      if (line != nullptr) line->worker_ends();
    }
    Machines::now().forget(*self);
  });
}

// The socket to its agent.

uint64_t ControlLine::due(uint64_t* floor) {
  return *floor = std::max(*floor, world_.now() + world_.chance().between(kWordLeast, kWordMost));
}

void ControlLine::at_worker(std::function<void(WorkerModel&)> what) {
  const auto self = shared_from_this();
  world_.at(due(&floor_to_worker_), [self, what = std::move(what)] {
    self->world_.after(self->worker_->process(), 0, [self, what] { what(*self->worker_); });
  });
}

void ControlLine::at_agent(std::function<void(WorkerProcess&)> what) {
  const auto self = shared_from_this();
  world_.at(due(&floor_to_agent_), [self, what = std::move(what)] {
    self->inbox_.push_back(what);
    self->world_.after(self->agent_process_, 0, [self] {
      for (const auto& each : std::exchange(self->inbox_, {})) {
        if (self->agent_ != nullptr) each(*self->agent_);
      }
    });
  });
}

void ControlLine::to_worker(const ControlMessage& message) {
  if (!agent_process_->alive) return;
  at_worker([message](WorkerModel& worker) {
    ControlMessage copy = message;
    worker.hear(copy);
  });
}

void ControlLine::to_agent(const ControlMessage& message) {
  at_agent([message](WorkerProcess& agent) { agent.hear(message); });
}

void ControlLine::agent_ends() {
  agent_ = nullptr;
  const auto self = shared_from_this();
  at_worker([self](WorkerModel& worker) {
    if (worker.line_ != self) return;
    worker.line_ = nullptr;
    worker.lose_agent();
  });
}

void ControlLine::worker_ends() {
  at_agent([](WorkerProcess& agent) { agent.lose(); });
  at_agent([](WorkerProcess& agent) { agent.reap(); });
}

// It takes nobody while it has an agent, and hears of that one's end before.
void ControlLine::begin() {
  const auto self = shared_from_this();
  at_worker([self](WorkerModel& worker) {
    if (worker.caller_ == self) worker.line_ = std::exchange(worker.caller_, nullptr);
  });
}

// The machines.

Machines::Machines(World& world, MakeWorker make) : world_(world), make_(std::move(make)) {
  running_machines = this;
  last_pid = 0;
}

Machines::~Machines() { running_machines = nullptr; }

Machines& Machines::now() { return *running_machines; }

void Machines::lose_power(const std::string& server) {
  files_.erase(server);
  const auto all = workers_;
  for (const auto& worker : all) {
    if (worker->server() == server) worker->vanish();
  }
  std::erase_if(places_, [&](const auto& each) { return each.first.first == server; });
}

int Machines::bind(const std::string& server, const std::string& name) {
  bound_.emplace_back(server, name);
  return kFirstDescriptor + int(bound_.size()) - 1;
}

std::shared_ptr<WorkerModel> Machines::find(const std::string& server, const std::string& name) const {
  const auto found = places_.find({server, name});
  return found == places_.end() || found->second->reaped() ? nullptr : found->second;
}

std::vector<std::string> Machines::names(const std::string& server) const {
  std::vector<std::string> names;
  for (const auto& [place, worker] : places_) {
    if (place.first == server) names.push_back(place.second);
  }
  return names;
}

std::shared_ptr<ControlLine> Machines::start(int rendezvous) {
  const auto& place = bound_.at(size_t(rendezvous - kFirstDescriptor));
  const auto worker = make_(place.first);
  workers_.push_back(worker);
  places_[place] = worker;
  const auto line = std::make_shared<ControlLine>(world_, agents_.at(place.first), worker);
  worker->line_ = line;
  world_.note("worker starts", worker->pid());
  return line;
}

std::shared_ptr<ControlLine> Machines::connect(uint32_t pid) {
  for (const auto& worker : workers_) {
    if (worker->pid() != pid) continue;
    const auto line = std::make_shared<ControlLine>(world_, agents_.at(worker->server()), worker);
    worker->caller_ = line;
    line->begin();
    return line;
  }
  return nullptr;
}

void Machines::forget(const WorkerModel& worker) {
  std::erase_if(workers_, [&](const auto& each) { return each.get() == &worker; });
}

bool Machines::write(const std::string& server, const AgentState& state) {
  const auto agent = agents_.find(server);
  if (agent == agents_.end() || !agent->second->alive) return false;
  if (may_write && !may_write(server, state)) return false;
  files_[server] = state;
  if (written) written(server, state);
  return true;
}

AgentState Machines::read(const std::string& server) const {
  const auto found = files_.find(server);
  return found == files_.end() ? AgentState{} : found->second;
}

}  // namespace tide::simulation

// What stands in for the agent's surroundings.
namespace tide {
namespace {

using simulation::ControlLine;
using simulation::Machines;
using simulation::server_of;

kj::Exception failure(const std::string& text) {
  return kj::Exception(kj::Exception::Type::FAILED, "", 0, kj::heapString(text.c_str()));
}

}  // namespace

Outcome WorkerProcess::start(kj::UnixEventPort&, const std::string&, const Environment&, int rendezvous,
                             kj::Own<WorkerProcess>* worker) {
  *worker = kj::heap<WorkerProcess>(Machines::now().start(rendezvous));
  return {};
}

Outcome WorkerProcess::adopt(kj::UnixEventPort&, int, pid_t pid, kj::Own<WorkerProcess>* worker) {
  const auto line = Machines::now().connect(uint32_t(pid));
  if (line == nullptr) return Outcome::fail("it has ended");
  *worker = kj::heap<WorkerProcess>(line);
  return {};
}

WorkerProcess::WorkerProcess(std::shared_ptr<ControlLine> line) : line_(std::move(line)), ended_(nullptr) {
  auto pair = kj::newPromiseAndFulfiller<void>();
  reaped_ = kj::mv(pair.fulfiller);
  ended_ = pair.promise.fork();
  line_->hold_agent(this);
}

// Where the agent's process was killed nobody is there to do that.
WorkerProcess::~WorkerProcess() {
  kill();
  line_->agent_ends();
}

uint32_t WorkerProcess::pid() const { return line_->worker()->pid(); }

void WorkerProcess::kill() {
  if (!line_->agent_process()->alive) return;
  killed_ = true;
  line_->worker()->kill("killed by its agent");
}

bool WorkerProcess::send(ControlType type, const void* payload, size_t bytes, const int* fds, int fd_count) {
  if (gone_) return false;
  ControlMessage message;
  message.type = type;
  message.bytes = bytes;
  std::fill(std::begin(message.fds), std::end(message.fds), -1);
  if (bytes != 0) memcpy(message.payload, payload, bytes);
  std::copy_n(fds, fd_count, message.fds);
  line_->to_worker(message);
  return true;
}

kj::Promise<ControlMessage> WorkerProcess::await(ControlType type) {
  if (gone_) return failure("the worker has ended");
  auto pair = kj::newPromiseAndFulfiller<ControlMessage>();
  waiting_.emplace(type, kj::mv(pair.fulfiller));
  return kj::mv(pair.promise);
}

void WorkerProcess::hear(const ControlMessage& message) {
  ControlMessage copy = message;
  const bool shared = message.type == ControlType::kAskShared || message.type == ControlType::kSharedAnswer;
  if (shared && carry_) carry_(message);
  if (message.type == ControlType::kAdopted && adopted_) adopted_(&copy);
  if (!shared) take(message);
}

void WorkerProcess::lose() {
  gone_ = true;
  reject_all("the worker has ended");
}

void WorkerProcess::reap() { reaped_->fulfill(); }

// As server/worker_process.cc.
void WorkerProcess::take(const ControlMessage& message) {
  ControlMessage copy = message;
  if (message.type == ControlType::kFailed || message.type == ControlType::kMoveFailed) {
    const auto* text = copy.as<ControlText>();
    reject_all(text == nullptr ? "the worker failed" : text->text);
    return;
  }
  if (message.type == ControlType::kStatsReply && counted_) {
    if (const auto* counted = copy.as<ControlStats>()) counted_(*counted);
  }
  for (auto found = waiting_.find(message.type); found != waiting_.end(); found = waiting_.find(message.type)) {
    auto fulfiller = kj::mv(found->second);
    waiting_.erase(found);
    if (!fulfiller->isWaiting()) continue;
    fulfiller->fulfill(ControlMessage(message));
    return;
  }
}

void WorkerProcess::reject_all(const std::string& why) {
  auto waiting = std::move(waiting_);
  waiting_.clear();
  for (auto& [type, fulfiller] : waiting) fulfiller->reject(failure(why));
}

std::string Rendezvous::name_of(const uint8_t session[16], uint64_t epoch) {
  return uuid_text(session) + "." + std::to_string(epoch);
}

Outcome Rendezvous::bind(const std::string& name, int* socket) const {
  *socket = Machines::now().bind(server_of(directory_), name);
  return {};
}

Outcome Rendezvous::connect(const std::string& name, int* socket, pid_t* worker) const {
  const auto found = Machines::now().find(server_of(directory_), name);
  if (found == nullptr) return Outcome::fail("nobody listens there");
  *socket = -1;
  *worker = pid_t(found->pid());
  return {};
}

void Rendezvous::remove(const std::string& name) const { Machines::now().remove(server_of(directory_), name); }

std::vector<std::string> Rendezvous::names() const { return Machines::now().names(server_of(directory_)); }

Outcome Gpus::find(const AgentOptions& options, Gpus* gpus) {
  gpus->devices_.resize(options.softgpu_devices);
  for (uint32_t i = 0; i < gpus->devices_.size(); ++i) {
    DeviceInfo& device = gpus->devices_[i];
    strncpy(device.name, "simulated", sizeof device.name - 1);
    device.total_memory = 16ull << 30;
    device.uuid[0] = uint8_t(i + 1);
  }
  return {};
}

std::string Gpus::uuid(uint32_t index) const { return uuid_text(devices_[index].uuid); }

Environment Gpus::environment(uint32_t) const { return {}; }

AgentState read_agent_state(const std::string& path) { return Machines::now().read(server_of(path)); }

Outcome write_agent_state(const std::string& path, const AgentState& state) {
  return Machines::now().write(server_of(path), state) ? Outcome() : Outcome::fail("its disk is full");
}

// Keepers here keep each for itself.
JobShelfFiles::~JobShelfFiles() = default;
std::shared_ptr<const JobShelfFiles> JobShelfFiles::take(int*, int) { return nullptr; }
std::shared_ptr<const JobShelfFiles> Agent::known_shelf_of(const std::string&) const { return nullptr; }
std::shared_ptr<const JobShelfFiles> Agent::shelf_of(const std::string&) const { return nullptr; }
void Agent::sweep_shelf(const std::string&, const AgentSession&) const {}
void Agent::send_to_keeper(const std::string&, ControlType type, AgentSession& keeper) {
  keeper.worker->send(type, keeper.identity);
}

}  // namespace tide
