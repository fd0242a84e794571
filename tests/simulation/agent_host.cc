#include "tests/simulation/agent_host.h"

#include <algorithm>
#include <utility>

#include "transport/door.h"

namespace tide::simulation {
namespace {

constexpr uint32_t kGpus = 2;

struct Ask {
  DoorHeader header;
  DoorOpen wish;
  std::string reply;
  kj::Own<kj::AsyncIoStream> stream;
};

template <class T>
std::string frame(DoorType type, const T& payload) {
  DoorHeader header;
  header.type = uint16_t(type);
  header.payload_bytes = sizeof(T);
  std::string text(reinterpret_cast<const char*>(&header), sizeof header);
  return text.append(reinterpret_cast<const char*>(&payload), sizeof payload);
}

}  // namespace

AgentHost::AgentHost(Machines& machines, SimNetwork& network, kj::WaitScope& wait_scope, kj::UnixEventPort& port,
                     std::string name, uint32_t hold_ms)
    : world_(machines.world()),
      machines_(machines),
      network_(network),
      wait_scope_(wait_scope),
      port_(port),
      name_(std::move(name)),
      hold_ms_(hold_ms),
      machine_(std::make_shared<Machine>()) {
  machine_->name = name_;
}

AgentHost::~AgentHost() {
  if (process_ != nullptr) process_->alive = false;
  clear();
}

std::string AgentHost::server_at(const std::string& text) {
  Endpoint endpoint;
  if (!Endpoint::parse(text, &endpoint).ok()) return {};
  return endpoint.tcp_address.substr(0, endpoint.tcp_address.find(':'));
}

void AgentHost::start() {
  world_.note("agent starts");
  clear();
  if (!std::exchange(machine_->powered, true)) network_.power_is_back(machine_);
  process_ = world_.start_process("agent");
  machines_.agent_starts(name_, process_);
  io_ = std::make_unique<SimIo>(network_, machine_, process_, wait_scope_, port_);
  ++life_;
  const World::As as(world_, process_.get());
  AgentOptions options;
  options.softgpu_devices = kGpus;
  Gpus gpus;
  (void)Gpus::find(options, &gpus);
  tasks_.reset(new kj::TaskSet(*this));
  agent_ = kj::heap<Agent>(std::move(gpus), hold_ms_ / 1000, name_, io_->context());
  agent_->take_over();
  tasks_->add(listen());
}

void AgentHost::kill() {
  if (!up()) return;
  world_.note("agent killed");
  process_->alive = false;
  network_.break_for(*process_);
  // Not from inside of its own code.
  world_.at(world_.now(), [this, life = life_] {
    if (life == life_) clear();
  });
}

void AgentHost::lose_power() {
  world_.note("server lost its power");
  machine_->powered = false;
  kill();
  machines_.lose_power(name_);
}

void AgentHost::pause(uint64_t ns) {
  if (!up()) return;
  world_.note("agent paused", ns);
  world_.pause(*process_, ns);
}

void AgentHost::clear() {
  if (io_ == nullptr) return;
  tasks_ = nullptr;
  agent_ = nullptr;
  io_->retire();
  graveyard_.push_back(std::move(io_));
}

void AgentHost::call(std::function<kj::Promise<void>(Agent&)> what) {
  if (!up()) return;
  world_.after(process_, 0, [this, life = life_, what = std::move(what)] {
    if (life == life_ && up()) tasks_->add(what(*agent_));
  });
}

// In that epoch; 0: any.
bool AgentHost::holds(const std::string& job, uint64_t epoch) const {
  if (agent_.get() == nullptr) return false;
  const auto leases = agent_->leases();
  return std::any_of(leases.begin(), leases.end(),
                     [&](const LeaseTerms& terms) { return terms.job == job && (epoch == 0 || terms.epoch == epoch); });
}

// The door.

kj::Promise<void> AgentHost::listen() {
  return network_address(address()).then([this](kj::Own<kj::NetworkAddress> at) {
    auto door = at->listen();
    auto& listening = *door;
    return accept(listening).attach(kj::mv(door));
  });
}

kj::Promise<kj::Own<kj::NetworkAddress>> AgentHost::network_address(const std::string& text) {
  return io_->context().provider->getNetwork().parseAddress(text);
}

kj::Promise<void> AgentHost::accept(kj::ConnectionReceiver& door) {
  return door.accept().then([this, &door](kj::Own<kj::AsyncIoStream> stream) {
    tasks_->add(answer(kj::mv(stream)));
    return accept(door);
  });
}

// AgentDoor, to another agent.
kj::Promise<void> AgentHost::answer(kj::Own<kj::AsyncIoStream> stream) {
  auto ask = std::make_shared<Ask>();
  ask->stream = kj::mv(stream);
  return ask->stream->read(&ask->header, sizeof ask->header)
      .then([ask] { return ask->stream->read(&ask->wish, sizeof ask->wish); })
      .then([this, ask] { return agent_->receive(ask->wish); })
      .then(
          [ask](std::string where) {
            DoorOpened opened;
            set_text(opened.transport_data, where);
            ask->reply = frame(DoorType::kOpened, opened);
          },
          [ask](kj::Exception&& e) {
            DoorRefused refused;
            set_text(refused.message, e.getDescription().cStr());
            ask->reply = frame(DoorType::kRefused, refused);
          })
      .then([ask] { return ask->stream->write(ask->reply.data(), ask->reply.size()); })
      .then([ask] {});
}

}  // namespace tide::simulation
