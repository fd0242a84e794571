#include <algorithm>
#include <functional>

#include "scheduler/actions/actions.h"
#include "scheduler/next_queue.h"
#include "scheduler/rank.h"

namespace tide::sched {
namespace {

void set_count(Tentative& plan, Slot slot, uint32_t count) {
  Standing is = plan.share(slot).is;
  is.count = count;
  plan.stand(slot, is);
}

void give(Tentative& plan, Slot slot) { set_count(plan, slot, plan.share(slot).is.count + 1); }
void take(Tentative& plan, Slot slot) { set_count(plan, slot, plan.share(slot).is.count - 1); }

void shrink_to_minima(Tentative& plan) {
  for (auto& shrinking : plan.shrinking()) {
    while (!shrinking.empty())
      set_count(plan, shrinking.begin()->second, plan.share(shrinking.begin()->second).is.least);
  }
}

struct Step {
  Slot who = kNoSlot;
  uint32_t gpus = 0;
};

// Who of the queue grows next, and by how much: who comes first of those that can use what is left.
Step next_to_grow(Tentative& plan, size_t leaf, int64_t left) {
  for (const auto& [key, slot] : plan.growing()[leaf]) {
    const Share& share = plan.share(slot);
    const uint32_t gpus = next_step(*share.job, share.is.count, share.is.most);
    if (gpus != 0 && int64_t(gpus) <= left) return {slot, gpus};
  }
  return {};
}

void grow(Tentative& plan, const Step& step) { set_count(plan, step.who, plan.share(step.who).is.count + step.gpus); }

using Counted = std::vector<std::pair<Slot, uint32_t>>;  // what they shall have: what was said last counts

// Who grows in a queue, from the minima on: reckoned first, and then told to the plan where it differs, so that little
// changes where little has.
class Growing {
 public:
  Growing(const Tentative& plan, size_t leaf)
      : plan_(plan), fresh_(plan.elastic()[leaf].begin()), end_(plan.elastic()[leaf].end()) {}

  // By how much who comes next grows; 0: nobody can. Requires: `left` never grows.
  uint32_t next_step(int64_t left) {
    for (const Entry* next = first(); next != nullptr; next = first()) {
      const uint32_t gpus = step_of(*next);
      if (gpus != 0 && int64_t(gpus) <= left) return gpus;
      pop();  // nor will it fit later
    }
    return 0;
  }
  // Requires: next_step() has just said that somebody can.
  void grow(Counted* counts) {
    Entry entry = *first();
    pop();
    std::get<1>(entry.first) += step_of(entry);
    counts->emplace_back(entry.second, count_of(entry));
    if (count_of(entry) >= plan_.share(entry.second).is.most) return;
    grown_.push_back(entry);
    std::push_heap(grown_.begin(), grown_.end(), std::greater<>());
  }

 private:
  using Entry = Tentative::ByCount::value_type;
  static uint32_t count_of(const Entry& entry) { return std::get<1>(entry.first); }
  uint32_t step_of(const Entry& entry) const {
    const Share& share = plan_.share(entry.second);
    return sched::next_step(*share.job, count_of(entry), share.is.most);
  }
  bool is_grown_first() const { return !grown_.empty() && (fresh_ == end_ || grown_.front() < *fresh_); }
  const Entry* first() const { return is_grown_first() ? &grown_.front() : fresh_ == end_ ? nullptr : &*fresh_; }
  void pop() {
    if (!is_grown_first()) {
      ++fresh_;
      return;
    }
    std::pop_heap(grown_.begin(), grown_.end(), std::greater<>());
    grown_.pop_back();
  }

  const Tentative& plan_;
  Tentative::ByCount::const_iterator fresh_, end_;  // who has its minimum
  std::vector<Entry> grown_;                        // who has more, and can have more yet: a heap
};

// Between queues it is their shares that decide, and their limits; in a queue the higher priority grows first, then the
// smallest job.
Counted grown_by_queue(const Tentative& plan) {
  const QueueTree& tree = plan.queues();
  Counted counts;
  struct Leaf {
    int32_t index, top;  // the queue, and the highest above it
    Growing who;
  };
  std::vector<Leaf> growing;
  for (size_t i = 0; i < tree.queues.size(); ++i) {
    if (plan.elastic()[i].empty()) continue;
    int32_t top = int32_t(i);
    while (tree.queues[size_t(top)].parent != kNoQueue) top = tree.queues[size_t(top)].parent;
    growing.push_back({int32_t(i), top, Growing(plan, i)});
  }
  QueueShares shares = plan.limit_shares;
  NextQueue order(tree, shares);
  int64_t left = plan.left_last;
  for (const Leaf* changed = nullptr; left > 0;) {
    for (Leaf& leaf : growing) {
      // What it may have follows from what is left, and from what those have that are below the same queue.
      const bool beside = changed == nullptr || changed->top == leaf.top;
      if (!beside && order.need(leaf.index) <= left * kWholeGpu) continue;
      const int64_t room = std::min(left, headroom(tree, shares, leaf.index) / kWholeGpu);
      const int64_t need = int64_t(leaf.who.next_step(room)) * kWholeGpu;
      if (&leaf == changed || need != order.need(leaf.index)) order.set(leaf.index, need);
    }
    const int32_t next = order.next();
    if (next == kNoQueue) break;
    const auto grows =
        std::find_if(growing.begin(), growing.end(), [&](const Leaf& leaf) { return leaf.index == next; });
    grows->who.grow(&counts);
    left -= order.need(next) / kWholeGpu;
    allocate(tree, next, order.need(next), &shares);
    changed = &*grows;
  }
  return counts;
}

void share_by_queue(Tentative& plan) {
  const auto before = [](const auto& a, const auto& b) { return a.first < b.first; };
  Counted counts = grown_by_queue(plan);
  std::stable_sort(counts.begin(), counts.end(), before);
  const size_t grown = counts.size();
  for (const auto& shrinking : plan.shrinking()) {
    for (const auto& [key, slot] : shrinking) {
      const std::pair<Slot, uint32_t> least(slot, plan.share(slot).is.least);
      if (!std::binary_search(counts.begin(), counts.begin() + long(grown), least, before)) counts.push_back(least);
    }
  }
  for (size_t i = 0; i < counts.size(); ++i) {
    const auto [slot, count] = counts[i];
    const bool is_last = i + 1 >= grown || counts[i + 1].first != slot;
    if (is_last && plan.share(slot).is.count != count) set_count(plan, slot, count);
  }
}

// Where some may have powers of two only, what is fair depends on what is left at each step: from the minima on.
void share_in_steps(Tentative& plan, int64_t reserved) {
  shrink_to_minima(plan);
  for (int64_t left = plan.left() - reserved; left > 0;) {
    const Step step = next_to_grow(plan, 0, left);
    if (step.who == kNoSlot) return;
    grow(plan, step);
    left -= step.gpus;
  }
}

}  // namespace

// From the shares of the last round, so that little changes where little has: each GPU beyond the minima belongs to who
// comes first by what it has without it, and by age; whatever order they are given in, the same ones are.
void share_out(Tentative& plan, int64_t reserved) {
  if (plan.has_queues()) return share_by_queue(plan);
  if (plan.has_steps()) return share_in_steps(plan, reserved);
  auto& growing = plan.growing()[0];
  auto& shrinking = plan.shrinking()[0];
  for (int64_t left = plan.left() - reserved; left > 0 && !growing.empty(); --left) give(plan, growing.begin()->second);
  for (int64_t left = plan.left() - reserved; left < 0 && !shrinking.empty(); ++left)
    take(plan, shrinking.rbegin()->second);
  while (!growing.empty() && !shrinking.empty() && growing.begin()->first < shrinking.rbegin()->first) {
    const Slot smallest = growing.begin()->second, largest = shrinking.rbegin()->second;
    take(plan, largest);
    give(plan, smallest);
  }
}

}  // namespace tide::sched
