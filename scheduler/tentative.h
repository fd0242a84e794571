#pragma once

// A plan in the making: the pool's GPUs and its jobs' shares of them, indexed so that what the policy asks (who may
// start with so much left, which server has just so many free GPUs, whose share is the smallest) is found without
// looking at all. Everything that an action (actions/actions.h) changes is in a log, so that a plan that leads nowhere
// is rolled back to a checkpoint. A plan outlives a round: jobs and GPUs that change are told, and only what follows
// from them is worked out anew. Owned by one thread.

#include <absl/container/btree_set.h>

#include <map>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "scheduler/free_gpus.h"
#include "scheduler/room.h"
#include "scheduler/state.h"

namespace tide::sched {

using Slot = uint32_t;  // of a job in the plan
inline constexpr Slot kNoSlot = UINT32_MAX;

// Who comes first: the smallest.
struct Order {
  int64_t rank = 0;     // start_rank(); where jobs take turns, who has waited longest; of who is due, the deadline
  int64_t place = 0;    // in line (JobView::place)
  uint64_t number = 0;  // of submission
  auto operator<=>(const Order&) const = default;
};

// What an action may change of a job.
struct Standing {
  bool admitted = false;
  bool frozen = false;  // nothing about its GPUs changes
  bool out = false;     // of this round: no set of free GPUs will do
  uint32_t least = 1, most = 1;
  uint32_t count = 0;        // physical GPUs that it shall have
  Slot moved_for = kNoSlot;  // it makes way for that one
  Slot passes = kNoSlot;     // it starts in this round although the pool drains for that one
};

// Jobs that wait and are alike in all that decides whether they may start.
struct Kind {
  uint32_t least = 1;
  uint32_t part = kWholeGpu;
  uint64_t memory_bytes = 0;  // of who has a part
  Slot picky = kNoSlot;       // alike with nobody
  auto operator<=>(const Kind&) const = default;
};
using Line = absl::btree_set<std::pair<Order, Slot>>;  // whole plans have 100,000 in lines, and make them anew
using Kinds = std::map<Kind, Line>;

// Why a job waits, as it was when it was looked at last.
enum class Why : uint8_t { kNeeds, kBehind, kNoSet, kQueue };

// What jobs of a queue have and want, in thousandths of GPUs.
struct QueueSums {
  int64_t demand = 0, allocated = 0;
  int64_t minima = 0;       // of those that run
  int64_t left_behind = 0;  // what those that are being suspended leave, and what is on absent servers
  int64_t usable = 0;       // what those that run could use
  void add(const QueueSums& other, int64_t sign);
};

// Jobs of whom something may be taken for others, and which are alike in what decides whom it costs least, but for what
// follows: the cheapest last, of equals the newest, so that who comes goes to the end, mostly.
struct GiverKind {
  int32_t priority = 0;
  bool inference = false;
  uint32_t least = 1, part = kWholeGpu;
  auto operator<=>(const GiverKind&) const = default;
};
struct Giver {
  uint64_t cost = 0;  // disturbance_cost()
  uint64_t number = 0;
  Slot slot = kNoSlot;
  bool operator<(const Giver& other) const { return cost != other.cost ? cost > other.cost : number < other.number; }
};
using GiverLine = absl::btree_set<Giver>;

// Where a job stands in the indices.
struct Filed {
  bool counted = false, summed = false, growing = false, shrinking = false, drains = false, steps = false, due = false;
  bool elastic = false, leaving = false, entitled = false;
  size_t leaf = 0;
  int64_t rank = 0;  // growth_rank()
  int64_t awaits = 0, leaves = 0;
  uint64_t ends_ms = 0;  // in ending(); 0: it is not
  int32_t priority = 0;
  GiverLine* givers = nullptr;  // among whom it is, with this price
  uint64_t price = 0;
  Standing is = {};
  Order order = {};
  Kind kind = {};
  Line* line = nullptr;  // in which it waits
  QueueSums sums = {};   // its part of its queue's, where there are queues
};

struct Share {
  const JobView* job = nullptr;
  uint64_t number = 0;  // in the order of submission
  GpuSet held;          // healthy GPUs that it has now, sorted
  GpuSet mine;          // those that it shall have
  Standing is;
  bool away = false;      // frozen, and a server that keeps it does not answer
  bool fresh = true;      // its view has changed since the last round
  bool sore = false;      // a round could not give it what it shall have: it is looked at anew in the next one
  bool touched = false;   // in this round
  bool known = false;     // it has been looked at
  bool unplaced = false;  // in unplaced()
  Why why = Why::kNeeds;
  int64_t left = 0;                  // GPUs that were left when it was looked at
  size_t began = 0;                  // of those that start in this round, the how many-th
  Slot behind = kNoSlot;             // whom it waits for
  Slot taken_for = kNoSlot;          // it runs, and gives its GPUs to that one
  std::vector<GpuId> places;         // of who was placed in this round
  std::vector<ServerIndex> servers;  // with a vGPU of it, or something kept for it
  Filed filed;
};

class Tentative {
 public:
  // Takes the GPUs and what is true of all jobs. Its jobs are added one by one.
  explicit Tentative(const State& state);
  // The same jobs in the same slots, and nothing worked out yet. The other has none any more.
  Tentative(const State& state, Tentative&& jobs_of);
  Tentative(const Tentative&) = delete;
  Tentative& operator=(const Tentative&) = delete;

  // `job` must stay where it is until it is removed. Numbers ascend in the order of submission.
  Slot add(const JobView* job, uint64_t number);
  Slot next_slot() const { return unused_.empty() ? Slot(shares_.size()) : unused_.back(); }
  void change(Slot slot);  // what `job` points to has changed
  void remove(Slot slot);
  // False: it has no such GPU, or it has other memory; a new plan is needed.
  bool change_gpu(const GpuView& gpu);

  // Of what is true of all jobs what may change at any time: next_turn, used, now_ms.
  void set_rules(const State& state);
  // Works out anew what has changed since the last round.
  void begin();
  size_t checkpoint() const { return log_.size(); }
  void rollback(size_t checkpoint);
  // What was planned is so from now on: who was touched holds what it shall have. Requires: the views say so.
  void settle();
  void note_cost(Slot slot);    // of disturbing it: the places in its view are others
  void note_passed(Slot slot);  // it has been, kSkipsMax times, and nothing else of it has changed

  // What actions do, each in the log.
  void stand(Slot slot, const Standing& standing);
  void set_mine(Slot slot, GpuSet mine);
  void join(Slot slot, GpuIndex gpu);  // a part of it
  void leave(Slot slot, GpuIndex gpu);
  // Not in the log: whoever guesses takes it back. Also one of new_room().
  void guess(Slot slot, GpuIndex gpu) { put_join(slot, gpu); }
  void take_back(Slot slot, GpuIndex gpu) { put_leave(slot, gpu); }

  // What they ask.
  const std::vector<Share>& shares() const { return shares_; }
  Share& share(Slot slot) { return shares_[slot]; }
  const Share& share(Slot slot) const { return shares_[slot]; }
  FreeGpus& gpus() { return gpus_; }
  const FreeGpus& gpus() const { return gpus_; }
  bool turns() const { return turns_; }
  const std::string& next_turn() const { return next_turn_; }
  const QueueTree& queues() const { return queues_; }
  const std::vector<double>& used() const { return used_; }
  const ShareRules& share_rules() const { return share_rules_; }
  uint64_t now_ms() const { return now_ms_; }
  int64_t total() const { return gpus_.usable(); }
  int64_t left_beside_minima() const { return total() - rooms_used_ - least_sum_; }
  // That others leave for who is due and runs: nobody else gets them.
  int64_t awaited() const { return awaited_; }
  int64_t left() const { return total() - rooms_used_ - count_sum_; }
  int64_t rooms_used() const { return rooms_used_; }  // GPUs with parts on them
  bool consolidates() const { return consolidates_; }
  // Whether there is anything that queues decide; then, by leaf, what its jobs have and want.
  bool has_queues() const { return has_queues_; }
  const std::vector<QueueSums>& queue_sums() const { return queue_sums_; }
  bool has_priorities() const { return ranks_.size() > 1; }  // jobs differ in that
  bool has_steps() const { return stepping_ != 0; }          // some jobs may have powers of two only
  int32_t leaf_of(const JobView& job) const;
  Order order_of(const Share& share) const;

  // Whether the GPU is one that it requires, on a server where resuming it has not just failed.
  bool may_begin(const JobView& job, GpuIndex gpu) const;
  // The room with a part for it that is left with the least; kNoGpu: none has so much.
  GpuIndex best_room(const JobView& job) const;
  bool fits(const JobView& job, GpuIndex gpu) const { return rooms_[gpu].room.fits(job.portion()); }
  const std::vector<Slot>& sharers(GpuIndex gpu) const { return rooms_[gpu].slots; }
  uint32_t part_left(GpuIndex gpu) const { return rooms_[gpu].room.part_left; }
  GpuSet emptiest_rooms(size_t most) const;  // those with the most left first: not sorted
  // With a vGPU there, or something kept, as of the last round.
  const auto& jobs_at(ServerIndex server) const { return at_server_[server]; }
  // Of a GPU that has not been chosen yet.
  GpuIndex new_room();
  void drop_new_rooms();  // Requires: nobody is in them

  // By leaf (0 where there are no queues).
  std::vector<Kinds>& waiting() { return waiting_; }
  std::vector<Line>& drainers() { return drainers_; }  // those that have been passed kSkipsMax times
  // Who has GPUs, by when it is expected to be over (now for who is being suspended); those of whom that is not known
  // are left out.
  const std::set<std::pair<uint64_t, Slot>>& ending() const { return ending_; }
  const Line& dues() const { return dues_; }  // who waits, and is due (promises.h): the earliest deadline first
  // Who may have more, the highest priority first, then the smallest share, and who has all that it is due last of all;
  // who may have less, by what it would be left with. Among equals the oldest.
  using ByCount = absl::btree_set<std::pair<std::tuple<int64_t, uint32_t, uint64_t>, Slot>>;
  std::vector<ByCount>& growing() { return growing_; }
  std::vector<ByCount>& shrinking() { return shrinking_; }
  // Who runs and may have more than its minimum, as if all had that: in the order of growing().
  const std::vector<ByCount>& elastic() const { return elastic_; }
  // GPUs that are given beyond minima, by leaf.
  int64_t grown(size_t leaf) const { return grown_[leaf]; }
  // By leaf, then by kind: lower priorities first. Kept from the first time on that somebody asks.
  using Givers = std::map<GiverKind, GiverLine>;
  const std::vector<Givers>& givers();
  // Of those that are being suspended: whole GPUs; whether there are any; some of that queue with less than a priority.
  int64_t leaving() const { return leaving_gpus_; }
  bool somebody_leaves() const { return leaving_jobs_ != 0; }
  bool somebody_leaves_below(int32_t leaf, int32_t priority) const;
  bool somebody_is_entitled() const { return entitled_ != 0; }  // and waits
  // The most of a GPU that is left in a room.
  uint32_t part_left_most() const;
  const std::set<std::pair<uint64_t, Slot>>& homeless() const { return homeless_; }
  const std::vector<Slot>& unplaced() const { return unplaced_; }  // whose places must be worked out, if it has any
  const std::vector<Slot>& touched() const { return touched_; }
  void touch(Slot slot);
  void make_sore(Slot slot);
  void freeze(Slot slot);  // it keeps what it holds, in this round

  // Servers where it must not begin now are left out.
  int64_t open_to(const JobView& job) const;
  uint32_t gpus_for_memory(const JobView& job);
  bool looked_at_each = false;    // at all who wait: `why` of each says why
  Slot blocked_by = kNoSlot;      // everybody behind waits for it
  Order blocked_from = {};        // and who that is
  uint64_t blocked_until_ms = 0;  // when that is expected to start, where the pool drains for it; 0: not known
  int64_t blocked_spares = 0;     // GPUs that it does not need then
  std::vector<std::pair<Order, int64_t>> started;  // in this round, and what was left then
  int64_t left_first = 0;                          // before any was
  uint32_t ways_in_vain = 0;                       // jobs for which nobody could make way
  int64_t leaving_left = 0;                        // GPUs of who is being suspended that are kept for nobody yet
  int64_t left_last = 0;                           // when all that can had started, and less what is kept for others
  std::set<Slot> reserved;                         // for whom it is kept while others leave
  std::vector<int64_t> usable;                     // by leaf: what those that run could use, thousandths
  QueueShares limit_shares;                        // by the minima of those that run
  QueueShares queue_shares;                        // and as if those that are being suspended had left
  int64_t kept_by_queues = 0;                      // what all leaves have, or else are owed and can use (book())
  struct {
    std::vector<QueueLoad> loads;
    int64_t pool = -1;
    QueueShares shares;
  } owed;  // what fair_shares() said last, and of what: a round asks more than once

 private:
  using ByLeft = std::set<std::tuple<uint32_t, uint64_t, GpuIndex>>;  // by what is left: part, memory
  struct Shared {                                                     // a GPU that serves jobs with a part of one
    Room room;
    std::vector<Slot> slots;  // in the order of submission
    bool claimed;             // only within share_gpus()
  };
  struct Undo {
    enum class Kind : uint8_t { kStanding, kMine, kJoin, kLeave } kind;
    Slot slot;
    GpuIndex gpu = 0;
    Standing is = {};
    GpuSet mine = {};
  };
  void index(Slot slot);
  void unindex(Slot slot);
  void index_admitted(Slot slot);
  void file_giver(Slot slot);
  void index_count(Slot slot);
  void unindex_count(Slot slot);
  void unindex_admitted(Slot slot, const Filed& filed);
  QueueSums sums_of(const Share& share) const;
  uint64_t end_of(const Share& share) const;
  void put_standing(Slot slot, const Standing& standing);
  void put_mine(Slot slot, GpuSet mine);
  void put_join(Slot slot, GpuIndex gpu);
  void put_leave(Slot slot, GpuIndex gpu);
  // The rooms' index around a change of who is in one, and of what that leaves.
  template <typename Change>
  void refill(GpuIndex gpu, const Change& change);
  void sum_up(Shared* shared) const;
  void note_joined(Slot slot, GpuIndex gpu);
  void forget(Slot slot);
  void refresh(Slot slot);
  void hold_mine(Slot slot);
  void hold(const GpuId& place, Share* share);
  void note_home(Slot slot);
  void note_unplaced(Slot slot);
  using Claims = std::vector<std::pair<Slot, GpuIndex>>;
  void share_gpus(Claims claims);  // Requires: these in the order of submission
  GpuIndex first_fit(const ByLeft& rooms, const JobView& job) const;
  GpuIndex fit_on(ServerIndex server, const JobView& job, uint32_t part_left) const;

  FreeGpus gpus_;
  bool turns_;
  std::string next_turn_;
  QueueTree queues_;
  bool has_queues_;
  std::vector<double> used_;
  ShareRules share_rules_;
  bool consolidates_;
  uint64_t now_ms_;

  std::vector<Share> shares_;
  std::vector<Slot> unused_;
  std::vector<Slot> dirty_, touched_, unplaced_;
  std::vector<std::vector<Slot>> at_server_;  // jobs with a vGPU or something kept there, sorted
  std::vector<Shared> rooms_;                 // by GPU; behind those, of GPUs that have not been chosen
  ByLeft left_in_, left_in_new_;              // rooms of GPUs, and of GPUs that have not been chosen
  int64_t rooms_used_ = 0, least_sum_ = 0, count_sum_ = 0, awaited_ = 0;
  std::vector<Kinds> waiting_;
  std::vector<Line> drainers_;
  Line dues_;
  std::set<std::pair<uint64_t, Slot>> ending_;
  std::vector<QueueSums> queue_sums_;
  std::vector<ByCount> growing_, shrinking_, elastic_;
  std::vector<int64_t> grown_;
  std::vector<Givers> givers_;
  bool keeps_givers_ = false;
  std::vector<std::map<int32_t, uint32_t>> leaving_by_;  // by leaf: jobs by priority
  int64_t leaving_gpus_ = 0, leaving_jobs_ = 0, entitled_ = 0;
  std::set<std::pair<uint64_t, Slot>> homeless_;
  std::map<int64_t, uint32_t> ranks_;  // jobs by growth_rank()
  int64_t stepping_ = 0;
  std::map<std::tuple<uint64_t, bool, uint32_t>, uint32_t> for_memory_;  // bytes, given, vGPUs
  std::vector<Undo> log_;
};

}  // namespace tide::sched
