#include <algorithm>
#include <map>
#include <set>
#include <tuple>
#include <utility>

#include "scheduler/actions/actions.h"
#include "scheduler/cost.h"
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
    if (!choose_givers(slot, from, &givers) || !could_be_placed(slot, givers)) return false;
    for (const Slot giver : givers) {
      plan_.share(giver).taken_for = slot;
      plan_.touch(giver);
    }
    return true;
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
    for (Slot other = 0; other < plan_.shares().size(); ++other) {
      const Share& each = plan_.share(other);
      if (!each.known || !each.is.admitted || each.is.frozen || each.job->is_partial()) continue;
      if (each.mine.size() > each.is.least)
        try_out(other, keep_gpus(plan_.gpus(), *each.job, each.mine, each.is.least));
    }
    GpuSet mine;
    const bool can = add_gpus(plan_.gpus(), *share.job, share.is.least, share.is.least, &mine);
    plan_.rollback(before);
    return can;
  }

  // Whoever waits and is owed what it needs, in the order in which queues are served.
  Slot next_owed() const {
    const QueueTree& tree = plan_.queues();
    std::vector<int64_t> needs(tree.queues.size());
    std::vector<std::pair<Order, Slot>> first(tree.queues.size(), {{}, kNoSlot});
    for (size_t i = 0; i < needs.size(); ++i) {
      if (!tree.queues[i].leaf()) continue;
      for (const auto& [kind, line] : plan_.waiting()[i]) {
        for (const auto& who : line) {
          if (seen_.count(who.second) != 0 || plan_.reserved.count(who.second) != 0) continue;
          if (plan_.blocked_by != kNoSlot && plan_.blocked_by != who.second) continue;
          const int64_t need = need_of(plan_.share(who.second));
          if (headroom(tree, shares_, int32_t(i)) < need || reclaimable(tree, shares_, int32_t(i), need).empty()) break;
          if (first[i].second == kNoSlot || who < first[i]) first[i] = who;
          break;
        }
      }
      needs[i] = first[i].second == kNoSlot ? 0 : need_of(plan_.share(first[i].second));
    }
    const int32_t leaf = next_queue(tree, shares_, needs);
    return leaf == kNoQueue ? kNoSlot : first[size_t(leaf)].second;
  }

  // Jobs that may be disturbed for this one, on GPUs that are of use to it.
  std::vector<Slot> candidates(Slot slot, From from) const {
    const JobView& job = *plan_.share(slot).job;
    const int32_t leaf = plan_.leaf_of(job);
    std::vector<Slot> slots;
    for (Slot each = 0; each < plan_.shares().size(); ++each) {
      const Share& share = plan_.share(each);
      if (!share.known || !share.is.admitted || share.is.frozen || !share.job->running || share.mine.empty()) continue;
      if (!share.job->preemptible || share.job->spared) continue;
      if (!share.job->is_partial() && share.mine != share.held) continue;  // it gives some in this round: first that
      const bool same = plan_.leaf_of(*share.job) == leaf;
      const bool lower = share.job->priority < job.priority && share.job->job_class != JobClass::kInference;
      if (from == From::kPriorities ? !same || !lower : same) continue;
      if (frees(share, job) == 0 || disturbance_cost(*share.job) == kNeverWorth) continue;
      const bool of_use = std::all_of(share.mine.begin(), share.mine.end(), [&](GpuIndex gpu) {
        return capacity(job, plan_.gpus().view(gpu)) > 0 && plan_.may_begin(job, gpu);
      });
      if (of_use) slots.push_back(each);
    }
    return slots;
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

  // Somebody is being suspended: what it leaves may be enough for a part of a GPU.
  bool somebody_leaves() const {
    const auto& shares = plan_.shares();
    return std::any_of(shares.begin(), shares.end(),
                       [](const Share& each) { return each.known && each.is.admitted && each.job->suspended; });
  }

  // Whether the other would lie on one server where this one leaves: it is spared being torn apart.
  bool lets_lie_together(const Share& share, uint32_t wanted) const {
    std::map<ServerIndex, uint32_t> there;
    for (const GpuIndex gpu : share.mine) ++there[plan_.gpus().server_of(gpu)];
    return std::any_of(there.begin(), there.end(),
                       [&](const auto& each) { return plan_.gpus().free_on(each.first) + each.second >= wanted; });
  }

  // Whom it costs least, of equals who frees least beyond what is missing, then who frees most of that, then whose
  // GPUs are together with others that are free, then the newest. Before all that: inference jobs last, and lower
  // priorities first.
  auto price(Slot slot, const Share& wanting, int64_t missing) const {
    const Share& share = plan_.share(slot);
    const int64_t freed = frees(share, *wanting.job), useful = std::max<int64_t>(std::min(freed, missing), 1);
    const double cost = double(disturbance_cost(*share.job)) / double(useful);
    return std::tuple(share.job->job_class == JobClass::kInference, share.job->priority, cost, freed - useful, -useful,
                      !lets_lie_together(share, wanting.is.least), UINT64_MAX - share.number);
  }

  // An inference job stays while its queue has no more than its share without what that one has.
  bool is_within_share(const Share& share, const QueueShares& shares) const {
    const QueueShare& queue = shares[size_t(plan_.leaf_of(*share.job))];
    return share.job->job_class == JobClass::kInference && queue.allocated - need_of(share) < queue.fair;
  }

  struct Taking {  // for one job
    Slot slot;
    From from;
    int32_t leaf;
    int64_t need, missing;
    std::vector<Slot> may_give;  // and have not been chosen
    QueueShares shares;          // as if those that have been chosen had left
    int64_t gained = 0;
  };

  // Enough GPUs, and where they are of its own queue, enough of what that may have.
  bool is_enough(const Taking& taking, int64_t less_gained = 0, int64_t less_room = 0) const {
    if (taking.gained - less_gained < taking.missing) return false;
    if (taking.from == From::kQueues || !plan_.has_queues()) return true;
    const int64_t room = headroom(plan_.queues(), taking.shares, taking.leaf);
    return room == kNoLimit || room - less_room >= taking.need;
  }

  Slot next_giver(const Taking& taking) const {
    const auto best_of = [&](int32_t leaf) {
      const Share& wanting = plan_.share(taking.slot);
      Slot best = kNoSlot;
      for (const Slot each : taking.may_give) {
        const Share& share = plan_.share(each);
        if (plan_.leaf_of(*share.job) != leaf) continue;
        if (taking.from == From::kQueues && is_within_share(share, taking.shares)) continue;
        const int64_t missing = taking.missing - taking.gained;
        if (best == kNoSlot || price(each, wanting, missing) < price(best, wanting, missing)) best = each;
      }
      return best;
    };
    if (taking.from == From::kPriorities) return best_of(taking.leaf);
    for (const int32_t leaf : reclaimable(plan_.queues(), taking.shares, taking.leaf, taking.need)) {
      if (const Slot best = best_of(leaf); best != kNoSlot) return best;
    }
    return kNoSlot;
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
    if (partial && somebody_leaves()) return false;
    Taking taking{.slot = slot,
                  .from = from,
                  .leaf = plan_.leaf_of(*share.job),
                  .need = need_of(share),
                  .missing = partial ? 1 : int64_t(share.is.least) - left_ - plan_.leaving_left,
                  .may_give = {},
                  .shares = shares_};
    if (is_enough(taking)) return false;  // it is not their number that is in the way
    taking.may_give = candidates(slot, from);
    while (!is_enough(taking)) {
      const Slot giver = next_giver(taking);
      if (giver == kNoSlot) return false;
      std::erase(taking.may_give, giver);
      givers->push_back(giver);
      book_giver(&taking, giver, 1);
    }
    leave_alone_who_is_not_needed(&taking, givers);
    return from == From::kQueues || !plan_.has_queues() || starts_then(taking);
  }

  // After all; whom it costs most first.
  void leave_alone_who_is_not_needed(Taking* taking, std::vector<Slot>* givers) const {
    std::vector<Slot> dearest = *givers;
    const auto cost = [&](Slot slot) { return disturbance_cost(*plan_.share(slot).job); };
    std::stable_sort(dearest.begin(), dearest.end(), [&](Slot a, Slot b) { return cost(a) > cost(b); });
    for (const Slot giver : dearest) {
      const Share& share = plan_.share(giver);
      if (!is_enough(*taking, frees(share, *plan_.share(taking->slot).job), need_of(share))) continue;
      book_giver(taking, giver, -1);
      std::erase(*givers, giver);
    }
  }

  // Whether its queue may have it when they have left, and not somebody else what they leave.
  bool starts_then(const Taking& taking) {
    QueueShares before = std::exchange(plan_.queue_shares, taking.shares);
    const bool may = leaves_shares(plan_, taking.leaf, taking.need);
    plan_.queue_shares = std::move(before);
    return may;
  }

  // A queue whose jobs all run may have less than its quota, while others hold more than their shares with jobs that
  // have shrunk as far as they can. One of these at a time, and never so that its queue is owed it back. Beyond quotas
  // nobody is stopped so that others run faster.
  bool serve_growth() {
    if (somebody_leaves()) return false;  // that may be enough
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
    for (const Share& share : plan_.shares()) {
      if (!share.known || !share.is.admitted || share.is.frozen || share.is.count <= share.is.least) continue;
      allocate(plan_.queues(), plan_.leaf_of(*share.job), int64_t(share.is.count - share.is.least) * kWholeGpu,
               &shares);
    }
    return shares;
  }

  bool take_for_growth(Slot grower, int64_t need, const QueueShares& shares) {
    const Share& wanting = plan_.share(grower);
    const int64_t missing = need / kWholeGpu - std::max<int64_t>(plan_.left(), 0);
    Slot best = kNoSlot;
    const std::vector<Slot> may_give = candidates(grower, From::kQueues);
    for (const int32_t leaf : reclaimable(plan_.queues(), shares, plan_.leaf_of(*wanting.job), need)) {
      for (const Slot each : may_give) {
        const Share& share = plan_.share(each);
        const QueueShare& queue = shares[size_t(leaf)];
        if (plan_.leaf_of(*share.job) != leaf || queue.allocated - need_of(share) < queue.fair) continue;
        if (frees(share, *wanting.job) < missing) continue;
        if (best == kNoSlot || price(each, wanting, missing) < price(best, wanting, missing)) best = each;
      }
      if (best == kNoSlot) continue;
      plan_.share(best).taken_for = grower;
      plan_.touch(best);
      return true;
    }
    return false;
  }

  Tentative& plan_;
  QueueShares shares_;
  int64_t left_;
  std::set<Slot> seen_;
};

}  // namespace

void reclaim(Tentative& plan) { Reclaiming(plan).run(); }

}  // namespace tide::sched
