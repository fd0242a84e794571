#include "scheduler/queues.h"

#include <algorithm>
#include <map>
#include <set>

#include "base/log.h"
#include "scheduler/models.h"
#include "scheduler/rank.h"
#include "scheduler/reservations.h"
#include "scheduler/room.h"
#include "scheduler/spread.h"

namespace tide::sched {
namespace {

constexpr size_t kNamesShown = 20;

std::string amount(int64_t thousandths) { return format("%g", double(thousandths) / 1000); }

std::string gpus(int64_t thousandths) { return amount(thousandths) + (thousandths == 1000 ? " GPU" : " GPUs"); }

std::string leaves_of(const QueueTree& tree, int32_t below) {
  std::string names;
  size_t count = 0;
  for (size_t i = 0; i < tree.queues.size(); ++i) {
    if (!tree.queues[i].leaf()) continue;
    bool is_below = below == kNoQueue;
    for (int32_t at = int32_t(i); at != kNoQueue && !is_below; at = tree.queues[size_t(at)].parent)
      is_below = at == below;
    if (!is_below) continue;
    if (++count <= kNamesShown) names += (names.empty() ? "" : ", ") + tree.queues[i].name;
  }
  return count <= kNamesShown ? names : names + format(" and %zu more (`tide queues`)", count - kNamesShown);
}

int32_t only_leaf(const QueueTree& tree) {
  int32_t only = kNoQueue;
  for (size_t i = 0; i < tree.queues.size(); ++i) {
    if (!tree.queues[i].leaf()) continue;
    if (only != kNoQueue) return kNoQueue;
    only = int32_t(i);
  }
  return only;
}

// "a limit of 4 GPUs", of the queue itself or one above it.
std::string cap_text(const QueueTree& tree, int32_t leaf, int32_t by) {
  const Queue& queue = tree.queues[size_t(by)];
  const bool is_quota = !queue.preemptible && queue.quota < queue.limit;
  const std::string whose = by == leaf ? "queue '" + queue.name + "'" : "queue '" + queue.name + "', above its own,";
  if (is_quota) return whose + " is not preemptible and has a quota of " + gpus(queue.quota);
  return whose + " has a limit of " + gpus(queue.limit);
}

// It waits, and nobody took its GPUs by hand.
bool waits(const JobView& job) { return !job.running && !job.suspended; }

}  // namespace

void Queues::configure(const std::vector<QueueConfig>& queues, const PolicyConfig& policy) {
  written = !queues.empty();
  tree = make_tree(queues);
  rules.past_weight = policy.past_weight;
  half_life_ms = policy.half_life_ms;
}

Outcome Queues::choose(std::string* name) const {
  const int32_t only = only_leaf(tree);
  const int32_t usual = tree.find(kDefaultQueue);
  if (name->empty()) {
    const bool has_usual = usual != kNoQueue && tree.queues[size_t(usual)].leaf();
    if (!has_usual && only == kNoQueue) {
      return Outcome::fail("the pool has several queues and none is called 'default': say --queue with one of " +
                           leaves_of(tree, kNoQueue));
    }
    *name = has_usual ? kDefaultQueue : tree.queues[size_t(only)].name;
    return {};
  }
  const int32_t asked = tree.find(*name);
  if (asked == kNoQueue) {
    if (!written) return Outcome::fail("there is no queue '" + *name + "': the pool has none; leave --queue out");
    return Outcome::fail("there is no queue '" + *name + "'; there are " + leaves_of(tree, kNoQueue));
  }
  if (tree.queues[size_t(asked)].leaf()) return {};
  return Outcome::fail("queue '" + *name + "' has queues below it and takes no jobs itself; choose one of " +
                       leaves_of(tree, asked));
}

std::string Queues::why_never(const State& state, const JobView& job, const std::string& queue, bool min_given) const {
  const int32_t leaf = tree.find(queue);
  if (leaf == kNoQueue) return "";
  const std::string by_model = why_never_by_model(tree, leaf, state, job, min_given);
  if (!by_model.empty()) return by_model;
  int32_t by = leaf;
  const int64_t most = most_ever(tree, leaf, &by);
  if (most == kNoLimit) return "";
  const std::string cap = cap_text(tree, leaf, by);
  const std::string other = tree.queues.size() > 1 ? ", or another --queue" : "";
  if (job.is_partial()) {
    if (job.part <= most) return "";
    return cap + "; -g " + part_text(job.part) + " asks for more. Use -g " + amount(most) + other;
  }
  const int64_t whole = most / kWholeGpu;
  if (whole == 0) {
    return cap + "; no job with a whole GPU can run in it. Use -g " + (most == 0 ? "0.5 in" : amount(most) + ", or") +
           " another --queue";
  }
  if (!min_given && job.vgpus > whole) {
    return cap +
           format("; -g %u asks for more. Use -g %ld, or --min %ld to let %u virtual GPUs share them", job.vgpus,
                  long(whole), long(whole), job.vgpus) +
           other;
  }
  if (min_given && job.min_gpus > whole)
    return cap + format("; --min %u asks for more. Use --min %ld or less", job.min_gpus, long(whole)) + other;
  if (gpus_for_memory(state, job) > whole) {
    return cap + format("; %u virtual GPUs with that --gpu-memory need more. Ask for less memory", job.vgpus) + other;
  }
  return "";
}

void put_into_queue(const QueueTree& tree, int32_t leaf, JobView* job) {
  job->queue = leaf;
  job->preemptible = tree.queues[size_t(leaf)].preemptible;
}

std::vector<double> used_by(const Queues& queues, const QueueTree& tree, int64_t pool) {
  std::vector<double> used(tree.queues.size());
  for (size_t i = 0; i < used.size(); ++i) {
    const auto had = tree.queues[i].leaf() ? queues.usage.find(tree.queues[i].name) : queues.usage.end();
    if (had != queues.usage.end()) used[i] = part_of_past(had->second, pool, queues.half_life_ms);
  }
  return used;
}

void put_into_queues(const Queues& queues, const std::vector<std::string>& names, State* state) {
  state->queues = queues.tree;
  state->share_rules = queues.rules;
  std::map<std::string, int32_t> leaves;
  for (size_t i = 0; i < state->queues.queues.size(); ++i) {
    if (state->queues.queues[i].leaf()) leaves[state->queues.queues[i].name] = int32_t(i);
  }
  for (size_t i = 0; i < state->jobs.size(); ++i) {
    const std::string& name = names[i].empty() ? kDefaultQueue : names[i];
    auto found = leaves.find(name);
    if (found == leaves.end()) found = leaves.emplace(name, add_orphan(&state->queues, name)).first;
    put_into_queue(state->queues, found->second, &state->jobs[i]);
  }
  state->used = used_by(queues, state->queues, pool_of(*state));
}

int64_t pool_of(const State& state) {
  return kWholeGpu * std::count_if(state.gpus.begin(), state.gpus.end(),
                                   [](const GpuView& gpu) { return gpu.online && gpu.healthy; });
}

int64_t wanted_by(const JobView& job) {
  return job.is_partial() ? job.part : int64_t(std::max(job.want(), job.min_gpus)) * kWholeGpu;
}

int64_t needed_by(const State& state, const JobView& job) {
  if (job.is_partial()) return job.part;
  return int64_t(counts_of(job, gpus_for_memory(state, job), 0).least) * kWholeGpu;
}

int64_t held_by(const JobView& job) {
  if (!job.running) return 0;
  std::set<GpuId> on(job.keeps);
  for (const GpuId& place : job.places) {
    if (place.on_gpu()) on.insert(place);
  }
  return int64_t(on.size()) * (job.is_partial() ? job.part : kWholeGpu);
}

std::vector<QueueLoad> loads_of(const State& state) {
  std::vector<QueueLoad> loads(state.queues.queues.size());
  for (size_t i = 0; i < loads.size() && i < state.used.size(); ++i) loads[i].used = state.used[i];
  for (const JobView& job : state.jobs) {
    QueueLoad& load = loads.at(size_t(job.queue));
    load.allocated += held_by(job);
    load.demand += job.suspended ? held_by(job) : wanted_by(job);
  }
  return loads;
}

std::vector<QueueState> states_of(const Queues& queues, const State& snapshot) {
  State state = rest_of(snapshot);
  if (state.queues.empty()) {
    put_into_queues(queues, std::vector<std::string>(state.jobs.size(), kDefaultQueue), &state);
  }
  const QueueShares shares = fair_shares(state.queues, loads_of(state), pool_of(state), state.share_rules);
  std::vector<QueueState> states(shares.size());
  for (size_t i = 0; i < states.size(); ++i) {
    const Queue& queue = state.queues.queues[i];
    states[i].queue = queue;
    states[i].share = shares[i];
    states[i].in_file = i < queues.tree.queues.size();
    for (const ModelQuota& model : queue.models) {
      states[i].models.push_back(
          {.is = model, .held = held_of(state, int32_t(i), model.model), .there = there_of(snapshot, model.model)});
    }
    if (queue.parent != kNoQueue) states[i].parent = state.queues.queues[size_t(queue.parent)].name;
    const auto used = queues.usage.find(queue.name);
    if (queue.leaf() && used != queues.usage.end()) states[i].used_gpu_s = used->second;
  }
  for (const JobView& job : state.jobs) {
    QueueState& of = states[size_t(job.queue)];
    of.running += held_by(job) > 0 ? 1 : 0;
    of.waiting += waits(job) ? 1 : 0;
    of.waiting_for += waits(job) ? wanted_by(job) : 0;
  }
  for (size_t i = states.size(); i-- > 0;) {
    if (states[i].queue.parent == kNoQueue) continue;
    QueueState& above = states[size_t(states[i].queue.parent)];
    above.running += states[i].running;
    above.waiting += states[i].waiting;
    above.waiting_for += states[i].waiting_for;
    above.used_gpu_s += states[i].used_gpu_s;
  }
  return states;
}

QueueReason why_queue_waits(const State& whole, const JobView& job) {
  if (whole.queues.empty() || !waits(job)) return {};
  const State state = rest_of(whole);
  const bool is_there =
      std::any_of(state.jobs.begin(), state.jobs.end(), [&](const JobView& each) { return each.id == job.id; });
  if (!is_there) return {};  // its reservation is the reason, or another one's
  const QueueTree& tree = state.queues;
  const QueueShares shares = fair_shares(tree, loads_of(state), pool_of(state), state.share_rules);
  const Queue& queue = tree.queues[size_t(job.queue)];
  const QueueShare& share = shares[size_t(job.queue)];
  const int64_t need = needed_by(state, job);
  int32_t by = job.queue;
  if (headroom(tree, shares, job.queue, &by) < need) {
    std::string holders;
    for (const JobView& other : state.jobs) {
      bool below = held_by(other) > 0;
      int32_t at = other.queue;
      while (at != kNoQueue && at != by) at = tree.queues[size_t(at)].parent;
      below &= at == by;
      if (below) holders += (holders.empty() ? "" : ", ") + other.id;
    }
    return {.reason = cap_text(tree, job.queue, by) + " and holds " + gpus(shares[size_t(by)].allocated) +
                      "; it needs " + gpus(need) + " more",
            .next = "it starts when jobs of that queue end or shrink" + (holders.empty() ? "" : " (" + holders + ")") +
                    "; `tide queues` shows limits, an administrator can raise this one in pool.toml"};
  }
  if (const std::string barred = why_barred(state, job); !barred.empty()) {
    return {
        .reason = barred,
        .next = "it starts when jobs of that queue leave such GPUs, or others are free; `tide queues` shows limits"};
  }
  int64_t held = 0;
  for (const JobView& other : state.jobs) held += held_by(other);
  const int64_t left = pool_of(state) - held;
  if (left >= need || is_owed(tree, shares, job.queue, need)) return {};
  // Nothing can be taken for it. Who stands before it?
  std::string ahead;
  for (size_t i = 0; i < tree.queues.size(); ++i) {
    const bool owed = tree.queues[i].leaf() && int32_t(i) != job.queue && shares[i].allocated < shares[i].fair;
    if (owed)
      ahead += (ahead.empty() ? "" : ", ") + tree.queues[i].name + " (has " + amount(shares[i].allocated) + " of " +
               gpus(shares[i].fair) + ")";
  }
  const std::string where =
      "queue '" + queue.name + "' has " + gpus(share.allocated) + ", its share is now " + amount(share.fair);
  if (!ahead.empty()) {
    return {.reason = where + ", and it needs " + gpus(need) + " more: others are owed theirs first: " + ahead,
            .next = "it starts when GPUs are free that nobody is owed; `tide queues` shows all shares"};
  }
  return {.reason = where + ", and it needs " + gpus(need) + " more: nothing is taken from other queues for it; " +
                    gpus(std::max<int64_t>(left, 0)) + (left == 1000 ? " is" : " are") + " free",
          .next = "it starts when GPUs become free; `tide queues` shows all shares, a smaller --min starts sooner"};
}

}  // namespace tide::sched
