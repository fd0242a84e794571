#include "tools/bench_scheduler/rounds.h"

#include <kj/async-io.h>

#include <algorithm>
#include <memory>

#include "base/clock.h"
#include "base/log.h"
#include "scheduler/kv_memory.h"
#include "scheduler/reconciler.h"

namespace tide::sched {
namespace {

constexpr uint32_t kServerGpus = 8;
constexpr uint32_t kAtOnce = 500;  // arrivals before the pool is measured
constexpr uint64_t kHeartbeatNs = 1'000'000'000;

std::string name_of(uint32_t server) { return format("gpu%05u", server); }

// Does at once, and without a worker, what it is asked to.
class IdleAgent final : public control::Agent::Server {
 protected:
  kj::Promise<void> place(PlaceContext) override { return kj::READY_NOW; }
  kj::Promise<void> release(ReleaseContext) override { return kj::READY_NOW; }
  kj::Promise<void> prepare(PrepareContext) override { return kj::READY_NOW; }
  kj::Promise<void> move(MoveContext) override { return kj::READY_NOW; }
  kj::Promise<void> cancel(CancelContext) override { return kj::READY_NOW; }
  kj::Promise<void> hold(HoldContext) override { return kj::READY_NOW; }
};

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
      (void)reconciler_.register_agent(std::move(server), {}, kj::heap<IdleAgent>(), &generations_.back());
    }
    reconciler_.after_each_round([this](uint64_t ns) { took_us_.push_back(double(ns) / 1000); });
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
  std::vector<uint64_t> running() const {
    std::vector<uint64_t> numbers;
    for (const auto& [number, job] : ledger_.jobs) {
      if (job.started && !job.ended()) numbers.push_back(number);
    }
    return numbers;
  }
  std::vector<double> take_times() { return std::exchange(took_us_, {}); }

 private:
  const RoundsSize size_;
  kj::AsyncIoContext io_ = kj::setupAsyncIo();
  Ledger ledger_;
  Store store_;
  Reconciler reconciler_;
  std::vector<uint64_t> generations_;  // by server
  uint64_t heard_ns_ = 0;
  std::vector<double> took_us_;
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
  pool.settle();
  times->first_ms = double(now_ns() - began) / 1e6;
  std::vector<uint64_t> running = pool.running();
  times->running = running.size();
  (void)pool.take_times();
  for (uint32_t i = 0; i < size.events; ++i) {
    const bool arrives = roll(2) == 0 || running.empty();
    if (arrives) {
      if (!pool.arrive(next_job())) return false;
    } else {
      std::swap(running[roll(uint32_t(running.size()))], running.back());
      pool.end(running.back());
      running.pop_back();
    }
    pool.settle();
  }
  times->rounds_us = pool.take_times();
  std::sort(times->rounds_us.begin(), times->rounds_us.end());
  return !times->rounds_us.empty();
}

}  // namespace tide::sched
