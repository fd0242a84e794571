#pragma once

// A way for bytes between the two sides, and the table of all of them. A channel is one end; both ends are used by one
// thread each, without waiting: post() and progress() return at once, so that the caller also sees the other side die.

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/histogram.h"
#include "base/outcome.h"
#include "tools/rdma_bench/control.h"
#include "tools/rdma_bench/machine.h"

namespace tide::fabric {

inline constexpr uint64_t kMessageMin = 8, kMessageMax = 256ull << 20;
// Messages under way in one direction: enough to hide a round trip, and of large ones no more than a slow link carries
// in a moment.
constexpr uint64_t window(uint64_t bytes) { return std::clamp<uint64_t>((32ull << 20) / bytes, 2, 32); }

// What an end saw while it was open.
struct Facts {
  std::string route;                       // what really carried the bytes: "tcp/lo", "rc_verbs/rxe0:1"
  uint64_t segments = 0, retransmits = 0;  // of TCP: sent, sent again
  template <class F>
  void fields(F& f) {
    f("route", route), f("segments", segments), f("retransmits", retransmits);
  }
};

class Channel {
 public:
  virtual ~Channel() = default;

  // Connecting: each end offers how to reach it, the offers are exchanged, each end joins the other's. May wait as long
  // as the control connection's timeout.
  virtual Outcome offer(std::string* how) = 0;
  virtual Outcome join(const std::string& how) = 0;

  // All messages from now on have this size. Requires: none is under way.
  Outcome set_bytes(uint64_t bytes);
  // Begins to send one. False: not now; progress() makes room.
  virtual bool post() = 0;
  virtual void progress() = 0;

  uint64_t posted() const { return posted_; }
  uint64_t sent() const { return sent_; }                  // left; their memory is free again
  uint64_t received() const { return received_; }          // whole messages
  const std::string& failure() const { return failure_; }  // empty: it works

  // How long it takes to make memory of the message's size known to the device, and to forget it. False: there is no
  // such thing on this path.
  virtual bool registration(uint64_t, uint32_t /*duration_ms*/, Histogram*) { return false; }
  virtual Facts facts() { return {}; }

 protected:
  virtual Outcome resize(uint64_t bytes) = 0;
  void fail(const std::string& why) {
    if (failure_.empty()) failure_ = why;
  }
  uint64_t bytes_ = 0, posted_ = 0, sent_ = 0, received_ = 0;

 private:
  std::string failure_;
};

struct PathKind;

// What a channel is made from.
struct Making {
  const PathKind& kind;
  const Control& control;
  std::vector<std::string> devices;  // this side's (rails.h); none: by which the two sides reach each other
};

struct PathKind {
  const char* name;
  const char* title;
  const char* family;     // "tcp", "memory", "rdma", "any"
  bool registers;         // memory must be made known to a device
  const char* transport;  // what UCX is told to use; null: not UCX
  // UCX reports these on both machines, or the path does not exist; null: no condition.
  const char* needs;
  std::unique_ptr<Channel> (*make)(const Making& making);
  const char* floor;  // the path that shows what is possible beneath this one; null: none

  bool is(const char* of_family) const { return std::string_view(family) == of_family; }
  bool over_devices() const { return is("tcp") || is("rdma"); }  // which can be chosen
};

std::unique_ptr<Channel> make_tcp(const Making& making);
std::unique_ptr<Channel> make_memory(const Making& making);
std::unique_ptr<Channel> make_verbs(const Making& making);
std::unique_ptr<Channel> make_ucx(const Making& making);
// Over several devices: UCX spreads a message itself, else one channel for each.
std::unique_ptr<Channel> make_channel(const PathKind& kind, const Control& control,
                                      const std::vector<std::string>& devices);

// A floor stands before what is compared with it; last, what is compared with all.
inline constexpr PathKind kPaths[] = {
    {"tcp", "plain TCP sockets", "tcp", false, nullptr, nullptr, make_tcp, nullptr},
    {"memory", "a ring in shared memory", "memory", false, nullptr, nullptr, make_memory, nullptr},
    {"ucx-tcp", "UCX over TCP", "tcp", false, "tcp", "tcp", make_ucx, "tcp"},
    {"ucx-posix", "UCX over POSIX shared memory", "memory", false, "posix", "posix", make_ucx, "memory"},
    {"ucx-sysv", "UCX over System V shared memory", "memory", false, "sysv", "sysv", make_ucx, "memory"},
    {"ucx-cma", "UCX over shared memory, large ones copied by the kernel", "memory", false, "posix,cma", "cma",
     make_ucx, "memory"},
    {"verbs", "RDMA, reliable connection: writes with immediate", "rdma", true, nullptr, nullptr, make_verbs, nullptr},
    {"ucx-rc", "UCX over RDMA, reliable connection (verbs)", "rdma", true, "rc_v,ud_v:aux", "rc_verbs", make_ucx,
     "verbs"},
    {"ucx-ud", "UCX over RDMA, datagrams (verbs)", "rdma", true, "ud_v", "ud_verbs", make_ucx, "verbs"},
    {"ucx-rc-mlx5", "UCX over RDMA, reliable connection (mlx5)", "rdma", true, "rc_x,ud_x:aux", "rc_mlx5", make_ucx,
     "verbs"},
    {"ucx-dc-mlx5", "UCX over RDMA, dynamic connection (mlx5)", "rdma", true, "dc_x", "dc_mlx5", make_ucx, "verbs"},
    {"ucx", "UCX, as it chooses itself", "any", false, "", "", make_ucx, nullptr},
};

const PathKind* path_named(const std::string& name);
// Whether the path is there between the two, as far as they know; else *why_not.
bool path_exists(const PathKind& kind, const Machine& here, const Machine& there, std::string* why_not);
// Why it is better not to try one that exists; empty: try.
std::string obstacle(const PathKind& kind, const Machine& here, const Machine& there);

}  // namespace tide::fabric
