#include "scheduler/simulate/packing.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>

#include "base/log.h"
#include "base/mix.h"
#include "scheduler/simulate/csv.h"
#include "scheduler/simulate/repack.h"

namespace tide::simulate {
namespace {

constexpr double kUsual = 0.95;    // kinds of pods that make up so much of all are usual,
constexpr size_t kUsualStep = 10;  // as many as it takes, in steps
constexpr double kCpuMax_milli = 128'000, kGpuMax_milli = 8'000;  // of a node

class Dice {
 public:
  explicit Dice(uint64_t seed) : state_(mix(seed)) {}
  uint32_t roll(uint32_t sides) { return uint32_t((state_ = mix(state_)) % sides); }

 private:
  uint64_t state_;
};

bool may_use(const Pod& pod, const Node& node) {
  return pod.models.empty() || ("|" + pod.models + "|").find("|" + node.model + "|") != std::string::npos;
}

bool gpus_fit(const Pod& pod, const Node& node) {
  const auto enough = [&](int32_t free) { return free >= pod.gpu_milli; };
  return pod.gpus <= std::count_if(node.gpus_milli.begin(), node.gpus_milli.end(), enough);
}

bool fits(const Pod& pod, const Node& node) {
  if (pod.cpu_milli > node.cpu_milli || pod.memory_mib > node.memory_mib) return false;
  return pod.gpus == 0 || (may_use(pod, node) && gpus_fit(pod, node));
}

int64_t free_milli(const Node& node) {
  int64_t sum = 0;
  for (const int32_t free : node.gpus_milli) sum += free;
  return sum;
}

// Kinds of pods and how often they come.
struct Usual {
  const Pod* pod = nullptr;
  double part = 0;
};

std::vector<Usual> usual_pods(const std::vector<Pod>& pods) {
  std::map<uint32_t, Usual> kinds;
  for (const Pod& pod : pods) {
    Usual& usual = kinds[pod.kind];
    usual.pod = &pod;
    usual.part += 1.0 / double(pods.size());
  }
  std::vector<Usual> sorted;
  for (const auto& [kind, usual] : kinds) sorted.push_back(usual);
  std::stable_sort(sorted.begin(), sorted.end(), [](const Usual& a, const Usual& b) { return a.part > b.part; });
  size_t count = 0;
  double sum = 0;
  while (sum < kUsual && count < sorted.size()) {
    const size_t until = std::min(count + kUsualStep, sorted.size());
    for (; count < until; ++count) sum += sorted[count].part;
  }
  sorted.resize(count);
  for (Usual& usual : sorted) usual.part /= sum;
  return sorted;
}

// Free GPUs of the node that the usual pods cannot use, on the average.
double useless_milli(const Node& node, const std::vector<Usual>& usual) {
  const auto all = double(free_milli(node));
  double sum = 0;
  for (const Usual& each : usual) {
    const Pod& pod = *each.pod;
    double useless = all;
    if (pod.gpus > 0 && pod.cpu_milli <= node.cpu_milli && may_use(pod, node) && gpus_fit(pod, node)) {
      useless = 0;
      for (const int32_t free : node.gpus_milli) useless += free < pod.gpu_milli ? free : 0;
    }
    sum += each.part * useless;
  }
  return sum;
}

// From GPU `first`, or from the ones that have the least and enough.
void take(const Pod& pod, Node* node, int first = -1) {
  node->cpu_milli -= pod.cpu_milli;
  node->memory_mib -= pod.memory_mib;
  for (int32_t i = 0; i < pod.gpus; ++i) {
    int best = first;
    for (int g = 0; first < 0 && g < int(node->gpus_milli.size()); ++g) {
      const int32_t free = node->gpus_milli[size_t(g)];
      if (free >= pod.gpu_milli && (best < 0 || free < node->gpus_milli[size_t(best)])) best = g;
    }
    node->gpus_milli[size_t(best)] -= pod.gpu_milli;
  }
}

struct Choice {
  int64_t score = -1;
  int gpu = -1;  // -1: as take() does
};

class Packer {
 public:
  Packer(std::vector<Node> nodes, const std::vector<Pod>& pods, const PackingOptions& options)
      : nodes_(std::move(nodes)), usual_(usual_pods(pods)), packing_(options.packing), dice_(mix(options.seed) + 1) {
    uint32_t kinds = 0;
    for (const Pod& pod : pods) kinds = std::max(kinds, pod.kind + 1);
    known_.assign(nodes_.size(), std::vector<Choice>(kinds));
    is_known_.assign(nodes_.size(), std::vector<bool>(kinds));
  }

  bool place(const Pod& pod) {
    size_t chosen = nodes_.size();
    Choice best;
    uint32_t seen = 0;
    for (size_t i = 0; i < nodes_.size(); ++i) {
      if (!fits(pod, nodes_[i])) continue;
      ++seen;
      if (packing_ == Packing::kRandom) {
        if (dice_.roll(seen) == 0) chosen = i;
      } else if (const Choice choice = choose(pod, i); choice.score > best.score) {
        best = choice;
        chosen = i;
      }
    }
    if (chosen == nodes_.size()) return false;
    if (packing_ == Packing::kRandom) best.gpu = any_gpu(pod, nodes_[chosen]);
    take(pod, &nodes_[chosen], best.gpu);
    std::fill(is_known_[chosen].begin(), is_known_[chosen].end(), false);
    return true;
  }

  double useless() const {
    double sum = 0;
    for (const Node& node : nodes_) sum += useless_milli(node, usual_);
    return sum;
  }

 private:
  static bool is_part(const Pod& pod) { return pod.gpus == 1 && pod.gpu_milli < kWholeGpu_milli; }

  int any_gpu(const Pod& pod, const Node& node) {
    int chosen = -1;
    uint32_t seen = 0;
    for (size_t g = 0; is_part(pod) && g < node.gpus_milli.size(); ++g) {
      if (node.gpus_milli[g] >= pod.gpu_milli && dice_.roll(++seen) == 0) chosen = int(g);
    }
    return chosen;
  }

  // Of a node that has not changed it is known.
  Choice choose(const Pod& pod, size_t node) {
    Choice& choice = known_[node][pod.kind];
    if (!is_known_[node][pod.kind]) {
      choice = packing_ == Packing::kFgd ? descend(pod, nodes_[node]) : best_fit(pod, nodes_[node]);
      is_known_[node][pod.kind] = true;
    }
    return choice;
  }

  static Choice best_fit(const Pod& pod, const Node& node) {
    const double left = 0.5 * double(node.cpu_milli - pod.cpu_milli) / kCpuMax_milli +
                        0.5 * double(free_milli(node) - pod.milli()) / kGpuMax_milli;
    return {std::max<int64_t>(int64_t((1 - left) * 100), 0), -1};
  }

  // By how much less of the node is useless before than after, to a hundredth of a sigmoid: as coarse as it is there.
  Choice descend(const Pod& pod, const Node& node) const {
    const double before = useless_milli(node, usual_);
    const auto score_with = [&](int gpu) {
      Node after = node;
      take(pod, &after, gpu);
      return int64_t(100 / (1 + std::exp(-(before - useless_milli(after, usual_)) / 1000)));
    };
    if (!is_part(pod)) return {score_with(-1), -1};
    Choice best;
    for (size_t g = 0; g < node.gpus_milli.size(); ++g) {
      const auto same = std::find(node.gpus_milli.begin(), node.gpus_milli.begin() + long(g), node.gpus_milli[g]);
      if (node.gpus_milli[g] < pod.gpu_milli || same != node.gpus_milli.begin() + long(g)) continue;
      if (const int64_t score = score_with(int(g)); score > best.score) best = {score, int(g)};
    }
    return best;
  }

  std::vector<Node> nodes_;
  const std::vector<Usual> usual_;
  const Packing packing_;
  Dice dice_;
  std::vector<std::vector<Choice>> known_;  // by node and kind of pod
  std::vector<std::vector<bool>> is_known_;
};

// All pods and as many again as it takes, in any order.
std::vector<size_t> arrivals_of(const std::vector<Pod>& pods, double wanted_milli, Dice* dice) {
  std::vector<size_t> order;
  double sum = 0;
  for (size_t i = 0; i < pods.size(); ++i) {
    order.push_back(i);
    sum += double(pods[i].milli());
  }
  for (;;) {
    const size_t again = dice->roll(uint32_t(pods.size()));
    if (sum + double(pods[again].milli()) > wanted_milli) break;
    sum += double(pods[again].milli());
    order.push_back(again);
  }
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[dice->roll(uint32_t(i))]);
  return order;
}

// One node of each model, with all its GPUs and as much CPU and memory as anybody wants.
std::vector<Node> pooled(const std::vector<Node>& nodes) {
  constexpr int64_t kPlenty = int64_t(1) << 50;
  std::map<std::string, Node> models;
  for (const Node& node : nodes) {
    Node& pool = models[node.model];
    pool.model = node.model;
    pool.cpu_milli = pool.memory_mib = kPlenty;
    pool.gpus_milli.insert(pool.gpus_milli.end(), node.gpus_milli.begin(), node.gpus_milli.end());
  }
  std::vector<Node> pools;
  for (auto& [model, pool] : models) pools.push_back(std::move(pool));
  return pools;
}

// The columns of a CSV by name.
class Table {
 public:
  Outcome read(const std::string& path, const std::vector<const char*>& columns,
               const std::function<bool(const std::vector<std::string>&)>& row) {
    std::string text;
    if (const std::string failed = read_whole(path, &text); !failed.empty()) return Outcome::fail(path + ": " + failed);
    std::string_view rest(text);
    std::vector<std::string> fields, wanted(columns.size());
    std::vector<size_t> at;
    for (uint32_t number = 1; !rest.empty(); ++number) {
      const size_t end = rest.find('\n');
      const std::string_view line = rest.substr(0, end);
      rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
      const bool whole = split_row(line, &fields);
      for (size_t i = 0; number == 1 && i < columns.size(); ++i) {
        const auto found = std::find(fields.begin(), fields.end(), columns[i]);
        if (found == fields.end()) return Outcome::fail(path + ":1: no column '" + columns[i] + "'");
        at.push_back(size_t(found - fields.begin()));
      }
      if (number == 1) count_ = fields.size();
      bool good = whole && fields.size() == count_;
      for (size_t i = 0; good && i < columns.size(); ++i) wanted[i] = fields[at[i]];
      if (number > 1 && (!good || !row(wanted))) {
        return Outcome::fail(format("%s:%u: the row is wrong", path.c_str(), number));
      }
    }
    return {};
  }

 private:
  size_t count_ = 0;
};

}  // namespace

Outcome read_nodes(const std::string& path, std::vector<Node>* nodes) {
  return Table().read(path, {"cpu_milli", "memory_mib", "gpus", "gpu_model"}, [&](const auto& fields) {
    Node node;
    uint32_t gpus = 0;
    const bool good = parse_number(fields[0], &node.cpu_milli) && parse_number(fields[1], &node.memory_mib) &&
                      parse_number(fields[2], &gpus) && gpus <= 64 && node.cpu_milli >= 0 && node.memory_mib >= 0;
    node.model = fields[3];
    node.gpus_milli.assign(gpus, kWholeGpu_milli);
    nodes->push_back(std::move(node));
    return good;
  });
}

Outcome read_pods(const std::string& path, std::vector<Pod>* pods) {
  std::map<std::vector<std::string>, uint32_t> kinds;
  const auto row = [&](const std::vector<std::string>& fields) {
    Pod pod;
    double total = 0;
    const bool good = parse_number(fields[0], &pod.cpu_milli) && parse_number(fields[1], &pod.memory_mib) &&
                      parse_number(fields[2], &pod.gpus) && parse_number(fields[3], &total) && pod.cpu_milli >= 0 &&
                      pod.memory_mib >= 0 && pod.gpus >= 0 && pod.gpus <= 64 && total >= 0 && total <= pod.gpus &&
                      (pod.gpus == 0 || total > 0) && (pod.gpus < 2 || total == pod.gpus);
    if (pod.gpus > 0) pod.gpu_milli = int32_t(std::lround(total / pod.gpus * kWholeGpu_milli));
    pod.models = fields[4];
    pod.kind = kinds.try_emplace({fields[0], fields[2], fields[3], fields[4]}, uint32_t(kinds.size())).first->second;
    pods->push_back(pod);
    return good;
  };
  return Table().read(path, {"cpu_milli", "memory_mib", "gpus_requested", "gpu_fraction_total", "gpu_spec"}, row);
}

namespace {

// GPUs of any server, of one model.
struct ModelPool {
  Node model;  // nothing but its name
  SharedGpus shared;
  int64_t free_milli = 0;  // where jobs take turns
};

class MovingPacker {
 public:
  MovingPacker(const std::vector<Node>& nodes, bool turns) : turns_(turns) {
    for (const Node& pool : pooled(nodes)) {
      pools_.push_back(
          {{.model = pool.model, .gpus_milli = {}}, SharedGpus(uint32_t(pool.gpus_milli.size())), free_milli(pool)});
    }
  }

  // Where nobody has to move, if there is such a place.
  bool place(const Pod& pod) {
    if (pod.gpus == 0) return true;
    for (const bool may_move : {false, true}) {
      for (ModelPool& pool : pools_) {
        if (!may_use(pod, pool.model) || !(turns_ ? place_in_turns(pod, &pool) : place_in(pod, may_move, &pool)))
          continue;
        ++placed_;
        return true;
      }
    }
    return false;
  }

  double moves_per_job() const {
    uint64_t moves = 2 * split_;
    for (const ModelPool& pool : pools_) moves += pool.shared.moves();
    return placed_ == 0 ? 0 : double(moves) / placed_;
  }

 private:
  static bool is_part(const Pod& pod) { return pod.gpus == 1 && pod.gpu_milli < kWholeGpu_milli; }

  static bool place_in(const Pod& pod, bool may_move, ModelPool* pool) {
    return is_part(pod) ? pool->shared.place_part(pod.gpu_milli, may_move)
                        : pool->shared.place_whole(uint32_t(pod.gpus), may_move);
  }

  // Round after round one GPU is filled after the other; who is cut in two begins on the next.
  bool place_in_turns(const Pod& pod, ModelPool* pool) {
    if (pod.milli() > pool->free_milli) return false;
    pool->free_milli -= pod.milli();
    split_ += is_part(pod) && pool->free_milli % kWholeGpu_milli + pod.gpu_milli > kWholeGpu_milli;
    return true;
  }

  std::vector<ModelPool> pools_;
  const bool turns_;
  uint32_t placed_ = 0;
  uint64_t split_ = 0;
};

}  // namespace

PackingResult pack(const std::vector<Node>& nodes, const std::vector<Pod>& pods, const PackingOptions& options) {
  int64_t all = 0;
  for (const Node& node : nodes) all += free_milli(node);
  const bool remote = options.packing == Packing::kPooled || options.packing == Packing::kTide;
  std::vector<Pod> asked = pods;
  for (Pod& pod : asked) {
    if (options.packing == Packing::kTide && pod.gpus > 0) pod.gpu_milli = kWholeGpu_milli;
  }
  Dice dice(options.seed);
  Packer packer(remote ? pooled(nodes) : nodes, asked, options);
  MovingPacker moving(nodes, options.packing == Packing::kTurns);
  const bool moves = options.packing == Packing::kMoves || options.packing == Packing::kTurns;
  std::map<int32_t, uint32_t, std::greater<>> parts;  // that came
  int64_t arrived = 0, allocated = 0, leased = 0;
  for (const size_t i : arrivals_of(pods, options.arrivals * double(all), &dice)) {
    arrived += pods[i].milli();
    if (arrived > all) break;
    if (pods[i].gpus == 1) ++parts[pods[i].gpu_milli];
    if (moves ? !moving.place(pods[i]) : !packer.place(asked[i])) continue;
    allocated += pods[i].milli();
    leased += asked[i].milli();
  }
  PackingResult result{double(allocated) / double(all), double(leased) / double(all)};
  if (moves) {
    result.moves_per_job = moving.moves_per_job();
  } else {
    result.fragmented = packer.useless() / double(all);
  }
  result.bound = double(packing_bound_milli(uint32_t(all / kWholeGpu_milli), parts)) / double(all);
  return result;
}

}  // namespace tide::simulate
