// The report as one HTML file: its style and its drawings are in it, it loads nothing.

#include <errno.h>
#include <stdio.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/log.h"
#include "tools/rdma_bench/benchmarks.h"
#include "tools/tide/options.h"

namespace tide::fabric {
namespace {

// Colours that differ in light and dark, and for the colour-blind (Okabe and Ito).
constexpr const char* kStyle =
    ":root{color-scheme:light dark;--fg:#222;--bg:#fff;--grid:#ddd;--dim:#666;--bad:#b3261e;--good:#1b7f3b}"
    "@media(prefers-color-scheme:dark){:root{--fg:#ddd;--bg:#16181c;--grid:#3a3d44;--dim:#999;--bad:#ff8a80;"
    "--good:#6fd08c}}"
    "body{font:15px/1.5 system-ui,sans-serif;color:var(--fg);background:var(--bg);max-width:60rem;margin:2rem "
    "auto;padding:0 1rem}"
    "h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}table{border-collapse:collapse;width:100%}"
    "td,th{text-align:right;padding:.2rem .6rem;border-bottom:1px solid var(--grid);font-variant-numeric:tabular-nums}"
    "td:first-child,th:first-child,td.t,th.t{text-align:left}.dim{color:var(--dim)}.WRONG{color:var(--bad)}"
    ".ok{color:var(--good)}svg{width:100%;height:auto}svg text{fill:var(--fg);font:12px system-ui,sans-serif}"
    ".grid{stroke:var(--grid)}.wide{overflow-x:auto}.n{white-space:nowrap}";
constexpr const char* kColours[] = {"#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8f8f00"};
constexpr double kWidth = 800, kHeight = 300, kLeft = 70, kRight = 150, kTop = 10, kBottom = 40;

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '&')
      out += "&amp;";
    else if (c == '"')
      out += "&quot;";
    else
      out += c;
  }
  return out;
}

struct Series {
  std::string name;
  std::vector<std::pair<double, double>> points;  // both positive
};

// Both axes are logarithmic: sizes and times span powers of ten.
struct Plot {
  double x_min = 1e300, x_max = 0, y_min = 1e300, y_max = 0;
  void take(const std::vector<Series>& all) {
    for (const Series& series : all) {
      for (const auto& [x, y] : series.points) {
        x_min = std::min(x_min, x), x_max = std::max(x_max, x);
        y_min = std::min(y_min, y), y_max = std::max(y_max, y);
      }
    }
    y_min = std::pow(10, std::floor(std::log10(y_min) + 1e-9));
    y_max = std::pow(10, std::ceil(std::log10(y_max) - 1e-9));
    if (y_max <= y_min) y_max = y_min * 10;
    if (x_max <= x_min) x_max = x_min * 2;
  }
  double x(double value) const {
    return kLeft + (kWidth - kLeft - kRight) * std::log(value / x_min) / std::log(x_max / x_min);
  }
  double y(double value) const {
    return kHeight - kBottom - (kHeight - kTop - kBottom) * std::log(value / y_min) / std::log(y_max / y_min);
  }
};

void draw_grid(FILE* out, const Plot& plot, const std::vector<std::pair<double, std::string>>& marks,
               const char* unit) {
  for (double y = plot.y_min; y <= plot.y_max * 1.001; y *= 10) {
    fprintf(out, "<line class=grid x1=%g x2=%g y1=%.1f y2=%.1f /><text x=%g y=%.1f text-anchor=end>%g %s</text>\n",
            kLeft, kWidth - kRight, plot.y(y), plot.y(y), kLeft - 6, plot.y(y) + 4, y, unit);
  }
  for (const auto& [x, text] : marks) {
    fprintf(out, "<line class=grid x1=%.1f x2=%.1f y1=%g y2=%g /><text x=%.1f y=%g text-anchor=middle>%s</text>\n",
            plot.x(x), plot.x(x), kTop, kHeight - kBottom, plot.x(x), kHeight - kBottom + 18, text.c_str());
  }
}

void draw(FILE* out, const char* title, const std::vector<Series>& all,
          const std::vector<std::pair<double, std::string>>& marks, const char* unit) {
  if (all.empty()) return;
  Plot plot;
  plot.take(all);
  fprintf(out, "<h2>%s</h2>\n<svg viewBox=\"0 0 %g %g\" role=img aria-label=\"%s\">\n", title, kWidth, kHeight, title);
  draw_grid(out, plot, marks, unit);
  for (size_t i = 0; i < all.size(); ++i) {
    const char* colour = kColours[i % std::size(kColours)];
    const char* dashes = i >= std::size(kColours) ? " stroke-dasharray=\"5 3\"" : "";
    fprintf(out, "<polyline fill=none stroke=\"%s\" stroke-width=2%s points=\"", colour, dashes);
    for (const auto& [x, y] : all[i].points) fprintf(out, "%.1f,%.1f ", plot.x(x), plot.y(y));
    fprintf(out, "\"/>\n");
    for (const auto& [x, y] : all[i].points) {
      fprintf(out, "<circle cx=%.1f cy=%.1f r=3 fill=\"%s\"><title>%s: %.4g %s</title></circle>\n", plot.x(x),
              plot.y(y), colour, all[i].name.c_str(), y, unit);
    }
    const double y = kTop + 10 + 18 * double(i);
    fprintf(out, "<line x1=%g x2=%g y1=%.1f y2=%.1f stroke=\"%s\" stroke-width=4%s /><text x=%g y=%.1f>%s</text>\n",
            kWidth - kRight + 9, kWidth - kRight + 27, y - 4, y - 4, colour, dashes, kWidth - kRight + 32, y,
            all[i].name.c_str());
  }
  fprintf(out, "</svg>\n");
}

void draw_bandwidth(FILE* out, const Report& report, const char* test, const char* title) {
  std::vector<Series> all;
  std::vector<std::pair<double, std::string>> marks;
  for (const PathReport& path : report.paths) {
    Series series{path.name, {}};
    for (const Row& row : report.rows) {
      if (row.path != path.name || row.test != test || row.gbytes_per_s <= 0) continue;
      series.points.emplace_back(double(row.bytes), row.gbytes_per_s);
      const std::pair<double, std::string> mark{double(row.bytes), cli::size_text(row.bytes)};
      if (std::find(marks.begin(), marks.end(), mark) == marks.end()) marks.push_back(mark);
    }
    if (!series.points.empty()) all.push_back(series);
  }
  draw(out, title, all, marks, "GB/s");
}

// The part of all messages that took longer than x: tails, which a histogram hides, are straight to read off.
void draw_latency(FILE* out, const Report& report) {
  std::vector<Series> all;
  double least = 1e300, most = 0;
  for (const Row& row : report.rows) {
    if (row.test != "latency" || row.bytes != 8 || row.us.count == 0) continue;
    Series series{row.path, {}};
    uint64_t above = row.us.count;
    for (const Bucket& bucket : row.us.histogram) {
      series.points.emplace_back(bucket.from_us, double(above) / double(row.us.count));
      above -= std::min(above, bucket.count);
      if (above == 0) break;
    }
    least = std::min(least, series.points.front().first);
    most = std::max(most, series.points.back().first);
    all.push_back(series);
  }
  std::vector<std::pair<double, std::string>> marks;
  for (double us = std::pow(10, std::ceil(std::log10(least))); us <= most; us *= 10)
    marks.emplace_back(us, time_text(us));
  draw(out, "Latency of 8 bytes, one way: the part of all messages that took longer", all, marks, "");
}

void write_findings(FILE* out, const Report& report) {
  fprintf(out,
          "<h2>Verdict</h2>\n<table><tr><th></th><th class=t>what</th><th class=t>it costs</th><th class=t>how to "
          "mend it</th></tr>\n");
  for (const Finding& finding : report.findings) {
    fprintf(out, "<tr><td class=%s>%s</td><td class=t>%s</td><td class=t>%s</td><td class=t>%s</td></tr>\n",
            finding.level.c_str(), finding.level.c_str(), escaped(finding.what).c_str(), escaped(finding.cost).c_str(),
            escaped(finding.mend).c_str());
  }
  fprintf(out, "</table>\n");
  if (!report.failure.empty()) fprintf(out, "<p class=WRONG>%s</p>\n", escaped(report.failure).c_str());
}

void write_jobs(FILE* out, const Jobs& jobs) {
  if (jobs.path.empty()) return;
  fprintf(out, "<h2>For jobs</h2>\n<p>Over %s, 1000 calls that wait for their answer cost %s.", jobs.path.c_str(),
          time_text(1000 * jobs.round_trip_us).c_str());
  if (!jobs.trace.empty()) {
    fprintf(out, " %s (%llu round trips, %s sent, %s received in %.2f s): this fabric adds %.3f s, %.1f %%.",
            escaped(jobs.trace).c_str(), (unsigned long long)jobs.round_trips, cli::size_text(jobs.sent_bytes).c_str(),
            cli::size_text(jobs.received_bytes).c_str(), jobs.span_s, jobs.added_s, 100 * jobs.added_s / jobs.span_s);
  }
  fprintf(out, "</p>\n<p class=dim>Model: %s.</p>\n", escaped(jobs.model).c_str());
}

void write_rows(FILE* out, const Report& report) {
  fprintf(out,
          "<h2>All figures</h2>\n<div class=wide><table><tr><th>path</th><th class=t>test</th><th>size</th><th "
          "class=t>figure</th><th class=t>beside</th></tr>\n");
  for (const Row& row : report.rows) {
    const std::string limit = limit_text(row);
    fprintf(out,
            "<tr><td>%s</td><td class=\"t n\">%s</td><td class=n>%s</td><td class=t>%s</td><td class=\"t "
            "dim\">%s</td></tr>\n",
            row.path.c_str(), row.test.c_str(), cli::size_text(row.bytes).c_str(), figure_text(row).c_str(),
            escaped(limit.empty() ? "" : limit.substr(2)).c_str());
  }
  fprintf(out, "</table></div>\n<h2>Paths</h2>\n<table>\n");
  for (const PathReport& path : report.paths) {
    const std::string& more = path.state == "measured" ? path.here.route : path.why;
    fprintf(out, "<tr><td>%s</td><td class=t>%s</td><td class=t>%s</td><td class=\"t dim\">%s</td></tr>\n",
            path.name.c_str(), escaped(path.title).c_str(), path.state.c_str(), escaped(more).c_str());
  }
  fprintf(out, "</table>\n");
}

void write_machine(FILE* out, const Machine& machine) {
  fprintf(out, "<h2>%s</h2>\n<table>\n", escaped(machine.name).c_str());
  for (const std::string& line : machine_lines(machine)) {
    fprintf(out, "<tr><td>%s</td></tr>\n", escaped(line).c_str());
  }
  fprintf(out, "</table>\n");
}

void write_all(FILE* out, const Report& report) {
  fprintf(out,
          "<!doctype html>\n<html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">"
          "<title>rdma-bench: %s and %s</title><style>%s</style>\n<h1>The fabric between %s and %s</h1>\n",
          escaped(report.here.name).c_str(), escaped(report.there.name).c_str(), kStyle,
          escaped(report.here.name).c_str(), report.one_machine() ? "itself" : escaped(report.there.name).c_str());
  write_findings(out, report);
  write_jobs(out, report.jobs);
  draw_bandwidth(out, report, "bandwidth", "Bandwidth to the other side");
  draw_bandwidth(out, report, "bandwidth-both", "Bandwidth, both directions at once, their sum");
  draw_latency(out, report);
  write_rows(out, report);
  write_machine(out, report.here);
  if (!report.one_machine()) write_machine(out, report.there);
  fprintf(out, "</html>\n");
}

}  // namespace

Outcome write_html(const Report& report, const std::string& path) {
  FILE* out = fopen(path.c_str(), "we");
  if (out == nullptr) return Outcome::fail(path + ": " + strerror(errno));
  write_all(out, report);
  const bool ok = ferror(out) == 0;
  if (fclose(out) == 0 && ok) return {};
  return Outcome::fail(path + ": " + strerror(errno));
}

}  // namespace tide::fabric
