#include <algorithm>
#include <map>
#include <set>
#include <tuple>
#include <utility>

#include "scheduler/actions/actions.h"
#include "scheduler/cost.h"
#include "scheduler/next_queue.h"
#include "scheduler/rank.h"
#include "scheduler/spread.h"

namespace tide::sched {
namespace {

constexpr size_t kOwedMax = 16;  // jobs that are looked at in a round

// From whom something is taken: queues that have more than their shares, or lower priorities of the same queue.
enum class From { kQueues, kPriorities };

class Reclaiming {
 public:
  explicit Reclaiming(Tentative& plan) : plan_(plan), shares_(plan.queue_shares), left_(plan.left_last) {}

  void run() {
    if (plan_.has_queues() && (serve_queues() || serve_growth())) return;
    // Where jobs take turns these decide.
    if (!plan_.turns() && plan_.has_priorities()) serve_priorities();
  }

 private:
  bool serve_queues() {
    reclaimable_.resize(shares_.size());
    for (size_t i = 0; i < shares_.size(); ++i) {
      if (!plan_.queues().queues[i].leaf() || plan_.waiting()[i].empty()) continue;
      const int64_t most = most_reclaimable(plan_.queues(), shares_, int32_t(i));
      reclaimable_[i] = most == 0 ? 0 : std::min(most, headroom(plan_.queues(), shares_, int32_t(i)));
    }
    for (size_t tries = 0; tries < kOwedMax; ++tries) {
      const Slot slot = next_owed();
      if (slot == kNoSlot) return false;
      seen_.insert(slot);
      if (take_for(slot, From::kQueues)) return true;
    }
    return false;
  }

  // The first that wait of each kind and queue, as they would start.
  void serve_priorities() {
    in_vain_.clear();
    std::vector<std::pair<Order, Slot>> first;
    for (const Kinds& kinds : plan_.waiting()) {
      for (const auto& [kind, line] : kinds) first.push_back(*line.begin());
    }
    std::sort(first.begin(), first.end());
    size_t tries = 0;
    for (const auto& [order, slot] : first) {
      if (plan_.reserved.count(slot) != 0 || (plan_.blocked_by != kNoSlot && plan_.blocked_by != slot)) continue;
      if (++tries > kOwedMax || take_for(slot, From::kPriorities)) return;
    }
  }

  // One at a time: what they leave is kept for it, and the next round looks further.
  bool take_for(Slot slot, From from) {
    std::vector<Slot> givers;
    const auto is_alike = [&](Slot other) { return alike(plan_.share(slot), plan_.share(other)); };
    if (std::any_of(in_vain_.begin(), in_vain_.end(), is_alike)) return false;
    if (!choose_givers(slot, from, &givers) || !could_be_placed(slot, givers)) {
      in_vain_.push_back(slot);
      return false;
    }
    for (const Slot giver : givers) {
      plan_.share(giver).taken_for = slot;
      plan_.touch(giver);
    }
    return true;
  }

  // Whether the one fares like the other.
  static bool alike(const Share& a, const Share& b) {
    const JobView &one = *a.job, &other = *b.job;
    return a.filed.line == b.filed.line && one.vgpus == other.vgpus && one.memory_bytes == other.memory_bytes &&
           one.memory_given == other.memory_given && one.powers_of_two == other.powers_of_two &&
           one.priority == other.priority && one.places.empty() && other.places.empty();
  }

  // It counts as touched from now on, and where it lies was not worked out in this round if it was to stay there.
  void try_out(Slot slot, GpuSet mine) {
    Share& share = plan_.share(slot);
    if (share.places.empty()) share.places = share.job->places;
    plan_.set_mine(slot, std::move(mine));
  }

  // Tried out: what the givers leave, and what others have beyond their minima, must be GPUs on which it can lie.
  bool could_be_placed(Slot slot, const std::vector<Slot>& givers) {
    const Share& share = plan_.share(slot);
    if (share.job->is_partial()) return true;
    const size_t before = plan_.checkpoint();
    for (const Slot giver : givers) {
      if (!plan_.share(giver).job->is_partial()) try_out(giver, {});
    }
    for (const Slot other : beyond_minima()) {
      const Share& each = plan_.share(other);
      if (each.mine.size() > each.is.least)
        try_out(other, keep_gpus(plan_.gpus(), *each.job, each.mine, each.is.least));
    }
    GpuSet mine;
    const bool can = add_gpus(plan_.gpus(), *share.job, share.is.least, share.is.least, &mine);
    plan_.rollback(before);
    return can;
  }

  std::vector<Slot> beyond_minima() const {
    std::vector<Slot> slots;
    for (const auto& shrinking : plan_.shrinking()) {
      for (const auto& [key, slot] : shrinking) slots.push_back(slot);
    }
    std::sort(slots.begin(), slots.end());
    return slots;
  }

  // Whoever waits and is owed what it needs, in the order in which queues are served.
  Slot next_owed() const {
    const QueueTree& tree = plan_.queues();
    const auto is_seen = [&](Slot slot) { return seen_.count(slot) != 0 || plan_.reserved.count(slot) != 0; };
    if (const Slot slot = plan_.blocked_by; slot != kNoSlot) {  // nobody else
      const Share& share = plan_.share(slot);
      const bool may =
          share.filed.line != nullptr && !is_seen(slot) && need_of(share) <= reclaimable_[share.filed.leaf];
      return may && need_of(share) > 0 ? slot : kNoSlot;
    }
    std::vector<int64_t> needs(tree.queues.size());
    std::vector<std::pair<Order, Slot>> first(tree.queues.size(), {{}, kNoSlot});
    for (size_t i = 0; i < needs.size(); ++i) {
      if (reclaimable_[i] == 0) continue;
      for (const auto& [kind, line] : plan_.waiting()[i]) {
        if (need_of(kind) > reclaimable_[i]) break;  // they are in the order of what they need
        const auto who =
            std::find_if(line.begin(), line.end(), [&](const auto& each) { return !is_seen(each.second); });
        if (who != line.end() && (first[i].second == kNoSlot || *who < first[i])) first[i] = *who;
      }
      needs[i] = first[i].second == kNoSlot ? 0 : need_of(plan_.share(first[i].second));
    }
    const int32_t leaf = next_queue(tree, shares_, needs);
    return leaf == kNoQueue ? kNoSlot : first[size_t(leaf)].second;
  }

  // Whether something may be taken for this one of jobs of that kind.
  static bool is_kind_for(const GiverKind& kind, const JobView& job, From from) {
    if (from == From::kPriorities && (kind.inference || kind.priority >= job.priority)) return false;
    return kind.part == kWholeGpu || job.is_partial();
  }

  // Whether it may be disturbed for this one, and is on GPUs that are of use to it.
  bool may_give(const Share& share, const JobView& job) const {
    if (!share.job->running || share.mine.empty()) return false;
    if (!share.job->is_partial() && share.mine != share.held) return false;  // it gives some in this round: first that
    if (frees(share, job) == 0 || is_nearly_done(*share.job)) return false;
    return std::all_of(share.mine.begin(), share.mine.end(), [&](GpuIndex gpu) {
      return capacity(job, plan_.gpus().view(gpu)) > 0 && plan_.may_begin(job, gpu);
    });
  }

  // What it cannot do without: the rest could be free already. A part frees its GPU only for other parts.
  int64_t frees(const Share& share, const JobView& job) const {
    if (!share.job->is_partial()) return share.is.least;
    if (!job.is_partial()) return 0;
    const GpuIndex gpu = share.mine.front();
    Room room({}, plan_.gpus().view(gpu).memory_bytes);
    for (const Slot slot : plan_.sharers(gpu)) {
      if (plan_.share(slot).job != share.job) room.take(plan_.share(slot).job->portion());
    }
    return room.fits(job.portion()) ? 1 : 0;
  }

  // Whether a server is large enough for it at all.
  bool could_lie_together(uint32_t wanted) const { return wanted <= plan_.gpus().largest_server(); }

  // Whether the other would lie on one server where this one leaves: it is spared being torn apart.
  bool lets_lie_together(const Share& share, uint32_t wanted) const {
    ServerIndex server = kNoServer;
    uint32_t there = 0;  // sorted by server, as GPUs are
    for (const GpuIndex gpu : share.mine) {
      there = plan_.gpus().server_of(gpu) == server ? there + 1 : 1;
      server = plan_.gpus().server_of(gpu);
      if (plan_.gpus().free_on(server) + there >= wanted) return true;
    }
    return false;
  }

  // Whom it costs least, of equals who frees least beyond what is missing, then who frees most of that, then whose
  // GPUs are together with others that are free, then the newest. Before all that: inference jobs last, and lower
  // priorities first.
  class Cheapest {
   public:
    // None of `but`.
    Cheapest(const Reclaiming& of, const Share& wanting, int64_t missing, const std::vector<Slot>& but)
        : of_(of), wanting_(wanting), missing_(missing), but_(but) {}

    // The cheapest are at the end, so that most are not looked at.
    void offer(const GiverKind& kind, const GiverLine& line) {
      for (auto at = line.rbegin(); at != line.rend(); ++at) {
        const Giver& giver = *at;
        const Price price = price_of(kind, giver.cost);
        if (best_ != kNoSlot && least_ < price) return;
        const bool better = best_ == kNoSlot || price < least_ || is_better(giver);
        if (!better || std::find(but_.begin(), but_.end(), giver.slot) != but_.end()) continue;
        const Share& share = of_.plan_.share(giver.slot);
        if (!of_.may_give(share, *wanting_.job)) continue;
        best_ = giver.slot;
        least_ = price;
        newest_ = giver.number;
        together_ = of_.lets_lie_together(share, wanting_.is.least);
        if (together_ || !of_.could_lie_together(wanting_.is.least)) return;  // who is before it is dearer, or older
      }
    }
    Slot best() const { return best_; }

   private:
    using Price = std::tuple<bool, int32_t, double, int64_t, int64_t>;

    Price price_of(const GiverKind& kind, uint64_t cost) const {
      const int64_t freed = kind.part < kWholeGpu ? 1 : int64_t(kind.least);  // if it may give
      const int64_t useful = std::max<int64_t>(std::min(freed, missing_), 1);
      return {kind.inference, kind.priority, double(cost) / double(useful), freed - useful, -useful};
    }
    bool is_better(const Giver& giver) const {
      if (together_ && giver.number < newest_) return false;
      const bool together = of_.lets_lie_together(of_.plan_.share(giver.slot), wanting_.is.least);
      return together == together_ ? giver.number > newest_ : together;
    }

    const Reclaiming& of_;
    const Share& wanting_;
    const int64_t missing_;
    const std::vector<Slot>& but_;
    Slot best_ = kNoSlot;
    Price least_ = {};
    uint64_t newest_ = 0;
    bool together_ = false;
  };

  // An inference job stays while its queue has no more than its share without what that one has.
  static bool is_within_share(const GiverKind& kind, const QueueShare& queue) {
    return kind.inference && queue.allocated - need_of(kind) < queue.fair;
  }

  struct Taking {  // for one job
    Slot slot;
    From from;
    int32_t leaf;
    int64_t need, missing;
    QueueShares shares;  // as if those that have been chosen had left
    int64_t gained = 0;
    std::vector<Slot> givers = {};  // that have been chosen
  };

  // Enough GPUs, and where they are of its own queue, enough of what that may have.
  bool is_enough(const Taking& taking, int64_t less_gained = 0, int64_t less_room = 0) const {
    if (taking.gained - less_gained < taking.missing) return false;
    if (taking.from == From::kQueues || !plan_.has_queues()) return true;
    const int64_t room = headroom(plan_.queues(), taking.shares, taking.leaf);
    return room == kNoLimit || room - less_room >= taking.need;
  }

  Slot next_giver(const Taking& taking) const {
    if (taking.from == From::kPriorities) return cheapest_of(taking, taking.leaf);
    for (const int32_t leaf : reclaimable(plan_.queues(), taking.shares, taking.leaf, taking.need)) {
      if (const Slot best = cheapest_of(taking, leaf); best != kNoSlot) return best;
    }
    return kNoSlot;
  }

  Slot cheapest_of(const Taking& taking, int32_t leaf) const {
    const Share& wanting = plan_.share(taking.slot);
    Cheapest cheapest(*this, wanting, taking.missing - taking.gained, taking.givers);
    const bool from_others = taking.from == From::kQueues;
    for (const auto& [kind, line] : plan_.givers()[size_t(leaf)]) {
      const bool stays = from_others && is_within_share(kind, taking.shares[size_t(leaf)]);
      if (!stays && is_kind_for(kind, *wanting.job, taking.from)) cheapest.offer(kind, line);
    }
    return cheapest.best();
  }

  void book_giver(Taking* taking, Slot giver, int sign) const {
    const Share& share = plan_.share(giver);
    taking->gained += sign * frees(share, *plan_.share(taking->slot).job);
    if (plan_.has_queues())
      allocate(plan_.queues(), plan_.leaf_of(*share.job), -sign * need_of(share), &taking->shares);
  }

  bool choose_givers(Slot slot, From from, std::vector<Slot>* givers) {
    const Share& share = plan_.share(slot);
    const bool partial = share.job->is_partial();
    if (partial && plan_.somebody_leaves()) return false;  // that may be enough
    Taking taking{.slot = slot,
                  .from = from,
                  .leaf = plan_.leaf_of(*share.job),
                  .need = need_of(share),
                  .missing = partial ? 1 : int64_t(share.is.least) - left_ - plan_.leaving_left,
                  .shares = shares_};
    if (is_enough(taking)) return false;  // it is not their number that is in the way
    while (!is_enough(taking)) {
      const Slot giver = next_giver(taking);
      if (giver == kNoSlot) return false;
      taking.givers.push_back(giver);
      book_giver(&taking, giver, 1);
    }
    leave_alone_who_is_not_needed(&taking);
    *givers = taking.givers;
    return from == From::kQueues || !plan_.has_queues() || starts_then(taking);
  }

  // After all; whom it costs most first.
  void leave_alone_who_is_not_needed(Taking* taking) const {
    std::vector<Slot> dearest = taking->givers;
    const auto cost = [&](Slot slot) { return disturbance_cost(*plan_.share(slot).job); };
    std::stable_sort(dearest.begin(), dearest.end(), [&](Slot a, Slot b) { return cost(a) > cost(b); });
    for (const Slot giver : dearest) {
      const Share& share = plan_.share(giver);
      if (!is_enough(*taking, frees(share, *plan_.share(taking->slot).job), need_of(share))) continue;
      book_giver(taking, giver, -1);
      std::erase(taking->givers, giver);
    }
  }

  // Whether its queue may have it when they have left, and not somebody else what they leave.
  bool starts_then(const Taking& taking) {
    QueueShares shares = taking.shares;
    swap_shares(plan_, &shares);
    const bool may = leaves_shares(plan_, taking.leaf, taking.need);
    swap_shares(plan_, &shares);
    return may;
  }

  // A queue whose jobs all run may have less than its quota, while others hold more than their shares with jobs that
  // have shrunk as far as they can. One of these at a time, and never so that its queue is owed it back. Beyond quotas
  // nobody is stopped so that others run faster.
  bool serve_growth() {
    if (plan_.somebody_leaves()) return false;  // that may be enough
    const QueueTree& tree = plan_.queues();
    const QueueShares shares = shares_with_growth();
    std::vector<int64_t> needs(tree.queues.size());
    for (size_t i = 0; i < needs.size(); ++i) {
      const auto& growing = plan_.growing()[i];
      if (growing.empty()) continue;
      const Share& first = plan_.share(growing.begin()->second);
      const int64_t need = int64_t(next_step(*first.job, first.is.count, first.is.most)) * kWholeGpu;
      if (shares[i].allocated + need > tree.queues[i].quota) continue;
      if (headroom(tree, shares, int32_t(i)) >= need && !reclaimable(tree, shares, int32_t(i), need).empty())
        needs[i] = need;
    }
    for (;;) {
      const int32_t leaf = next_queue(tree, shares, needs);
      if (leaf == kNoQueue) return false;
      if (take_for_growth(plan_.growing()[size_t(leaf)].begin()->second, needs[size_t(leaf)], shares)) return true;
      needs[size_t(leaf)] = 0;
    }
  }

  QueueShares shares_with_growth() const {
    QueueShares shares = plan_.limit_shares;
    for (size_t i = 0; i < shares.size(); ++i) {
      if (plan_.grown(i) != 0) allocate(plan_.queues(), int32_t(i), plan_.grown(i) * kWholeGpu, &shares);
    }
    return shares;
  }

  bool take_for_growth(Slot grower, int64_t need, const QueueShares& shares) {
    const Share& wanting = plan_.share(grower);
    const int64_t missing = need / kWholeGpu - std::max<int64_t>(plan_.left(), 0);
    for (const int32_t leaf : reclaimable(plan_.queues(), shares, plan_.leaf_of(*wanting.job), need)) {
      const std::vector<Slot> none;
      Cheapest cheapest(*this, wanting, missing, none);
      const QueueShare& queue = shares[size_t(leaf)];
      for (const auto& [kind, line] : plan_.givers()[size_t(leaf)]) {
        const bool enough = int64_t(kind.least) >= missing && queue.allocated - need_of(kind) >= queue.fair;
        if (enough && is_kind_for(kind, *wanting.job, From::kQueues)) cheapest.offer(kind, line);
      }
      if (cheapest.best() == kNoSlot) continue;
      plan_.share(cheapest.best()).taken_for = grower;
      plan_.touch(cheapest.best());
      return true;
    }
    return false;
  }

  Tentative& plan_;
  QueueShares shares_;
  int64_t left_;
  std::set<Slot> seen_;
  std::vector<Slot> in_vain_;         // for these nothing can be taken
  std::vector<int64_t> reclaimable_;  // by leaf: the most that one of its jobs may need so that others give it that
};

}  // namespace

void reclaim(Tentative& plan) { Reclaiming(plan).run(); }

}  // namespace tide::sched
