// The report as people read it in a terminal.

#include <stdio.h>

#include <algorithm>
#include <cmath>

#include "base/log.h"
#include "tools/rdma_bench/benchmarks.h"
#include "tools/tide/options.h"

namespace tide::fabric {
namespace {

constexpr int kBarColumns = 40;

std::string repeat(const char* text, int count) {
  std::string all;
  for (int i = 0; i < count; ++i) all += text;
  return all;
}

// Eighths of a column, so that small differences are seen.
std::string bar(double part) {
  constexpr const char* kEighths[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
  const int eighths = int(std::lround(std::clamp(part, 0.0, 1.0) * kBarColumns * 8));
  return repeat("█", eighths / 8) + kEighths[eighths % 8];
}

int name_columns(const Report& report) {
  size_t most = 10;
  for (const PathReport& path : report.paths) most = std::max(most, path.name.size());
  return int(most);
}

void plot_bandwidth(const Report& report) {
  double most = 0;
  for (const Row& row : report.rows) {
    if (row.test == "bandwidth") most = std::max(most, row.gbytes_per_s);
  }
  if (most == 0) return;
  printf("\nbandwidth to the other side (a full bar: %.2f GB/s)\n", most);
  for (const PathReport& path : report.paths) {
    for (const Row& row : report.rows) {
      if (row.path != path.name || row.test != "bandwidth") continue;
      printf("  %-*s %8s %8.2f GB/s %s\n", name_columns(report), row.path.c_str(), cli::size_text(row.bytes).c_str(),
             row.gbytes_per_s, bar(row.gbytes_per_s / most).c_str());
    }
  }
}

void plot_latency(const Report& report) {
  constexpr const char* kHeights[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  bool first = true;
  for (const Row& row : report.rows) {
    if (row.test != "latency" || row.bytes != 8 || row.us.count == 0) continue;
    if (first)
      printf("\nlatency of 8 bytes, from the least to the greatest (each column 19 %% more; height: log of count)\n");
    first = false;
    uint64_t most = 1;
    for (const Bucket& bucket : row.us.histogram) most = std::max(most, bucket.count);
    std::string line;
    for (const Bucket& bucket : row.us.histogram) {
      const double height = std::log1p(double(bucket.count)) / std::log1p(double(most));
      line += bucket.count == 0 ? " " : kHeights[std::min(7, int(height * 8))];
    }
    printf("  %-*s %9s |%s| %s\n", name_columns(report), row.path.c_str(), time_text(row.us.min).c_str(), line.c_str(),
           time_text(row.us.max).c_str());
  }
}

void print_jobs(const Jobs& jobs) {
  if (jobs.path.empty()) return;
  printf("\nfor jobs (%s): 1000 calls that wait for their answer cost %s", jobs.path.c_str(),
         time_text(1000 * jobs.round_trip_us).c_str());
  if (jobs.to_gbytes_per_s > 0) printf(", a copy of 1 GiB %.0f ms", 1073.741824 / jobs.to_gbytes_per_s);
  if (jobs.from_gbytes_per_s > 0) printf(", back %.0f ms", 1073.741824 / jobs.from_gbytes_per_s);
  printf("\n");
  if (!jobs.trace.empty()) {
    printf(
        "  %s: %llu round trips, %s sent, %s received in %.2f s; this fabric adds %.3f s to the same job on a local "
        "GPU, %.1f %% of those %.2f s\n",
        jobs.trace.c_str(), (unsigned long long)jobs.round_trips, cli::size_text(jobs.sent_bytes).c_str(),
        cli::size_text(jobs.received_bytes).c_str(), jobs.span_s, jobs.added_s, 100 * jobs.added_s / jobs.span_s,
        jobs.span_s);
  }
  printf("  model: %s\n", jobs.model.c_str());
}

}  // namespace

std::string time_text(double us) {
  if (us < 1) return format("%.0f ns", us * 1e3);
  if (us < 1e3) return format("%.2f us", us);
  if (us < 1e6) return format("%.2f ms", us / 1e3);
  return format("%.2f s", us / 1e6);
}

std::string figure_text(const Row& row) {
  if (row.us.count != 0) {
    return format("min %s, p50 %s, p99 %s, p99.9 %s, jitter %s", time_text(row.us.min).c_str(),
                  time_text(row.us.p50).c_str(), time_text(row.us.p99).c_str(), time_text(row.us.p999).c_str(),
                  time_text(row.us.jitter).c_str());
  }
  if (row.test == "rate") return format("%.3f M/s", row.messages_per_s / 1e6);
  return format("%.3f GB/s", row.gbytes_per_s);
}

void print_path_head(const PathReport& path) {
  printf("\n%s (%s)%s%s\n", path.title.c_str(), path.name.c_str(), path.why.empty() ? "" : ": ", path.why.c_str());
}

std::string limit_text(const Row& row) {
  if (row.limit == 0) return "";
  if (row.us.count != 0) {
    return format("; %.2f of %s (%s)", row.us.p50 / row.limit, time_text(row.limit).c_str(), row.limit_of.c_str());
  }
  const bool rate = row.test == "rate";
  return format("; %.2f of %.3f %s (%s)", (rate ? row.messages_per_s : row.gbytes_per_s) / row.limit,
                rate ? row.limit / 1e6 : row.limit, rate ? "M/s" : "GB/s", row.limit_of.c_str());
}

void print_row(const Row& row) {
  printf("  %-14s %8s  %s%s\n", row.test.c_str(), cli::size_text(row.bytes).c_str(), figure_text(row).c_str(),
         limit_text(row).c_str());
}

void print_end(const Report& report) {
  for (const PathReport& path : report.paths) {
    if (path.state == "measured" && path.here.route != path.name) {
      printf("%s%s went over: %s\n", &path == &report.paths[0] ? "\n" : "", path.name.c_str(), path.here.route.c_str());
    }
  }
  plot_bandwidth(report);
  plot_latency(report);
  printf("\n");
  for (const Finding& finding : report.findings) {
    printf("%-6s %s\n", finding.level.c_str(), finding.what.c_str());
    if (!finding.cost.empty()) printf("       costs: %s\n", finding.cost.c_str());
    if (!finding.mend.empty()) printf("       -> %s\n", finding.mend.c_str());
  }
  print_jobs(report.jobs);
}

}  // namespace tide::fabric
