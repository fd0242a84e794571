#include "scheduler/shares.h"

#include <absl/container/inlined_vector.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <span>
#include <tuple>

namespace tide::sched {
namespace {

constexpr int64_t kGpu = 1000;
constexpr double kHolds = 0.5;        // of a GPU: who has it keeps it until another is ahead by so much
constexpr double kWeightLeast = 0.1;  // what the past leaves at least of a weight

int64_t thousandths(double gpus) { return std::llround(gpus * double(kGpu)); }

// The most that jobs of it can have, as far as it says itself.
int64_t cap_of(const Queue& queue) { return queue.preemptible ? queue.limit : std::min(queue.limit, queue.quota); }

// A queue while those of one parent divide what that has.
struct Taker {
  int32_t index = 0;
  int64_t ask = 0;  // it gets no more
  int64_t fair = 0;
  double weight = 0;
  double real = 0;  // its share before it is made of whole GPUs
};

// A round of the scheduler divides shares several times: for some queues without asking for memory.
template <typename T>
using Some = absl::InlinedVector<T, 16>;
using Takers = Some<Taker>;

// Water-filling: everybody gets the same for its weight, but no more than it asks for. Sets `real`.
void fill(std::span<Taker* const> some, double amount) {
  Some<std::pair<double, Taker*>> takers;  // with the level at which it is full; of equals in their order
  for (Taker* taker : some) takers.emplace_back(double(taker->ask - taker->fair) / taker->weight, taker);
  std::sort(takers.begin(), takers.end());
  double weights = 0;
  for (const auto& [level, taker] : takers) weights += taker->weight;
  for (const auto& [level, taker] : takers) {
    const double got = std::min(double(taker->ask - taker->fair), amount * taker->weight / weights);
    taker->real = double(taker->fair) + got;
    amount -= got;
    weights -= taker->weight;
  }
}

// Makes `fair` of `real`: whole GPUs, where what is asked for is whole. What that leaves goes to whose share lost most.
void round(std::span<Taker* const> takers, const QueueShares& shares, int64_t* amount) {
  Some<std::tuple<double, double, Taker*>> order;  // what it lost most first, then who had less in the past
  for (Taker* taker : takers) {
    const int64_t before = taker->fair;
    const bool full = taker->real >= double(taker->ask) - 1e-6;
    const int64_t whole = int64_t(std::floor(taker->real / double(kGpu) + 1e-9)) * kGpu;
    taker->fair = full ? taker->ask : std::max(before, whole);
    *amount -= taker->fair - before;
    if (full) continue;
    const double lost = (taker->real - double(taker->fair)) / double(kGpu);
    const bool holds = shares[size_t(taker->index)].allocated > taker->fair;
    const double score = std::nearbyint((lost + (holds ? kHolds : 0)) * 1e6);
    order.emplace_back(-score, shares[size_t(taker->index)].used, taker);
  }
  std::sort(order.begin(), order.end());
  for (bool gave = true; gave && *amount > 0;) {
    gave = false;
    for (auto& [score, used, taker] : order) {
      const int64_t more = std::min({kGpu, taker->ask - taker->fair, *amount});
      taker->fair += more;
      *amount -= more;
      gave |= more > 0;
    }
  }
}

// One after the other by priority; `*amount` is what is left.
void fill_by_priority(const QueueTree& tree, const QueueShares& shares, Takers* takers, int64_t* amount) {
  if (*amount <= 0) return;
  Some<Taker*> some;
  for (Taker& taker : *takers) {
    if (taker.weight > 0 && taker.ask > taker.fair) some.push_back(&taker);
  }
  const auto priority = [&](const Taker* taker) { return tree.queues[size_t(taker->index)].priority; };
  const auto before = [&](const Taker* a, const Taker* b) { return priority(a) > priority(b); };
  if (!std::is_sorted(some.begin(), some.end(), before)) std::stable_sort(some.begin(), some.end(), before);
  for (auto first = some.begin(); first != some.end() && *amount > 0;) {
    const auto end =
        std::find_if(first, some.end(), [&](const Taker* each) { return priority(each) != priority(*first); });
    const std::span<Taker* const> rank(&*first, size_t(end - first));
    fill(rank, double(*amount));
    round(rank, shares, amount);
    first = end;
  }
}

// By what it is entitled to, corrected by what it had.
double weight_now(const Taker& taker, double weight, double weights, double part, const QueueShares& shares,
                  const ShareRules& rules) {
  const double due = weight / weights;
  const double had = part > 0 ? std::min(1.0, shares[size_t(taker.index)].used / part) : 0;
  return std::max(due * kWeightLeast, due + rules.past_weight * (due - had));
}

// What the children of one queue (or of the pool) get of `amount`. `part`: of the pool, that it is.
void divide(const QueueTree& tree, const std::vector<int32_t>& children, int64_t amount, double part,
            const std::vector<int64_t>& asks, const ShareRules& rules, QueueShares* shares) {
  Takers takers;
  for (const int32_t child : children) {
    const Queue& queue = tree.queues[size_t(child)];
    const int64_t ask = asks[size_t(child)];
    takers.push_back({.index = child, .ask = std::min(ask, queue.quota), .weight = double(queue.quota)});
  }
  fill_by_priority(tree, *shares, &takers, &amount);
  double weights = 0;
  for (Taker& taker : takers) {
    taker.ask = asks[size_t(taker.index)];
    if (taker.ask > taker.fair) weights += tree.queues[size_t(taker.index)].weight;
  }
  for (Taker& taker : takers) {
    const double weight = tree.queues[size_t(taker.index)].weight;
    taker.weight = weight > 0 && weights > 0 ? weight_now(taker, weight, weights, part, *shares, rules) : 0;
  }
  fill_by_priority(tree, *shares, &takers, &amount);
  for (Taker& taker : takers) taker.weight = taker.weight > 0 ? 0 : 1;  // what those with a weight leave
  fill_by_priority(tree, *shares, &takers, &amount);
  for (const Taker& taker : takers) (*shares)[size_t(taker.index)].fair = taker.fair;
}

// The lowest queue above which, or at which, both are; kNoQueue: only the pool.
int32_t meet(const QueueTree& tree, int32_t a, int32_t b) {
  for (int32_t at = a; at != kNoQueue; at = tree.queues[size_t(at)].parent) {
    for (int32_t other = b; other != kNoQueue; other = tree.queues[size_t(other)].parent) {
      if (at == other) return at;
    }
  }
  return kNoQueue;
}

// How much more each queue from `leaf` up to below `end` may get within its share.
int64_t owed_below(const QueueTree& tree, const QueueShares& shares, int32_t leaf, int32_t end) {
  int64_t least = kNoLimit;
  for (int32_t at = leaf; at != end; at = tree.queues[size_t(at)].parent)
    least = std::min(least, shares[size_t(at)].fair - shares[size_t(at)].allocated);
  return least;
}

// Whether `victim`, and what it is a part of beside `leaf`, has more than its share; then `*meeting`: where both meet.
bool has_too_much(const QueueTree& tree, const QueueShares& shares, int32_t leaf, int32_t victim, int32_t* meeting) {
  if (victim == leaf || !tree.queues[size_t(victim)].preemptible || shares[size_t(victim)].over() == 0) return false;
  *meeting = meet(tree, leaf, victim);
  int32_t beside = victim;
  while (tree.queues[size_t(beside)].parent != *meeting) beside = tree.queues[size_t(beside)].parent;
  return shares[size_t(beside)].over() > 0;
}

}  // namespace

int32_t QueueTree::find(const std::string& name) const {
  for (size_t i = 0; i < queues.size(); ++i) {
    if (queues[i].name == name) return int32_t(i);
  }
  return kNoQueue;
}

int32_t add_orphan(QueueTree* tree, const std::string& name) {
  const int32_t index = int32_t(tree->queues.size());
  tree->queues.push_back({.name = name});
  tree->top.push_back(index);
  return index;
}

QueueTree make_tree(const std::vector<QueueConfig>& configs) {
  QueueTree tree;
  if (configs.empty()) {
    add_orphan(&tree, kDefaultQueue);
    return tree;
  }
  std::map<std::string, std::vector<const QueueConfig*>> children;
  for (const QueueConfig& config : configs) children[config.parent].push_back(&config);
  std::vector<std::pair<const QueueConfig*, int32_t>> next;  // with the parent's index
  for (const QueueConfig* config : children[""]) next.emplace_back(config, kNoQueue);
  for (size_t i = 0; i < next.size(); ++i) {
    const auto [config, parent] = next[i];
    const bool above = parent == kNoQueue || tree.queues[size_t(parent)].preemptible;
    tree.queues.push_back({.name = config->name,
                           .parent = parent,
                           .quota = thousandths(config->quota),
                           .limit = config->limit ? thousandths(*config->limit) : kNoLimit,
                           .weight = config->over_quota_weight,
                           .priority = config->priority,
                           .preemptible = config->preemptible && above,
                           .models = config->models});
    (parent == kNoQueue ? tree.top : tree.queues[size_t(parent)].children).push_back(int32_t(i));
    const auto found = children.find(config->name);
    if (found == children.end()) continue;
    for (const QueueConfig* child : found->second) next.emplace_back(child, int32_t(i));
  }
  return tree;
}

QueueShares fair_shares(const QueueTree& tree, const std::vector<QueueLoad>& loads, int64_t pool,
                        const ShareRules& rules) {
  const size_t count = tree.queues.size();
  QueueShares shares(count);
  std::vector<int64_t> asks(count);
  for (size_t i = count; i-- > 0;) {  // children before their parents
    const Queue& queue = tree.queues[i];
    if (queue.leaf() && i < loads.size()) {
      shares[i] = {.demand = loads[i].demand, .allocated = loads[i].allocated, .used = loads[i].used};
      asks[i] = std::max<int64_t>(loads[i].demand, 0);
    }
    asks[i] = std::min(asks[i], cap_of(queue));
    if (queue.parent == kNoQueue) continue;
    QueueShare& parent = shares[size_t(queue.parent)];
    parent.demand += shares[i].demand;
    parent.allocated += shares[i].allocated;
    parent.used += shares[i].used;
    asks[size_t(queue.parent)] += asks[i];
  }
  divide(tree, tree.top, pool, 1, asks, rules, &shares);
  for (size_t i = 0; i < count; ++i) {
    const double part = pool > 0 ? double(shares[i].fair) / double(pool) : 0;
    if (!tree.queues[i].leaf()) divide(tree, tree.queues[i].children, shares[i].fair, part, asks, rules, &shares);
  }
  return shares;
}

void allocate(const QueueTree& tree, int32_t leaf, int64_t amount, QueueShares* shares) {
  for (int32_t at = leaf; at != kNoQueue; at = tree.queues[size_t(at)].parent)
    (*shares)[size_t(at)].allocated += amount;
}

int64_t headroom(const QueueTree& tree, const QueueShares& shares, int32_t leaf, int32_t* by) {
  int64_t least = kNoLimit;
  for (int32_t at = leaf; at != kNoQueue; at = tree.queues[size_t(at)].parent) {
    const int64_t cap = cap_of(tree.queues[size_t(at)]);
    if (cap == kNoLimit || cap - shares[size_t(at)].allocated >= least) continue;
    least = cap - shares[size_t(at)].allocated;
    if (by != nullptr) *by = at;
  }
  return least;
}

int64_t most_ever(const QueueTree& tree, int32_t leaf, int32_t* by) {
  return headroom(tree, QueueShares(tree.queues.size()), leaf, by);
}

int64_t owed_to(const QueueTree& tree, const QueueShares& shares, int32_t leaf) {
  return owed_below(tree, shares, leaf, kNoQueue);
}

bool is_owed(const QueueTree& tree, const QueueShares& shares, int32_t leaf, int64_t need) {
  return need <= owed_to(tree, shares, leaf);
}

bool may_reclaim(const QueueTree& tree, const QueueShares& shares, int32_t leaf, int64_t need, int32_t victim) {
  int32_t meeting = kNoQueue;
  if (!has_too_much(tree, shares, leaf, victim, &meeting)) return false;
  return need <= owed_below(tree, shares, leaf, meeting);  // from there up nothing changes
}

int64_t most_reclaimable(const QueueTree& tree, const QueueShares& shares, int32_t leaf) {
  int64_t most = 0;
  if (shares[size_t(leaf)].allocated >= shares[size_t(leaf)].fair) return most;
  for (size_t i = 0; i < tree.queues.size(); ++i) {
    int32_t meeting = kNoQueue;
    const bool may = tree.queues[i].leaf() && has_too_much(tree, shares, leaf, int32_t(i), &meeting);
    if (may) most = std::max(most, owed_below(tree, shares, leaf, meeting));
  }
  return most;
}

std::vector<int32_t> reclaimable(const QueueTree& tree, const QueueShares& shares, int32_t leaf, int64_t need) {
  std::vector<int32_t> victims;
  for (size_t i = 0; i < tree.queues.size(); ++i) {
    const bool may = tree.queues[i].leaf() && may_reclaim(tree, shares, leaf, need, int32_t(i));
    if (may) victims.push_back(int32_t(i));
  }
  std::stable_sort(victims.begin(), victims.end(),
                   [&](int32_t a, int32_t b) { return shares[size_t(a)].over() > shares[size_t(b)].over(); });
  return victims;
}

}  // namespace tide::sched
