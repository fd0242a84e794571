// Sessions under the swarm, then without it: all must come to an end, and nothing may be left.

#include <memory>
#include <vector>

#include "tests/simulation/scenario.h"
#include "tests/simulation/session.h"

namespace tide::simulation {
namespace {

constexpr size_t kSlots = 2;
constexpr uint64_t kSessionsLeast = 3;
constexpr uint64_t kStepsMost = 400'000;
constexpr uint64_t kHealedMost = 120 * kS;  // more than all time-outs together

class Sessions {
 public:
  Sessions(World& world, Totals* totals) : world_(world), totals_(totals), chance_(world.fork()), slots_(kSlots) {}

  void run() {
    world_.after(20 * kMs, [this] { strike(); });
    uint64_t steps = 0;
    for (; steps < kStepsMost && (world_.faults() < kFaultsLeast || begun_ < kSessionsLeast); ++steps) {
      fill();
      world_.step(~uint64_t{0});
      if (!world_.violations().empty()) return;
    }
    world_.heal();
    const uint64_t end = world_.now() + kHealedMost;
    while (!all_over() && world_.violations().empty() && world_.step(end)) {
    }
    close();
  }

 private:
  void fill() {
    for (auto& slot : slots_) {
      if (slot != nullptr && !(slot->over() && slot->nothing_left())) continue;
      if (slot != nullptr) count(*slot);
      const uint32_t hold_ms = uint32_t(chance_.between(5'000, 20'000));
      slot = std::make_shared<SimSession>(world_, ++begun_, uint32_t(chance_.between(40, 400)), hold_ms);
      slot->start();
    }
  }
  bool all_over() const {
    for (const auto& slot : slots_) {
      if (slot != nullptr && !(slot->over() && slot->nothing_left())) return false;
    }
    return true;
  }
  void count(const SimSession& session) {
    ++totals_->sessions;
    totals_->commands += session.commands();
    if (session.state() == SimSession::State::kFailed) ++totals_->failed_sessions;
  }
  void close() {
    for (const auto& slot : slots_) {
      if (slot == nullptr || !world_.violations().empty()) continue;
      const auto number = static_cast<unsigned long long>(slot->number());
      if (!slot->over()) {
        world_.violate("wait", "session %llu still waits %llu s after the faults", number,
                       static_cast<unsigned long long>(kHealedMost / kS));
      } else if (!slot->nothing_left()) {
        world_.violate("left", "session %llu is over, and its worker still there", number);
      }
      count(*slot);
    }
  }

  // What happens to machines and processes; to parcels it happens on their way (wire.cc).
  void strike() {
    SimSession& session = *slots_[chance_.below(kSlots)];
    if (!session.over()) strike(session);
    if (!world_.healed()) world_.after(chance_.between(5 * kMs, 60 * kMs), [this] { strike(); });
  }
  uint64_t how_long() { return chance_.one_in(12) ? chance_.between(kS, 30 * kS) : chance_.between(kMs, 800 * kMs); }
  void strike(SimSession& session) {
    if (world_.strikes(Fault::kPartition, 8)) session.cut(how_long());
    if (world_.strikes(Fault::kPause, 8)) {
      if (chance_.one_in(2)) {
        session.pause_client(how_long());
      } else {
        session.pause_worker(how_long());
      }
    }
    if (world_.strikes(Fault::kKillWorker, 300)) session.kill_worker();
    if (world_.strikes(Fault::kKillClient, 300)) session.kill_client();
  }

  World& world_;
  Totals* totals_;
  Chance chance_;
  std::vector<std::shared_ptr<SimSession>> slots_;
  uint64_t begun_ = 0;
};

}  // namespace

void run_sessions(World& world, Totals* totals) { Sessions(world, totals).run(); }

}  // namespace tide::simulation
