#pragma once

// An RDMA device, opened, with the port and the GID (a port's network address) that a connection uses.

#include <cstdint>
#include <string>

#include "base/outcome.h"
#include "transport/verbs/verbs.h"

namespace tide {

// Which one: "NAME[:PORT[:GID_INDEX]]", each a wish that may be left out; "" leaves all to us.
struct VerbsWish {
  std::string device;
  uint32_t port = 0;   // from 1; 0: any
  int gid_index = -1;  // -1: the best

  static Outcome parse(const std::string& text, VerbsWish* wish);
  static Outcome from_environment(VerbsWish* wish);  // TIDE_VERBS_DEVICE
};

class VerbsPort {
 public:
  VerbsPort() = default;
  ~VerbsPort() { close(); }
  VerbsPort(const VerbsPort&) = delete;
  VerbsPort& operator=(const VerbsPort&) = delete;

  // The first active port whose GID fits best: the one of `address` (16 bytes; null: no preference), then RoCE v2 with
  // an IPv4 address, which goes through routers and is what most set-ups mean, then any.
  Outcome open(const VerbsWish& wish, const uint8_t* address = nullptr);

  ibv_context* context = nullptr;
  std::string device;
  uint8_t number = 0;
  bool ethernet = false;
  uint16_t lid = 0;
  uint32_t mtu = 0;  // bytes
  bool has_gid = false;
  uint8_t gid_index = 0;
  std::string gid_type;  // "RoCE v2"
  ibv_gid gid{};

 private:
  void close();
};

// The address of this side of a TCP connection, as GIDs have it; false: it is no TCP connection, or within one host.
bool gid_of_socket(int socket, uint8_t (&gid)[16]);

}  // namespace tide
