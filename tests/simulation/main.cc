// tests/sim: the product's protocols under a simulated clock, network, disk and GPU, from one seed
// (docs/simulation.md).

#include <getopt.h>
#include <stdlib.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <string>

#include "base/log.h"
#include "tests/simulation/scenario.h"

namespace tide::simulation {
namespace {

constexpr const char* kUsage =
    "usage: tests/sim [--seeds N | --seed N] [--from N] [--only sessions|pool] [--expect CHECKER] [--json] "
    "[--verbose]\n"
    "\n"
    "Runs the session protocol, scheduler, agents and store under a simulated clock, network, disk and GPU. "
    "Everything\n"
    "follows from the seed: the same seed gives the same steps, on every machine.\n"
    "\n"
    "  --seeds N         seeds 1 to N (default 100); some of them twice, to see that the steps are the same\n"
    "  --seed N          this one, twice\n"
    "  --from N          begin with seed N\n"
    "  --only WHAT       sessions (client and worker) or pool (scheduler, agents, jobs)\n"
    "  --expect CHECKER  stop at the first violation; status 0 if that checker found it (for broken builds)\n"
    "  --json            the sums as one JSON object\n"
    "  --verbose         every step, with --seed; what the product logs, too, with TIDE_LOG=debug\n"
    "\n"
    "status: 0 no violation; 1 a violation, or steps that differed; 2 wrong usage\n";

struct Options {
  uint64_t first = 1, count = 100;
  bool one = false, json = false, verbose = false, sessions = true, pool = true;
  std::string expect;
};

struct Result {
  uint64_t hash = 0, faults = 0, events = 0;
  std::array<uint64_t, kFaults> counts = {};
  std::vector<Violation> violations;
};

struct Sums {
  uint64_t seeds = 0, repeated = 0, faults = 0, fewest = ~uint64_t{0}, events = 0, violated = 0, differed = 0;
  uint64_t first_violated = 0;
  std::array<uint64_t, kFaults> counts = {};
  Totals totals;
  double seconds = 0;
};

unsigned long long ull(uint64_t n) { return n; }

// Of this process, so that other work on the machine counts less.
double cpu_seconds() { return double(clock()) / CLOCKS_PER_SEC; }

void print_moves_json(const char* name, const MoveTotals& moves) {
  printf("\"%s\": {\"begun\": %llu, \"moved\": %llu, \"failed\": %llu, \"called_off\": %llu", name, ull(moves.begun),
         ull(moves.moved), ull(moves.failed), ull(moves.off));
  for (size_t i = 1; i < kMoveSteps; ++i) {
    printf("%s\"%s\": %llu", i == 1 ? ", \"struck\": {" : ", ", name_of(MoveStep(i)), ull(moves.struck[i]));
  }
  for (size_t i = 1; i < kMoveSteps; ++i) {
    printf("%s\"%s\": %llu", i == 1 ? "}, \"failed_at\": {" : ", ", name_of(MoveStep(i)), ull(moves.failed_at[i]));
  }
  printf("}}, ");
}

void print_moves(const char* name, const MoveTotals& moves) {
  if (moves.begun == 0) return;
  printf("%s: %llu moves, %llu came to their end, %llu failed, %llu were called off; faults struck at", name,
         ull(moves.begun), ull(moves.moved), ull(moves.failed), ull(moves.off));
  for (size_t i = 1; i < kMoveSteps; ++i)
    printf("%s %s %llu", i == 1 ? "" : ",", name_of(MoveStep(i)), ull(moves.struck[i]));
  printf("\n");
}

using Scenario = void (*)(World&, Totals*);

void run_in(Scenario scenario, uint64_t seed, bool verbose, Totals* totals, Result* result) {
  World world(seed, verbose);
  scenario(world, totals);
  result->hash = result->hash * 0x100000001b3 ^ world.hash();
  result->faults += world.faults();
  result->events += world.events();
  for (size_t i = 0; i < kFaults; ++i) result->counts[i] += world.counts()[i];
  result->violations.insert(result->violations.end(), world.violations().begin(), world.violations().end());
}

Result run_seed(const Options& options, uint64_t seed, bool verbose, Totals* totals) {
  Result result;
  if (options.sessions) run_in(run_sessions, 2 * seed, verbose, totals, &result);
  if (options.pool) run_in(run_pool, 2 * seed + 1, verbose, totals, &result);
  return result;
}

void print_violations(const Result& result, uint64_t seed) {
  for (const Violation& violation : result.violations) {
    printf("seed %llu: %s: %s\n", ull(seed), violation.checker.c_str(), violation.text.c_str());
  }
}

void add(const Result& result, uint64_t seed, Sums* sums) {
  ++sums->seeds;
  sums->faults += result.faults;
  sums->events += result.events;
  for (size_t i = 0; i < kFaults; ++i) sums->counts[i] += result.counts[i];
  sums->fewest = std::min(sums->fewest, result.faults);
  if (result.violations.empty()) return;
  if (sums->violated++ == 0) sums->first_violated = seed;
}

void print_json(const Sums& sums) {
  printf("{\"seeds\": %llu, \"seconds\": %.2f, \"events\": %llu, \"faults\": %llu, \"fewest_faults\": %llu, ",
         ull(sums.seeds), sums.seconds, ull(sums.events), ull(sums.faults), ull(sums.fewest));
  printf("\"violations\": %llu, \"repeated\": %llu, \"differed\": %llu, \"sessions\": %llu, \"commands\": %llu, ",
         ull(sums.violated), ull(sums.repeated), ull(sums.differed), ull(sums.totals.sessions),
         ull(sums.totals.commands));
  printf("\"jobs\": %llu, \"grants\": %llu, \"restarts\": %llu, ", ull(sums.totals.jobs), ull(sums.totals.grants),
         ull(sums.totals.restarts));
  print_moves_json("session_moves", sums.totals.session_moves);
  print_moves_json("pool_moves", sums.totals.pool_moves);
  printf("\"suspended\": %llu, \"resumed\": %llu, \"turns\": %llu, \"shared\": %llu, \"by_fault\": {",
         ull(sums.totals.suspended), ull(sums.totals.resumed), ull(sums.totals.turns), ull(sums.totals.shared));
  for (size_t i = 0; i < kFaults; ++i) {
    printf("%s\"%s\": %llu", i == 0 ? "" : ", ", name_of(Fault(i)), ull(sums.counts[i]));
  }
  printf("}}\n");
}

void print_text(const Sums& sums) {
  for (size_t i = 0; i < kFaults; ++i) {
    if (sums.counts[i] != 0) printf("  %-15s %llu\n", name_of(Fault(i)), ull(sums.counts[i]));
  }
  if (sums.totals.sessions != 0) {
    printf("%llu sessions (%llu ended with an error that a fault excuses), %llu commands\n", ull(sums.totals.sessions),
           ull(sums.totals.failed_sessions), ull(sums.totals.commands));
  }
  print_moves("sessions", sums.totals.session_moves);
  print_moves("pool", sums.totals.pool_moves);
  if (sums.totals.jobs != 0) {
    printf(
        "%llu jobs, %llu grants, %llu restarts of the scheduler; %llu times a job was suspended, %llu resumed; %llu "
        "turns; %llu workers began beside another job's\n",
        ull(sums.totals.jobs), ull(sums.totals.grants), ull(sums.totals.restarts), ull(sums.totals.suspended),
        ull(sums.totals.resumed), ull(sums.totals.turns), ull(sums.totals.shared));
  }
  printf(
      "%llu seeds in %.1f s of one core: %llu steps, %llu faults (at least %llu a seed), %llu run twice, %llu "
      "differed, "
      "%llu violations\n",
      ull(sums.seeds), sums.seconds, ull(sums.events), ull(sums.faults), ull(sums.fewest), ull(sums.repeated),
      ull(sums.differed), ull(sums.violated));
  if (sums.violated != 0) printf("again: tests/sim --seed %llu --verbose\n", ull(sums.first_violated));
}

// The steps of both runs are the same, or something in it does not follow from the seed.
void repeat(const Options& options, uint64_t seed, const Result& first, Sums* sums) {
  Totals ignored;
  const Result second = run_seed(options, seed, false, &ignored);
  ++sums->repeated;
  const bool same = second.hash == first.hash && second.events == first.events;
  if (!same) ++sums->differed;
  if (options.one || !same) {
    printf("seed %llu: trace %016llx, again %016llx: %s\n", ull(seed), ull(first.hash), ull(second.hash),
           same ? "the same steps" : "OTHER STEPS");
  }
}

int expected(const Options& options, const Result& result, uint64_t seed) {
  print_violations(result, seed);
  for (const Violation& violation : result.violations) {
    if (violation.checker != options.expect) continue;
    printf("caught by '%s' at seed %llu\n", options.expect.c_str(), ull(seed));
    return 0;
  }
  printf("seed %llu was violated, but '%s' did not see it\n", ull(seed), options.expect.c_str());
  return 1;
}

int run(const Options& options) {
  Sums sums;
  const double begin = cpu_seconds();
  for (uint64_t seed = options.first; seed < options.first + options.count; ++seed) {
    const Result result = run_seed(options, seed, options.verbose && options.one, &sums.totals);
    add(result, seed, &sums);
    if (!options.expect.empty()) {
      if (!result.violations.empty()) return expected(options, result, seed);
      continue;
    }
    print_violations(result, seed);
    if (options.one || seed % 25 == 0 || !result.violations.empty()) repeat(options, seed, result, &sums);
  }
  sums.seconds = cpu_seconds() - begin;
  if (options.json) {
    print_json(sums);
  } else {
    print_text(sums);
  }
  if (!options.expect.empty()) return 1;
  return sums.violated == 0 && sums.differed == 0 ? 0 : 1;
}

bool number(const char* text, uint64_t least, uint64_t* value) {
  char* end = nullptr;
  errno = 0;
  *value = strtoull(text, &end, 10);
  return errno == 0 && end != text && *end == 0 && text[0] != '-' && *value >= least;
}

bool read_option(int letter, Options* options) {
  switch (letter) {
    case 's':
      options->one = true;
      options->count = 1;
      return number(optarg, 0, &options->first);
    case 'n':
      return number(optarg, 1, &options->count);
    case 'f':
      return number(optarg, 0, &options->first);
    case 'o':
      options->sessions = strcmp(optarg, "sessions") == 0;
      options->pool = strcmp(optarg, "pool") == 0;
      return options->sessions || options->pool;
    case 'e':
      options->expect = optarg;
      return !options->expect.empty();
    case 'j':
      return options->json = true;
    case 'v':
      return options->verbose = true;
    default:
      return false;
  }
}

}  // namespace

int main(int argc, char** argv) {
  const option names[] = {{"seed", 1, nullptr, 's'},    {"seeds", 1, nullptr, 'n'},  {"from", 1, nullptr, 'f'},
                          {"only", 1, nullptr, 'o'},    {"expect", 1, nullptr, 'e'}, {"json", 0, nullptr, 'j'},
                          {"verbose", 0, nullptr, 'v'}, {"help", 0, nullptr, 'h'},   {nullptr, 0, nullptr, 0}};
  set_log_name("sim");
  set_default_log_level(LogLevel::kOff);
  setenv("TIDE_CHECK_PLANNER", "1", 1);
  Options options;
  for (int letter; (letter = getopt_long(argc, argv, "", names, nullptr)) != -1;) {
    if (letter == 'h') {
      fputs(kUsage, stdout);
      return 0;
    }
    if (!read_option(letter, &options)) {
      fputs(kUsage, stderr);
      return 2;
    }
  }
  if (optind != argc) {
    fputs(kUsage, stderr);
    return 2;
  }
  return run(options);
}

}  // namespace tide::simulation

int main(int argc, char** argv) { return tide::simulation::main(argc, argv); }
