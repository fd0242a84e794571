#include "tools/rdma_bench/machine.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <fstream>

#include "base/log.h"
#include "tools/rdma_bench/control.h"
#include "tools/rdma_bench/gpus.h"
#include "tools/tide/options.h"

namespace tide::fabric {
namespace {

uint64_t number_of(const std::string& text) { return strtoull(text.c_str(), nullptr, 10); }

std::string after(const std::string& path, const std::string& word) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (line.rfind(word, 0) == 0) return line.substr(line.find_first_not_of(" \t:", word.size()));
  }
  return "";
}

uint32_t numa_nodes() {
  uint32_t count = 0;
  for (const std::string& name : names_in("/sys/devices/system/node")) {
    count += name.rfind("node", 0) == 0 && name.size() > 4 && isdigit(name[4]) ? 1 : 0;
  }
  return std::max(count, 1u);
}

// Of an address and its mask; empty for the addresses that mean the same everywhere.
std::string network_of(const sockaddr* address, const sockaddr* mask) {
  if (mask == nullptr) return "";
  const bool six = address->sa_family == AF_INET6;
  const size_t at = six ? offsetof(sockaddr_in6, sin6_addr) : offsetof(sockaddr_in, sin_addr), count = six ? 16 : 4;
  uint8_t bits[16] = {};
  int prefix = 0;
  for (size_t i = 0; i < count; ++i) {
    const uint8_t part = reinterpret_cast<const uint8_t*>(mask)[at + i];
    bits[i] = reinterpret_cast<const uint8_t*>(address)[at + i] & part;
    prefix += __builtin_popcount(part);
  }
  if (prefix == int(8 * count) || (six && bits[0] == 0xfe && (bits[1] & 0xc0) == 0x80) || (!six && bits[0] == 127)) {
    return "";
  }
  char text[INET6_ADDRSTRLEN] = {};
  return format("%s/%d", inet_ntop(address->sa_family, bits, text, sizeof text), prefix);
}

void look_at_memory(Machine* machine) {
  rlimit limit{};
  getrlimit(RLIMIT_MEMLOCK, &limit);
  machine->memlock_bytes = limit.rlim_cur == RLIM_INFINITY ? UINT64_MAX : uint64_t(limit.rlim_cur);
  const uint64_t capabilities = strtoull(after("/proc/self/status", "CapEff:").c_str(), nullptr, 16);
  machine->memlock_exempt = (capabilities >> 14 & 1) != 0;  // CAP_IPC_LOCK
  machine->huge_page_bytes = number_of(after("/proc/meminfo", "Hugepagesize:")) * 1024;
  machine->huge_pages = number_of(after("/proc/meminfo", "HugePages_Total:"));
  machine->huge_pages_free = number_of(after("/proc/meminfo", "HugePages_Free:"));
}

void add_rdma(const Machine& machine, std::vector<std::string>* lines) {
  if (!machine.verbs.empty()) lines->push_back("RDMA        " + machine.verbs);
  if (machine.verbs.empty() && machine.rdma.empty()) lines->push_back("RDMA        no devices");
  for (const RdmaDevice& device : machine.rdma) {
    lines->push_back(format(
        "RDMA        %s, firmware %s, NUMA node %d%s%s%s", device.name.c_str(),
        device.firmware.empty() ? "?" : device.firmware.c_str(), device.numa_node,
        device.pci.speed.empty() ? "" : format(", PCI %s x%u", device.pci.speed.c_str(), device.pci.width).c_str(),
        device.problem.empty() ? "" : ": ", device.problem.c_str()));
    for (const RdmaPort& port : device.ports) {
      lines->push_back(format("              port %u: %s, %s, %g Gbit/s, MTU %u of %u", port.number, port.state.c_str(),
                              port.link_layer.c_str(), port.gbit, port.mtu, port.mtu_max));
      for (const Gid& gid : port.gids) {
        lines->push_back(format("                GID %u: %s %s %s", gid.index, gid.gid.c_str(), gid.type.c_str(),
                                gid.interface.c_str()));
      }
    }
  }
}

}  // namespace

std::string line_of(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

std::vector<std::string> names_in(const std::string& folder) {
  std::vector<std::string> names;
  DIR* open = opendir(folder.c_str());
  if (open == nullptr) return names;
  for (const dirent* entry = readdir(open); entry != nullptr; entry = readdir(open)) {
    if (entry->d_name[0] != '.') names.push_back(entry->d_name);
  }
  closedir(open);
  std::sort(names.begin(), names.end());
  return names;
}

PciLink pci_link_of(const std::string& device) {
  PciLink link;
  link.speed = line_of(device + "/current_link_speed");
  link.speed_max = line_of(device + "/max_link_speed");
  link.width = uint32_t(number_of(line_of(device + "/current_link_width")));
  link.width_max = uint32_t(number_of(line_of(device + "/max_link_width")));
  return link;
}

bool Machine::has_active_rdma() const {
  for (const RdmaDevice& device : rdma) {
    for (const RdmaPort& port : device.ports) {
      if (port.state == "active") return true;
    }
  }
  return false;
}

const Interface* interface_of(const std::vector<Interface>& all, const std::string& address) {
  for (const Interface& interface : all) {
    if (interface.address == address) return &interface;
  }
  return nullptr;
}

const Interface* interface_named(const std::vector<Interface>& all, const std::string& name) {
  for (const Interface& interface : all) {
    if (interface.name == name) return &interface;
  }
  return nullptr;
}

std::vector<Interface> network_interfaces() {
  std::vector<Interface> found;
  ifaddrs* all = nullptr;
  if (getifaddrs(&all) != 0) return found;
  for (const ifaddrs* each = all; each != nullptr; each = each->ifa_next) {
    if (each->ifa_addr == nullptr) continue;
    if (each->ifa_addr->sa_family != AF_INET && each->ifa_addr->sa_family != AF_INET6) continue;
    Interface interface;
    interface.name = each->ifa_name;
    interface.address = address_text(each->ifa_addr, false);
    interface.network = network_of(each->ifa_addr, each->ifa_netmask);
    const std::string folder = "/sys/class/net/" + interface.name;
    interface.state = (each->ifa_flags & IFF_UP) == 0        ? "down"
                      : (each->ifa_flags & IFF_RUNNING) == 0 ? "no link"
                                                             : "up";
    interface.mtu = uint32_t(number_of(line_of(folder + "/mtu")));
    const std::string mbit = line_of(folder + "/speed");
    if (!mbit.empty() && mbit[0] != '-') interface.gbit = double(number_of(mbit)) / 1000;
    const std::string node = line_of(folder + "/device/numa_node");
    if (!node.empty()) interface.numa_node = atoi(node.c_str());
    found.push_back(interface);
  }
  freeifaddrs(all);
  return found;
}

Machine this_machine() {
  Machine machine;
  utsname names{};
  uname(&names);
  machine.name = names.nodename;
  machine.kernel = names.release;
  machine.boot_id = line_of("/proc/sys/kernel/random/boot_id");
  machine.cpus = uint32_t(sysconf(_SC_NPROCESSORS_ONLN));
  machine.numa_nodes = numa_nodes();
  look_at_memory(&machine);
  machine.rdma = rdma_devices(&machine.verbs);
  look_at_gpus(&machine);
  machine.interfaces = network_interfaces();
  machine.ucx_transports = ucx_transports(&machine.ucx);
  return machine;
}

std::vector<std::string> machine_lines(const Machine& machine) {
  std::vector<std::string> lines;
  lines.push_back(format("system      Linux %s, %u CPUs, %u NUMA node%s", machine.kernel.c_str(), machine.cpus,
                         machine.numa_nodes, machine.numa_nodes == 1 ? "" : "s"));
  add_rdma(machine, &lines);
  for (const Interface& interface : machine.interfaces) {
    lines.push_back(format("interface   %s %s: %s, MTU %u, %s", interface.name.c_str(), interface.address.c_str(),
                           interface.state.c_str(), interface.mtu,
                           interface.gbit == 0 ? "rate unknown" : format("%g Gbit/s", interface.gbit).c_str()));
  }
  std::string transports;
  for (const UcxTransport& each : machine.ucx_transports) transports += " " + each.name + "/" + each.device;
  lines.push_back("UCX         " + machine.ucx + ":" + transports);
  const std::string limit = machine.memlock_bytes == UINT64_MAX ? "no limit" : cli::size_text(machine.memlock_bytes);
  lines.push_back("memlock     " + limit + (machine.memlock_exempt ? " (does not bind: CAP_IPC_LOCK)" : ""));
  lines.push_back(format("huge pages  %llu of %s, %llu free", (unsigned long long)machine.huge_pages,
                         cli::size_text(machine.huge_page_bytes).c_str(), (unsigned long long)machine.huge_pages_free));
  if (machine.gpus.empty()) lines.push_back("GPUs        none; GPUDirect: " + machine.gpudirect);
  for (const Gpu& gpu : machine.gpus) {
    lines.push_back(format("GPU         %s, CUDA %s; GPUDirect: %s", gpu.name.c_str(), machine.cuda.c_str(),
                           gpu.gpudirect.c_str()));
  }
  return lines;
}

void print_machine(const Machine& machine) {
  printf("%s\n", machine.name.c_str());
  for (const std::string& line : machine_lines(machine)) printf("  %s\n", line.c_str());
}

}  // namespace tide::fabric
