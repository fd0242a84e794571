#include <stdio.h>

#include <algorithm>
#include <cmath>

#include "base/clock.h"
#include "base/log.h"
#include "tools/tide/client.h"
#include "tools/tide/commands.h"
#include "tools/tide/json.h"
#include "tools/tide/options.h"
#include "tools/tide/times.h"
#include "tools/tide/top_view.h"

namespace tide::cli {
namespace {

constexpr uint32_t kKeyShown = 48;
constexpr const char* kHelp =
    "usage: tide report --by queue|user|job --since TIME [--until TIME] [--csv | --json]\n\n"
    "What jobs have had of the pool's GPUs. TIME is 7d, 12h or 30m ago, 2026-11-01, or \"2026-11-01 14:30\" of this\n"
    "machine's time zone; --until is now where it is left out. In GPU-hours (half a GPU for two hours is one):\n"
    "  HELD     jobs had GPUs to themselves; waiting and suspended ones have none\n"
    "  USED     of that, the GPUs worked for them\n"
    "  IDLE     and did not\n"
    "  SHARE    of all the GPU-hours that the pool had in that time\n"
    "  WAIT     until jobs started, in the mean, of those that started in that time\n"
    "  MONEY    what was held, at the prices that pool.toml has now ([price])\n"
    "  --csv    seconds and unrounded figures, a line each and a line `total`\n";

using Answer = control::Report::Reader;
using Row = control::ReportRow::Reader;

double hours(double gpu_s) { return gpu_s / 3600; }
double idle_of(Row row) { return std::max(row.getHeldGpuS() - row.getUsedGpuS(), 0.0); }
double share_of(Answer report, Row row) {
  return report.getCapacityGpuS() > 0 ? std::min(row.getHeldGpuS() / report.getCapacityGpuS(), 1.0) : 0;
}

void add_row(Json& json, Answer report, Row row, bool of_job) {
  json.add("key", std::string(row.getKey()));
  if (of_job) {
    json.add("name", std::string(row.getName()))
        .add("queue", std::string(row.getQueue()))
        .add("user", std::string(row.getUser()));
  }
  json.add("jobs", row.getJobs())
      .add_exact("held_gpu_s", row.getHeldGpuS())
      .add_exact("used_gpu_s", row.getUsedGpuS())
      .add_exact("idle_gpu_s", idle_of(row))
      .add_exact("share", share_of(report, row))
      .add("started", row.getStarted())
      .add_exact("mean_wait_s", row.getWaitS());
  if (report.getPriced()) json.add_exact("money", row.getMoney()).add_exact("unpriced_gpu_s", row.getUnpricedGpuS());
}

// One sentence, from the figures alone.
std::string verdict_of(Answer report) {
  const Row total = report.getTotal();
  if (total.getHeldGpuS() <= 0) return "no job held a GPU in this time";
  const double used = 100 * std::min(total.getUsedGpuS() / total.getHeldGpuS(), 1.0);
  std::string text = format("%.0f %% of held GPU time did work", used);
  if (report.getIdleJobs() == 0) return text;
  return text + format("; %u job%s worked in less than a tenth of what %s held, and left GPUs idle for %.*f GPU-hours",
                       report.getIdleJobs(), report.getIdleJobs() == 1 ? "" : "s",
                       report.getIdleJobs() == 1 ? "it" : "they", hours(report.getIdleGpuS()) < 10 ? 2 : 0,
                       hours(report.getIdleGpuS()));
}

// What the figures are of.
std::string period_of(Answer report) {
  const std::string asked = "from " + moment_text(report.getSinceMs()) + " until " + moment_text(report.getUntilMs());
  if (report.getFirstMs() == 0) return asked + ": the history has nothing yet";
  if (report.getFirstMs() > report.getUntilMs())
    return asked + ": the history begins only later, " + moment_text(report.getFirstMs());
  if (report.getFirstMs() <= report.getSinceMs() + 60'000) return asked;
  return asked + "; the history begins " + moment_text(report.getFirstMs());
}

void print_json(Answer report, const std::string& by) {
  Json json;
  json.object().add("by", by).add("since_ms", report.getSinceMs()).add("until_ms", report.getUntilMs());
  json.add("history_first_ms", report.getFirstMs()).add("history_last_ms", report.getLastMs());
  json.add_exact("capacity_gpu_s", report.getCapacityGpuS());
  if (report.getPriced()) json.add("currency", std::string(report.getCurrency()));
  json.key("rows").list();
  for (const auto row : report.getRows()) {
    json.object();
    add_row(json, report, row, by == "job");
    json.end();
  }
  json.end().add("rows_left_out", report.getMore()).key("total").object();
  add_row(json, report, report.getTotal(), false);
  json.end()
      .add("idle_jobs", report.getIdleJobs())
      .add_exact("idle_jobs_gpu_s", report.getIdleGpuS())
      .add("verdict", verdict_of(report))
      .key("notes")
      .list();
  for (const auto note : report.getNotes()) json.text(note);
  json.end().end().print();
}

// Names may have anything in them.
std::string csv_text(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string out = "\"";
  for (const char c : text) out += c == '"' ? std::string("\"\"") : std::string(1, c);
  return out + "\"";
}

void print_csv_row(Answer report, Row row, const std::string& key, bool of_job) {
  printf("%s,", csv_text(key).c_str());
  if (of_job) {
    printf("%s,%s,%s,", csv_text(row.getName()).c_str(), csv_text(row.getQueue()).c_str(),
           csv_text(row.getUser()).c_str());
  }
  printf("%u,%.17g,%.17g,%.17g,%.17g,%u,%.17g", row.getJobs(), row.getHeldGpuS(), row.getUsedGpuS(), idle_of(row),
         share_of(report, row), row.getStarted(), row.getWaitS());
  if (report.getPriced()) printf(",%.17g,%s", row.getMoney(), csv_text(report.getCurrency()).c_str());
  puts("");
}

void print_csv(Answer report, const std::string& by) {
  const bool of_job = by == "job";
  printf("%s,%sjobs,held_gpu_s,used_gpu_s,idle_gpu_s,share,started,mean_wait_s%s\n", by.c_str(),
         of_job ? "name,queue,user," : "", report.getPriced() ? ",money,currency" : "");
  for (const auto row : report.getRows()) print_csv_row(report, row, row.getKey(), of_job);
  print_csv_row(report, report.getTotal(), "total", of_job);
  fprintf(stderr, "tide: %s\n", period_of(report).c_str());
  for (const auto note : report.getNotes()) fprintf(stderr, "tide: %s\n", note.cStr());
}

void print_line(Answer report, Row row, const std::string& key) {
  const int digits = hours(report.getTotal().getHeldGpuS()) < 100 ? 3 : 1;
  printf("%-24s %6u %10.*f %10.*f %10.*f %6.1f%% %9s", fitting(key, kKeyShown).c_str(), row.getJobs(), digits,
         hours(row.getHeldGpuS()), digits, hours(row.getUsedGpuS()), digits, hours(idle_of(row)),
         100 * share_of(report, row),
         row.getStarted() == 0 ? "-" : duration_text(uint64_t(row.getWaitS() * 1000)).c_str());
  if (report.getPriced()) printf(" %12.2f%s", row.getMoney(), row.getUnpricedGpuS() > 0 ? "+" : "");
  puts("");
}

void print_table(Answer report, const std::string& by) {
  printf("%s\n\n", period_of(report).c_str());
  std::string head = by;
  for (char& c : head) c = char(toupper(c));
  const std::string money =
      report.getCurrency().size() == 0 ? "MONEY" : fitting(report.getCurrency().cStr(), kKeyShown);
  printf("%-24s %6s %10s %10s %10s %7s %9s", head.c_str(), "JOBS", "HELD", "USED", "IDLE", "SHARE", "WAIT");
  if (report.getPriced()) printf(" %12s", money.c_str());
  puts("");
  bool unpriced = false;
  for (const auto row : report.getRows()) {
    const std::string name = by == "job" && row.getName().size() != 0 ? std::string(" ") + row.getName().cStr() : "";
    print_line(report, row, row.getKey().cStr() + name);
    unpriced |= row.getUnpricedGpuS() > 0;
  }
  if (report.getMore() != 0) printf("and %u more that held less\n", report.getMore());
  print_line(report, report.getTotal(), "total");
  puts("");
  if (report.getPriced() && unpriced) puts("+ some of it was of GPUs for which pool.toml has no price");
  printf("%s\n", verdict_of(report).c_str());
  for (const auto note : report.getNotes()) printf("note: %s\n", note.cStr());
}

}  // namespace

int report(const Words& words) {
  Options options;
  if (!options.parse(words, {{"by"}, {"since"}, {"until"}, {"csv", 0, false}, {"json", 0, false}}, kHelp) ||
      !options.expect_words(0, ""))
    return options.status();
  const std::string by = options.get("by", "queue");
  if (by != "queue" && by != "user" && by != "job")
    return options.usage_error("--by is queue, user or job, not '" + by + "'");
  if (!options.has("since")) return options.usage_error("--since is missing: 7d, 12h, or 2026-11-01, say");
  if (options.has("csv") && options.has("json")) return options.usage_error("--csv or --json, not both");
  const uint64_t now = wall_seconds() * 1000;
  uint64_t times[2] = {0, 0};
  for (const auto& [at, name] : {std::pair(0, "since"), std::pair(1, "until")}) {
    if (!options.has(name)) continue;
    const auto moment = parse_moment(options.get(name), now);
    if (!moment)
      return options.usage_error("--" + std::string(name) +
                                 " is 7d, 12h or 30m ago, 2026-11-01, or \"2026-11-01 "
                                 "14:30\", not '" +
                                 options.get(name) + "'");
    times[at] = *moment;
  }
  if (times[1] != 0 && times[1] <= times[0]) return options.usage_error("--until comes after --since");
  if (times[0] > now) return options.usage_error("--since is in the future");
  Asker asker;
  Outcome outcome = asker.connect(options);
  kj::Maybe<capnp::Response<control::Pool::ReportResults>> got;
  if (outcome.ok()) {
    auto request = asker.pool().reportRequest();
    request.setBy(by);
    request.setSinceMs(times[0]);
    request.setUntilMs(times[1]);
    outcome = asker.ask(request.send(), &got, kAnswerMs * 6);
  }
  if (!outcome.ok()) return fail(outcome.message());
  const Answer answer = KJ_ASSERT_NONNULL(got).getReport();
  if (options.has("json")) {
    print_json(answer, by);
  } else if (options.has("csv")) {
    print_csv(answer, by);
  } else {
    print_table(answer, by);
  }
  return kOk;
}

}  // namespace tide::cli
