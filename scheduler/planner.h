#pragma once

// The policy for a pool that is large: it keeps the plan (tentative.h), is told what changes, and answers with what
// changes in consequence. Its answer is that of assign() for the same state. Owned by one thread.

#include <absl/container/btree_set.h>

#include <deque>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "scheduler/policy.h"

namespace tide::sched {

class Planner {
 public:
  // A pool without its jobs. `state.jobs` is not read.
  explicit Planner(const State& state);

  // A job that is new comes behind all others; else its view has changed. Fields that the planner's own answers have
  // changed (running, places, keeps, skipped) must be as the planner has left them (view()), or as they are by now.
  void put(const JobView& job);
  void remove(const std::string& id);
  // It came or has changed. A GPU that is new, or has another memory, costs a whole new plan.
  void put_gpu(const GpuView& gpu);
  // These are all that the server has. One that is gone costs a whole new plan.
  void put_server(const std::string& server, const std::vector<GpuView>& gpus);
  // What is true of all jobs: GPUs and jobs of `rules` are not read. Unless only next_turn, used or now_ms differ, this
  // costs a whole new plan.
  void put_rules(State rules);

  // What is to change, in the order of submission: `reason` is left empty (why()). The views are as if all of that had
  // been done; who cannot do so puts the job as it is.
  struct Change {
    std::string id;
    Decision decision;
    bool starts = false;  // it waited
  };
  std::vector<Change> decide();
  // Of these those that have started have passed all that come before them, by their place in line and else by when
  // they were submitted, and wait (JobView::skipped).
  void count_passed(const std::vector<Change>& changes);

  // Of a job that waits, as of the last round: one sentence.
  std::string why(const std::string& id) const;
  const JobView* view(const std::string& id) const;  // null: there is none
  size_t jobs() const { return slots_.size(); }
  // Of a server, in the order of their indices.
  std::vector<GpuView> gpus_of(const std::string& server) const;
  // Works everything out anew at the next round.
  void begin_anew() { anew_ = true; }

 private:
  std::vector<Change> decide_whole();
  void note_leaving(const JobView& job);
  void adopt(Slot slot, const Decision& decision);
  struct Passable {
    int64_t place = 0;
    uint64_t number = 0;
    Slot slot = 0;
    auto operator<=>(const Passable&) const = default;
  };
  Passable passable(Slot slot) const { return {views_[slot].place, plan_->share(slot).number, slot}; }
  void list_passable(Slot slot);
  void unlist(Slot slot);
  std::vector<GpuView>::iterator place_of(const GpuId& id);

  State pool_;  // its GPUs are in the order of their ids
  std::unique_ptr<Tentative> plan_;
  mutable std::deque<JobView> views_;  // by slot; `skipped` of who can be passed is right when somebody asks (view())
  std::unordered_map<std::string, Slot> slots_;
  std::set<std::string> leaving_;                         // being suspended, and not all of it is parked
  std::unordered_map<std::string, std::string> reasons_;  // of the last round, where it was worked out as a whole
  absl::btree_set<Passable> passable_;                    // who waits and can be passed
  std::vector<std::optional<Passable>> listed_;           // by slot: as it is in there
  std::vector<uint32_t> passed_;                          // by slot, of these: how often
  uint64_t next_number_ = 0;
  bool anew_ = false;
};

}  // namespace tide::sched
