#include <stdio.h>

#include <algorithm>
#include <cmath>

#include "base/log.h"
#include "scheduler/simulate/packing.h"
#include "tools/tide/json.h"
#include "tools/tide/simulations.h"

namespace tide::cli {
namespace {

// The mean over some orders of arrival, and how far they spread.
struct Packed {
  std::string policy;
  double allocated = 0, deviation = 0, leased = 0, fragmented = 0, moves = 0, bound = 0;
};

Packed pack_with(const simulate::PackingName& policy, const SimulateOptions& options,
                 const std::vector<simulate::Node>& nodes, const std::vector<simulate::Pod>& pods) {
  Packed sum{.policy = policy.name};
  double squares = 0;
  for (uint32_t seed = 1; seed <= options.seeds; ++seed) {
    const auto result = simulate::pack(nodes, pods, {.packing = policy.packing, .seed = seed});
    sum.allocated += result.allocated / options.seeds;
    squares += result.allocated * result.allocated / options.seeds;
    sum.leased += result.leased / options.seeds;
    sum.fragmented += result.fragmented / options.seeds;
    sum.moves += result.moves_per_job / options.seeds;
    sum.bound += result.bound / options.seeds;
  }
  sum.deviation = std::sqrt(std::max(squares - sum.allocated * sum.allocated, 0.0));
  return sum;
}

void print_json(const std::vector<Packed>& runs, const SimulateOptions& options) {
  Json json;
  json.object().add("trace", options.path).add("mode", options.mode).add("seeds", options.seeds).key("runs").list();
  for (const Packed& run : runs) {
    json.object().add("policy", run.policy);
    json.add_exact("allocated_pct", 100 * run.allocated).add_exact("deviation_pct", 100 * run.deviation);
    json.add_exact("leased_pct", 100 * run.leased).add_exact("fragmented_pct", 100 * run.fragmented);
    json.add_exact("moves_per_job", run.moves).add_exact("bound_pct", 100 * run.bound).end();
  }
  json.end().end().print();
}

void print(const std::vector<Packed>& runs, bool csv) {
  const char* const row =
      csv ? "%s,%.3f,%.3f,%.3f,%.3f,%.4f,%.3f\n" : "%-10s %12.2f %10.2f %10.2f %13.2f %11.4f %9.2f\n";
  if (csv) {
    puts("policy,allocated_pct,deviation_pct,leased_pct,fragmented_pct,moves_per_job,bound_pct");
  } else {
    printf("%-10s %12s %10s %10s %13s %11s %9s\n", "POLICY", "ALLOCATED %", "DEVIATION", "LEASED %", "FRAGMENTED %",
           "MOVES A JOB", "BOUND %");
  }
  for (const Packed& run : runs) {
    printf(row, run.policy.c_str(), 100 * run.allocated, 100 * run.deviation, 100 * run.leased, 100 * run.fragmented,
           run.moves, 100 * run.bound);
  }
}

}  // namespace

Outcome simulate_packing(const SimulateOptions& options) {
  std::vector<simulate::Node> nodes;
  std::vector<simulate::Pod> pods;
  if (Outcome outcome = read_nodes(options.nodes, &nodes); !outcome.ok()) return outcome;
  if (Outcome outcome = read_pods(options.path, &pods); !outcome.ok()) return outcome;
  const auto any_gpu = [](const simulate::Node& node) { return !node.gpus_milli.empty(); };
  const auto any_ask = [](const simulate::Pod& pod) { return pod.gpus > 0; };
  if (std::none_of(nodes.begin(), nodes.end(), any_gpu)) return Outcome::fail(options.nodes + ": has no GPUs");
  if (std::none_of(pods.begin(), pods.end(), any_ask)) return Outcome::fail(options.path + ": nobody asks for a GPU");
  std::vector<Packed> runs;
  for (const std::string& name : options.policies) {
    for (const simulate::PackingName& policy : simulate::kPackings) {
      if (name == policy.name) runs.push_back(pack_with(policy, options, nodes, pods));
    }
  }
  if (options.json) {
    print_json(runs, options);
  } else {
    print(runs, options.csv);
  }
  return {};
}

}  // namespace tide::cli
