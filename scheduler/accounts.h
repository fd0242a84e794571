#pragma once

// What jobs hold of GPUs and how long, and what happens to them, as events for the history. A job holds the GPUs on
// which its vGPUs are: of each its part, however many of its vGPUs share it; one that waits or is suspended holds none.
// Durations are of the monotonic clock; the wall clock only says when they were. Until when a job has been counted is
// in its record, written with the events that say so: whoever takes over goes on from there, and counts nothing twice.
// No I/O; time is given in.

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "scheduler/event.h"
#include "scheduler/ledger.h"
#include "scheduler/move_totals.h"

namespace tide::sched {

// A moment, on the clocks of this machine.
struct Moment {
  uint64_t clock_ns = 0;  // now_ns()
  uint64_t wall_ms = 0;   // since 1970
  uint64_t boot = 1;      // this boot of this machine
};

inline constexpr uint64_t kCountMs = 60'000;           // what a job holds is written down at least so often
inline constexpr uint64_t kCountLeastMs = 1'000;       // with a record that is written anyway: not more often than this
inline constexpr uint64_t kTakeOverMsMax = 3'600'000;  // that is believed of clocks of two machines
inline constexpr uint64_t kKeepEndedMs = 60'000;       // an ended job's agents may still say what it used

// What an agent counts of a vGPU (VgpuUsage in control.capnp).
struct UsageSeen {
  std::string job;
  uint32_t vgpu = 0;
  uint64_t epoch = 0;
  double used_ms = 0;
};

class Accounts {
 public:
  // `note` takes what has happened.
  explicit Accounts(std::function<void(Event)> note) : note_(std::move(note)) {}

  // A job of the record, before anything else is asked about it.
  void take_over(const Job& job, const Moment& now);
  // Time has come to `now`: counts what everybody has held since, and notes what has changed.
  void count(const Ledger& ledger, const Moment& now);
  // Before the record of the job is written: notes what it has held, and writes into it that this is counted.
  void close(const Ledger& ledger, Job* job, const Moment& now);
  // Whether it was not closed for kCountMs.
  bool due(const Job& job, uint64_t now_ns) const;
  void note_move(const Job& job, uint32_t vgpu, const GpuId& from, const MoveTotals& totals, const Moment& now);
  void note_recovery(const Job& job, uint32_t vgpu, const Moment& now);
  void heard(const std::vector<UsageSeen>& usage);
  // What is counted and not noted yet, as it would be noted.
  std::vector<Event> open(const Moment& now) const;

 private:
  struct Slot {        // of a vGPU
    GpuId at;          // that it holds; none: nothing
    double share = 0;  // of that GPU
    std::string model;
    uint64_t epoch = 0;
    double seen_ms = 0;               // the agent's counter for that epoch
    double held_ms = 0, used_ms = 0;  // not noted yet
  };
  struct Former {  // a place that a vGPU had; its agent may still say what it used there
    uint32_t vgpu = 0;
    Slot slot;
    uint64_t left_ns = 0;
  };
  struct Account {
    JobRecord who;  // queue, user and name
    std::vector<Slot> slots;
    std::vector<Former> former;
    uint64_t counted_ns = 0, closed_ns = 0;
    uint32_t gpus = 0;
    uint64_t before_ms = 0;  // of what is not noted yet, so much was before this scheduler
    bool started = false, parked = false, ended = false;
    bool unsettled = false;  // places have changed
    bool noted = false;      // some of what it held was, and its record does not say so yet
  };

  Account& account_of(const Job& job, const Moment& now);
  static void advance(Account* account, uint64_t now_ns);
  void look(const Ledger& ledger, const Job& job, Account* account, const Moment& now);
  void look_at_places(const Ledger& ledger, const Job& job, Account* account, const Moment& now);
  static bool is_as_before(const Job& job, const Account& account);
  void note_held(Account* account, uint32_t vgpu, Slot* slot, const Moment& now);
  void note_all(Account* account, const Moment& now);
  void count_capacity(const Ledger& ledger, const Moment& now);
  void forget_ended(const Ledger& ledger, const Moment& now);
  static Event held_event(const Account& account, uint32_t vgpu, const Slot& slot, const Moment& now);
  Event event(EventKind kind, const Job& job, const Moment& now) const;

  std::function<void(Event)> note_;
  std::map<uint64_t, Account> accounts_;       // by job
  std::map<std::string, double> capacity_ms_;  // by model
  uint64_t capacity_ns_ = 0, capacity_noted_ns_ = 0;
};

// So that two moments on one clock are told from those of two.
uint64_t this_boot();

}  // namespace tide::sched
