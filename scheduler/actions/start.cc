#include <algorithm>

#include "scheduler/actions/actions.h"
#include "scheduler/expect.h"
#include "scheduler/next_queue.h"
#include "scheduler/policy.h"

namespace tide::sched {
namespace {

constexpr size_t kKindsMax = 64;    // beyond, going through all who wait is faster
constexpr size_t kPassersMax = 64;  // of a kind that are looked at while the pool drains, the first in line

class Starting {
 public:
  explicit Starting(Tentative& plan) : plan_(plan), left_(plan.left_beside_minima() - plan.awaited()) {}

  int64_t run() {
    const auto homeless = plan_.homeless();
    for (const auto& [number, slot] : homeless) left_ -= take_room(slot) ? 0 : 1;
    plan_.left_first = left_;
    plan_.started.clear();
    plan_.blocked_by = kNoSlot;
    plan_.blocked_until_ms = 0;
    plan_.blocked_spares = 0;
    plan_.reserved.clear();
    if (plan_.has_queues()) note_shares(plan_);
    const bool held_up = !start_dues();
    if (held_up) {
      plan_.looked_at_each = false;
    } else if (plan_.has_queues()) {
      plan_.looked_at_each = false;
      by_queue();
    } else {
      if (plan_.has_priorities() && !plan_.turns()) leaving_ = leaving(plan_);
      plan_.looked_at_each = plan_.turns() || leaving_ != 0 || plan_.waiting()[0].size() > kKindsMax;
      plan_.looked_at_each ? one_by_one() : by_kind();
    }
    const int64_t kept = held_up ? std::max<int64_t>(left_, 0) : 0;  // for who is due, with what others leave
    plan_.left_last = left_ - kept;
    plan_.leaving_left = leaving_;
    for (const auto& [slot, room] : guesses_) plan_.take_back(slot, room);
    plan_.drop_new_rooms();
    return new_rooms_ + kept + std::clamp<int64_t>(plan_.left() - new_rooms_ - kept, 0, plan_.awaited());
  }

 private:
  // False: one more GPU is needed for it.
  bool take_room(Slot slot) {
    GpuIndex room = plan_.best_room(*plan_.share(slot).job);
    const bool found = room != kNoGpu;
    if (!found) room = plan_.new_room();
    new_rooms_ += found ? 0 : 1;
    plan_.guess(slot, room);
    guesses_.push_back({slot, room});
    return found;
  }

  bool fits(const Share& share) const {
    if (int64_t(share.is.least) <= left_) return true;
    return share.job->is_partial() && plan_.best_room(*share.job) != kNoGpu;
  }

  // Servers on which resuming it has just failed may be the only ones with room.
  bool is_shut_out(const Share& share) const {
    return !share.job->failed_on.empty() && int64_t(share.is.least) > plan_.open_to(*share.job);
  }

  // Not for who may use some GPUs only: all others would leave the rest idle for it.
  bool drains(const Share& share) const {
    const Requirements& require = share.job->require;
    return require.model.empty() && require.labels.empty() && share.job->barred == nullptr &&
           share.job->skipped >= kSkipsMax && int64_t(share.is.least) <= plan_.total();
  }

  void start(Slot slot) {
    Standing is = plan_.share(slot).is;
    const Order order = plan_.order_of(plan_.share(slot));
    is.admitted = true;
    is.count = is.least;
    plan_.stand(slot, is);
    if (!plan_.share(slot).job->is_partial()) {
      left_ -= is.least;
    } else if (!take_room(slot)) {
      --left_;
    }
    plan_.started.push_back({order, left_});
    plan_.share(slot).began = plan_.started.size();
  }

  // Who is due comes before all others; until there is room for it nobody else starts. Whether they may.
  bool start_dues() {
    const Line dues = plan_.dues();
    for (const auto& [order, slot] : dues) {
      const Share& share = plan_.share(slot);
      if (is_shut_out(share)) continue;
      if (!fits(share) && share.job->in_line) continue;  // it gets what others leave; what is free is others'
      if (!fits(share)) {
        plan_.blocked_by = slot;
        plan_.blocked_from = {.rank = INT64_MIN};
        return false;
      }
      start(slot);
      if (!plan_.has_queues()) continue;
      book_start(plan_.leaf_of(*share.job), share);
    }
    return true;
  }

  // Jobs of a kind start in order, and when one of them cannot, none of those behind it can: what is left only gets
  // less.
  void by_kind() {
    std::vector<const Line*> open;
    for (const auto& [kind, line] : plan_.waiting()[0]) open.push_back(&line);
    for (;;) {
      std::pair<Order, Slot> first = {{}, kNoSlot};
      for (size_t i = 0; i < open.size();) {
        const Share& share = plan_.share(open[i]->begin()->second);
        if (!fits(share) || is_shut_out(share)) {
          open[i] = open.back();
          open.pop_back();
          continue;
        }
        if (first.second == kNoSlot || *open[i]->begin() < first) first = *open[i]->begin();
        ++i;
      }
      if (is_blocked_before(first)) return let_pass();
      if (first.second == kNoSlot) return;
      std::erase_if(open, [&](const Line* line) { return line->size() == 1 && *line->begin() == first; });
      start(first.second);
    }
  }

  // Whether the pool drains for somebody who comes before it.
  bool is_blocked_before(const std::pair<Order, Slot>& first) {
    for (const auto& drainer : plan_.drainers()[0]) {
      if (first.second != kNoSlot && !(drainer < first)) return false;
      const Share& share = plan_.share(drainer.second);
      if (is_shut_out(share) || !drains(share) || fits(share)) continue;
      drain_for(drainer.second);
      return true;
    }
    return false;
  }

  // From now on others start only if that does not keep it waiting.
  void drain_for(Slot slot) {
    plan_.blocked_by = slot;
    plan_.blocked_from = plan_.order_of(plan_.share(slot));
    if (plan_.turns()) return;  // when who runs leaves is decided by turns
    const Opening opening = opening_for(plan_, slot, left_);
    plan_.blocked_until_ms = opening.at_ms;
    plan_.blocked_spares = opening.spares;
  }

  // Starts it although the pool drains: on what nobody uses, if it is expected to be over before that one can start, or
  // that one does not need what it takes.
  bool start_passing(Slot slot) {
    const Share& share = plan_.share(slot);
    const JobView& job = *share.job;
    if (plan_.turns() || plan_.blocked_until_ms == 0 || !fits(share)) return false;
    const int64_t least = job.is_partial() ? 1 : int64_t(share.is.least);
    const bool unused = least <= plan_.left() - new_rooms_;
    if (!unused && !(job.is_partial() && plan_.best_room(job) != kNoGpu)) return false;
    const bool in_time = is_over_in_time(job);
    if (!in_time && least > plan_.blocked_spares) return false;
    if (!in_time) plan_.blocked_spares -= least;
    start(slot);
    if (!in_time) return true;
    Standing is = plan_.share(slot).is;
    is.passes = plan_.blocked_by;
    plan_.stand(slot, is);
    return true;
  }

  // Of each kind that there may be room for the first in line.
  std::vector<std::pair<Order, Slot>> who_may_pass(const Kinds& kinds) const {
    std::vector<std::pair<Order, Slot>> some;
    const int64_t unused = plan_.left() - new_rooms_;
    const uint32_t part = unused > 0 ? kWholeGpu : plan_.part_left_most();
    for (const auto& [kind, line] : kinds) {
      if (kind.part < kWholeGpu ? kind.part > part : int64_t(kind.least) > unused) continue;
      size_t count = 0;
      for (auto who = line.begin(); who != line.end() && count < kPassersMax; ++who, ++count) {
        if (who->second != plan_.blocked_by && may_pass(plan_.share(who->second))) some.push_back(*who);
      }
    }
    std::sort(some.begin(), some.end());
    return some;
  }

  bool is_over_in_time(const JobView& job) const {
    const uint64_t ends_ms = end_if_started(job, plan_.now_ms());
    return ends_ms != 0 && ends_ms <= plan_.blocked_until_ms;
  }

  // What is spared only gets less.
  bool may_pass(const Share& share) const {
    const int64_t least = share.job->is_partial() ? 1 : int64_t(share.is.least);
    return least <= plan_.blocked_spares || is_over_in_time(*share.job);
  }

  void let_pass() {
    if (plan_.blocked_until_ms == 0) return;
    for (const auto& [order, slot] : who_may_pass(plan_.waiting()[0])) {
      if (!is_shut_out(plan_.share(slot))) (void)start_passing(slot);
    }
  }

  // Whether it waits for the job whose turn is next, or for the one for which the pool drains. Where jobs take turns
  // only those that never ran wait for the latter: the end of others' turns does not help it.
  bool is_behind(const Share& share) const {
    if (plan_.blocked_by == kNoSlot) return false;
    const auto& places = share.job->places;
    const bool ran = std::any_of(places.begin(), places.end(), [](const GpuId& place) { return !place.none(); });
    return !plan_.turns() || plan_.share(plan_.blocked_by).job->id == plan_.next_turn() || !ran;
  }

  void one_by_one() {
    std::vector<std::pair<Order, Slot>> all;
    for (const auto& [kind, line] : plan_.waiting()[0]) all.insert(all.end(), line.begin(), line.end());
    std::sort(all.begin(), all.end());
    for (const auto& [order, slot] : all) {
      Share& share = plan_.share(slot);
      share.left = left_;
      if (is_shut_out(share)) {
        share.why = Why::kNoSet;
      } else if (is_behind(share) && start_passing(slot)) {
        continue;
      } else if (is_behind(share)) {
        share.why = Why::kBehind;
        share.behind = plan_.blocked_by;
      } else if (fits(share)) {
        start(slot);
      } else if (waits_for_leaving(share)) {
        share.why = Why::kNeeds;
        keep_leaving(slot);
      } else {
        share.why = Why::kNeeds;
        if (drains(share) || share.job->id == plan_.next_turn()) drain_for(slot);
      }
    }
  }

  // Whether those who are being suspended leave enough, and leave it to this one.
  bool waits_for_leaving(const Share& share) const {
    return leaving_ != 0 && !share.job->is_partial() && int64_t(share.is.least) <= left_ + leaving_ &&
           is_yielded_to(plan_, *share.job);
  }

  void keep_leaving(Slot slot) {
    const int64_t least = plan_.share(slot).is.least, now = std::clamp<int64_t>(left_, 0, least);
    left_ -= now;
    leaving_ -= least - now;
    plan_.reserved.insert(slot);
  }

  struct Next {  // of a queue
    std::pair<Order, Slot> who = {{}, kNoSlot};
    bool fits = false;
    bool yielded_to = false;  // by others of its queue
  };

  // The first of a kind that has not been tried in vain. While jobs start there is only ever less left, of the pool and
  // of what each queue may have: who cannot start now is not asked again, nor who is behind it.
  struct Head {
    std::pair<Order, Slot> who;
    const Line* line;
    bool operator<(const Head& other) const { return other.who < who; }  // of a heap: the first is on top
  };

  struct Waiting {  // in a queue
    int32_t leaf = 0;
    std::vector<Head> heads;  // a heap
  };

  // All of a queue that are worth a look: whoever needs more can neither start nor drain the pool.
  Waiting heads_of(int32_t leaf) const {
    Waiting waiting{.leaf = leaf, .heads = {}};
    const Kinds& kinds = plan_.waiting()[size_t(leaf)];
    if (kinds.empty()) return waiting;
    const int64_t left = std::max(left_, left_ + leaving_) * kWholeGpu;
    const int64_t may =
        std::max({left, int64_t(plan_.part_left_most()), owed_to(plan_.queues(), plan_.queue_shares, leaf)});
    const int64_t most = std::min(may, headroom(plan_.queues(), plan_.queue_shares, leaf));
    for (const auto& [kind, line] : kinds) {
      if (need_of(kind) > most && kind.least != 0) break;  // they are in the order of what they need
      waiting.heads.push_back({*line.begin(), &line});
    }
    std::make_heap(waiting.heads.begin(), waiting.heads.end());
    return waiting;
  }

  // Whether it may be tried: it can start, or the pool drains for it, or GPUs that others leave are kept for it.
  bool may_be_next(int32_t leaf, Slot slot, Next* next) const {
    const Share& share = plan_.share(slot);
    const int64_t need = need_of(share);
    const bool room = fits(share), later = !share.job->is_partial() && int64_t(share.is.least) <= left_ + leaving_;
    if (!room && !later && !drains(share)) return false;  // whatever its queue is owed
    if (headroom(plan_.queues(), plan_.queue_shares, leaf) < need || is_shut_out(share)) return false;
    const bool leaves = (room || later) && leaves_shares(plan_, leaf, need);
    next->fits = room && leaves && headroom(plan_.queues(), plan_.limit_shares, leaf) >= need;
    next->yielded_to = later && leaves && waits_for_leaving(share);
    if (next->fits || next->yielded_to) return true;
    return (later || drains(share)) && is_owed(plan_.queues(), plan_.queue_shares, leaf, need);
  }

  // Who of the queue may be tried next: the first that may.
  Next next_of(Waiting* waiting) const {
    for (auto& heads = waiting->heads; !heads.empty(); heads.pop_back()) {
      Next next{.who = heads.front().who};
      if (may_be_next(waiting->leaf, next.who.second, &next)) return next;
      std::pop_heap(heads.begin(), heads.end());
    }
    return {};
  }

  // Behind who is next. Requires: that one waits yet.
  static void pass(Waiting* waiting) {
    auto& heads = waiting->heads;
    std::pop_heap(heads.begin(), heads.end());
    const auto behind = heads.back().line->upper_bound(heads.back().who);
    if (behind == heads.back().line->end()) return heads.pop_back();
    heads.back().who = *behind;
    std::push_heap(heads.begin(), heads.end());
  }

  // For whom GPUs of a model are kept: those are of no use to others.
  void start_entitled() {
    if (!plan_.somebody_is_entitled()) return;
    std::vector<std::pair<std::pair<Order, Slot>, size_t>> entitled;  // with the leaf
    for (size_t leaf = 0; leaf < plan_.waiting().size(); ++leaf) {
      for (const auto& [kind, line] : plan_.waiting()[leaf]) {
        if (kind.picky != kNoSlot && plan_.share(kind.picky).job->entitled) entitled.push_back({*line.begin(), leaf});
      }
    }
    std::sort(entitled.begin(), entitled.end());
    for (const auto& [who, leaf] : entitled) {
      const Share& share = plan_.share(who.second);
      const int64_t need = need_of(share);
      if (!fits(share) || headroom(plan_.queues(), plan_.limit_shares, int32_t(leaf)) < need) continue;
      start(who.second);
      book_start(int32_t(leaf), plan_.share(who.second));
    }
  }

  void book_start(int32_t leaf, const Share& share) {
    const int64_t need = need_of(share);
    book(plan_, leaf, need, std::max(int64_t(share.is.most) * kWholeGpu, need));
  }

  // Between queues it is shares that decide, in a queue priority and then the order of submission.
  void by_queue() {
    const QueueTree& tree = plan_.queues();
    leaving_ = leaving(plan_);
    start_entitled();
    std::vector<Waiting> waiting(tree.queues.size());
    for (size_t i = 0; i < waiting.size(); ++i) {
      if (tree.queues[i].leaf()) waiting[i] = heads_of(int32_t(i));
    }
    std::vector<Next> next(tree.queues.size());
    NextQueue order(tree, plan_.queue_shares);
    for (int32_t changed = kNoQueue;;) {
      for (size_t i = 0; i < next.size(); ++i) {
        const int32_t leaf = int32_t(i);
        if (waiting[i].heads.empty() && order.need(leaf) == 0) continue;
        next[i] = next_of(&waiting[i]);
        const int64_t need = next[i].who.second == kNoSlot ? 0 : need_of(plan_.share(next[i].who.second));
        if (leaf == changed || need != order.need(leaf)) order.set(leaf, need);
      }
      changed = order.next();
      if (changed == kNoQueue) return;
      if (!try_next(next[size_t(changed)], &waiting[size_t(changed)])) return let_pass_in_queues();
    }
  }

  // False: everybody else waits for it.
  bool try_next(const Next& next, Waiting* waiting) {
    const Slot slot = next.who.second;
    const Share& share = plan_.share(slot);
    const int64_t need = need_of(share), least = share.is.least;
    const bool owed = is_owed(plan_.queues(), plan_.queue_shares, waiting->leaf, need);
    const bool later = least <= left_ + leaving_ && !share.job->is_partial();
    if (next.fits) {
      pass(waiting);
      start(slot);
      book_start(waiting->leaf, plan_.share(slot));
    } else if (next.yielded_to || (owed && later)) {
      pass(waiting);
      keep_leaving(slot);
      book(plan_, waiting->leaf, need);
    } else {
      waiting->heads.clear();
      plan_.share(slot).why = Why::kNeeds;
      if (owed) drain_for(slot);
      return !owed;
    }
    return true;
  }

  // As far as limits allow, and others' shares.
  void let_pass_in_queues() {
    if (plan_.blocked_until_ms == 0) return;
    std::vector<std::pair<std::pair<Order, Slot>, int32_t>> some;  // with the leaf
    for (size_t leaf = 0; leaf < plan_.waiting().size(); ++leaf) {
      for (const auto& who : who_may_pass(plan_.waiting()[leaf])) some.push_back({who, int32_t(leaf)});
    }
    std::sort(some.begin(), some.end());
    for (const auto& [who, leaf] : some) {
      const Share& share = plan_.share(who.second);
      const int64_t need = need_of(share);
      if (plan_.reserved.count(who.second) != 0 || is_shut_out(share)) continue;
      if (headroom(plan_.queues(), plan_.queue_shares, leaf) < need) continue;
      if (headroom(plan_.queues(), plan_.limit_shares, leaf) < need || !leaves_shares(plan_, leaf, need)) continue;
      if (!start_passing(who.second)) continue;
      book_start(leaf, share);
    }
  }

  Tentative& plan_;
  int64_t leaving_ = 0;  // GPUs of those that are being suspended
  int64_t left_;
  int64_t new_rooms_ = 0;
  std::vector<std::pair<Slot, GpuIndex>> guesses_;
};

}  // namespace

int64_t start_jobs(Tentative& plan) { return Starting(plan).run(); }

}  // namespace tide::sched
