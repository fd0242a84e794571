#include "tools/bench_scheduler/rounds.h"

#include <kj/async-io.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "base/clock.h"
#include "base/log.h"
#include "scheduler/kv_memory.h"
#include "scheduler/reconciler.h"

namespace tide::sched {
namespace {

constexpr uint32_t kServerGpus = 8;
constexpr uint32_t kAtOnce = 500;     // arrivals before the pool is measured
constexpr uint32_t kVgpusMost = 64;   // of a job
constexpr uint32_t kRestEvents = 10;  // after so many events who is held comes to rest
constexpr uint32_t kWaitsMost = 20;   // of 10 ms, for that
constexpr uint64_t kHeartbeatNs = 1'000'000'000;

std::string name_of(uint32_t server) { return format("gpu%05u", server); }

// Does at once, and without a worker, what it is asked to. `*holds`: set when it holds a job's programs.
class IdleAgent final : public control::Agent::Server {
 public:
  explicit IdleAgent(bool* holds) : holds_(holds) {}

 protected:
  kj::Promise<void> place(PlaceContext) override { return kj::READY_NOW; }
  kj::Promise<void> release(ReleaseContext) override { return kj::READY_NOW; }
  kj::Promise<void> prepare(PrepareContext) override { return kj::READY_NOW; }
  kj::Promise<void> move(MoveContext) override { return kj::READY_NOW; }
  kj::Promise<void> cancel(CancelContext) override { return kj::READY_NOW; }
  kj::Promise<void> hold(HoldContext context) override {
    *holds_ |= context.getParams().getOn();
    return kj::READY_NOW;
  }
  // Nothing is under way in any vGPU.
  kj::Promise<void> stats(StatsContext context) override {
    auto vgpus = context.getResults().initVgpus(kVgpusMost);
    for (uint32_t v = 0; v < kVgpusMost; ++v) {
      vgpus[v].setVgpu(v);
      vgpus[v].setQuiet(true);
    }
    return kj::READY_NOW;
  }

 private:
  bool* const holds_;
};

double processor_us() { return double(thread_cpu_ns()) / 1000; }

// The scheduler's own reconciler with all that belongs to it, but for sockets and disks.
class Pool {
 public:
  explicit Pool(const RoundsSize& size)
      : size_(size), store_(std::make_unique<MemoryKv>()), reconciler_(ledger_, store_, io_.provider->getTimer()) {
    if (!size.queues.empty()) ledger_.queues.configure(size.queues, {});
    for (uint32_t i = 0; i < size.servers; ++i) {
      sched::Server server;
      server.name = name_of(i);
      server.gpus.resize(kServerGpus);
      for (uint32_t g = 0; g < kServerGpus; ++g) {
        server.gpus[g].index = g;
        server.gpus[g].memory_bytes = 80ull << 30;
      }
      generations_.emplace_back();
      (void)reconciler_.register_agent(std::move(server), {}, kj::heap<IdleAgent>(&holds_), &generations_.back());
    }
    reconciler_.watch_rounds([this](bool begins) { note_round(begins); });
  }
  ~Pool() { reconciler_.stop(); }

  bool arrive(const JobView& view) {
    Job job;
    job.record.gpus = view.vgpus;
    job.record.min_gpus = view.min_gpus;
    job.record.part = view.part;
    if (!size_.queues.empty()) job.record.queue = ledger_.queues.tree.queues[size_t(view.queue)].name;
    job.attached = true;
    job.vgpus.resize(view.vgpus);
    if (!store_.add(&job.record).ok()) return false;
    ledger_.jobs[job.record.number] = job;
    reconciler_.poke();
    return true;
  }
  void end(uint64_t number) { reconciler_.end_job(ledger_.by_id(std::to_string(number)), "finished", 0); }

  // Until nothing is left to do. Ticks come when their time has come, as in a scheduler that lives.
  void settle() {
    if (now_ns() > heard_ns_ + kHeartbeatNs) {
      for (uint32_t i = 0; i < generations_.size(); ++i) (void)reconciler_.heartbeat(name_of(i), generations_[i]);
      heard_ns_ = now_ns();
    }
    io_.waitScope.poll();
  }
  // And until nobody is being suspended: that takes time by itself, and others may follow.
  void rest() {
    settle();
    for (uint32_t waits = 0; holds_ && waits < kWaitsMost; ++waits) {
      holds_ = is_suspending();
      io_.provider->getTimer().afterDelay(10 * kj::MILLISECONDS).wait(io_.waitScope);
      settle();
    }
  }
  std::vector<uint64_t> running() const {
    std::vector<uint64_t> numbers;
    for (const auto& [number, job] : ledger_.jobs) {
      if (job.started && !job.ended()) numbers.push_back(number);
    }
    return numbers;
  }
  std::vector<double> take_times() { return std::exchange(took_us_, {}); }
  std::vector<double> take_busy_times() { return std::exchange(busy_us_, {}); }

 private:
  void note_round(bool begins) {
    if (begins) {
      busy_began_us_ = processor_us();
      began_ns_ = now_ns();
      return;
    }
    took_us_.push_back(double(now_ns() - began_ns_) / 1000);
    busy_us_.push_back(processor_us() - busy_began_us_);
  }
  bool is_suspending() const {
    return std::any_of(ledger_.jobs.read().begin(), ledger_.jobs.read().end(),
                       [](const auto& each) { return !each.second.ended() && each.second.being_suspended(); });
  }

  const RoundsSize size_;
  bool holds_ = false;
  kj::AsyncIoContext io_ = kj::setupAsyncIo();
  Ledger ledger_;
  Store store_;
  Reconciler reconciler_;
  std::vector<uint64_t> generations_;  // by server
  uint64_t heard_ns_ = 0;
  uint64_t began_ns_ = 0;  // the round
  double busy_began_us_ = 0;
  std::vector<double> took_us_, busy_us_;
};

}  // namespace

bool measure_rounds(const RoundsSize& size, const std::function<JobView()>& next_job,
                    const std::function<uint32_t(uint32_t)>& roll, RoundTimes* times) {
  Pool pool(size);
  const uint64_t began = now_ns();
  for (uint32_t i = 0; i < size.jobs; ++i) {
    if (!pool.arrive(next_job())) return false;
    if (i % kAtOnce == kAtOnce - 1) pool.settle();
  }
  pool.rest();
  times->first_ms = double(now_ns() - began) / 1e6;
  std::vector<uint64_t> running = pool.running();
  times->running = running.size();
  (void)pool.take_times();
  (void)pool.take_busy_times();
  for (uint32_t i = 0; i < size.events; ++i) {
    const bool arrives = roll(2) == 0 || running.empty();
    if (arrives) {
      if (!pool.arrive(next_job())) return false;
    } else {
      std::swap(running[roll(uint32_t(running.size()))], running.back());
      pool.end(running.back());
      running.pop_back();
    }
    i % kRestEvents == 0 ? pool.rest() : pool.settle();
  }
  times->rounds_us = pool.take_times();
  times->busy_us = pool.take_busy_times();
  std::sort(times->rounds_us.begin(), times->rounds_us.end());
  std::sort(times->busy_us.begin(), times->busy_us.end());
  return !times->rounds_us.empty();
}

}  // namespace tide::sched
