// How long the scheduler takes to decide, in a large pool: one line of JSON for each figure, for tools/bench
// --scheduler.
//   tide-bench-scheduler [--quick | --only NAME]

#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "base/log.h"
#include "scheduler/planner.h"
#include "scheduler/queues.h"
#include "scheduler/store.h"
#include "tools/bench_scheduler/rounds.h"

namespace tide::sched {
namespace {

constexpr uint32_t kServerGpus = 8;
constexpr size_t kLostMax = 8;  // GPUs at once

struct Size {
  uint32_t servers = 1280, jobs = 100'000, events = 20'000, plans = 5, placements = 4'000;
};

class Dice {
 public:
  uint32_t roll(uint32_t sides) {
    state_ = state_ * 6364136223846793005ull + 1442695040888963407ull;
    return uint32_t(state_ >> 33) % sides;
  }

 private:
  uint64_t state_ = 42;
};

double ms_since(uint64_t began_ns) { return double(now_ns() - began_ns) / 1e6; }

// That this process has had. Others may be on this machine, and the policy waits for nothing.
double processor_ms() {
  struct rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  const auto ms = [](const timeval& time) { return double(time.tv_sec) * 1000 + double(time.tv_usec) / 1000; };
  return ms(usage.ru_utime) + ms(usage.ru_stime);
}

// The same, to a part of a microsecond.
double processor_us() { return double(thread_cpu_ns()) / 1000; }

void print(const std::string& name, double value, const char* unit, double budget, uint32_t runs = 1) {
  const std::string limit = budget > 0 ? format("%g, \"met\": %s", budget, value <= budget ? "true" : "false")
                                       : std::string("null, \"met\": null");
  printf("{\"name\": \"%s\", \"value\": %.6g, \"unit\": \"%s\", \"budget\": %s, \"runs\": %u}\n", name.c_str(), value,
         unit, limit.c_str(), runs);
  fflush(stdout);
}

State make_pool(uint32_t servers, const QueueTree& queues = {}) {
  State state;
  state.queues = queues;
  state.used.resize(queues.queues.size());
  for (uint32_t i = 0; i < servers * kServerGpus; ++i) {
    const GpuId id{format("gpu%05u", i / kServerGpus), i % kServerGpus};
    state.gpus.push_back({.id = id, .memory_bytes = 80ull << 30});
  }
  return state;
}

// Of the sizes that clusters see: most ask for one GPU, some for a part of one, few for many; half can shrink.
JobView make_job(uint32_t number, Dice* dice) {
  JobView job{.id = std::to_string(number), .places = {}};
  const uint32_t kind = dice->roll(100);
  if (kind < 30) job.part = 100 * (1 + dice->roll(9));
  if (kind >= 70) job.vgpus = 2u << dice->roll(kind < 95 ? 3 : 5);
  job.min_gpus = dice->roll(2) == 0 ? job.vgpus : std::max(1u, job.vgpus / 4);
  return job;
}

JobView make_small_job(uint32_t number, Dice*) { return {.id = std::to_string(number), .part = 100, .places = {}}; }

using Make = JobView (*)(uint32_t number, Dice* dice);

// 20 queues that take jobs, of five departments: together quotas of seven tenths of the pool, some with a limit, some
// without preemption, of several weights and priorities.
std::vector<QueueConfig> make_queues(uint32_t gpus) {
  constexpr uint32_t kDepartments = 5, kTeams = 4;
  const double each = 0.7 * gpus / kDepartments;
  std::vector<QueueConfig> queues;
  for (uint32_t d = 0; d < kDepartments; ++d) {
    const std::string department = format("department%u", d);
    queues.push_back({.name = department, .quota = each, .over_quota_weight = 1.0 + d % 2});
    if (d == 0) queues.back().limit = 1.5 * each;
    for (uint32_t t = 0; t < kTeams; ++t) {
      const double quota = std::floor(each * (t + 1) / 10);
      queues.push_back({.name = format("team%u-%u", d, t),
                        .parent = department,
                        .quota = quota,
                        .over_quota_weight = 1.0 + t,
                        .priority = int32_t(d == 4 && t == 0),
                        .preemptible = t != 1 || d > 2});
      if (t == 2) queues.back().limit = 1.2 * quota;
    }
  }
  return queues;
}

// Some teams ask for much more than others.
int32_t roll_queue(const QueueTree& tree, Dice* dice) {
  for (;;) {
    const uint32_t at = std::min(dice->roll(uint32_t(tree.queues.size())), dice->roll(uint32_t(tree.queues.size())));
    if (tree.queues[at].leaf()) return int32_t(at);
  }
}

// A pool that is asked again after each thing that happens.
class Load {
 public:
  Load(const Size& size, Make make, const QueueTree& queues = {})
      : size_(size), make_(make), pool_(make_pool(size.servers, queues)), planner_(pool_) {
    for (uint32_t i = 0; i < size.jobs; ++i) planner_.put(next_job());
    const uint64_t began = now_ns();
    std::vector<Planner::Change> changes = planner_.decide();
    first_ms_ = ms_since(began);
    follow(std::move(changes));
  }

  // A whole plan, from nothing but what is.
  void plan_all() {
    for (uint32_t i = 0; i < size_.plans; ++i) {
      const uint64_t began = now_ns();
      const double busy_ms = processor_ms();
      planner_.begin_anew();
      std::vector<Planner::Change> changes = planner_.decide();
      whole_busy_ms_ = std::min(whole_busy_ms_, processor_ms() - busy_ms);
      whole_ms_ = std::min(whole_ms_, ms_since(began));
      follow(std::move(changes));
    }
  }

  // Arrivals, ends, a GPU that is lost and comes back, what somebody resizes.
  void live() {
    for (uint32_t i = 0; i < size_.events; ++i) {
      const uint32_t what = dice_.roll(100);
      const double busy_us = processor_us();
      const uint64_t began = now_ns();
      if (what < 45 || running_.empty()) {
        planner_.put(next_job());
      } else if (what < 90) {
        const size_t at = dice_.roll(uint32_t(running_.size()));
        planner_.remove(running_[at]);
        stop(running_[at]);
      } else if (what < 95) {
        const bool lost = lost_.size() < kLostMax && dice_.roll(2) == 0;
        GpuView& gpu = lost || lost_.empty() ? pool_.gpus[dice_.roll(uint32_t(pool_.gpus.size()))] : *lost_.back();
        if (!gpu.healthy) std::erase(lost_, &gpu);
        gpu.healthy = !gpu.healthy;
        if (!gpu.healthy) lost_.push_back(&gpu);
        planner_.put_gpu(gpu);
      } else {
        JobView job = *planner_.view(running_[dice_.roll(uint32_t(running_.size()))]);
        job.target = 1 + dice_.roll(job.vgpus);
        planner_.put(job);
      }
      std::vector<Planner::Change> changes = planner_.decide();
      planner_.count_passed(changes);
      took_us_.push_back(ms_since(began) * 1000);
      busy_us_.push_back(processor_us() - busy_us);
      follow(std::move(changes));
    }
    std::sort(took_us_.begin(), took_us_.end());
    std::sort(busy_us_.begin(), busy_us_.end());
  }

  void report(const std::string& name) {
    plan_all();
    took_us_.clear();
    busy_us_.clear();
    taken_ = 0;
    live();
    const uint32_t runs = uint32_t(took_us_.size());
    const size_t p99 = size_t(0.99 * (runs - 1));
    const auto at = [&](double part) { return took_us_[size_t(part * double(runs - 1))]; };
    print(name + ": a decision, p50", at(0.5), "us", 0, runs);
    print(name + ": a decision, p99", at(0.99), "us", 100, runs);
    print(name + ": a decision, p99 of the processor's time", busy_us_[p99], "us", 0, runs);
    print(name + ": a decision, the longest", at(1), "us", 0, runs);
    print(name + ": a whole plan, of the processor's time", whole_busy_ms_, "ms", 50, size_.plans);
    print(name + ": a whole plan, as the clock has it", whole_ms_, "ms", 0, size_.plans);
    print(name + ": the first plan, all placed", first_ms_, "ms", 0);
    print(name + ": jobs that run", double(running_.size()), "jobs", 0);
    print(name + ": jobs", double(planner_.jobs()), "jobs", 0);
    if (!pool_.queues.empty()) print(name + ": jobs suspended for others", double(taken_), "jobs", 0);
  }

 private:
  JobView next_job() {
    JobView job = make_(next_++, &dice_);
    if (!pool_.queues.empty()) put_into_queue(pool_.queues, roll_queue(pool_.queues, &dice_), &job);
    return job;
  }

  // What follows: whose GPUs are taken for others is suspended, and asked of again when it is parked.
  void follow(std::vector<Planner::Change> changes) {
    while (note(changes)) {
      const double busy_us = processor_us();
      const uint64_t began = now_ns();
      for (const Planner::Change& change : changes) {
        if (change.decision.running) continue;
        JobView job = *planner_.view(change.id);
        job.running = job.suspended = false;
        for (GpuId& place : job.places) place.index = kParked;
        planner_.put(job);
      }
      changes = planner_.decide();
      planner_.count_passed(changes);
      took_us_.push_back(ms_since(began) * 1000);
      busy_us_.push_back(processor_us() - busy_us);
    }
  }

  // Whether some are suspended.
  bool note(const std::vector<Planner::Change>& changes) {
    bool taken = false;
    for (const Planner::Change& change : changes) {
      if (!change.decision.running) {
        stop(change.id);
        taken = true;
        ++taken_;
      } else if (at_.emplace(change.id, running_.size()).second) {
        running_.push_back(change.id);
      }
    }
    return taken;
  }

  void stop(std::string id) {
    const size_t at = at_.at(id);
    at_[running_.back()] = at;
    running_[at] = running_.back();
    running_.pop_back();
    at_.erase(id);
  }

  const Size size_;
  const Make make_;
  Dice dice_;
  State pool_;
  Planner planner_;
  uint32_t next_ = 0;
  std::vector<std::string> running_;
  std::unordered_map<std::string, size_t> at_;  // in running_
  uint32_t taken_ = 0;
  std::vector<double> took_us_, busy_us_;  // by the clock; of the processor's time
  std::vector<GpuView*> lost_;
  double first_ms_ = 0, whole_ms_ = 1e9, whole_busy_ms_ = 1e9;
};

// Of the running scheduler, with its ledger, its record and its agents.
bool run_rounds(const Size& size, const std::string& name, Make make, const std::vector<QueueConfig>& queues = {}) {
  const RoundsSize rounds{.servers = size.servers, .jobs = size.jobs, .events = size.events / 10, .queues = queues};
  const QueueTree tree = make_tree(queues);
  Dice dice;
  uint32_t next = 0;
  RoundTimes times;
  const bool done = measure_rounds(
      rounds,
      [&] {
        JobView job = make(next++, &dice);
        if (!queues.empty()) job.queue = roll_queue(tree, &dice);
        return job;
      },
      [&](uint32_t sides) { return dice.roll(sides); }, &times);
  if (!done) return false;
  const auto at = [&](double part) { return times.rounds_us[size_t(part * double(times.rounds_us.size() - 1))]; };
  const uint32_t runs = uint32_t(times.rounds_us.size());
  print(name + ": a round of the scheduler, p50", at(0.5), "us", 0, runs);
  print(name + ": a round of the scheduler, p99", at(0.99), "us", 100, runs);
  const double busy_us = times.busy_us[size_t(0.99 * double(times.busy_us.size() - 1))];
  print(name + ": a round of the scheduler, p99 of the processor's time", busy_us, "us", 0, runs);
  print(name + ": a round of the scheduler, the longest", at(1), "us", 0, runs);
  print(name + ": until all that can had started", times.first_ms, "ms", 0);
  print(name + ": jobs that run then", double(times.running), "jobs", 0);
  return true;
}

// Jobs that arrive together: decided, and written down as the scheduler does before it tells an agent.
int place_durably(const Size& size) {
  char path[] = "/tmp/tide-bench-scheduler-XXXXXX";
  if (mkdtemp(path) == nullptr) return 1;
  std::unique_ptr<Store> store;
  Outcome outcome = Store::open(path, &store);
  std::vector<JobRecord> records(size.placements);
  Planner planner(make_pool(size.servers));
  double add_s = 0, place_s = 0;
  for (uint32_t i = 0; i < size.placements && outcome.ok(); ++i) {
    records[i].token = "token";
    records[i].command = "train";
    const uint64_t began = now_ns();
    outcome = store->add(&records[i]);
    add_s += ms_since(began) / 1000;
    JobView job{.id = std::to_string(i), .places = {}};
    planner.put(job);
  }
  const uint64_t began = now_ns();
  std::vector<const JobRecord*> placed;
  for (const Planner::Change& change : planner.decide()) {
    JobRecord& record = records[strtoul(change.id.c_str(), nullptr, 10)];
    record.phase = Phase::kRunning;
    record.vgpus = {{.at = change.decision.places.at(0), .epoch = 1, .device_info = ""}};
    placed.push_back(&record);
  }
  if (outcome.ok()) outcome = store->update(placed);
  place_s = ms_since(began) / 1000;
  std::filesystem::remove_all(path);
  if (!outcome.ok()) fprintf(stderr, "%s\n", outcome.message().c_str());
  if (!outcome.ok() || placed.size() != size.placements) return 1;
  print(format("%u durable placements, SQLite", size.placements), place_s, "s", 10);
  print(format("%u durable submissions before, one by one", size.placements), add_s, "s", 0);
  return 0;
}

double memory_mib() {
  struct rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  return double(usage.ru_maxrss) / 1024;
}

int run(const Size& size, const std::string& only) {
  const std::vector<QueueConfig> configs = make_queues(size.servers * kServerGpus);
  const QueueTree queues = make_tree(configs);
  const auto decide = [&](const std::string& name, Make make, const QueueTree& tree) {
    if (only.empty() || only == name) Load(size, make, tree).report(name);
  };
  decide("jobs that wait", make_job, {});
  decide("jobs that share", make_small_job, {});
  decide("20 queues, jobs that wait", make_job, queues);
  decide("20 queues, jobs that share", make_small_job, queues);
  print("memory", memory_mib(), "MiB", 1024);
  set_default_log_level(LogLevel::kWarning);
  const auto live = [&](const std::string& name, Make make, const std::vector<QueueConfig>& with) {
    return (!only.empty() && only != "rounds: " + name) || run_rounds(size, name, make, with);
  };
  if (!live("jobs that wait", make_job, {}) || !live("jobs that share", make_small_job, {})) return 1;
  if (!only.empty()) return live("20 queues, jobs that wait", make_job, configs) ? 0 : 1;  // minutes
  print("memory, with a scheduler", memory_mib(), "MiB", 1024);
  return place_durably(size);
}

}  // namespace
}  // namespace tide::sched

int main(int argc, char** argv) {
  const bool quick = argc > 1 && strcmp(argv[1], "--quick") == 0;
  const std::string only = argc > 2 && strcmp(argv[1], "--only") == 0 ? argv[2] : "";
  tide::sched::Size size;
  if (quick) size = {.servers = 64, .jobs = 2'000, .events = 500, .plans = 2, .placements = 100};
  return tide::sched::run(size, only);
}
