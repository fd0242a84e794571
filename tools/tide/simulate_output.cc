#include <stdio.h>

#include <charconv>

#include "base/log.h"
#include "scheduler/simulate/resample.h"
#include "tools/tide/json.h"
#include "tools/tide/simulations.h"

namespace tide::cli {
namespace {

double sum_of(const Simulated& run, double simulate::QueueResult::*what) {
  double sum = 0;
  for (const simulate::QueueResult& queue : run.result.queues) sum += queue.*what;
  return sum;
}

// Every figure of a run, once: --json and --csv print them all.
struct Figure {
  const char* name;
  double (*of)(const Simulated& run);
};
constexpr Figure kFigures[] = {
    {"gpus", [](const Simulated& r) { return double(r.gpus); }},
    {"jobs", [](const Simulated& r) { return double(r.trace.jobs.size()); }},
    {"jobs_left_out", [](const Simulated& r) { return double(r.left_out); }},
    {"load", [](const Simulated& r) { return r.load; }},
    {"avg_jct_s", [](const Simulated& r) { return r.metrics.jct_s.mean; }},
    {"p50_jct_s", [](const Simulated& r) { return r.metrics.jct_s.p50; }},
    {"p95_jct_s", [](const Simulated& r) { return r.metrics.jct_s.p95; }},
    {"p99_jct_s", [](const Simulated& r) { return r.metrics.jct_s.p99; }},
    {"bound_avg_jct_s", [](const Simulated& r) { return r.bounds.mean_jct_s; }},
    {"bound_no_wait_s", [](const Simulated& r) { return r.bounds.no_wait_s; }},
    {"bound_one_machine_s", [](const Simulated& r) { return r.bounds.one_machine_s; }},
    {"bound_mean_busy_s", [](const Simulated& r) { return r.bounds.mean_busy_s; }},
    {"makespan_s", [](const Simulated& r) { return r.metrics.makespan_s; }},
    {"bound_makespan_s", [](const Simulated& r) { return r.bounds.makespan_s; }},
    {"avg_queue_s", [](const Simulated& r) { return r.metrics.queue_s.mean; }},
    {"p50_queue_s", [](const Simulated& r) { return r.metrics.queue_s.p50; }},
    {"p95_queue_s", [](const Simulated& r) { return r.metrics.queue_s.p95; }},
    {"p99_queue_s", [](const Simulated& r) { return r.metrics.queue_s.p99; }},
    {"max_queue_s", [](const Simulated& r) { return r.metrics.queue_s.max; }},
    {"avg_without_gpu_s", [](const Simulated& r) { return r.metrics.stopped_s.mean; }},
    {"avg_wide_without_gpu_s", [](const Simulated& r) { return r.metrics.wide_stopped_s.mean; }},
    {"max_wide_without_gpu_s", [](const Simulated& r) { return r.metrics.wide_stopped_s.max; }},
    {"avg_slowdown", [](const Simulated& r) { return r.metrics.slowdown.mean; }},
    {"p99_slowdown", [](const Simulated& r) { return r.metrics.slowdown.p99; }},
    {"utilisation", [](const Simulated& r) { return r.metrics.utilisation; }},
    {"bound_utilisation", [](const Simulated& r) { return r.bounds.utilisation; }},
    {"allocation", [](const Simulated& r) { return r.metrics.allocation; }},
    {"leased_gpu_s", [](const Simulated& r) { return r.metrics.leased_gpu_s; }},
    {"useful_gpu_s", [](const Simulated& r) { return r.metrics.useful_gpu_s; }},
    {"pause_gpu_s", [](const Simulated& r) { return r.metrics.pause_gpu_s; }},
    {"lost_gpu_s", [](const Simulated& r) { return r.metrics.lost_gpu_s; }},
    {"preemptions_per_job", [](const Simulated& r) { return r.metrics.preemptions_per_job; }},
    {"moves_per_job", [](const Simulated& r) { return r.metrics.moves_per_job; }},
    {"worst_rho", [](const Simulated& r) { return r.metrics.rho.max; }},
    {"p99_rho", [](const Simulated& r) { return r.metrics.rho.p99; }},
    {"rho_above_1", [](const Simulated& r) { return r.metrics.rho_above_1; }},
    {"jain_day_mean", [](const Simulated& r) { return r.metrics.jain_day_mean; }},
    {"jain_day_least", [](const Simulated& r) { return r.metrics.jain_day_least; }},
    {"quota_lack_gpu_s", [](const Simulated& r) { return sum_of(r, &simulate::QueueResult::lack_gpu_s); }},
    {"over_limit_gpu_s", [](const Simulated& r) { return sum_of(r, &simulate::QueueResult::over_limit_gpu_s); }},
    {"decisions", [](const Simulated& r) { return double(r.result.decisions); }},
    {"wall_s", [](const Simulated& r) { return r.wall_s; }},
};

// What no trace decides, or the machine.
bool has_interval(const Figure& figure) {
  const std::string name = figure.name;
  return name != "gpus" && name != "wall_s";
}

// Half the width of the 95 % interval.
double half_width(const Simulated& run, size_t figure) {
  std::vector<double> values;
  for (const auto& figures : run.resampled) values.push_back(figures[figure]);
  return simulate::half_width_95(values);
}

double half_width(const Simulated& run, const std::string& name) {
  size_t figure = 0;
  while (kFigures[figure].name != name) ++figure;
  return half_width(run, figure);
}

void add_queues(Json& json, const Simulated& run) {
  if (run.result.queues.empty()) return;
  json.key("queues").list();
  for (const simulate::QueueResult& queue : run.result.queues) {
    json.object().add("queue", queue.name).add_exact("quota", queue.quota).add_exact("limit", queue.limit);
    json.add_exact("had_gpu_s", queue.had_gpu_s).add_exact("wanted_gpu_s", queue.wanted_gpu_s);
    json.add_exact("quota_lack_gpu_s", queue.lack_gpu_s).add_exact("quota_lack_longest_s", queue.lack_longest_s);
    json.add_exact("over_limit_gpu_s", queue.over_limit_gpu_s).end();
  }
  json.end();
}

void add_run(Json& json, const Simulated& run) {
  json.add("part", run.trace.name).add("policy", run.policy).add("what_if", run.what_if);
  for (const Figure& figure : kFigures) json.add_exact(figure.name, figure.of(run));
  add_queues(json, run);
  if (run.resampled.empty()) return;
  json.add("seeds", uint64_t(run.resampled.size())).key("ci95").object();
  for (size_t i = 0; i < std::size(kFigures); ++i) {
    if (has_interval(kFigures[i])) json.add_exact(kFigures[i].name, half_width(run, i));
  }
  json.end();
}

std::string csv_text(const std::string& text) {
  if (text.find_first_of(",\"\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + "\"";
}

// "3,661" for 3661.4.
std::string seconds_text(double seconds) {
  std::string digits = format("%.0f", seconds);
  for (size_t at = digits.size(); at > 3;) digits.insert(at -= 3, ",");
  return digits;
}

void print_row(const Simulated& run, size_t width) {
  const simulate::Metrics& m = run.metrics;
  printf("%-*s %6u %12s %12s %12s %12s %12s %12s %6.1f %7.3f %6.3f\n", int(width),
         (run.policy + (run.what_if.empty() ? "" : " " + run.what_if)).c_str(), run.gpus,
         seconds_text(m.jct_s.mean).c_str(), seconds_text(m.jct_s.p50).c_str(), seconds_text(m.jct_s.p99).c_str(),
         seconds_text(m.queue_s.mean).c_str(), seconds_text(m.queue_s.max).c_str(), seconds_text(m.makespan_s).c_str(),
         100 * m.utilisation, m.preemptions_per_job + m.moves_per_job, m.jain_day_mean);
}

void print_intervals(const Simulated& run, size_t width) {
  const auto seconds = [&](const char* name) { return seconds_text(half_width(run, name)); };
  printf("%-*s %6s %12s %12s %12s %12s %12s %12s %6.1f %7.3f %6.3f\n", int(width), "  +-", "",
         seconds("avg_jct_s").c_str(), seconds("p50_jct_s").c_str(), seconds("p99_jct_s").c_str(),
         seconds("avg_queue_s").c_str(), seconds("max_queue_s").c_str(), seconds("makespan_s").c_str(),
         100 * half_width(run, "utilisation"),
         half_width(run, "preemptions_per_job") + half_width(run, "moves_per_job"), half_width(run, "jain_day_mean"));
}

void print_bounds(const Simulated& run, size_t width) {
  printf("%-*s %6u %12s %12s %12s %12s %12s %12s %6.1f\n", int(width), "bound", run.gpus,
         seconds_text(run.bounds.mean_jct_s).c_str(), "", "", "0", "0", seconds_text(run.bounds.makespan_s).c_str(),
         100 * run.bounds.utilisation);
}

void print_queues(const Simulated& run) {
  if (run.result.queues.empty()) return;
  size_t width = 7;
  for (const simulate::QueueResult& queue : run.result.queues) width = std::max(width, queue.name.size() + 2);
  printf("  %-*s %8s %8s %14s %14s %16s %12s %16s\n", int(width), "QUEUE", "QUOTA", "LIMIT", "WANTED GPU-s",
         "HAD GPU-s", "QUOTA LACK GPU-s", "LONGEST s", "OVER LIMIT GPU-s");
  for (const simulate::QueueResult& queue : run.result.queues) {
    printf("  %-*s %8g %8g %14s %14s %16s %12s %16s\n", int(width), queue.name.c_str(), queue.quota, queue.limit,
           seconds_text(queue.wanted_gpu_s).c_str(), seconds_text(queue.had_gpu_s).c_str(),
           seconds_text(queue.lack_gpu_s).c_str(), seconds_text(queue.lack_longest_s).c_str(),
           seconds_text(queue.over_limit_gpu_s).c_str());
  }
}

bool same_pool(const Simulated& a, const Simulated& b) { return a.trace.name == b.trace.name && a.gpus == b.gpus; }

}  // namespace

std::vector<double> figures_of(const Simulated& run) {
  std::vector<double> figures;
  for (const Figure& figure : kFigures) figures.push_back(figure.of(run));
  return figures;
}

void print_simulations(const Simulations& simulations) {
  size_t width = 6;
  for (const Simulated& run : simulations.runs) {
    width = std::max(width, run.policy.size() + run.what_if.size() + 1);
  }
  for (size_t i = 0; i < simulations.runs.size(); ++i) {
    const Simulated& run = simulations.runs[i];
    if (i == 0 || run.trace.name != simulations.runs[i - 1].trace.name) {
      printf("%s%s%s: %zu jobs; offered load %.3f of %u GPUs\n", i == 0 ? "" : "\n", simulations.path.c_str(),
             run.trace.name.empty() ? "" : (" " + run.trace.name).c_str(), run.trace.jobs.size(), run.load, run.gpus);
      printf("%-*s %6s %12s %12s %12s %12s %12s %12s %6s %7s %6s\n", int(width), "POLICY", "GPUS", "MEAN JCT s",
             "MEDIAN", "P99", "MEAN WAIT s", "LONGEST", "MAKESPAN s", "USED %", "STOPS", "JAIN");
    }
    print_row(run, width);
    print_queues(run);
    if (!run.resampled.empty()) print_intervals(run, width);
    if (run.left_out > 0) printf("  without %zu jobs that ask for more than %u GPUs\n", run.left_out, run.gpus);
    const bool last = i + 1 == simulations.runs.size() || !same_pool(run, simulations.runs[i + 1]);
    if (last) print_bounds(run, width);
  }
  if (!simulations.runs[0].resampled.empty()) {
    printf("+-: 95 %% confidence, from %zu traces made of blocks of this one (docs/simulate.md)\n",
           simulations.runs[0].resampled.size());
  }
  if (simulations.wrong_rows > 0) printf("%llu wrong rows were left out\n", (unsigned long long)simulations.wrong_rows);
}

void print_simulations_json(const Simulations& simulations) {
  Json json;
  json.object().add("trace", simulations.path).add("mode", simulations.mode);
  json.add("wrong_rows", simulations.wrong_rows);
  add_run(json, simulations.runs[0]);
  json.key("runs").list();
  for (const Simulated& run : simulations.runs) {
    json.object();
    add_run(json, run);
    json.end();
  }
  json.end().end().print();
}

void print_simulations_csv(const Simulations& simulations) {
  std::string text = "part,policy,what_if";
  const bool intervals = !simulations.runs[0].resampled.empty();
  for (const Figure& figure : kFigures) text += std::string(",") + figure.name;
  for (const Figure& figure : kFigures)
    text += intervals && has_interval(figure) ? std::string(",ci95_") + figure.name : "";
  puts(text.c_str());
  for (const Simulated& run : simulations.runs) {
    text = csv_text(run.trace.name) + "," + run.policy + "," + run.what_if;
    const auto add = [&](double value) {
      char digits[64];
      text += ",";
      text.append(digits, std::to_chars(digits, digits + sizeof digits, value).ptr);
    };
    for (const Figure& figure : kFigures) add(figure.of(run));
    for (size_t i = 0; intervals && i < std::size(kFigures); ++i) {
      if (has_interval(kFigures[i])) add(half_width(run, i));
    }
    puts(text.c_str());
  }
}

}  // namespace tide::cli
