// What was possible, beside each figure: the raw path beneath in the same run, else the link's rate, else a copy by one
// core.

#include <algorithm>
#include <cstring>
#include <map>
#include <sstream>

#include "base/clock.h"
#include "base/log.h"
#include "tools/rdma_bench/rails.h"
#include "tools/rdma_bench/report.h"

namespace tide::fabric {
namespace {

double copy_gbytes_per_s(uint64_t bytes) {
  static std::map<uint64_t, double> known;
  double& value = known[bytes];
  if (value != 0) return value;
  std::vector<char> from(bytes, 'x'), to(bytes, 'y');
  const uint64_t begin = now_ns();
  uint64_t copies = 0, ns = 0;
  for (; ns < 20'000'000; ns = now_ns() - begin) {
    from[0] = char(++copies);
    memcpy(to.data(), from.data(), bytes);
    asm volatile("" : : "r"(to.data()) : "memory");  // else nobody needs the copy
  }
  return value = double(copies * bytes) / double(ns);
}

double figure(const Row& row) {
  return row.us.count != 0 ? row.us.p50 : row.test == "rate" ? row.messages_per_s : row.gbytes_per_s;
}

// Of the port, or of the fastest one.
double rdma_gbit(const Machine& machine, const std::string& named) {
  double most = 0;
  for (const RdmaDevice& device : machine.rdma) {
    for (const RdmaPort& port : device.ports) {
      const bool meant = named.empty() || named == device.name + ":" + std::to_string(port.number);
      if (meant && port.state == "active") most = std::max(most, port.gbit);
    }
  }
  return most;
}

void set_link(double gbit, const std::string& of, Row* row) {
  if (gbit <= 0) return;
  row->limit = gbit / 8 * (row->test == "bandwidth-both" ? 2 : 1);
  row->limit_of = format("link of %s, %g Gbit/s", of.c_str(), gbit);
}

void set_copy(Row* row) {
  row->limit = copy_gbytes_per_s(row->bytes) * (row->test == "bandwidth-both" ? 2 : 1);
  row->limit_of = row->test == "bandwidth-both" ? "a copy by each of two cores" : "a copy by one core";
}

// The rails, each alone.
bool set_sum(const Report& report, const PathKind& kind, Row* row) {
  const size_t at = row->path.find('+');
  if (at == std::string::npos) return false;
  std::stringstream devices(row->path.substr(row->path.find('@') + 1));
  for (std::string device; std::getline(devices, device, '+');) {
    const Row* alone = report.row(std::string(kind.name) + "@" + device, row->test, row->bytes);
    if (alone == nullptr) return row->limit = 0, false;
    row->limit += figure(*alone);
  }
  row->limit_of = "the sum of each alone";
  return true;
}

void set_best_other(const Report& report, Row* row) {
  for (const Row& other : report.rows) {
    if (other.path == row->path || other.test != row->test || other.bytes != row->bytes) continue;
    const bool better =
        row->limit == 0 || (row->us.count != 0 ? figure(other) < row->limit : figure(other) > row->limit);
    if (better) row->limit = figure(other), row->limit_of = other.path;
  }
}

}  // namespace

void set_limit(const Report& report, Row* row) {
  const PathKind& kind = *kind_of_line(row->path);
  const std::string device = first_device_of_line(row->path);
  if (set_sum(report, kind, row)) return;
  if (strcmp(kind.family, "any") == 0) return set_best_other(report, row);
  const Row* floor = kind.floor == nullptr
                         ? nullptr
                         : report.row(kind.floor + row->path.substr(strlen(kind.name)), row->test, row->bytes);
  if (floor != nullptr) {
    row->limit = figure(*floor);
    row->limit_of = floor->path;
    return;
  }
  if (row->test.rfind("bandwidth", 0) != 0) return;
  if (strcmp(kind.family, "rdma") == 0)
    return set_link(rdma_gbit(report.here, device), device.empty() ? "the RDMA port" : device, row);
  const Interface* interface = device.empty() ? interface_of(report.here.interfaces, report.address)
                                              : interface_named(report.here.interfaces, device);
  const bool loopback = report.one_machine() || strcmp(kind.family, "memory") == 0;
  if (loopback) return set_copy(row);
  if (interface != nullptr) set_link(interface->gbit, interface->name, row);
}

const Row* Report::row(const std::string& path, const std::string& test, uint64_t bytes) const {
  for (const Row& row : rows) {
    if (row.path == path && row.test == test && row.bytes == bytes) return &row;
  }
  return nullptr;
}

const Row* Report::largest(const std::string& path, const std::string& test) const {
  const Row* found = nullptr;
  for (const Row& row : rows) {
    if (row.path == path && row.test == test && (found == nullptr || row.bytes > found->bytes)) found = &row;
  }
  return found;
}

const PathReport* Report::measured(const std::string& name) const {
  for (const PathReport& path : paths) {
    if (path.name == name && path.state == "measured") return &path;
  }
  return nullptr;
}

}  // namespace tide::fabric
