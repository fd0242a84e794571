// RDMA devices as libibverbs sees them. The library is loaded late, so that this runs where it is not installed.

#include <cmath>
#include <cstring>

#include "base/log.h"
#include "tools/rdma_bench/machine.h"
#include "transport/verbs/verbs.h"

namespace tide::fabric {
namespace {

constexpr int kGidsMax = 256;

const char* state_name(int state) {
  constexpr const char* kNames[] = {"no change", "down", "initialising", "armed", "active", "deferred"};
  return state >= 0 && state <= 5 ? kNames[state] : "unknown";
}

// Gbit/s of one lane, as the standard codes it.
double lane_gbit(int speed) {
  switch (speed) {
    case 1:
      return 2.5;
    case 2:
      return 5;
    case 4:
    case 8:
      return 10;
    case 16:
      return 14.0625;
    case 32:
      return 25;
    case 64:
      return 50;
    case 128:
      return 100;
    default:
      return 0;
  }
}

uint32_t lanes(int width) {
  return width == 1 ? 1 : width == 2 ? 4 : width == 4 ? 8 : width == 8 ? 12 : width == 16 ? 2 : 0;
}

std::vector<Gid> gids_of(const std::string& folder) {
  std::vector<Gid> found;
  for (int i = 0; i < kGidsMax; ++i) {
    Gid gid;
    gid.index = uint32_t(i);
    gid.gid = line_of(folder + "/gids/" + std::to_string(i));
    if (gid.gid.empty()) break;
    if (gid.gid.find_first_not_of("0:") == std::string::npos) continue;
    gid.type = line_of(folder + "/gid_attrs/types/" + std::to_string(i));
    gid.interface = line_of(folder + "/gid_attrs/ndevs/" + std::to_string(i));
    found.push_back(gid);
  }
  return found;
}

RdmaPort port_of(const std::string& device, uint32_t number, const ibv_port_attr& attributes) {
  RdmaPort port;
  port.number = number;
  port.state = state_name(attributes.state);
  port.link_layer = attributes.link_layer == IBV_LINK_LAYER_ETHERNET ? "Ethernet" : "InfiniBand";
  port.lid = attributes.lid;
  port.mtu = 128u << attributes.active_mtu;
  port.mtu_max = 128u << attributes.max_mtu;
  port.gbit = lane_gbit(attributes.active_speed) * lanes(attributes.active_width);
  const std::string folder = "/sys/class/infiniband/" + device + "/ports/" + std::to_string(number);
  // The kernel knows speeds that came after this header: "200 Gb/sec (4X HDR)".
  const double rate = atof(line_of(folder + "/rate").c_str());
  if (rate > 0) port.gbit = rate;
  port.gids = gids_of(folder);
  return port;
}

RdmaDevice device_of(const Verbs& verbs, ibv_device* each) {
  RdmaDevice device;
  device.name = verbs.get_device_name(each);
  const std::string folder = "/sys/class/infiniband/" + device.name;
  device.firmware = line_of(folder + "/fw_ver");
  const std::string node = line_of(folder + "/device/numa_node");
  if (!node.empty()) device.numa_node = atoi(node.c_str());
  device.pci = pci_link_of(folder + "/device");
  ibv_context* context = verbs.open_device(each);
  if (context == nullptr) {
    device.problem = format("cannot be opened: %s (may this user write /dev/infiniband/uverbs*?)", strerror(errno));
    return device;
  }
  ibv_device_attr attributes{};
  const int error = verbs.query_device(context, &attributes);
  if (error != 0) device.problem = format("does not answer: %s", strerror(error));
  for (uint32_t number = 1; error == 0 && number <= attributes.phys_port_cnt; ++number) {
    ibv_port_attr port{};
    if (verbs.query_port(context, uint8_t(number), &port) == 0) {
      device.ports.push_back(port_of(device.name, number, port));
    } else {
      device.problem = format("port %u does not answer: %s", number, strerror(errno));
    }
  }
  verbs.close_device(context);
  return device;
}

}  // namespace

std::vector<RdmaDevice> rdma_devices(std::string* why_not) {
  std::vector<RdmaDevice> found;
  const Verbs& verbs = Verbs::get();
  *why_not = verbs.why_not;
  if (!why_not->empty()) return found;
  int count = 0;
  ibv_device** devices = verbs.get_device_list(&count);
  if (devices == nullptr) {
    // Where the kernel has no uverbs: no devices.
    if (errno != ENOSYS) *why_not = format("libibverbs cannot list devices: %s", strerror(errno));
    return found;
  }
  for (int i = 0; i < count; ++i) found.push_back(device_of(verbs, devices[i]));
  verbs.free_device_list(devices);
  return found;
}

}  // namespace tide::fabric
