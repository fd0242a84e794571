// `tide report`: what jobs have had, from the history and from what is counted now.

#include <algorithm>

#include "base/clock.h"
#include "base/log.h"
#include "scheduler/pool_service.h"
#include "scheduler/remote_error.h"
#include "scheduler/report.h"

namespace tide::sched {
namespace {

constexpr size_t kRowsMax = 10'000;

double seconds(double ms) { return ms / 1000; }

void fill_row(const ReportLine& line, control::ReportRow::Builder out) {
  out.setKey(line.key);
  out.setName(line.name);
  out.setQueue(line.queue);
  out.setUser(line.user);
  out.setJobs(line.jobs);
  out.setHeldGpuS(seconds(line.held_ms));
  out.setUsedGpuS(seconds(line.used_ms));
  out.setStarted(line.started);
  out.setWaitS(seconds(line.wait_ms));
  out.setMoney(line.money);
  out.setUnpricedGpuS(seconds(line.unpriced_ms));
}

std::vector<std::string> notes_of(const HistoryReport& found, const BooksState& books, const PoolCore& core) {
  std::vector<std::string> notes;
  if (!books.problem.empty())
    notes.push_back(books.problem + format(" (%lu batches of events wait)", (unsigned long)books.waiting));
  uint64_t batches = 0;
  for (const HistoryGap& gap : found.gaps) batches += gap.batches;
  if (batches != 0) {
    notes.push_back(format("%lu batches of events are not in this history, in %zu gap%s: ", (unsigned long)batches,
                           found.gaps.size(), found.gaps.size() == 1 ? "" : "s") +
                    (core.election != nullptr ? "other schedulers have led meanwhile, and have them in their own"
                                              : "it could not be written for so long that they were displaced"));
  }
  return notes;
}

void fill(const HistoryReport& found, const Report& report, control::Report::Builder out) {
  const size_t rows = std::min(report.lines.size(), kRowsMax);
  auto list = out.initRows(uint32_t(rows));
  for (uint32_t i = 0; i < rows; ++i) fill_row(report.lines[i], list[i]);
  out.setMore(uint32_t(report.lines.size() - rows));
  fill_row(report.total, out.initTotal());
  out.setFirstMs(found.first_ms);
  out.setLastMs(found.last_ms);
  out.setCapacityGpuS(seconds(found.capacity_ms));
  out.setIdleJobs(report.idle_jobs);
  out.setIdleGpuS(seconds(report.idle_ms));
}

}  // namespace

kj::Promise<void> PoolService::report(ReportContext context) {
  const auto params = context.getParams();
  if (core_.refuses()) return error_for_caller(not_the_leader(core_.leader()));
  const auto by = parse_report_by(params.getBy());
  if (!by) return error_for_caller("a report is by queue, user or job");
  Books& books = core_.reconciler.books();
  if (!books.state().kept) {
    return error_for_caller(
        "this pool keeps no history, so there is nothing to report: give it a file, [pool] history "
        "= \"PATH\" in pool.toml, and restart the scheduler");
  }
  const uint64_t now_ms = wall_seconds() * 1000 + 1000;  // all of this second
  const Period period{.since_ms = params.getSinceMs(),
                      .until_ms = params.getUntilMs() == 0 ? now_ms : std::min(params.getUntilMs(), now_ms)};
  if (period.since_ms >= period.until_ms)
    return error_for_caller("a report ends after it begins, and begins before now");
  return books.report(period).then([this, by, period, context](HistoryReport found) mutable {
    auto out = context.getResults().initReport();
    fill(found, make_report(found, *by, core_.ledger.prices), out);
    out.setSinceMs(period.since_ms);
    out.setUntilMs(period.until_ms);
    out.setPriced(core_.ledger.prices.any());
    out.setCurrency(core_.ledger.prices.currency);
    const auto notes = notes_of(found, core_.reconciler.books().state(), core_);
    auto list = out.initNotes(uint32_t(notes.size()));
    for (uint32_t i = 0; i < list.size(); ++i) list.set(i, notes[i]);
  });
}

}  // namespace tide::sched
