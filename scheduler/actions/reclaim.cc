#include <algorithm>

#include "scheduler/actions/actions.h"
#include "scheduler/spread.h"

namespace tide::sched {
namespace {

constexpr size_t kOwedMax = 16;  // jobs that are looked at in a round

class Reclaiming {
 public:
  explicit Reclaiming(Tentative& plan) : plan_(plan), shares_(plan.queue_shares), left_(plan.left_last) {}

  void run() {
    for (size_t tries = 0; tries < kOwedMax; ++tries) {
      const Slot slot = next_owed();
      if (slot == kNoSlot) return;
      seen_.insert(slot);
      std::vector<Slot> givers;
      if (!choose_givers(slot, &givers)) continue;
      if (!could_be_placed(slot, givers)) continue;
      for (const Slot giver : givers) {
        plan_.share(giver).taken_for = slot;
        plan_.touch(giver);
      }
      return;  // one at a time: what they leave is kept for it, and the next round looks further
    }
  }

 private:
  // Tried out: what the givers leave, and what others have beyond their minima, must be GPUs on which it can lie.
  bool could_be_placed(Slot slot, const std::vector<Slot>& givers) {
    const Share& share = plan_.share(slot);
    if (share.job->is_partial()) return true;
    const size_t before = plan_.checkpoint();
    for (const Slot giver : givers) {
      if (!plan_.share(giver).job->is_partial()) plan_.set_mine(giver, {});
    }
    for (Slot other = 0; other < plan_.shares().size(); ++other) {
      const Share& each = plan_.share(other);
      if (!each.known || !each.is.admitted || each.is.frozen || each.job->is_partial()) continue;
      if (each.mine.size() > each.is.least)
        plan_.set_mine(other, keep_gpus(plan_.gpus(), *each.job, each.mine, each.is.least));
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

  // Jobs of the queue that may be disturbed, on GPUs that are of use, the newest first.
  std::vector<Slot> candidates(int32_t leaf, const JobView& job) const {
    std::vector<Slot> slots;
    for (Slot slot = 0; slot < plan_.shares().size(); ++slot) {
      const Share& share = plan_.share(slot);
      if (!share.known || !share.is.admitted || share.is.frozen || !share.job->running) continue;
      if (plan_.leaf_of(*share.job) != leaf || !share.job->preemptible || share.mine.empty()) continue;
      const bool of_use = std::all_of(share.mine.begin(), share.mine.end(), [&](GpuIndex gpu) {
        return capacity(job, plan_.gpus().view(gpu)) > 0 && plan_.may_begin(job, gpu);
      });
      if (of_use) slots.push_back(slot);
    }
    std::sort(slots.begin(), slots.end(),
              [&](Slot a, Slot b) { return plan_.share(a).number > plan_.share(b).number; });
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

  bool choose_givers(Slot slot, std::vector<Slot>* givers) const {
    const Share& share = plan_.share(slot);
    const int32_t leaf = plan_.leaf_of(*share.job);
    const int64_t need = need_of(share);
    const int64_t missing = share.job->is_partial() ? 1 : int64_t(share.is.least) - left_ - plan_.leaving_left;
    if (share.job->is_partial() && somebody_leaves()) return false;
    if (missing <= 0) return false;  // it is not their number that is in the way
    QueueShares shares = shares_;
    int64_t gained = 0;
    while (gained < missing) {
      Slot giver = kNoSlot;
      for (const int32_t from : reclaimable(plan_.queues(), shares, leaf, need)) {
        for (const Slot each : candidates(from, *share.job)) {
          if (std::find(givers->begin(), givers->end(), each) != givers->end()) continue;
          if (frees(plan_.share(each), *share.job) == 0) continue;
          giver = each;
          break;
        }
        if (giver != kNoSlot) break;
      }
      if (giver == kNoSlot) return false;
      givers->push_back(giver);
      gained += frees(plan_.share(giver), *share.job);
      allocate(plan_.queues(), plan_.leaf_of(*plan_.share(giver).job), -need_of(plan_.share(giver)), &shares);
    }
    // Who is not needed after all stays.
    std::erase_if(*givers, [&](Slot giver) {
      const int64_t part = frees(plan_.share(giver), *share.job);
      if (gained - part < missing) return false;
      gained -= part;
      return true;
    });
    return true;
  }

  Tentative& plan_;
  QueueShares shares_;
  int64_t left_;
  std::set<Slot> seen_;
};

}  // namespace

void reclaim(Tentative& plan) {
  if (plan.has_queues()) Reclaiming(plan).run();
}

}  // namespace tide::sched
