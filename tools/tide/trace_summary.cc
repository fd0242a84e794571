#include <algorithm>
#include <map>
#include <set>

#include "base/histogram.h"
#include "base/log.h"
#include "tools/tide/options.h"
#include "tools/tide/traces.h"

namespace tide::cli {
namespace {

struct Sum {
  std::string name;
  uint64_t calls = 0, time_ns = 0, errors = 0, local = 0, sent = 0, waited = 0;
  uint64_t median_ns = 0, max_ns = 0;
  TravelCounters travel = {};
  Histogram durations;

  void add(const trace::Call& call) {
    ++calls;
    time_ns += call.duration_ns;
    durations.add(call.duration_ns);
    max_ns = std::max(max_ns, call.duration_ns);
    errors += call.result != 0;
    const TravelCounters& t = call.travel;
    ++(t.round_trips != 0 ? waited : t.commands != 0 ? sent : local);
    travel.commands += t.commands;
    travel.sent_bytes += t.sent_bytes;
    travel.received_bytes += t.received_bytes;
    travel.round_trips += t.round_trips;
    travel.wait_ns += t.wait_ns;
  }

  void finish() { median_ns = uint64_t(durations.quantile(0.5)); }
};

struct Summary {
  std::vector<Sum> functions;
  Sum total;
  uint64_t begin_ns = 0, end_ns = 0, threads = 0;

  double trips_per_s() const {
    return end_ns == begin_ns ? 0 : double(total.travel.round_trips) * 1e9 / double(end_ns - begin_ns);
  }
};

Outcome sum_up(trace::TraceFile& file, Summary* out) {
  std::map<std::string, Sum> by_name;
  std::set<std::pair<uint32_t, uint32_t>> threads;
  Summary& summary = *out;
  summary.total.name = "all";
  const Outcome visited = file.for_each_call([&](const trace::Call& call) {
    if (summary.total.calls == 0) summary.begin_ns = call.begin_ns;
    by_name[file.function(call).name].add(call);
    summary.total.add(call);
    summary.end_ns = std::max(summary.end_ns, call.begin_ns + call.duration_ns);
    threads.insert({call.process, call.thread});
  });
  summary.threads = threads.size();
  summary.total.finish();
  for (auto& [name, sum] : by_name) {
    sum.name = name;
    sum.finish();
    summary.functions.push_back(std::move(sum));
  }
  std::stable_sort(summary.functions.begin(), summary.functions.end(),
                   [](const Sum& a, const Sum& b) { return a.time_ns > b.time_ns; });
  return visited;
}

std::string time_text(uint64_t ns) {
  if (ns < 1'000) return format("%llu ns", (unsigned long long)ns);
  if (ns < 1'000'000) return format("%.1f us", double(ns) / 1e3);
  if (ns < 1'000'000'000) return format("%.1f ms", double(ns) / 1e6);
  return format("%.2f s", double(ns) / 1e9);
}

std::string count_text(uint64_t count) { return count == 0 ? "-" : std::to_string(count); }

std::string bytes_text(uint64_t bytes) { return bytes == 0 ? "-" : size_text(bytes); }

void print_row(const Sum& sum) {
  printf(
      "%-40s %8llu %10s %10s %10s %10s %8s %8s %10s %10s %10s %7s\n", sum.name.c_str(), (unsigned long long)sum.calls,
      time_text(sum.time_ns).c_str(), time_text(sum.time_ns / std::max<uint64_t>(sum.calls, 1)).c_str(),
      time_text(sum.median_ns).c_str(), time_text(sum.max_ns).c_str(), count_text(sum.travel.commands).c_str(),
      count_text(sum.travel.round_trips).c_str(), sum.travel.wait_ns == 0 ? "-" : time_text(sum.travel.wait_ns).c_str(),
      bytes_text(sum.travel.sent_bytes).c_str(), bytes_text(sum.travel.received_bytes).c_str(),
      count_text(sum.errors).c_str());
}

void add_sum(Json& json, const Sum& sum) {
  json.add("calls", sum.calls)
      .add("time_ns", sum.time_ns)
      .add("median_ns", sum.median_ns)
      .add("max_ns", sum.max_ns)
      .add("local", sum.local)
      .add("sent", sum.sent)
      .add("waited", sum.waited)
      .add("commands", sum.travel.commands)
      .add("round_trips", sum.travel.round_trips)
      .add("wait_ns", sum.travel.wait_ns)
      .add("sent_bytes", sum.travel.sent_bytes)
      .add("received_bytes", sum.travel.received_bytes)
      .add("errors", sum.errors);
}

std::string plural(uint64_t count, const char* one, const char* many) {
  return std::to_string(count) + " " + (count == 1 ? one : many);
}

}  // namespace

Outcome print_summary(const std::string& path, trace::TraceFile& file) {
  Summary summary;
  if (Outcome o = sum_up(file, &summary); !o.ok()) return o;
  if (summary.total.calls == 0) {
    printf("%s: %s\n", path.c_str(),
           file.processes().empty() ? "no process of the job has called the driver" : "none of its calls");
    return {};
  }
  printf("%s: %s, %s, %s in %s, %s of it in the driver\n", path.c_str(),
         plural(file.processes().size(), "process", "processes").c_str(),
         plural(summary.threads, "thread", "threads").c_str(), plural(summary.total.calls, "call", "calls").c_str(),
         time_text(summary.end_ns - summary.begin_ns).c_str(), time_text(summary.total.time_ns).c_str());
  printf("how: %llu local, %llu sent, %llu waited; %s, %.1f per second\n\n", (unsigned long long)summary.total.local,
         (unsigned long long)summary.total.sent, (unsigned long long)summary.total.waited,
         plural(summary.total.travel.round_trips, "round trip", "round trips").c_str(), summary.trips_per_s());
  printf("%-40s %8s %10s %10s %10s %10s %8s %8s %10s %10s %10s %7s\n", "FUNCTION", "CALLS", "TIME", "MEAN", "MEDIAN",
         "MAX", "COMMANDS", "TRIPS", "WAITED", "TO SERVER", "FROM IT", "ERRORS");
  for (const Sum& sum : summary.functions) print_row(sum);
  print_row(summary.total);
  return {};
}

Outcome add_summary(Json& json, trace::TraceFile& file) {
  Summary summary;
  if (Outcome o = sum_up(file, &summary); !o.ok()) return o;
  json.add("complete", file.problems().empty()).key("problems").list();
  for (const std::string& problem : file.problems()) json.text(problem);
  json.end().key("processes").list();
  for (const trace::Process& process : file.processes()) {
    json.object()
        .add("pid", process.pid)
        .add("parent", process.parent)
        .add("command", process.command)
        .add("calls", process.seen)
        .add("ended", process.ended)
        .end();
  }
  json.end().add("threads", summary.threads).add("span_ns", summary.end_ns - summary.begin_ns);
  json.add("round_trips_per_s", summary.trips_per_s());
  json.key("total").object();
  add_sum(json, summary.total);
  json.end().key("functions").list();
  for (const Sum& sum : summary.functions) {
    json.object().add("name", sum.name);
    add_sum(json, sum);
    json.end();
  }
  json.end();
  return {};
}

}  // namespace tide::cli
