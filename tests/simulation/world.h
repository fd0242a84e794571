#pragma once

// One simulated world: its clock, its chance, what is to happen next, the swarm of faults, and what was seen. All of it
// follows from one seed. One thread; there is one world at a time, and base/clock.h reads its time (world.cc stands in
// for base/clock.cc when the program is linked).

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace tide::simulation {

inline constexpr uint64_t kUs = 1'000, kMs = 1'000'000, kS = 1'000'000'000;

// A small generator; the same numbers on every machine.
class Chance {
 public:
  explicit Chance(uint64_t seed) : state_(seed) {}
  uint64_t next();
  uint64_t below(uint64_t n) { return n == 0 ? 0 : next() % n; }
  uint64_t between(uint64_t least, uint64_t most) { return least + below(most - least + 1); }
  bool one_in(uint64_t n) { return below(n) == 0; }

 private:
  uint64_t state_;
};

enum class Fault : uint8_t {
  kDelay,
  kDrop,
  kDuplicate,
  kReorder,
  kReset,
  kPartition,
  kPause,
  kSlowGpu,
  kKillWorker,
  kKillClient,
  kKillAgent,
  kKillScheduler,
  kDiskCrash,
  kDiskFull,
  kDrift,
  kNoRoom,
};
inline constexpr size_t kFaults = size_t(Fault::kNoRoom) + 1;
const char* name_of(Fault fault);

struct Violation {
  std::string checker;  // a word, by which tests know it
  std::string text;
};

// A process: a clock of its own that may drift, and time in which it does not run.
struct Process {
  std::string name;
  uint64_t offset_ns = 0;
  int32_t drift_ppm = 0;
  uint64_t paused_until = 0;
  bool alive = true;
};

class World {
 public:
  World(uint64_t seed, bool verbose);
  ~World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;
  static World& now_running();
  static bool exists();

  uint64_t now() const { return now_; }
  Chance& chance() { return chance_; }
  // What the kernel gives who asks for random bytes.
  uint64_t secret() { return secrets_.next(); }
  // Another generator that follows from the seed, so that what one part draws does not change another's numbers.
  Chance fork() { return Chance(chance_.next()); }

  // What is due at the same time happens in the order in which it was asked for. Of a process: not while it is paused,
  // and not at all when it has ended. `after` counts in its own clock.
  void at(uint64_t when, std::function<void()> what) { push(when, nullptr, std::move(what)); }
  void after(uint64_t ns, std::function<void()> what) { at(now_ + ns, std::move(what)); }
  void after(std::shared_ptr<Process> process, uint64_t ns, std::function<void()> what);
  // The next thing happens; false: there is none, or none before `until` (then it is `until`).
  bool step(uint64_t until);
  // Nothing of what was due happens any more; that may make something due.
  void forget_events();
  // What must be done behind every step (an event loop that has work).
  void behind_every_step(std::function<void()> what) { behind_ = std::move(what); }

  std::shared_ptr<Process> start_process(const std::string& name);
  void pause(Process& process, uint64_t ns);
  // As the process whose code runs now sees it; of the world where none does.
  uint64_t local_now() const;
  uint64_t local_now(const Process& process) const;
  // Its code runs until the guard falls.
  class As {
   public:
    As(World& world, const Process* process) : world_(world), before_(world.running_) { world.running_ = process; }
    ~As() { world_.running_ = before_; }
    As(const As&) = delete;
    As& operator=(const As&) = delete;

   private:
    World& world_;
    const Process* before_;
  };

  // Whether this seed has that fault, nobody has healed the world, and chance wants it: one in `n`. Counted.
  bool strikes(Fault fault, uint64_t n);
  bool has(Fault fault) const { return enabled_[size_t(fault)] && !healed_; }
  void count(Fault fault) { ++counts_[size_t(fault)]; }
  void enable(Fault fault, bool enabled) { enabled_[size_t(fault)] = enabled; }
  void heal();
  bool healed() const { return healed_; }
  uint64_t faults() const;
  const std::array<uint64_t, kFaults>& counts() const { return counts_; }

  // A step of the trace: in the hash always, in words when verbose. `what` is a literal.
  void note(const char* what, uint64_t a = 0, uint64_t b = 0, uint64_t c = 0);
  uint64_t hash() const { return hash_; }
  uint64_t events() const { return events_; }

  void violate(const char* checker, const char* format, ...) __attribute__((format(printf, 3, 4)));
  const std::vector<Violation>& violations() const { return violations_; }

 private:
  struct Event {
    uint64_t when = 0, number = 0;
    std::shared_ptr<Process> process;
    std::function<void()> what;
  };
  void push(uint64_t when, std::shared_ptr<Process> process, std::function<void()> what);

  const bool verbose_;
  Chance chance_;
  Chance secrets_;
  uint64_t now_ = kS;  // not 0, which means "never" in places
  uint64_t numbers_ = 0;
  std::vector<Event> events_due_;  // a heap
  std::function<void()> behind_;
  const Process* running_ = nullptr;
  std::array<bool, kFaults> enabled_ = {};
  std::array<uint64_t, kFaults> counts_ = {};
  bool healed_ = false;
  uint64_t hash_ = 0xcbf29ce484222325, events_ = 0;
  std::vector<Violation> violations_;
};

}  // namespace tide::simulation
