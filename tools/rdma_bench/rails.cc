#include "tools/rdma_bench/rails.h"

#include <algorithm>
#include <cstring>

#include "base/log.h"

namespace tide::fabric {
namespace {

struct Device {
  std::string name;
  std::vector<std::string> networks;  // two devices that have one in common reach each other
};

bool usable(const Interface& interface) {
  return interface.state == "up" && interface.name != "lo" && !interface.network.empty();
}

void add_interface(const Interface& interface, std::vector<Device>* devices) {
  const auto same = [&](const Device& device) { return device.name == interface.name; };
  auto known = std::find_if(devices->begin(), devices->end(), same);
  if (known == devices->end()) known = devices->insert(known, {interface.name, {}});
  known->networks.push_back(interface.network);
}

Device port_device(const Machine& machine, const RdmaDevice& device, const RdmaPort& port) {
  Device found{format("%s:%u", device.name.c_str(), port.number), {}};
  for (const Gid& gid : port.gids) {
    // InfiniBand: the first half of a GID is the subnet's. RoCE: what its network interface reaches.
    if (port.link_layer == "InfiniBand") found.networks.push_back(gid.gid.substr(0, 19));
    for (const Interface& interface : machine.interfaces) {
      if (interface.name == gid.interface && usable(interface)) found.networks.push_back(interface.network);
    }
  }
  return found;
}

std::vector<Device> devices_for(const std::string& family, const Machine& machine) {
  std::vector<Device> found;
  if (family == "tcp") {
    for (const Interface& interface : machine.interfaces) {
      if (usable(interface)) add_interface(interface, &found);
    }
  }
  if (family != "rdma") return found;
  for (const RdmaDevice& device : machine.rdma) {
    for (const RdmaPort& port : device.ports) {
      if (port.state == "active") found.push_back(port_device(machine, device, port));
    }
  }
  return found;
}

bool share_network(const Device& a, const Device& b) {
  return std::find_first_of(a.networks.begin(), a.networks.end(), b.networks.begin(), b.networks.end()) !=
         a.networks.end();
}

// As this family calls it: "mlx5_0" is its first active port. Empty: this family has no such device.
std::string full_name(const std::string& family, const Machine& machine, const std::string& name) {
  if (family == "tcp") {
    for (const Interface& interface : machine.interfaces) {
      if (interface.name == name) return name;
    }
    return "";
  }
  for (const Device& device : devices_for(family, machine)) {
    if (device.name == name || device.name.rfind(name + ":", 0) == 0) return device.name;
  }
  return "";
}

std::string joined(const std::vector<std::string>& names, const char* between) {
  std::string all;
  for (const std::string& name : names) all += (all.empty() ? "" : between) + name;
  return all;
}

Outcome rail_of(const RailWish& wish, const std::string& family, const Machine& here, const Machine& there,
                Rail* rail) {
  rail->here = full_name(family, here, wish.here);
  if (!wish.there.empty()) {
    rail->there = full_name(family, there, wish.there);
    if (!rail->there.empty()) return {};
    return Outcome::fail(format("--device: %s has no '%s' of the kind of %s; it has %s", there.name.c_str(),
                                wish.there.c_str(), wish.here.c_str(), devices_of(there).c_str()));
  }
  for (const Rail& each : rails_between(family, here, there)) {
    if (each.here == rail->here) return *rail = each, Outcome{};
  }
  // Within one machine every device reaches itself.
  if (here.boot_id == there.boot_id) return rail->there = rail->here, Outcome{};
  return Outcome::fail(format("--device: %s shares no network with %s, which has %s; name the far end, too: %s=NAME",
                              wish.here.c_str(), there.name.c_str(), devices_of(there).c_str(), wish.here.c_str()));
}

// Each alone, then all.
std::vector<Line> lines_over(const PathKind& kind, const std::vector<Rail>& rails, bool beside) {
  std::vector<Line> lines;
  for (const Rail& rail : rails) lines.push_back({&kind, {rail}, beside});
  if (rails.size() > 1) lines.push_back({&kind, rails, beside});
  return lines;
}

}  // namespace

Outcome RailWish::parse(const std::string& text, std::vector<RailWish>* wishes) {
  const size_t equals = text.find('=');
  RailWish wish{text.substr(0, equals), equals == std::string::npos ? "" : text.substr(equals + 1)};
  if (wish.here.empty() || (equals != std::string::npos && wish.there.empty())) {
    return Outcome::fail("--device must be NAME[:PORT] or NAME[:PORT]=NAME[:PORT], not '" + text + "'");
  }
  wishes->push_back(wish);
  return {};
}

std::string Line::name() const {
  return kind->name + (rails.empty() ? std::string() : "@" + joined(devices_here(), "+"));
}

std::vector<std::string> Line::devices_here() const {
  std::vector<std::string> names;
  for (const Rail& rail : rails) names.push_back(rail.here);
  return names;
}

std::vector<std::string> Line::devices_there() const {
  std::vector<std::string> names;
  for (const Rail& rail : rails) names.push_back(rail.there);
  return names;
}

const PathKind* kind_of_line(const std::string& name) { return path_named(name.substr(0, name.find('@'))); }

std::string first_device_of_line(const std::string& name) {
  const size_t at = name.find('@');
  return at == std::string::npos ? "" : name.substr(at + 1, name.find('+') - at - 1);
}

std::vector<Rail> rails_between(const std::string& family, const Machine& here, const Machine& there) {
  std::vector<Rail> rails;
  std::vector<Device> far = devices_for(family, there);
  for (const Device& near : devices_for(family, here)) {
    const auto match = std::find_if(far.begin(), far.end(), [&](const Device& it) { return share_network(near, it); });
    if (match == far.end()) continue;
    rails.push_back({near.name, match->name});
    far.erase(match);
  }
  return rails;
}

std::string devices_of(const Machine& machine) {
  std::vector<std::string> ports, interfaces;
  for (const Device& device : devices_for("rdma", machine)) ports.push_back(device.name);
  for (const Interface& interface : machine.interfaces) {
    if (std::find(interfaces.begin(), interfaces.end(), interface.name) == interfaces.end()) {
      interfaces.push_back(interface.name);
    }
  }
  return (ports.empty() ? "no active RDMA port" : "RDMA " + joined(ports, ", ")) + "; interfaces " +
         joined(interfaces, ", ");
}

Outcome check_wishes(const std::vector<RailWish>& wishes, const Machine& here) {
  for (const RailWish& wish : wishes) {
    if (!full_name("tcp", here, wish.here).empty() || !full_name("rdma", here, wish.here).empty()) continue;
    return Outcome::fail("--device: there is no usable '" + wish.here + "' here; there are: " + devices_of(here));
  }
  return {};
}

Outcome lines_of(const PathKind& kind, const std::vector<RailWish>& wishes, const Machine& here, const Machine& there,
                 std::vector<Line>* lines) {
  const std::string family = kind.family;
  lines->clear();
  std::vector<Rail> rails;
  for (const RailWish& wish : wishes) {
    if (!kind.over_devices() || full_name(family, here, wish.here).empty()) continue;
    Rail rail;
    const Outcome outcome = rail_of(wish, family, here, there, &rail);
    if (!outcome.ok()) return outcome;
    rails.push_back(rail);
  }
  if (!wishes.empty()) return *lines = lines_over(kind, rails, false), Outcome{};
  lines->push_back({&kind, {}, false});
  // Within one machine nothing crosses a device.
  if (here.boot_id == there.boot_id || !kind.over_devices()) return {};
  rails = rails_between(family, here, there);
  if (rails.size() < 2) return {};
  for (const Line& line : lines_over(kind, rails, true)) lines->push_back(line);
  return {};
}

}  // namespace tide::fabric
