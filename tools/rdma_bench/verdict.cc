// What is wrong, what it costs, how to mend it: a table of rules, each of which looks at the whole report.

#include <algorithm>
#include <cmath>

#include "base/log.h"
#include "tools/rdma_bench/report.h"
#include "tools/tide/options.h"

namespace tide::fabric {
namespace {

using Findings = std::vector<Finding>;

constexpr uint64_t kMemlockLeast = 64ull << 20;      // queues of some connections, and buffers to register
constexpr double kOneSided = 0.7;                    // one direction slower than this part of the other
constexpr double kSlow = 0.5;                        // of the link's rate
constexpr double kLossSeen = 1e-4, kLossBad = 1e-3;  // of all segments
constexpr double kRailAdds = 1.1;                    // over the best rail alone
constexpr double kJitter = 10;                       // p99.9 over p50

std::vector<const Machine*> machines(const Report& report) {
  if (report.one_machine()) return {&report.here};
  return {&report.here, &report.there};
}

std::string cost_of_tcp(const Report& report) {
  const Row* row = report.row("tcp", "latency", 8);
  if (row == nullptr) return "";
  return format("a message takes %s one way here; 1 to 3 us are usual over RDMA", time_text(row->us.p50).c_str());
}

void no_rdma(const Report& report, Findings& findings) {
  for (const Machine* machine : machines(report)) {
    if (!machine->verbs.empty()) {
      findings.push_back({"note", machine->name + ": " + machine->verbs, "RDMA devices are not seen",
                          "install it, and run this again"});
    } else if (machine->rdma.empty()) {
      findings.push_back({"note", machine->name + " has no RDMA device", cost_of_tcp(report),
                          "a NIC with InfiniBand or RoCE; if there is one: load its driver (lspci, rdma link)"});
    }
  }
}

void ports(const Report& report, Findings& findings) {
  for (const Machine* machine : machines(report)) {
    for (const RdmaDevice& device : machine->rdma) {
      const std::string name = machine->name + ": " + device.name;
      if (!device.problem.empty()) findings.push_back({"WRONG", name + " " + device.problem, "no RDMA over it", ""});
      for (const RdmaPort& port : device.ports) {
        const std::string which = format("%s port %u", name.c_str(), port.number);
        if (port.state != "active") {
          findings.push_back({"WRONG", which + " is " + port.state, "no RDMA over it",
                              "cable, switch port, or `ip link set ... up`; InfiniBand needs a subnet manager"});
        } else if (port.gids.empty()) {
          findings.push_back(
              {"WRONG", which + " has no GID", "RoCE cannot connect", "give its network interface an address"});
        }
      }
      const PciLink& pci = device.pci;
      if (pci.width < pci.width_max || (!pci.speed_max.empty() && pci.speed != pci.speed_max)) {
        findings.push_back({"WRONG",
                            format("%s runs at PCI %s x%u and could at %s x%u", name.c_str(), pci.speed.c_str(),
                                   pci.width, pci.speed_max.c_str(), pci.width_max),
                            "bandwidth in that proportion", "another slot; the slot's setting in the BIOS"});
      }
    }
  }
}

bool both_have_rdma(const Report& report) { return report.here.has_active_rdma() && report.there.has_active_rdma(); }

// True also where none was asked for.
bool some_rdma_works(const Report& report) {
  bool tried = false;
  for (const PathReport& path : report.paths) {
    if (path.family != "rdma") continue;
    if (path.state == "measured") return true;
    tried = true;
  }
  return !tried;
}

void unused_rdma(const Report& report, Findings& findings) {
  if (!both_have_rdma(report) || report.paths.empty()) return;
  const PathReport* own = report.measured("ucx");
  const bool tcp = own != nullptr && own->here.route.find("tcp") != std::string::npos &&
                   own->here.route.find("rc_") == std::string::npos && own->here.route.find("dc_") == std::string::npos;
  if (tcp) {
    findings.push_back({"WRONG", "UCX chose " + own->here.route + " although both sides have RDMA", cost_of_tcp(report),
                        "unset UCX_TLS and UCX_NET_DEVICES, or name the RDMA transports in them; look at memlock"});
  }
  if (!some_rdma_works(report)) {
    findings.push_back({"WRONG", "no RDMA path works although both sides have active RDMA ports", cost_of_tcp(report),
                        "the paths above say why each failed; is UCX built with verbs (`ucx_info -d`)?"});
  }
}

void mtu(const Report& report, Findings& findings) {
  if (report.one_machine()) return;
  for (const RdmaDevice& here : report.here.rdma) {
    for (const RdmaDevice& there : report.there.rdma) {
      if (here.ports.empty() || there.ports.empty() || here.ports[0].mtu == there.ports[0].mtu) continue;
      findings.push_back({"WRONG",
                          format("RDMA MTU mismatch: %s has %u, %s of the other side %u", here.name.c_str(),
                                 here.ports[0].mtu, there.name.c_str(), there.ports[0].mtu),
                          "connections fail, or use the smaller one: more packets for the same bytes",
                          "the same MTU on both ends and on the switch"});
    }
  }
  const Interface* mine = interface_of(report.here.interfaces, report.address);
  if (mine == nullptr || report.there_address.empty()) return;
  const Interface* theirs = interface_of(report.there.interfaces, report.there_address);
  if (theirs == nullptr || theirs->mtu == mine->mtu) return;
  findings.push_back({"WRONG",
                      format("MTU mismatch: %s here has %u, %s there %u", mine->name.c_str(), mine->mtu,
                             theirs->name.c_str(), theirs->mtu),
                      "large packets are lost or cut; transfers can hang",
                      format("ip link set %s mtu %u on the side that is wrong", theirs->name.c_str(), mine->mtu)});
}

void slow_link(const Report& report, Findings& findings) {
  if (report.one_machine()) return;  // nothing crosses the link
  for (const PathReport& path : report.paths) {
    const Row* row = report.largest(path.name, "bandwidth");
    if (row == nullptr || row->limit_of.rfind("link", 0) != 0 || row->gbytes_per_s > kSlow * row->limit) continue;
    findings.push_back({"WRONG",
                        format("%s carries %.2f GB/s, %.0f %% of the %s", path.name.c_str(), row->gbytes_per_s,
                               100 * row->gbytes_per_s / row->limit, row->limit_of.c_str()),
                        "copies take that much longer",
                        "MTU 9000; other traffic on the link; CPU frequency; the process's NUMA node (numactl)"});
  }
}

void one_sided(const Report& report, Findings& findings) {
  for (const PathReport& path : report.paths) {
    const Row *to = report.largest(path.name, "bandwidth"), *back = report.largest(path.name, "bandwidth-back");
    if (to == nullptr || back == nullptr || report.one_machine()) continue;
    const double part = std::min(to->gbytes_per_s, back->gbytes_per_s) / std::max(to->gbytes_per_s, back->gbytes_per_s);
    if (part >= kOneSided) continue;
    findings.push_back({"WRONG",
                        format("%s is one-sided: %.2f GB/s to the other side, %.2f GB/s back", path.name.c_str(),
                               to->gbytes_per_s, back->gbytes_per_s),
                        "copies in the slow direction", "the slow side's transceiver, cable, and flow control"});
  }
}

// Two rails are there for their sum.
void rails(const Report& report, Findings& findings) {
  for (const PathReport& path : report.paths) {
    const Row* all = report.largest(path.name, "bandwidth");
    if (path.devices.size() < 2 || all == nullptr || all->limit == 0) continue;
    double best = 0;
    for (const std::string& device : path.devices) {
      const std::string alone = path.name.substr(0, path.name.find('@') + 1) + device;
      const Row* one = report.row(alone, all->test, all->bytes);
      if (one != nullptr) best = std::max(best, one->gbytes_per_s);
    }
    const std::string what = format("%s: %.2f GB/s, %.2f of the sum of its rails (the best alone: %.2f GB/s)",
                                    path.name.c_str(), all->gbytes_per_s, all->gbytes_per_s / all->limit, best);
    if (all->gbytes_per_s >= kRailAdds * best) {
      findings.push_back({"note", what, "", ""});
      continue;
    }
    findings.push_back({"note", what + ": the other rails add nothing", "what they cost",
                        "look for what the rails share: a core, a PCI slot, a switch port, one wire; name the one that "
                        "is best with UCX_NET_DEVICES"});
  }
}

double lost_part(const Facts& facts) {
  return facts.segments == 0 ? 0 : double(facts.retransmits) / double(facts.segments);
}

void loss(const Report& report, Findings& findings) {
  const PathReport* tcp = report.measured("tcp");
  if (tcp == nullptr) return;
  const double here = lost_part(tcp->here), there = lost_part(tcp->there), most = std::max(here, there);
  if (most < kLossSeen) return;
  const bool one = std::min(here, there) * 10 < most;
  // Within a machine it is the receiver's buffer that overflows, not a wire.
  const bool wrong = most > kLossBad && !report.one_machine();
  findings.push_back({wrong ? "WRONG" : "note",
                      format("TCP sent %.3f %% of its segments again from here and %.3f %% from the other side%s",
                             100 * here, 100 * there, one && !report.one_machine() ? ": one-sided loss" : ""),
                      "each one is a stall of a round trip, or of 200 ms",
                      report.one_machine()
                          ? "nothing: both ends are on one machine, buffers overflow"
                          : "ethtool -S of the sender's and the switch's port: errors, drops, pauses"});
}

void memlock(const Report& report, Findings& findings) {
  for (const Machine* machine : machines(report)) {
    if (machine->memlock_exempt || machine->memlock_bytes >= kMemlockLeast) continue;
    const bool rdma = !machine->rdma.empty();
    findings.push_back(
        {rdma ? "WRONG" : "note",
         machine->name + ": a process may lock only " + cli::size_text(machine->memlock_bytes) + " of memory",
         rdma ? "RDMA cannot register its buffers; UCX falls back to TCP" : "none without RDMA",
         "ulimit -l unlimited; LimitMEMLOCK=infinity of the service; memlock in limits.conf"});
  }
}

void huge_pages(const Report& report, Findings& findings) {
  for (const Machine* machine : machines(report)) {
    if (machine->huge_pages != 0) continue;
    findings.push_back({"note", machine->name + " has no huge pages", "registering large buffers takes longer",
                        "sysctl vm.nr_hugepages=N"});
  }
}

void gpudirect(const Report& report, Findings& findings) {
  for (const Machine* machine : machines(report)) {
    for (const Gpu& gpu : machine->gpus) {
      if (gpu.direct() || !machine->has_active_rdma()) continue;
      findings.push_back(
          {"note", format("%s: GPUDirect of %s: %s", machine->name.c_str(), gpu.name.c_str(), gpu.gpudirect.c_str()),
           "data goes through the host's memory", "modprobe nvidia-peermem; the open kernel modules"});
    }
  }
}

void jitter(const Report& report, Findings& findings) {
  for (const Row& row : report.rows) {
    if (row.test != "latency" || row.bytes != 8 || row.us.count < 1000 || row.us.p999 < kJitter * row.us.p50) continue;
    findings.push_back({"note",
                        format("%s: one message in 1000 takes %s or more, the usual one %s", row.path.c_str(),
                               time_text(row.us.p999).c_str(), time_text(row.us.p50).c_str()),
                        "jobs that wait for each call feel the slow ones",
                        "other load on these cores, CPU frequency and sleep states; in a VM: its neighbours"});
  }
}

void failed_paths(const Report& report, Findings& findings) {
  for (const PathReport& path : report.paths) {
    if (path.state == "failed") findings.push_back({"WRONG", path.name + ": " + path.why, "it was not measured", ""});
    // Who named it counts on it.
    const bool missed = path.named && path.state == "absent";
    if (missed) findings.push_back({"WRONG", "there is no path " + path.name + ": " + path.why, "", ""});
  }
}

constexpr void (*kRules[])(const Report&, Findings&) = {failed_paths, unused_rdma, ports, mtu,     slow_link,
                                                        one_sided,    rails,       loss,  memlock, no_rdma,
                                                        gpudirect,    huge_pages,  jitter};

}  // namespace

void judge(Report* report) {
  for (const auto rule : kRules) rule(*report, report->findings);
  const bool wrong = std::any_of(report->findings.begin(), report->findings.end(),
                                 [](const Finding& finding) { return finding.level == "WRONG"; });
  if (!wrong && report->failure.empty()) {
    report->findings.insert(report->findings.begin(), {"ok", "nothing is wrong with what could be measured", "", ""});
  }
}

}  // namespace tide::fabric
