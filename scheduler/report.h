#pragma once

// What a history says of a time, by queue, user or job: sums, and money where there are prices. Pure.

#include <optional>
#include <string>
#include <vector>

#include "scheduler/history.h"
#include "scheduler/price_config.h"

namespace tide::sched {

enum class ReportBy : uint8_t { kQueue, kUser, kJob };
std::optional<ReportBy> parse_report_by(const std::string& text);

// Who worked in less of what he held did next to nothing with it.
inline constexpr double kIdlePart = 0.1;

struct ReportLine {
  std::string key, name, queue, user;  // the last three of a job
  uint32_t jobs = 0, started = 0;
  double held_ms = 0, used_ms = 0, unpriced_ms = 0;
  double wait_ms = 0;  // mean, of those that started
  double money = 0;
};

struct Report {
  std::vector<ReportLine> lines;  // who held most comes first
  ReportLine total;
  uint32_t idle_jobs = 0;  // kIdlePart
  double idle_ms = 0;      // that GPUs did nothing for them
};

Report make_report(const HistoryReport& history, ReportBy by, const PriceConfig& prices);

}  // namespace tide::sched
