// What `tide run` does (tools/tide/runner.cc): submits, waits, comes back when the scheduler was away, reports the end.
// And the job's processes: they go where the scheduler says that their vGPUs are.

#include <capnp/rpc-twoparty.h>

#include <algorithm>

#include "base/clock.h"
#include "scheduler/enter.h"
#include "tests/simulation/pool.h"

namespace tide::simulation {
namespace {

constexpr uint64_t kReattach = 35 * kS;  // tools/tide/runner.h
constexpr auto kConnectPatience = 1 * kj::SECONDS;
constexpr auto kReportPatience = 2 * kj::SECONDS;
constexpr uint32_t kAgainMs = 200, kLookMs = 100;
constexpr uint64_t kLeft = 1'500 * kMs;  // a worker whose client is gone ends by then

bool is_disconnected(const kj::Exception& e) { return e.getType() == kj::Exception::Type::DISCONNECTED; }

}  // namespace

struct SimJob::Connection {
  explicit Connection(kj::Own<kj::AsyncIoStream> s)
      : stream(kj::mv(s)), client(*stream), pool(sched::enter(client, control::Caller::TIDE)) {}
  kj::Own<kj::AsyncIoStream> stream;
  capnp::TwoPartyClient client;
  control::Pool::Client pool;
};

SimJob::SimJob(SimPool& pool, uint32_t number)
    : pool_(pool),
      number_(number),
      chance_(pool.world().fork()),
      somebody_(pool.world().fork()),
      part_(uint32_t(chance_.one_in(2) ? 250 * chance_.between(1, 3) : 0)),
      gpus_(part_ != 0 ? 1 : uint32_t(chance_.between(1, 3))),
      min_gpus_(pool.takes_turns() ? uint32_t(chance_.between(1, gpus_)) : 1),
      memory_bytes_(part_ != 0 && chance_.one_in(2) ? chance_.between(1, 12) << 30 : 0),
      work_ns_(chance_.one_in(4) ? chance_.between(5 * kS, 30 * kS) : chance_.between(100 * kMs, 5 * kS)),
      io_(pool.new_io(pool.login_machine(), "job")) {}

SimJob::~SimJob() {
  over_ = true;
  io_->process()->alive = false;
  running_ = nullptr;
  handle_ = nullptr;
  connection_ = nullptr;
  pool_.bury(std::move(io_));
}

void SimJob::start() {
  pool_.world().note("job begins", number_, gpus_);
  const World::As as(pool_.world(), io_->process().get());
  running_ = run().eagerlyEvaluate([](kj::Exception&&) {});
}

void SimJob::kill() {
  if (over_) return;
  pool_.world().note("job killed", number_);
  finish("killed");
}

// Its processes are gone, by whatever end.
void SimJob::finish(const char* how) {
  if (over_) return;
  over_ = true;
  (void)how;
  pool_.world().note("job over", number_, ended_by_itself_ ? 1 : 0);
  leave_workers();
  io_->process()->alive = false;
  // Not from inside of one of its own promises.
  pool_.world().at(pool_.world().now(), [this] {
    running_ = nullptr;
    handle_ = nullptr;
    connection_ = nullptr;
  });
}

// The server's kernel tells them when it hears of it.
void SimJob::leave_workers() {
  for (auto& [vgpu, served] : served_) {
    SimServer* server = pool_.server(served.server);
    const uint64_t cut = pool_.network().cut_until(pool_.login_machine()->name, served.server);
    pool_.world().at(std::max(cut, pool_.world().now() + chance_.between(kMs, kLeft)),
                     [server, worker = served.worker] {
                       if (!worker->gone) server->kill_worker(worker);
                     });
  }
  served_.clear();
}

kj::Promise<void> SimJob::run() {
  return submit()
      .then([this] { return be_watched().exclusiveJoin(be_program()).exclusiveJoin(be_somebody()); })
      .then([this] { finish("done"); }, [this](kj::Exception&&) { finish("refused"); });
}

kj::Promise<void> SimJob::connect() {
  auto connecting =
      io_->context()
          .provider->getNetwork()
          .parseAddress(kSchedulerAddress)
          .then([](kj::Own<kj::NetworkAddress> address) { return address->connect().attach(kj::mv(address)); });
  return io_->timer()
      .timeoutAfter(kConnectPatience, kj::mv(connecting))
      .then([this](kj::Own<kj::AsyncIoStream> stream) {
        handle_ = nullptr;
        connection_ = kj::heap<Connection>(kj::mv(stream));
      });
}

kj::Promise<void> SimJob::submit() {
  return connect().then([this] {
    auto request = connection_->pool.submitRequest();
    auto spec = request.initSpec();
    spec.setGpus(gpus_);
    spec.setMinGpus(min_gpus_);
    spec.setMinGiven(part_ == 0);
    spec.setPart(part_);
    spec.setMemoryBytes(memory_bytes_);
    spec.setName("job" + std::to_string(number_));
    spec.setUser("somebody");
    return request.send().then([this](auto&& answer) {
      const auto token = answer.getToken();
      id_ = answer.getId();
      token_.assign(reinterpret_cast<const char*>(token.begin()), token.size());
      handle_ = answer.getHandle();
      pool_.granted(*this);
    });
  });
}

// Runner::ended_by_pool and Runner::reattach.
kj::Promise<void> SimJob::be_watched() {
  KJ_IF_MAYBE (handle, handle_) {
    return handle->waitRequest().send().ignoreResult().catch_([this](kj::Exception&& e) -> kj::Promise<void> {
      if (!is_disconnected(e)) return kj::READY_NOW;
      away_since_ = now_ns();
      return reattach();
    });
  }
  return reattach();
}

kj::Promise<void> SimJob::reattach() {
  if (now_ns() - away_since_ > kReattach) return kj::READY_NOW;
  return connect()
      .then([this] {
        auto request = connection_->pool.reattachRequest();
        request.setId(id_);
        request.setToken(kj::arrayPtr(reinterpret_cast<const kj::byte*>(token_.data()), token_.size()));
        return request.send();
      })
      .then(
          [this](auto&& answer) -> kj::Promise<void> {
            handle_ = answer.getHandle();
            return be_watched();
          },
          [this](kj::Exception&& e) -> kj::Promise<void> {
            if (e.getType() == kj::Exception::Type::FAILED) return kj::READY_NOW;
            return pause(kAgainMs).then([this] { return reattach(); });
          });
}

kj::Promise<void> SimJob::be_program() {
  return wait_until_running().then([this] {
    works_until_ = 0;
    return look();
  });
}

kj::Promise<void> SimJob::wait_until_running() {
  const auto again = [this] { return pause(kAgainMs).then([this] { return wait_until_running(); }); };
  KJ_IF_MAYBE (handle, handle_) {
    return handle->runningRequest().send().ignoreResult().catch_([again](kj::Exception&& e) -> kj::Promise<void> {
      if (!is_disconnected(e)) return kj::mv(e);
      return again();
    });
  }
  return again();
}

bool SimJob::is_served() const {
  if (served_.size() < gpus_) return false;
  return std::all_of(served_.begin(), served_.end(), [](const auto& each) { return !each.second.worker->dying; });
}

// Nothing is executed: one of its vGPUs is on no GPU, or its programs are held.
bool SimJob::is_still() const {
  return std::any_of(served_.begin(), served_.end(), [](const auto& each) {
    return each.second.worker->held || each.second.worker->gpu == control::PARKED;
  });
}

// Until its work is done: where a vGPU's worker is gone, the scheduler may know another place.
kj::Promise<void> SimJob::look() {
  if (is_served() && works_until_ == 0) works_until_ = pool_.world().now() + work_ns_;
  if (is_served() && !is_still() && pool_.world().now() >= works_until_) return report(0);
  if (is_served() && chance_.one_in(40)) return ask_for_size().then([this] { return look_again(); });
  if (is_served()) return look_again();
  KJ_IF_MAYBE (handle, handle_) {
    return handle->infoRequest()
        .send()
        .then([this](auto&& answer) { return open_all(answer.getJob()); })
        .then([this] { return look_again(); },
              [this](kj::Exception&& e) -> kj::Promise<void> {
                if (!is_disconnected(e)) return kj::mv(e);
                return look_again();
              });
  }
  return look_again();
}

kj::Promise<void> SimJob::look_again() {
  return pause(kLookMs).then([this] { return look(); });
}

kj::Promise<void> SimJob::open_all(control::JobInfo::Reader info) {
  kj::Vector<kj::Promise<void>> all;
  for (const auto each : info.getVgpus()) {
    const auto known = served_.find(each.getVgpu());
    const std::string server = each.getServer().cStr();
    if (server.empty() || (known != served_.end() && !known->second.worker->dying)) continue;
    if (known != served_.end() && each.getEpoch() <= known->second.epoch && known->second.server == server) {
      // Its worker has ended, and with it the program.
      return report(1).then([]() -> kj::Promise<void> {
        return kj::Exception(kj::Exception::Type::FAILED, "", 0, kj::heapString("its worker ended"));
      });
    }
    all.add(open_one(each.getVgpu(), server, each.getEpoch()));
  }
  return kj::joinPromises(all.releaseAsArray());
}

kj::Promise<void> SimJob::open_one(uint32_t vgpu, std::string server, uint64_t epoch) {
  return pause(chance_.between(1, 20)).then([this, vgpu, server = std::move(server), epoch] {
    SimServer* there = pool_.server(server);
    const bool cut = pool_.network().cut_until(pool_.login_machine()->name, server) > pool_.world().now();
    if (there == nullptr || !there->up() || there->paused() || cut) return;
    std::shared_ptr<GpuWorker> worker;
    if (there->open({id_, vgpu, epoch}, token_, &worker).empty()) served_[vgpu] = {server, epoch, worker};
  });
}

// Somebody resizes it meanwhile; the answer is for them.
kj::Promise<void> SimJob::ask_for_size() {
  if (connection_.get() == nullptr) return kj::READY_NOW;
  auto request = connection_->pool.resizeRequest();
  request.setJob(id_);
  request.setGpus(uint32_t(chance_.between(min_gpus_, gpus_)));
  auto asked = request.send().ignoreResult().catch_([](kj::Exception&&) {});
  return io_->timer().timeoutAfter(kReportPatience, kj::mv(asked)).catch_([](kj::Exception&&) {});
}

// Who suspends it now and then, and resumes it. What is not acknowledged may have been done all the same.
kj::Promise<void> SimJob::be_somebody() {
  return pause(somebody_.between(50, 4000)).then([this]() -> kj::Promise<void> {
    if (pool_.world().healed() || !somebody_.one_in(3)) return be_somebody();
    return ask_to_suspend()
        .then([this] { return pause(somebody_.between(1, 5000)); })
        .then([this] { return ask_to_resume(); })
        .then([this] { return be_somebody(); });
  });
}

kj::Promise<void> SimJob::ask_to_suspend() {
  if (connection_.get() == nullptr) return kj::READY_NOW;
  auto request = connection_->pool.suspendRequest();
  request.setJob(id_);
  pool_.told(id_, SimPool::Told::kNothing);
  return request.send().then(
      [this](auto&&) {
        ++pool_.totals()->suspended;
        pool_.world().note("suspended", number_);
        pool_.told(id_, SimPool::Told::kSuspended);
      },
      [](kj::Exception&&) {});
}

kj::Promise<void> SimJob::ask_to_resume() {
  const auto again = [this] { return pause(kAgainMs).then([this] { return ask_to_resume(); }); };
  if (connection_.get() == nullptr) return again();
  auto request = connection_->pool.resumeRequest();
  request.setJob(id_);
  pool_.told(id_, SimPool::Told::kNothing);
  return request.send().then(
      [this](auto&& answer) -> kj::Promise<void> {
        ++pool_.totals()->resumed;
        pool_.world().note("resumed", number_, answer.getQueued().size() != 0 ? 1 : 0);
        pool_.told(id_, SimPool::Told::kResumed);
        return kj::READY_NOW;
      },
      [again](kj::Exception&&) { return again(); });
}

kj::Promise<void> SimJob::report(int32_t status) {
  ended_by_itself_ = status == 0;
  KJ_IF_MAYBE (handle, handle_) {
    auto request = handle->endedRequest();
    request.setExitStatus(status);
    return io_->timer().timeoutAfter(kReportPatience, request.send().ignoreResult()).catch_([](kj::Exception&&) {});
  }
  return kj::READY_NOW;
}

}  // namespace tide::simulation
