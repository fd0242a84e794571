#pragma once

// What one machine has for a fabric: RDMA devices, network interfaces, limits, memory, GPUs' way to the network.

#include <cstdint>
#include <string>
#include <vector>

#include "base/outcome.h"

namespace tide::fabric {

struct Gid {
  uint32_t index = 0;
  std::string gid, type, interface;  // type: "RoCE v2", "IB/RoCE v1"
  template <class F>
  void fields(F& f) {
    f("index", index), f("gid", gid), f("type", type), f("interface", interface);
  }
};

struct RdmaPort {
  uint32_t number = 0;
  std::string state, link_layer;  // "active", "down"; "InfiniBand", "Ethernet"
  uint32_t lid = 0, mtu = 0, mtu_max = 0;
  double gbit = 0;  // link rate
  std::vector<Gid> gids;
  template <class F>
  void fields(F& f) {
    f("number", number), f("state", state), f("link_layer", link_layer), f("lid", lid), f("mtu", mtu);
    f("mtu_max", mtu_max), f("gbit", gbit), f("gids", gids);
  }
};

// Of the PCI slot: what it runs at, and what the card could; empty where there is none.
struct PciLink {
  std::string speed, speed_max;  // "16.0 GT/s PCIe"
  uint32_t width = 0, width_max = 0;
  template <class F>
  void fields(F& f) {
    f("speed", speed), f("speed_max", speed_max), f("width", width), f("width_max", width_max);
  }
};

struct RdmaDevice {
  std::string name, firmware, problem;  // problem: why it could not be asked
  int32_t numa_node = -1;
  PciLink pci;
  std::vector<RdmaPort> ports;
  template <class F>
  void fields(F& f) {
    f("name", name), f("firmware", firmware), f("problem", problem), f("numa_node", numa_node), f("pci", pci);
    f("ports", ports);
  }
};

struct Interface {
  std::string name, address, state;
  std::string network;  // "10.0.0.0/24"; empty: of one machine, or of one link
  uint32_t mtu = 0;
  double gbit = 0;  // 0: it does not say
  int32_t numa_node = -1;
  template <class F>
  void fields(F& f) {
    f("name", name), f("address", address), f("state", state), f("network", network), f("mtu", mtu), f("gbit", gbit);
    f("numa_node", numa_node);
  }
};

struct UcxTransport {
  std::string name, device, kind;  // "rc_verbs", "mlx5_0:1", "network"
  template <class F>
  void fields(F& f) {
    f("name", name), f("device", device), f("kind", kind);
  }
};

struct Gpu {
  std::string name;
  std::string way;        // how a card could reach its memory: "dma-buf", "nvidia-peermem"; empty: not at all
  std::string gpudirect;  // "yes, by dma-buf", "no, because ..."
  template <class F>
  void fields(F& f) {
    f("name", name), f("way", way), f("gpudirect", gpudirect);
  }
  bool direct() const { return gpudirect.starts_with("yes"); }
};

struct Machine {
  std::string name, kernel, boot_id;  // two processes with one boot_id are on one machine
  uint32_t cpus = 0, numa_nodes = 0;
  uint64_t memlock_bytes = 0;   // UINT64_MAX: no limit
  bool memlock_exempt = false;  // CAP_IPC_LOCK: the limit does not count
  uint64_t huge_page_bytes = 0, huge_pages = 0, huge_pages_free = 0;
  std::string cuda;  // the driver's version; empty: none that works
  std::vector<Gpu> gpus;
  std::string gpudirect;  // of any GPU: "yes, by dma-buf", "no, because ..."
  std::string verbs;      // why libibverbs cannot be used; empty: it can
  std::vector<RdmaDevice> rdma;
  std::vector<Interface> interfaces;
  std::string ucx;  // its version
  std::vector<UcxTransport> ucx_transports;
  template <class F>
  void fields(F& f) {
    f("name", name), f("kernel", kernel), f("boot_id", boot_id), f("cpus", cpus), f("numa_nodes", numa_nodes);
    f("memlock_bytes", memlock_bytes), f("memlock_exempt", memlock_exempt), f("huge_page_bytes", huge_page_bytes);
    f("huge_pages", huge_pages), f("huge_pages_free", huge_pages_free);
    f("cuda", cuda), f("gpus", gpus), f("gpudirect", gpudirect), f("verbs", verbs), f("rdma", rdma),
        f("interfaces", interfaces);
    f("ucx", ucx), f("ucx_transports", ucx_transports);
  }
  bool has_active_rdma() const;
};

Machine this_machine();
std::vector<Interface> network_interfaces();
const Interface* interface_of(const std::vector<Interface>& all, const std::string& address);  // null: none has it
const Interface* interface_named(const std::vector<Interface>& all, const std::string& name);
// For people: "huge pages  0 of 2 MiB, 0 free".
std::vector<std::string> machine_lines(const Machine& machine);
void print_machine(const Machine& machine);

// One line of a small file of the kernel's, without its end; empty where it cannot be read.
std::string line_of(const std::string& path);
std::vector<std::string> names_in(const std::string& folder);  // sorted; none where there is no folder
PciLink pci_link_of(const std::string& device_folder);

// verbs_devices.cc: through libibverbs.so.1, loaded now. *why_not: it cannot be used.
std::vector<RdmaDevice> rdma_devices(std::string* why_not);
// ucx_path.cc
std::vector<UcxTransport> ucx_transports(std::string* version);

}  // namespace tide::fabric
