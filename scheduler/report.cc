#include "scheduler/report.h"

#include <algorithm>
#include <map>
#include <set>

#include "scheduler/queues.h"

namespace tide::sched {
namespace {

using JobKey = std::pair<uint64_t, uint64_t>;  // outbox, number

struct Sum {
  ReportLine line;
  std::set<JobKey> jobs;
  double waited_ms = 0;
};

template <class Of>
std::string key_of(const Of& of, ReportBy by) {
  switch (by) {
    case ReportBy::kQueue:
      return of.queue.empty() ? kDefaultQueue : of.queue;
    case ReportBy::kUser:
      return of.user.empty() ? "unknown" : of.user;
    case ReportBy::kJob:
      return std::to_string(of.job);
  }
  return "";
}

template <class Of>
Sum& sum_for(const Of& of, ReportBy by, std::map<std::pair<uint64_t, std::string>, Sum>* sums) {
  // Two records of jobs may both have a job 1.
  Sum& sum = (*sums)[{by == ReportBy::kJob ? of.outbox : 0, key_of(of, by)}];
  sum.line.key = key_of(of, by);
  if (by == ReportBy::kJob) sum.line.name = of.name, sum.line.queue = of.queue, sum.line.user = of.user;
  sum.jobs.insert({of.outbox, of.job});
  return sum;
}

void add(const JobUse& use, const PriceConfig& prices, ReportLine* line) {
  line->held_ms += use.held_ms;
  line->used_ms += use.used_ms;
  const std::optional<double> price = prices.of(use.model);
  if (price) {
    line->money += *price * use.held_ms / 3'600'000;
  } else {
    line->unpriced_ms += use.held_ms;
  }
}

ReportLine done(Sum sum) {
  sum.line.jobs = uint32_t(sum.jobs.size());
  if (sum.line.started != 0) sum.line.wait_ms = sum.waited_ms / sum.line.started;
  return std::move(sum.line);
}

}  // namespace

std::optional<ReportBy> parse_report_by(const std::string& text) {
  if (text == "queue") return ReportBy::kQueue;
  if (text == "user") return ReportBy::kUser;
  if (text == "job") return ReportBy::kJob;
  return {};
}

Report make_report(const HistoryReport& history, ReportBy by, const PriceConfig& prices) {
  std::map<std::pair<uint64_t, std::string>, Sum> sums;
  std::map<JobKey, std::pair<double, double>> of_jobs;  // held and used
  Sum total;
  for (const JobUse& use : history.uses) {
    add(use, prices, &sum_for(use, by, &sums).line);
    add(use, prices, &total.line);
    total.jobs.insert({use.outbox, use.job});
    auto& [held, used] = of_jobs[{use.outbox, use.job}];
    held += use.held_ms;
    used += use.used_ms;
  }
  for (const JobStart& start : history.starts) {
    for (Sum* sum : {&sum_for(start, by, &sums), &total}) {
      ++sum->line.started;
      sum->waited_ms += double(start.wait_ms);
      sum->jobs.insert({start.outbox, start.job});
    }
  }
  Report report;
  for (auto& [key, sum] : sums) report.lines.push_back(done(std::move(sum)));
  report.total = done(std::move(total));
  std::stable_sort(report.lines.begin(), report.lines.end(),
                   [](const ReportLine& a, const ReportLine& b) { return a.held_ms > b.held_ms; });
  for (const auto& [job, amounts] : of_jobs) {
    const auto& [held, used] = amounts;
    if (held <= 0 || used >= held * kIdlePart) continue;
    ++report.idle_jobs;
    report.idle_ms += held - used;
  }
  return report;
}

}  // namespace tide::sched
