#pragma once

// How the vGPUs on one GPU share its time: of several jobs, each with a part of it, or of one. Their workers have a
// page in common, a file of their agent's for each GPU, with a seat for each vGPU: there they add up for how long they
// had work under way, divided by its share. One vGPU at a time has the turn, and begins commands. It gives the turn
// away when nothing of it is left to do, or when another one that has work is a slice behind it; then who is furthest
// behind takes it.
//
// Who is of the latency class begins at once, whoever has the turn, and others wait until it has come to rest; but only
// until it is kCreditNs ahead of one of them. So the class says when, and over a second the shares say how much.
//
// What a worker says of itself counts for some milliseconds only, so nobody waits for one that has died, is stopped, or
// is long in its driver; and nobody waits longer than that for work that does not come to rest, since it may need a
// command that has not begun. Time is given in (CLOCK_MONOTONIC). One thread in each process.

#include <atomic>
#include <cstdint>
#include <string>

#include "base/outcome.h"

namespace tide {

struct SlicePage;
struct SliceSeat;

class TimeSlices {
 public:
  TimeSlices() = default;
  ~TimeSlices();
  TimeSlices(const TimeSlices&) = delete;
  TimeSlices& operator=(const TimeSlices&) = delete;

  struct Sharer {
    uint64_t vgpu = 0;      // a number of its own, not 0, that all its workers give
    uint32_t share = 1000;  // of the time, beside the others'; not 0
    bool latency = false;   // goes before those that are not
    bool siblings = false;  // nobody but vGPUs of its own job is here, so they may wait for one another
  };
  // `path`: the page, made when missing. Once; until then, and when it fails, nobody shares.
  Outcome start(const std::string& path, const Sharer& sharer, uint64_t now);
  // Nothing is begun any more: its seat is free at once, if no other worker of the vGPU is there.
  void leave(uint64_t now);

  // Whether another vGPU has a seat. The only thing that is asked where nobody shares the GPU.
  bool shared() const { return sharers_ != nullptr && sharers_->load(std::memory_order_relaxed) > 1; }
  // Where it is shared, before a command; false: not now.
  bool may_begin(uint64_t now);
  // It was not, since the last at().
  bool waits() const { return waits_; }
  // Time has come to `now`. `working`: whether work has been under way since the last call; `ready`: commands are there
  // to be begun.
  struct Work {
    bool working = false, ready = false;
  };
  void at(uint64_t now, Work work);

  // GPU time of its vGPU so far, for a share of 1000: for tests.
  uint64_t used_ns() const;

 private:
  void sit(uint64_t now);
  void look(uint64_t now);
  void count_sharers();
  uint32_t count_workers(uint64_t now, bool counts);
  void forget_dead(uint64_t now);
  void begin_work(uint64_t now);
  void come_to_rest(uint64_t now);
  void end_batch(uint64_t now);
  void note_giving(uint64_t now);
  void charge(uint64_t now);
  void catch_up(uint64_t now);
  bool is_batch_done(uint64_t now);
  bool goes_first(const SliceSeat& seat) const;
  void count_credit(uint64_t now);
  bool is_ahead(uint64_t now) const;
  bool is_stuck(uint64_t now);
  bool has_turn(uint64_t now);
  bool take_turn(uint64_t now);
  SliceSeat& seat() const;
  // Of the others' seats, the first for which it says so; null: none.
  template <class Is>
  const SliceSeat* other(Is is) const;

  SlicePage* page_ = nullptr;
  const std::atomic<uint32_t>* sharers_ = nullptr;
  Sharer self_;
  uint64_t slice_ns_ = 0;        // for a share of 1000: so far one may be behind another
  uint64_t left_over_ = 0;       // of the time that was charged, too little to count yet
  uint32_t index_ = 0;           // of the seat
  uint64_t looked_ns_ = 0;       // at the page
  uint64_t charged_ns_ = 0;      // until when
  uint64_t counted_period_ = 0;  // in which it was counted among its vGPU's workers
  bool working_ = false;    // has work under way, or the next to begin; and counted among the vGPU's workers that do
  bool under_way_ = false;  // at the last at()
  uint64_t rest_ns_ = 0;    // since when it is not
  uint64_t waits_since_ns_ = 0;  // for its turn, with work under way; 0: it does not
  bool waits_ = false;
  // Commands are begun in batches, and before the next one the last has come to rest: what is on the GPU already cannot
  // be held back. As large as fits into a part of a slice.
  uint32_t batch_ = 8;
  uint32_t begun_ = 0;
  uint64_t batch_ns_ = 0;
};

}  // namespace tide
