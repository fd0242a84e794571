#pragma once

// `tide simulate`: what was asked, what came of it, and how it is shown.

#include <string>
#include <vector>

#include "scheduler/simulate/bounds.h"
#include "scheduler/simulate/elastic.h"
#include "scheduler/simulate/learned.h"
#include "scheduler/simulate/metrics.h"
#include "tools/tide/options.h"

namespace tide::cli {

extern const char* const kSimulateHelp;

struct WhatIf {
  std::string text;  // "gpus=+16"; empty: the pool as it is
  int64_t gpus = 0;  // as many
};

// Policies that simulate::run_learned() has.
struct LearnedPolicy {
  const char* name;
  simulate::Knowledge knowledge;
};
// Null: there is none of that name.
const LearnedPolicy* find_learned(const std::string& name);

struct SimulateOptions {
  std::string path, part, html;
  std::string mode;  // "muri", "pollux", "openb", "deadlines"; else empty
  std::string step_times, nodes, throughputs;
  simulate::TraceOptions trace;
  std::vector<std::string> policies;
  std::vector<WhatIf> pools;  // the first is the pool itself
  simulate::ElasticOptions elastic;
  std::vector<sched::QueueConfig> queues;  // of --config
  sched::PolicyConfig policy;
  simulate::LearnedOptions learned;
  uint32_t server_gpus = 8;
  uint32_t seeds = 10;     // orders of arrival
  uint32_t resamples = 0;  // traces of the same kind that are replayed beside each; 0: no confidence intervals
  uint32_t first = 0;      // jobs of each part; 0: all
  bool json = false, csv = false;

  // False: the caller exits with options->status(); what was wrong, or the help, has been printed.
  bool parse(const std::vector<std::string>& words, Options* options);
};

// One policy over one trace on one pool.
struct Simulated {
  std::string policy, what_if;
  uint32_t gpus = 0;
  size_t left_out = 0;  // jobs that ask for more GPUs than there are (--skip-bad)
  simulate::Trace trace;
  simulate::Result result;
  simulate::Metrics metrics;
  simulate::Bounds bounds;
  double load = 0;  // work of all jobs / what the GPUs can do between the first and the last submission
  double wall_s = 0;
  std::vector<std::vector<double>> resampled;  // figures_of() other traces of the same kind
};

// All figures, as --json and --csv have them in their order.
std::vector<double> figures_of(const Simulated& run);

struct Simulations {
  std::string path, mode;
  uint64_t wrong_rows = 0;
  std::vector<Simulated> runs;
};

// --mode openb, all of it.
Outcome simulate_packing(const SimulateOptions& options);
// --mode deadlines.
Outcome simulate_deadlines(const SimulateOptions& options, const std::vector<simulate::Trace>& parts);

void print_simulations(const Simulations& simulations);
void print_simulations_json(const Simulations& simulations);
void print_simulations_csv(const Simulations& simulations);
// A page that needs no other file.
Outcome write_simulations_page(const Simulations& simulations, const std::string& path);

}  // namespace tide::cli
