#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>

#include "base/descriptors.h"
#include "base/log.h"
#include "tools/tide/simulations.h"

namespace tide::cli {
namespace {

constexpr const char* kColours[] = {"#1f77b4", "#d62728", "#2ca02c", "#9467bd",
                                    "#ff7f0e", "#17becf", "#8c564b", "#7f7f7f"};
constexpr double kWide = 860, kHigh = 260, kLeft = 70, kTop = 16, kBelow = 34;
constexpr size_t kGanttJobsMax = 200;
constexpr size_t kBins = 400, kSteps = 200;

constexpr const char* kHead =
    "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>tide simulate</title>\n<style>\n"
    "body{font:14px sans-serif;margin:2em;max-width:960px;color:#222}\n"
    "table{border-collapse:collapse}td,th{padding:2px 10px;text-align:right;border-bottom:1px solid #ddd}\n"
    "td:first-child,th:first-child{text-align:left}\n"
    "svg text{font:11px sans-serif;fill:#444}svg{display:block;margin-bottom:1em}\n"
    "</style></head><body>\n";

std::string escape(const std::string& text) {
  std::string out;
  for (const char c : text) {
    out += c == '<' ? std::string("&lt;") : c == '&' ? "&amp;" : c == '"' ? "&quot;" : std::string(1, c);
  }
  return out;
}

const char* colour(size_t run) { return kColours[run % std::size(kColours)]; }

std::string name_of(const Simulated& run) {
  return run.policy + (run.what_if.empty() ? "" : " " + run.what_if) + (run.trace.name.empty() ? "" : ", ") +
         run.trace.name;
}

std::string time_text(double seconds) {
  if (seconds >= 2 * 86400) return format("%.0f d", seconds / 86400);
  if (seconds >= 2 * 3600) return format("%.0f h", seconds / 3600);
  if (seconds >= 120) return format("%.0f min", seconds / 60);
  return format("%.3g s", seconds);
}

struct Axis {
  double least = 0, most = 1;
  bool logarithmic = false;
  std::string (*text)(double value) = nullptr;

  double part(double value) const {
    if (!logarithmic) return (value - least) / (most - least);
    return std::log(std::max(value, least) / least) / std::log(most / least);
  }
  double value(double part) const {
    return logarithmic ? least * std::pow(most / least, part) : least + part * (most - least);
  }
};

// One plot: axes, and what is drawn between them.
class Plot {
 public:
  Plot(const Axis& x, const Axis& y, double high = kHigh) : x_(x), y_(y), high_(high) {
    svg_ = format("<svg width=\"%.0f\" height=\"%.0f\">", kLeft + kWide + 20, kTop + high + kBelow);
    for (int i = 0; i <= 5; ++i) tick(i / 5.0);
  }

  double x(double value) const { return kLeft + kWide * std::clamp(x_.part(value), 0.0, 1.0); }
  double y(double value) const { return kTop + high_ * (1 - std::clamp(y_.part(value), 0.0, 1.0)); }

  void line(const std::vector<std::pair<double, double>>& points, const char* stroke) {
    svg_ += format("<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"1.5\" points=\"", stroke);
    for (const auto& [at, value] : points) svg_ += format("%.1f,%.1f ", x(at), y(value));
    svg_ += "\"/>";
  }

  void bar(const simulate::Turn& turn, double row, double rows, const char* fill) {
    svg_ += format("<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"%s\"/>", x(turn.from_s),
                   kTop + high_ * row / rows, std::max(x(turn.to_s) - x(turn.from_s), 0.5), 0.8 * high_ / rows, fill);
  }

  std::string take() { return svg_ + "</svg>\n"; }

 private:
  void tick(double part) {
    const double at_x = kLeft + kWide * part, at_y = kTop + high_ * (1 - part);
    svg_ += format("<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"#eee\"/>", at_x, at_x, kTop,
                   kTop + high_);
    svg_ += format("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%s</text>", at_x, kTop + high_ + 16,
                   x_.text(x_.value(part)).c_str());
    if (y_.text == nullptr) return;
    svg_ += format("<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"#eee\"/>", kLeft, kLeft + kWide,
                   at_y, at_y);
    svg_ += format("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%s</text>", kLeft - 6, at_y + 4,
                   y_.text(y_.value(part)).c_str());
  }

  Axis x_, y_;
  double high_;
  std::string svg_;
};

std::string percent_text(double value) { return format("%.0f %%", 100 * value); }
std::string ratio_text(double value) { return format("%.3g", value); }

// Of each run one value for each of its jobs.
using Values = std::vector<std::vector<double>>;

// Which part of the jobs has at most so much.
std::string distribution(Values values, double least, std::string (*text)(double)) {
  Axis x{least, 10 * least, true, text};
  for (std::vector<double>& each : values) {
    std::sort(each.begin(), each.end());
    x.most = std::max(x.most, each.back());
  }
  Plot plot(x, {0, 1, false, percent_text});
  for (size_t run = 0; run < values.size(); ++run) {
    std::vector<std::pair<double, double>> points;
    for (size_t i = 0; i <= kSteps; ++i) {
      const double at = x.value(double(i) / kSteps);
      const auto& sorted = values[run];
      const auto below = std::upper_bound(sorted.begin(), sorted.end(), at * (1 + 1e-12)) - sorted.begin();
      points.emplace_back(at, double(below) / double(sorted.size()));
    }
    plot.line(points, colour(run));
  }
  return plot.take();
}

double origin_of(const Simulated& run) { return run.trace.jobs[0].submit_s; }

// The part of the GPUs that is leased, as the mean of each of some hundred spans.
std::vector<std::pair<double, double>> leased(const Simulated& run, double span_s) {
  std::vector<double> sums(kBins);
  const double origin = origin_of(run), bin_s = span_s / kBins;
  for (const simulate::Turn& turn : run.result.turns) {
    for (size_t bin = size_t((turn.from_s - origin) / bin_s); bin < kBins; ++bin) {
      const double from = std::max(turn.from_s - origin, double(bin) * bin_s);
      const double to = std::min(turn.to_s - origin, double(bin + 1) * bin_s);
      if (to <= from) break;
      sums[bin] += (to - from) * turn.gpus;
    }
  }
  std::vector<std::pair<double, double>> points;
  for (size_t bin = 0; bin < kBins; ++bin) {
    points.emplace_back(double(bin) * bin_s, sums[bin] / (bin_s * run.gpus));
    points.emplace_back(double(bin + 1) * bin_s, sums[bin] / (bin_s * run.gpus));
  }
  return points;
}

std::string utilisation(const Simulations& simulations) {
  double span_s = 1e-9;
  for (const Simulated& run : simulations.runs) span_s = std::max(span_s, run.metrics.makespan_s);
  Plot plot({0, span_s, false, time_text}, {0, 1, false, percent_text});
  for (size_t i = 0; i < simulations.runs.size(); ++i) plot.line(leased(simulations.runs[i], span_s), colour(i));
  return plot.take();
}

// A row for each job: grey from its submission to its end, coloured while it has GPUs.
std::string gantt(const Simulated& run, const char* fill) {
  const size_t rows = run.trace.jobs.size();
  if (rows > kGanttJobsMax) return "";
  const double origin = origin_of(run);
  Plot plot({0, std::max(run.metrics.makespan_s, 1e-9), false, time_text}, {}, double(rows) * 8 + 8);
  for (uint32_t i = 0; i < rows; ++i) {
    plot.bar({i, 0, run.trace.jobs[i].submit_s - origin, run.result.jobs[i].end_s - origin}, i, double(rows), "#ddd");
  }
  for (const simulate::Turn& turn : run.result.turns) {
    plot.bar({turn.job, turn.gpus, turn.from_s - origin, turn.to_s - origin}, turn.job, double(rows), fill);
  }
  return "<h3>Jobs under " + escape(name_of(run)) + "</h3>\n" + plot.take();
}

std::string table(const Simulations& simulations) {
  std::string out =
      "<table><tr><th>run</th><th>GPUs</th><th>jobs</th><th>mean completion</th><th>bound</th><th>p99</th>"
      "<th>mean wait</th><th>makespan</th><th>bound</th><th>used</th><th>Jain, by day</th></tr>\n";
  for (size_t i = 0; i < simulations.runs.size(); ++i) {
    const Simulated& run = simulations.runs[i];
    out += format("<tr><td><span style=\"color:%s\">&#9632;</span> ", colour(i)) + escape(name_of(run));
    out += format("</td><td>%u</td><td>%zu</td><td>%.0f s</td><td>%.0f s</td><td>%.0f s</td><td>%.0f s</td>", run.gpus,
                  run.trace.jobs.size(), run.metrics.jct_s.mean, run.bounds.mean_jct_s, run.metrics.jct_s.p99,
                  run.metrics.queue_s.mean);
    out += format("<td>%.0f s</td><td>%.0f s</td><td>%.1f %%</td><td>%.3f</td></tr>\n", run.metrics.makespan_s,
                  run.bounds.makespan_s, 100 * run.metrics.utilisation, run.metrics.jain_day_mean);
  }
  return out + "</table>\n";
}

std::string page(const Simulations& simulations) {
  Values waits, ratios;
  for (const Simulated& run : simulations.runs) {
    std::vector<double>& wait = waits.emplace_back();
    std::vector<double>& ratio = ratios.emplace_back();
    for (size_t i = 0; i < run.trace.jobs.size(); ++i) {
      const simulate::Job& job = run.trace.jobs[i];
      wait.push_back(run.result.jobs[i].start_s - job.submit_s);
      ratio.push_back((run.result.jobs[i].end_s - job.submit_s) / job.duration_s);
    }
  }
  std::string out = kHead;
  out += "<h1>" + escape(simulations.path) + "</h1>\n" + table(simulations);
  out += "<h2>Waiting</h2>\n<p>Part of the jobs that started within so long of their submission.</p>\n";
  out += distribution(std::move(waits), 1, time_text);
  out += "<h2>Utilisation</h2>\n<p>Part of the GPUs that was leased.</p>\n" + utilisation(simulations);
  out += "<h2>Fairness</h2>\n<p>Part of the jobs that took at most so many times as long as alone.</p>\n";
  out += distribution(std::move(ratios), 1, ratio_text);
  for (size_t i = 0; i < simulations.runs.size(); ++i) out += gantt(simulations.runs[i], colour(i));
  return out + "</body></html>\n";
}

}  // namespace

Outcome write_simulations_page(const Simulations& simulations, const std::string& path) {
  const int file = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (file < 0) return errno_failure("cannot write " + path);
  const std::string text = page(simulations);
  const Outcome written = write_all(file, text.data(), text.size());
  close(file);
  return written;
}

}  // namespace tide::cli
