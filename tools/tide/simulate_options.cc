#include <algorithm>
#include <charconv>
#include <sstream>

#include "base/log.h"
#include "scheduler/config.h"
#include "scheduler/simulate/muri.h"
#include "scheduler/simulate/policies.h"
#include "scheduler/simulate/pollux.h"
#include "tools/tide/simulations.h"

namespace tide::cli {

const char* const kSimulateHelp =
    R"(usage: tide simulate TRACE (--gpus N | --config FILE) [--policy P,...] [--what-if gpus=+16,...]
                     [--seeds N] [--json | --csv] [--html FILE] [OPTIONS]
       tide simulate TRACE --mode muri [--policy P,...]
       tide simulate TRACE --mode pollux --step-times FILE
       tide simulate TRACE --mode deadlines --throughputs FILE [--gpus N] [--move-cost T]
       tide simulate PODS --mode openb --nodes FILE [--policy P,...] [--seeds N]
       tide simulate --snapshot FILE [--what-if CHANGE,...]: decides again what the scheduler of a pool has decided
                     (`tide simulate --snapshot FILE --help`)

Replays the jobs of a trace, a CSV (gzip'd or not) with the columns job_id, submit_s, duration_s, gpus_requested
and perhaps user_or_team, min_gpus, under a virtual clock. Nothing of the running pool is asked or changed.

  --gpus N           of the pool
  --config FILE      a pool.toml: as many GPUs as its [[server]]s have (softgpu_devices) where --gpus does not say, and
                     for tide its [[queue]]s, of which a job's team names one
  --policy P,...     tide (the pool's own, the default), fifo, fifo-skip, easy, sjf, srtf, srsf, tiresias-l,
                     tide-est (learns durations), tide-given (is told roughly), tide-oracle (knows them);
                     all: every one but tide
  --patience X       of tide-est: a job is passed by those submitted X times its expected GPU-seconds later (4)
  --oldest X         of tide-est: so much of the pool serves who was submitted first (0.05)
  --estimate-error X of tide-given, and of tide with --estimates given: a duration is told wrong by up to this factor,
                     either way (3)
  --order O          of tide, in which jobs start: submission or estimates (as [policy] of --config says, submission)
  --preempt          of tide with --order estimates: who runs shrinks, and is suspended, for who is before it in line
                     (as [policy] of --config says, no)
  --estimates E      of tide: learned (of jobs that ended; where the trace has estimate_s, that), given (each job's user
                     says something: estimate_s, else as --estimate-error says) or none (learned)
  --what-if W,...    the same again with other GPUs: gpus=+16, gpus=-8, gpus=96
  --min M            physical GPUs that tide leaves a job at least, where the trace says nothing (1; all)
  --scaling S        speed of a job on fewer GPUs: slowest (its fullest GPU decides; the default), linear, or a
                     CSV with measured points, gpus_part,speed_part
  --server-gpus K    GPUs of a server (8)
  --move-cost T      how long a job stands when it moves (0; 200ms, 3s, 1min)
  --resume-cost T    how long a job that was stopped stands when it goes on (0)
  --checkpoint T     a job that is stopped loses what it did since its last checkpoint (nothing)
  --check            fails where any decision gives more GPUs than there are, or one of them twice
  --first N          only the first N jobs
  --part NAME        only one of the traces in the file
  --skip-bad         leave wrong rows, and jobs that are too large, out, and say how many
  --sort             the rows need not be in the order of submission
  --seeds N          95 % confidence intervals (+-) from N traces of the same kind, 2 to 1000: blocks of the recorded
                     one, drawn by chance (docs/simulate.md)
  --json, --csv      every figure (docs/simulate.md says what it means)
  --html FILE        a page with plots
  --mode muri        exactly as the simulator of Muri's artifact: srtf, srsf, tiresias-l on 64 GPUs
  --mode pollux      Tiresias as the simulator of Pollux's artifact has it, with its measured steps, on 64 GPUs
  --mode deadlines   who is promised a deadline, and is it kept; jobs are elastic, as fast as was measured (512 GPUs);
                     each team is a cluster of its own
  --mode openb       how full a cluster gets: random, best-fit, fgd, pooled, tide, moves, turns; the mean of N
                     orders (10)
)";

namespace {

constexpr LearnedPolicy kLearned[] = {{"tide-est", simulate::Knowledge::kLearned},
                                      {"tide-given", simulate::Knowledge::kGiven},
                                      {"tide-oracle", simulate::Knowledge::kOracle}};

std::vector<std::string> parts_of(const std::string& text) {
  std::vector<std::string> parts;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, ',');) parts.push_back(part);
  return parts;
}

bool take_time(Options* options, const char* name, double* seconds) {
  const auto parsed = options->has(name) ? parse_seconds(options->get(name)) : std::optional(*seconds);
  if (parsed) return *seconds = *parsed, true;
  options->usage_error(std::string("--") + name + " must be a time like 200ms or 3s, not '" + options->get(name) + "'");
  return false;
}

bool read_pool_file(Options* options, sched::PoolConfig* config) {
  if (!options->has("config")) return true;
  const auto errors = sched::read_config(options->get("config"), config);
  for (const sched::ConfigError& error : errors) fprintf(stderr, "%s\n", error.text().c_str());
  return errors.empty() || (options->usage_error("the configuration has errors"), false);
}

bool count_gpus(const sched::PoolConfig& config, const std::string& path, Options* options, int64_t* gpus) {
  for (const sched::ServerConfig& server : config.servers) {
    const auto devices = server.settings.find("softgpu_devices");
    if (devices == server.settings.end()) {
      options->usage_error(path + " does not say how many GPUs server '" + server.name + "' has; give --gpus");
      return false;
    }
    *gpus += int64_t(*parse_count(devices->second));
  }
  if (*gpus == 0) return options->usage_error(path + " has no [[server]]; give --gpus"), false;
  return true;
}

bool take_what_if(const std::string& text, Options* options, SimulateOptions* asked) {
  const std::string value = text.rfind("gpus=", 0) == 0 ? text.substr(5) : "";
  const bool is_change = !value.empty() && (value[0] == '+' || value[0] == '-');
  const auto count = parse_count(is_change ? value.substr(1) : value);
  if (!count || *count > 1'000'000) {
    return options->usage_error("--what-if '" + text + "' is not understood; write gpus=+16, gpus=-8 or gpus=96"),
           false;
  }
  const int64_t pool = asked->pools[0].gpus, by = int64_t(*count);
  const int64_t gpus = !is_change ? by : value[0] == '+' ? pool + by : pool - by;
  if (gpus < 1) return options->usage_error("--what-if '" + text + "' leaves no GPU"), false;
  asked->pools.push_back({text, gpus});
  return true;
}

bool take_pools(Options* options, SimulateOptions* asked) {
  uint32_t gpus = 0;
  if (!options->number("gpus", 1, 1'000'000, &gpus)) return false;
  WhatIf pool{"", gpus};
  sched::PoolConfig config;
  if (!read_pool_file(options, &config)) return false;
  asked->queues = config.queues;
  asked->policy = config.policy;
  if (gpus == 0 && options->has("config") && !count_gpus(config, options->get("config"), options, &pool.gpus))
    return false;
  if (pool.gpus == 0 && !asked->mode.empty()) pool.gpus = asked->mode == "deadlines" ? 512 : 64;
  if (pool.gpus == 0) return options->usage_error("needs --gpus N, or --config FILE"), false;
  asked->pools.push_back(pool);
  for (const std::string& text : parts_of(options->get("what-if"))) {
    if (!take_what_if(text, options, asked)) return false;
  }
  const uint32_t node = asked->mode == "muri"     ? simulate::kMuriNodeGpus
                        : asked->mode == "pollux" ? simulate::kPolluxNodeGpus
                                                  : 1;
  for (const WhatIf& each : asked->pools) {
    if (each.gpus % node == 0) continue;
    options->usage_error(
        format("--mode %s has nodes of %u GPUs: --gpus must be a multiple of %u", asked->mode.c_str(), node, node));
    return false;
  }
  return true;
}

std::string all_but_tide() {
  std::string names = simulate::policy_names();
  for (const LearnedPolicy& each : kLearned) names += std::string(", ") + each.name;
  return names;
}

// Those that there are in this mode, "a, b".
std::string names_of(const std::string& mode) {
  if (mode == "deadlines") return "tide-deadlines";
  if (mode == "muri") return "srtf, srsf, tiresias-l";
  if (mode == "openb") return "random, best-fit, fgd, pooled, tide, moves, turns";
  return mode == "pollux" ? "tiresias" : "tide, " + all_but_tide();
}

bool take_policies(Options* options, SimulateOptions* asked) {
  std::string names = names_of(asked->mode), given = options->get("policy", asked->mode.empty() ? "tide" : "all");
  if (given == "all") given = asked->mode.empty() ? all_but_tide() : names;
  given.erase(std::remove(given.begin(), given.end(), ' '), given.end());
  asked->policies = parts_of(given);
  for (const std::string& name : asked->policies) {
    if ((", " + names + ",").find(", " + name + ",") != std::string::npos) continue;
    options->usage_error("there is no policy '" + name + "'" +
                         (asked->mode.empty() ? "" : " with --mode " + asked->mode) + "; there are " + names);
    return false;
  }
  return !asked->policies.empty() || (options->usage_error("--policy needs a name"), false);
}

bool take_mode(Options* options, SimulateOptions* asked) {
  asked->mode = options->get("mode");
  asked->step_times = options->get("step-times");
  asked->nodes = options->get("nodes");
  asked->throughputs = options->get("throughputs");
  const std::vector<std::string> modes = {"muri", "pollux", "openb", "deadlines"};
  if (options->has("mode") && std::find(modes.begin(), modes.end(), asked->mode) == modes.end()) {
    return options->usage_error("there is no mode '" + asked->mode + "', only muri, pollux, openb and deadlines"),
           false;
  }
  if (!asked->mode.empty() && options->has("check"))
    return options->usage_error("--check is for the pool's policies, not for --mode " + asked->mode), false;
  asked->trace.by_team = asked->mode == "deadlines";
  if ((asked->mode == "deadlines") != options->has("throughputs")) {
    return options->usage_error("--mode deadlines and --throughputs FILE go together"), false;
  }
  if ((asked->mode == "pollux") != options->has("step-times")) {
    return options->usage_error("--mode pollux and --step-times FILE go together"), false;
  }
  if ((asked->mode == "openb") == options->has("nodes")) return true;
  return options->usage_error("--mode openb and --nodes FILE go together"), false;
}

struct Range {
  double least, most;
};

bool take_number(Options* options, const char* name, const Range& range, double* value) {
  if (!options->has(name)) return true;
  const std::string& text = options->get(name);
  double given = -1;
  const auto [end, wrong] = std::from_chars(text.data(), text.data() + text.size(), given);
  if (wrong == std::errc() && end == text.data() + text.size() && given >= range.least && given <= range.most) {
    return *value = given, true;
  }
  return options->usage_error(
             format("--%s must be a number from %g to %g, not '%s'", name, range.least, range.most, text.c_str())),
         false;
}

bool take_learned(Options* options, SimulateOptions* asked) {
  asked->learned.costs = asked->elastic.costs;
  return take_number(options, "patience", {0, 1e6}, &asked->learned.rules.patience) &&
         take_number(options, "oldest", {0, 1}, &asked->learned.rules.oldest_part) &&
         take_number(options, "estimate-error", {1, 1000}, &asked->learned.estimate_error);
}

bool take_estimates(Options* options, SimulateOptions* asked) {
  const std::string order = options->get("order", asked->policy.by_estimates ? "estimates" : "submission");
  if (order != "submission" && order != "estimates")
    return options->usage_error("--order must be submission or estimates, not '" + order + "'"), false;
  asked->policy.by_estimates = order == "estimates";
  asked->policy.preempts |= options->has("preempt");
  if (asked->policy.preempts && !asked->policy.by_estimates)
    return options->usage_error("--preempt needs --order estimates"), false;
  if (asked->policy.preempts && !asked->queues.empty())
    return options->usage_error("--preempt does not know queues, and the --config has some"), false;
  const std::string told = options->get("estimates", "learned");
  if (told != "learned" && told != "given" && told != "none")
    return options->usage_error("--estimates must be learned, given or none, not '" + told + "'"), false;
  asked->elastic.told = told == "given"     ? simulate::Told::kGiven
                        : told == "learned" ? simulate::Told::kLearned
                                            : simulate::Told::kNothing;
  asked->elastic.estimate_error = asked->learned.estimate_error;
  return true;
}

bool take_elastic(Options* options, SimulateOptions* asked) {
  simulate::ElasticOptions& elastic = asked->elastic;
  if (options->get("min") == "all") {
    elastic.min_gpus = 0;
  } else if (!options->number("min", 1, simulate::kJobGpusMax, &elastic.min_gpus)) {
    return false;
  }
  elastic.check = options->has("check");
  const std::string scaling = options->get("scaling", "slowest");
  elastic.scaling = scaling == "slowest"  ? simulate::Scaling::kSlowest
                    : scaling == "linear" ? simulate::Scaling::kLinear
                                          : simulate::Scaling::kCurve;
  if (elastic.scaling == simulate::Scaling::kCurve) {
    if (const Outcome read = elastic.curve.read(scaling); !read.ok()) {
      return options->usage_error("--scaling must be slowest, linear or a curve's file; " + read.message()), false;
    }
  }
  return take_time(options, "move-cost", &elastic.costs.move_s) &&
         take_time(options, "resume-cost", &elastic.costs.resume_s) &&
         take_time(options, "checkpoint", &elastic.costs.checkpoint_s);
}

}  // namespace

const LearnedPolicy* find_learned(const std::string& name) {
  const auto* const found =
      std::find_if(std::begin(kLearned), std::end(kLearned), [&](const LearnedPolicy& p) { return name == p.name; });
  return found == std::end(kLearned) ? nullptr : found;
}

bool SimulateOptions::parse(const std::vector<std::string>& words, Options* options) {
  const std::vector<OptionSpec> specs = {{"gpus"},
                                         {"config"},
                                         {"policy"},
                                         {"what-if"},
                                         {"min"},
                                         {"scaling"},
                                         {"server-gpus"},
                                         {"move-cost"},
                                         {"resume-cost"},
                                         {"checkpoint"},
                                         {"first"},
                                         {"part"},
                                         {"patience"},
                                         {"oldest"},
                                         {"estimate-error"},
                                         {"order"},
                                         {"preempt", 0, false},
                                         {"estimates"},
                                         {"html"},
                                         {"mode"},
                                         {"step-times"},
                                         {"nodes"},
                                         {"throughputs"},
                                         {"seeds"},
                                         {"check", 0, false},
                                         {"skip-bad", 0, false},
                                         {"sort", 0, false},
                                         {"json", 0, false},
                                         {"csv", 0, false}};
  if (!options->parse(words, specs, kSimulateHelp) || !options->expect_words(1, "one trace")) return false;
  path = options->words()[0];
  part = options->get("part");
  html = options->get("html");
  trace = {.skip_bad = options->has("skip-bad"), .sort = options->has("sort")};
  json = options->has("json");
  csv = options->has("csv");
  if (json && csv) return options->usage_error("--json or --csv, not both"), false;
  if (options->has("seeds") && options->get("mode").empty()) {
    if (!options->number("seeds", 2, 1000, &resamples)) return false;
  }
  return options->number("server-gpus", 1, 1024, &server_gpus) && options->number("first", 1, 1'000'000'000, &first) &&
         options->number("seeds", 1, 1000, &seeds) && take_mode(options, this) && take_pools(options, this) &&
         take_policies(options, this) && take_elastic(options, this) && take_learned(options, this) &&
         take_estimates(options, this);
}

}  // namespace tide::cli
