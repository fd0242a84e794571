#include "tests/simulation/world.h"

#include <sys/random.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <utility>

#include "base/clock.h"

namespace tide::simulation {
namespace {

World* running_world = nullptr;

constexpr std::array<const char*, kFaults> kNames = {
    "delay",       "drop",        "duplicate",  "reorder",        "reset",      "partition", "pause", "slow-gpu",
    "kill-worker", "kill-client", "kill-agent", "kill-scheduler", "disk-crash", "disk-full", "drift", "no-room",
};

// For a heap with the next event on top.
constexpr auto is_later = [](const auto& a, const auto& b) {
  return a.when != b.when ? a.when > b.when : a.number > b.number;
};

}  // namespace

const char* name_of(Fault fault) { return kNames[size_t(fault)]; }

uint64_t Chance::next() {
  state_ += 0x9e3779b97f4a7c15;
  uint64_t z = state_;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

World::World(uint64_t seed, bool verbose) : verbose_(verbose), chance_(seed), secrets_(~seed) {
  running_world = this;
  // A swarm: about half of the faults, others with every seed. Delays are always among them.
  for (bool& enabled : enabled_) enabled = chance_.one_in(2);
  enable(Fault::kDelay, true);
}

World::~World() {
  forget_events();
  running_world = nullptr;
}

void World::forget_events() {
  while (!events_due_.empty()) {
    const std::vector<Event> forgotten = std::exchange(events_due_, {});
  }
}

World& World::now_running() { return *running_world; }
bool World::exists() { return running_world != nullptr; }

void World::push(uint64_t when, std::shared_ptr<Process> process, std::function<void()> what) {
  events_due_.push_back({std::max(when, now_), numbers_++, std::move(process), std::move(what)});
  std::push_heap(events_due_.begin(), events_due_.end(), is_later);
}

void World::after(std::shared_ptr<Process> process, uint64_t ns, std::function<void()> what) {
  const int64_t off = int64_t(ns) / 1'000'000 * process->drift_ppm;
  const uint64_t when = now_ + uint64_t(int64_t(ns) - off);  // a fast clock is there earlier
  push(when, std::move(process), std::move(what));
}

bool World::step(uint64_t until) {
  if (events_due_.empty() || events_due_.front().when > until) {
    now_ = std::max(now_, until);
    return false;
  }
  std::pop_heap(events_due_.begin(), events_due_.end(), is_later);
  Event event = std::move(events_due_.back());
  events_due_.pop_back();
  now_ = event.when;
  if (event.process != nullptr && !event.process->alive) return true;
  if (event.process != nullptr && event.process->paused_until > now_) {
    // With its number, so that what was asked for earlier still comes first, also where the pause becomes longer.
    event.when = event.process->paused_until;
    events_due_.push_back(std::move(event));
    std::push_heap(events_due_.begin(), events_due_.end(), is_later);
    return true;
  }
  ++events_;
  const As as(*this, event.process.get());
  event.what();
  if (behind_) behind_();
  return true;
}

std::shared_ptr<Process> World::start_process(const std::string& name) {
  auto process = std::make_shared<Process>();
  process->name = name;
  if (has(Fault::kDrift)) {
    process->drift_ppm = int32_t(chance_.below(1001)) - 500;
    process->offset_ns = chance_.below(1000) * kS;
    count(Fault::kDrift);
  }
  return process;
}

void World::pause(Process& process, uint64_t ns) { process.paused_until = std::max(process.paused_until, now_ + ns); }

uint64_t World::local_now(const Process& process) const {
  return process.offset_ns + now_ + uint64_t(int64_t(now_) / 1'000'000 * process.drift_ppm);
}

uint64_t World::local_now() const { return running_ == nullptr ? now_ : local_now(*running_); }

bool World::strikes(Fault fault, uint64_t n) {
  if (!has(fault) || !chance_.one_in(n)) return false;
  count(fault);
  return true;
}

void World::heal() {
  healed_ = true;
  note("healed");
}

uint64_t World::faults() const {
  uint64_t sum = 0;
  for (const uint64_t count : counts_) sum += count;
  return sum;
}

void World::note(const char* what, uint64_t a, uint64_t b, uint64_t c) {
  const auto mix = [this](uint64_t value) { hash_ = (hash_ ^ value) * 0x100000001b3 + (hash_ >> 47); };
  for (const char* at = what; *at != 0; ++at) mix(static_cast<unsigned char>(*at));
  for (const uint64_t value : {now_, a, b, c}) mix(value);
  if (!verbose_) return;
  printf("%12.6f  %-28s %llu %llu %llu\n", double(now_ - kS) / 1e9, what, static_cast<unsigned long long>(a),
         static_cast<unsigned long long>(b), static_cast<unsigned long long>(c));
}

void World::violate(const char* checker, const char* format, ...) {
  if (violations_.size() >= 20) return;
  char text[512];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  if (verbose_) printf("%12.6f  VIOLATION %s: %s\n", double(now_ - kS) / 1e9, checker, text);
  violations_.push_back({checker, text});
}

}  // namespace tide::simulation

// The clock of the product, and its chance: defined here, they are not taken from base/clock.cc and libc.
namespace tide {
uint64_t now_ns() {
  using simulation::World;
  return World::exists() ? World::now_running().local_now() : 0;
}
uint64_t wall_seconds() { return 1'700'000'000 + now_ns() / 1'000'000'000; }
uint64_t boot_ns() { return now_ns(); }
void sleep_us(uint32_t) {}
}  // namespace tide

extern "C" ssize_t getrandom(void* buffer, size_t bytes, unsigned) noexcept {
  using tide::simulation::World;
  for (size_t i = 0; i < bytes; ++i) {
    static_cast<unsigned char*>(buffer)[i] = World::exists() ? uint8_t(World::now_running().secret()) : 0;
  }
  return ssize_t(bytes);
}
