#include "scheduler/simulate/step_times.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/log.h"
#include "scheduler/simulate/csv.h"

namespace tide::simulate {
namespace {

constexpr const char* kHeader = "application,table,placement,num_nodes,num_replicas,local_bsz,step_time_s,sync_time_s";
constexpr size_t kNearest = 4;  // measured counts that stand in for one that was not

uint32_t gpus_of(const Placement& placement) { return std::accumulate(placement.begin(), placement.end(), 0u); }

// "113" for {3, 1, 1}: nodes in a ring, turned so that the name is the smallest.
std::string name_of(const Placement& placement) {
  std::string digits, best;
  for (const uint32_t gpus : placement) digits += std::to_string(gpus);
  for (size_t i = 0; i < digits.size(); ++i) {
    const std::string turned = digits.substr(i) + digits.substr(0, i);
    if (best.empty() || turned < best) best = turned;
  }
  return best;
}

}  // namespace

Outcome StepTimes::row(const std::vector<std::string>& fields) {
  uint32_t nodes = 0, gpus = 0;
  double local = 0;
  Times times;
  if (fields.size() != 8) return Outcome::fail(format("%zu fields, not 8", fields.size()));
  const bool good = parse_number(fields[3], &nodes) && parse_number(fields[4], &gpus) &&
                    parse_number(fields[5], &local) && parse_number(fields[6], &times.step_s) &&
                    parse_number(fields[7], &times.sync_s) && nodes > 0 && gpus >= nodes && local > 0 &&
                    times.step_s > 0 && times.sync_s >= 0 && times.sync_s <= times.step_s;
  if (!good) return Outcome::fail("is no measured step: its numbers are wrong");
  Application& application = applications_[fields[0]];
  application.counted[{nodes, gpus}][local].push_back(times);
  if (fields[1] != "placement") return {};
  application.placed[fields[2]][local].push_back(times);
  application.local_max = std::max(application.local_max, local);
  return {};
}

Outcome StepTimes::read(const std::string& path) {
  const Outcome outcome = read_rows(
      path,
      [](std::string_view line) {
        return line == kHeader ? Outcome() : Outcome::fail(std::string("the first line must be ") + kHeader);
      },
      [this](const std::vector<std::string>& fields) { return row(fields); });
  if (!outcome.ok()) return outcome;
  for (const auto& [name, application] : applications_) {
    if (application.placed.empty()) return Outcome::fail(path + ": no placement of " + name + " was measured");
  }
  return applications_.empty() ? Outcome::fail(path + ": has no measured steps") : Outcome();
}

bool StepTimes::measured(const std::string& application, const Placement& placement) const {
  return applications_.at(application).placed.count(name_of(placement)) != 0;
}

StepTimes::Times StepTimes::mean(const std::vector<Times>& times) {
  Times sum;
  for (const Times& each : times) {
    sum.step_s += each.step_s / double(times.size());
    sum.sync_s += each.sync_s / double(times.size());
  }
  return sum;
}

// On the line between its two neighbours.
StepTimes::Times StepTimes::at(const Curve& curve, double local) {
  const auto above = curve.lower_bound(local);
  if (above == curve.end()) return mean(curve.rbegin()->second);
  const Times high = mean(above->second);
  if (above->first == local || above == curve.begin()) return high;
  const auto below = std::prev(above);
  const Times low = mean(below->second);
  const double part = (local - below->first) / (above->first - below->first);
  return {low.step_s + part * (high.step_s - low.step_s), low.sync_s + part * (high.sync_s - low.sync_s)};
}

// By how many nodes and GPUs; between measured counts the nearest, the more the nearer.
StepTimes::Times StepTimes::near(const Application& application, const Placement& placement, double local) {
  const double nodes = double(placement.size()), gpus = gpus_of(placement);
  const auto exact = application.counted.find({uint32_t(placement.size()), gpus_of(placement)});
  if (exact != application.counted.end()) return at(exact->second, local);
  std::vector<std::pair<double, const Curve*>> nearest;
  for (const auto& [count, curve] : application.counted) {
    nearest.emplace_back(std::abs(count.first - nodes) / 2 + std::abs(count.second - gpus), &curve);
  }
  std::stable_sort(nearest.begin(), nearest.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  nearest.resize(std::min(nearest.size(), kNearest));
  Times sum;
  double weights = 0;
  for (const auto& [distance, curve] : nearest) {
    const Times times = at(*curve, local);
    const double weight = 1 / (distance * distance);
    sum.step_s += weight * times.step_s;
    sum.sync_s += weight * times.sync_s;
    weights += weight;
  }
  return {sum.step_s / weights, sum.sync_s / weights};
}

double StepTimes::step_s(const std::string& name, const Placement& placement, uint32_t batch) const {
  const Application& application = applications_.at(name);
  // yolov3 was run with parts of 8 though more fit (the artifact's applications.py).
  const double local_max = name == "yolov3" ? 8 : application.local_max;
  const double local = std::ceil(batch / double(gpus_of(placement)));
  const double turns = std::ceil(local / local_max);
  const double part = std::ceil(local / turns);
  const auto placed = application.placed.find(name_of(placement));
  const Times times =
      placed != application.placed.end() ? at(placed->second, part) : near(application, placement, part);
  return times.step_s + (turns - 1) * (times.step_s - times.sync_s);
}

}  // namespace tide::simulate
