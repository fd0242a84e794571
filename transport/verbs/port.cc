#include "transport/verbs/port.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "base/log.h"

namespace tide {
namespace {

constexpr uint8_t kMappedPrefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};  // IPv4 in IPv6

bool parse_number(const std::string& text, uint32_t most, uint32_t* value) {
  if (text.empty() || text.size() > 3 || text.find_first_not_of("0123456789") != std::string::npos) return false;
  *value = uint32_t(atoi(text.c_str()));
  return *value <= most;
}

// (Streams would bring exceptions into the client library.)
std::string gid_type_of(const std::string& device, uint32_t port, int index) {
  const std::string path = format("/sys/class/infiniband/%s/ports/%u/gid_attrs/types/%d", device.c_str(), port, index);
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return {};
  char text[64];
  const ssize_t n = read(fd, text, sizeof text);
  close(fd);
  const std::string type(text, size_t(std::max<ssize_t>(n, 0)));
  return type.substr(0, type.find('\n'));
}

struct GidChoice {
  int index = -1;
  int worth = 0;  // 0: none fits
  ibv_gid gid{};
  std::string type;
};

int worth_of(const ibv_gid& gid, const std::string& type, const uint8_t* address) {
  const bool v2 = type == "RoCE v2";
  if (address != nullptr && memcmp(gid.raw, address, sizeof gid.raw) == 0) return v2 ? 6 : 5;
  return (v2 ? 2 : 0) + (memcmp(gid.raw, kMappedPrefix, sizeof kMappedPrefix) == 0 ? 1 : 0) + 1;
}

GidChoice best_gid(const Verbs& verbs, ibv_context* context, const std::string& device, uint32_t port, int entries,
                   const VerbsWish& wish, const uint8_t* address) {
  GidChoice best;
  for (int i = 0; i < std::min(entries, 256); ++i) {
    if (wish.gid_index >= 0 && i != wish.gid_index) continue;
    GidChoice each;
    constexpr uint8_t kNone[16] = {};
    if (verbs.query_gid(context, uint8_t(port), i, &each.gid) != 0) continue;
    if (memcmp(each.gid.raw, kNone, sizeof kNone) == 0) continue;
    each.index = i;
    each.type = gid_type_of(device, port, i);
    each.worth = worth_of(each.gid, each.type, address);
    if (each.worth > best.worth) best = each;
  }
  return best;
}

// The search for the best port among all devices, and why the others did not do.
class Search {
 public:
  Search(const VerbsWish& wish, const uint8_t* address) : wish_(wish), address_(address) {}

  void look_at(ibv_device* device);
  int worth() const { return worth_; }
  const std::string& whys() const { return whys_; }
  void give(VerbsPort* port);
  ~Search() {
    if (context_ != nullptr) verbs_.close_device(context_);
  }

 private:
  bool look_at_port(ibv_context* context, const std::string& name, uint32_t number);
  void add_why(const std::string& why) { whys_ += (whys_.empty() ? "" : "; ") + why; }

  const Verbs& verbs_ = Verbs::get();
  const VerbsWish& wish_;
  const uint8_t* address_;
  std::string whys_, device_;
  ibv_context* context_ = nullptr;
  ibv_port_attr attributes_{};
  uint32_t number_ = 0;
  GidChoice gid_;
  int worth_ = 0;
};

bool Search::look_at_port(ibv_context* context, const std::string& name, uint32_t number) {
  ibv_port_attr attributes{};
  if (verbs_.query_port(context, uint8_t(number), &attributes) != 0) {
    add_why(format("%s port %u does not answer", name.c_str(), number));
    return false;
  }
  if (attributes.state != IBV_PORT_ACTIVE) {
    add_why(format("%s port %u is not active (see `rdma link`; is its cable in and its interface up?)", name.c_str(),
                   number));
    return false;
  }
  const GidChoice gid = best_gid(verbs_, context, name, number, attributes.gid_tbl_len, wish_, address_);
  const bool ethernet = attributes.link_layer == IBV_LINK_LAYER_ETHERNET;
  if (gid.worth == 0 && (ethernet || wish_.gid_index >= 0)) {
    const std::string which = wish_.gid_index >= 0 ? format(" %d", wish_.gid_index) : std::string();
    add_why(
        format("%s port %u has no GID%s (give its network interface an address)", name.c_str(), number, which.c_str()));
    return false;
  }
  // Within an InfiniBand subnet the LID is enough.
  const int worth = std::max(gid.worth, 1);
  if (worth <= worth_) return false;
  worth_ = worth, gid_ = gid, attributes_ = attributes, number_ = number, device_ = name;
  return true;
}

void Search::look_at(ibv_device* device) {
  const std::string name = verbs_.get_device_name(device);
  if (!wish_.device.empty() && name != wish_.device) return add_why("there is " + name);
  ibv_context* context = verbs_.open_device(device);
  if (context == nullptr) {
    return add_why(format("%s cannot be opened: %s (may this user write /dev/infiniband/uverbs*?)", name.c_str(),
                          strerror(errno)));
  }
  ibv_device_attr attributes{};
  bool better = false;
  if (verbs_.query_device(context, &attributes) != 0) add_why(name + " does not answer");
  if (wish_.port > attributes.phys_port_cnt) add_why(format("%s has no port %u", name.c_str(), wish_.port));
  for (uint32_t number = 1; number <= attributes.phys_port_cnt; ++number) {
    if (wish_.port == 0 || wish_.port == number) better |= look_at_port(context, name, number);
  }
  if (better) std::swap(context, context_);
  if (context != nullptr) verbs_.close_device(context);
}

void Search::give(VerbsPort* port) {
  port->context = context_;
  context_ = nullptr;
  port->device = device_;
  port->number = uint8_t(number_);
  port->ethernet = attributes_.link_layer == IBV_LINK_LAYER_ETHERNET;
  port->lid = attributes_.lid;
  port->mtu = 128u << attributes_.active_mtu;
  port->has_gid = gid_.worth > 0;
  port->gid_index = uint8_t(std::max(gid_.index, 0));
  port->gid_type = gid_.type;
  port->gid = gid_.gid;
}

}  // namespace

Outcome VerbsWish::parse(const std::string& text, VerbsWish* wish) {
  VerbsWish result;
  const size_t first = std::min(text.find(':'), text.size());
  const size_t second = std::min(text.find(':', first + 1), text.size());
  result.device = text.substr(0, first);
  uint32_t port = 0, gid = 0;
  bool good =
      first == text.size() ||
      (!result.device.empty() && parse_number(text.substr(first + 1, second - first - 1), 255, &port) && port > 0);
  good = good && (second == text.size() || parse_number(text.substr(second + 1), 255, &gid));
  if (!good)
    return Outcome::fail("TIDE_VERBS_DEVICE is NAME[:PORT[:GID_INDEX]], for example mlx5_0:1:3, not '" + text + "'");
  result.port = port;
  if (second != text.size()) result.gid_index = int(gid);
  *wish = result;
  return {};
}

Outcome VerbsWish::from_environment(VerbsWish* wish) {
  const char* text = getenv("TIDE_VERBS_DEVICE");
  return parse(text == nullptr ? "" : text, wish);
}

void VerbsPort::close() {
  if (context != nullptr) Verbs::get().close_device(context);
  context = nullptr;
}

Outcome VerbsPort::open(const VerbsWish& wish, const uint8_t* address) {
  close();
  const Verbs& verbs = Verbs::get();
  if (!verbs.why_not.empty()) return Outcome::fail(verbs.why_not);
  int count = 0;
  ibv_device** devices = verbs.get_device_list(&count);
  Search search(wish, address);
  for (int i = 0; devices != nullptr && i < count; ++i) search.look_at(devices[i]);
  if (devices != nullptr) verbs.free_device_list(devices);
  if (search.worth() > 0) {
    search.give(this);
    return {};
  }
  if (count == 0) return Outcome::fail("no RDMA device here (`rdma link` shows none); use TIDE_TRANSPORT=ucx");
  const std::string what = wish.device.empty() ? "no usable RDMA port" : "TIDE_VERBS_DEVICE names no usable port";
  return Outcome::fail(what + (search.whys().empty() ? "" : ": " + search.whys()));
}

bool gid_of_socket(int socket, uint8_t (&gid)[16]) {
  sockaddr_storage address{};
  socklen_t bytes = sizeof address;
  if (getsockname(socket, reinterpret_cast<sockaddr*>(&address), &bytes) != 0) return false;
  if (address.ss_family == AF_INET) {
    memcpy(gid, kMappedPrefix, sizeof kMappedPrefix);
    memcpy(gid + 12, &reinterpret_cast<const sockaddr_in&>(address).sin_addr, 4);
    return gid[12] != 127;
  }
  if (address.ss_family != AF_INET6) return false;
  memcpy(gid, &reinterpret_cast<const sockaddr_in6&>(address).sin6_addr, 16);
  return !IN6_IS_ADDR_LOOPBACK(&reinterpret_cast<const sockaddr_in6&>(address).sin6_addr);
}

}  // namespace tide
