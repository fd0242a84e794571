#include <algorithm>

#include "base/clock.h"
#include "base/log.h"
#include "scheduler/simulate/check.h"
#include "scheduler/simulate/engine.h"
#include "scheduler/simulate/muri.h"
#include "scheduler/simulate/pollux.h"
#include "scheduler/simulate/resample.h"
#include "tools/tide/commands.h"
#include "tools/tide/simulations.h"

namespace tide::cli {
namespace {

Outcome simulate_policy(const SimulateOptions& options, const simulate::StepTimes& times, Simulated* run) {
  simulate::MuriPolicy muri;
  if (options.mode == "muri" && simulate::find_muri_policy(run->policy, &muri)) {
    return simulate::run_muri(run->trace, run->gpus / simulate::kMuriNodeGpus, muri, &run->result);
  }
  if (run->policy == "tide") {
    const simulate::Pool pool{run->gpus, options.server_gpus, options.queues, options.policy};
    return simulate::run_pool(run->trace, pool, options.elastic, &run->result);
  }
  if (Outcome outcome = simulate::check_sizes(run->trace, run->gpus); !outcome.ok()) return outcome;
  if (options.mode == "pollux") {
    run->result = simulate::run_pollux(run->trace, times, run->gpus / simulate::kPolluxNodeGpus);
    return {};
  }
  if (const LearnedPolicy* learned = find_learned(run->policy); learned != nullptr) {
    simulate::LearnedOptions as = options.learned;
    as.knowledge = learned->knowledge;
    run->result = simulate::run_learned(run->trace, run->gpus, as);
    return {};
  }
  run->result = simulate::run(run->trace, run->gpus, *simulate::find_policy(run->policy), options.elastic.costs);
  return {};
}

double load_of(const simulate::Trace& trace, uint32_t gpus) {
  double work_gpu_s = 0;
  for (const simulate::Job& job : trace.jobs) work_gpu_s += job.work_gpu_s();
  const double span_s = trace.jobs.back().submit_s - trace.jobs.front().submit_s;
  return span_s > 0 ? work_gpu_s / (span_s * gpus) : 0;
}

Outcome simulate_one(const SimulateOptions& options, const simulate::StepTimes& times, Simulated* run) {
  const uint64_t began_ns = now_ns();
  if (options.mode == "muri") {
    if (Outcome outcome = simulate::use_iterations(&run->trace); !outcome.ok()) return outcome;
  }
  if (options.trace.skip_bad) {
    run->left_out = std::erase_if(run->trace.jobs, [&](const simulate::Job& job) { return job.gpus > run->gpus; });
    if (run->trace.jobs.empty()) return Outcome::fail("every job asks for more GPUs than the pool has");
  }
  if (Outcome outcome = simulate_policy(options, times, run); !outcome.ok()) return outcome;
  if (options.elastic.check) {
    const std::string wrong = simulate::what_is_wrong(run->trace, run->result);
    if (!wrong.empty()) return Outcome::fail("policy " + run->policy + ": " + wrong);
  }
  run->load = load_of(run->trace, run->gpus);
  run->metrics = simulate::measure(
      run->trace, run->result, options.mode == "pollux" ? simulate::Quantiles::kBetween : simulate::Quantiles::kValues);
  run->bounds = simulate::bounds_of(run->trace, run->gpus);
  run->wall_s = double(now_ns() - began_ns) / 1e9;
  return {};
}

// The same over traces of the same kind, whose figures say how far chance goes.
Outcome simulate_others(const SimulateOptions& options, const simulate::StepTimes& times, const simulate::Trace& part,
                        Simulated* run) {
  for (uint32_t seed = 1; seed <= options.resamples; ++seed) {
    Simulated other;
    other.policy = run->policy;
    other.what_if = run->what_if;
    other.gpus = run->gpus;
    other.trace = simulate::resample(part, seed);
    if (Outcome outcome = simulate_one(options, times, &other); !outcome.ok()) return outcome;
    run->resampled.push_back(figures_of(other));
  }
  return {};
}

Outcome read_step_times(const SimulateOptions& options, std::vector<simulate::Trace>* parts,
                        simulate::StepTimes* times) {
  if (options.mode != "pollux") return {};
  if (Outcome outcome = times->read(options.step_times); !outcome.ok()) return outcome;
  const Outcome used = simulate::use_step_times(parts, *times);
  return used.ok() ? used : Outcome::fail(options.path + ": " + used.message());
}

Outcome simulate_all(const SimulateOptions& options, std::vector<simulate::Trace>* parts, Simulations* simulations) {
  simulate::StepTimes times;
  if (Outcome outcome = read_step_times(options, parts, &times); !outcome.ok()) return outcome;
  for (simulate::Trace& part : *parts) {
    if (!options.part.empty() && part.name != options.part) continue;
    if (options.first != 0 && part.jobs.size() > options.first) part.jobs.resize(options.first);
    for (const WhatIf& pool : options.pools) {
      for (const std::string& policy : options.policies) {
        Simulated run;
        run.policy = policy;
        run.what_if = pool.text;
        run.gpus = uint32_t(pool.gpus);
        run.trace = part;
        if (Outcome outcome = simulate_one(options, times, &run); !outcome.ok()) {
          return Outcome::fail(options.path + ": " + outcome.message());
        }
        if (options.html.empty()) run.result.turns = {};
        if (Outcome outcome = simulate_others(options, times, part, &run); !outcome.ok()) {
          return Outcome::fail(options.path + ": resampled: " + outcome.message());
        }
        simulations->runs.push_back(std::move(run));
      }
    }
  }
  if (!simulations->runs.empty()) return {};
  std::string names;
  for (const simulate::Trace& part : *parts) names += (names.empty() ? "" : ", ") + part.name;
  return Outcome::fail(options.path + ": has no part '" + options.part + "'; it has " + names);
}

// True: there is something to simulate.
bool report_errors(const SimulateOptions& options, const simulate::TraceFile& file) {
  for (const simulate::TraceError& error : file.errors) fprintf(stderr, "%s\n", error.text().c_str());
  if (file.wrong_rows > file.errors.size()) {
    fprintf(stderr, "... %llu rows are wrong in all\n", (unsigned long long)file.wrong_rows);
  }
  if (file.parts.empty() && file.wrong_rows > 0 && !options.trace.skip_bad) {
    fail(options.path + ": nothing was simulated; --skip-bad leaves wrong rows out");
  }
  return !file.parts.empty();
}

}  // namespace

int simulate(const Words& words) {
  const auto is_snapshot = [](const std::string& word) {
    return word == "--snapshot" || word.rfind("--snapshot=", 0) == 0;
  };
  if (std::any_of(words.begin(), words.end(), is_snapshot)) return replay_snapshot(words);
  Options options;
  SimulateOptions asked;
  if (!asked.parse(words, &options)) return options.status();
  if (asked.mode == "openb") {
    const Outcome packed = simulate_packing(asked);
    return packed.ok() ? kOk : fail(packed.message());
  }
  simulate::TraceFile file = simulate::read_trace(asked.path, asked.trace);
  if (!report_errors(asked, file)) return kFailed;
  if (asked.mode == "deadlines") {
    const Outcome done = simulate_deadlines(asked, file.parts);
    return done.ok() ? kOk : fail(done.message());
  }
  Simulations simulations{asked.path, asked.mode, file.wrong_rows, {}};
  if (Outcome outcome = simulate_all(asked, &file.parts, &simulations); !outcome.ok()) return fail(outcome.message());
  if (!asked.html.empty()) {
    if (Outcome outcome = write_simulations_page(simulations, asked.html); !outcome.ok())
      return fail(outcome.message());
  }
  if (asked.json) {
    print_simulations_json(simulations);
  } else if (asked.csv) {
    print_simulations_csv(simulations);
  } else {
    print_simulations(simulations);
  }
  return kOk;
}

}  // namespace tide::cli
