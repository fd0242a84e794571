#include <stdio.h>

#include "scheduler/simulate/deadlines.h"
#include "tools/tide/json.h"
#include "tools/tide/simulations.h"

namespace tide::cli {
namespace {

struct Cluster {
  std::string name;
  uint32_t gpus = 0;
  simulate::DeadlineResult result;
  double part(uint32_t jobs) const { return double(jobs) / result.jobs; }
};

void print_json(const std::vector<Cluster>& clusters, const SimulateOptions& options) {
  Json json;
  json.object().add("trace", options.path).add("mode", options.mode).key("runs").list();
  for (const Cluster& each : clusters) {
    const simulate::DeadlineResult& got = each.result;
    json.object().add("part", each.name).add("gpus", each.gpus).add("jobs", got.jobs);
    json.add("possible_alone", got.possible).add("promised", got.promised).add("kept", got.kept);
    json.add_exact("kept_ratio", each.part(got.kept)).add_exact("possible_ratio", each.part(got.possible));
    json.add_exact("late_most_s", got.late_most_s).add_exact("changes_per_job", got.changes_per_job).end();
  }
  json.end().end().print();
}

void print(const std::vector<Cluster>& clusters, bool csv) {
  const char* const row =
      csv ? "%s,%u,%u,%u,%u,%u,%.4f,%.4f,%.3f,%.3f\n" : "%-12s %5u %6u %8u %8u %6u %10.3f %14.3f %8.1f %13.2f\n";
  if (csv) {
    puts("part,gpus,jobs,possible_alone,promised,kept,kept_ratio,possible_ratio,late_most_s,changes_per_job");
  } else {
    printf("%-12s %5s %6s %8s %8s %6s %10s %14s %8s %13s\n", "CLUSTER", "GPUS", "JOBS", "POSSIBLE", "PROMISED", "KEPT",
           "KEPT/JOBS", "POSSIBLE/JOBS", "LATEST s", "CHANGES A JOB");
  }
  for (const Cluster& each : clusters) {
    const simulate::DeadlineResult& got = each.result;
    printf(row, each.name.c_str(), each.gpus, got.jobs, got.possible, got.promised, got.kept, each.part(got.kept),
           each.part(got.possible), got.late_most_s, got.changes_per_job);
  }
}

}  // namespace

Outcome simulate_deadlines(const SimulateOptions& options, const std::vector<simulate::Trace>& parts) {
  simulate::Throughputs throughputs;
  if (Outcome outcome = throughputs.read(options.throughputs); !outcome.ok()) return outcome;
  std::vector<Cluster> clusters;
  for (const WhatIf& pool : options.pools) {
    for (const simulate::Trace& trace : parts) {
      if (!options.part.empty() && trace.name != options.part) continue;
      Cluster cluster{trace.name, uint32_t(pool.gpus), {}};
      const simulate::DeadlineOptions as{cluster.gpus, options.elastic.costs.move_s};
      if (Outcome outcome = run_deadlines(trace, throughputs, as, &cluster.result); !outcome.ok()) {
        return Outcome::fail(options.path + ": " + outcome.message());
      }
      clusters.push_back(cluster);
    }
  }
  if (clusters.empty()) return Outcome::fail(options.path + ": has no part '" + options.part + "'");
  if (options.json) {
    print_json(clusters, options);
  } else {
    print(clusters, options.csv);
  }
  return {};
}

}  // namespace tide::cli
