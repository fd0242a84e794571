// A reliable connection with the verbs themselves: a message is an RDMA write whose last piece carries an immediate, so
// that the far side learns of it from its completion queue. The port is that of the address by which the two sides
// reach each other, else the first active one.

#include <arpa/inet.h>
#include <errno.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "base/clock.h"
#include "base/log.h"
#include "tools/rdma_bench/fields.h"
#include "tools/rdma_bench/path.h"
#include "tools/rdma_bench/ticks.h"
#include "tools/rdma_bench/verbs.h"

namespace tide::fabric {
namespace {

constexpr uint64_t kBufferBytes = 4 << 20;  // registered on each side, twice; larger messages are several writes
constexpr uint32_t kPiecesMax = 1024, kReceives = 512;
constexpr uint32_t kInlineBytes = 64;
constexpr int kAccess = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE;

// How to reach an end.
struct End {
  uint32_t qp = 0, lid = 0, mtu = 0, rkey = 0;
  uint64_t address = 0;
  std::string gid;  // 16 bytes; empty: InfiniBand within a subnet, by LID
  template <class F>
  void fields(F& f) {
    f("qp", qp), f("lid", lid), f("mtu", mtu), f("rkey", rkey), f("address", address), f("gid", gid);
  }
};

std::string gid_bytes(const std::string& text) {
  std::string bytes;
  for (const char* at = text.c_str(); *at != '\0';) {
    char* end = nullptr;
    const unsigned long part = strtoul(at, &end, 16);
    bytes += char(part >> 8);
    bytes += char(part);
    at = *end == ':' ? end + 1 : end;
    if (at == end && *end != '\0') break;
  }
  return bytes;
}

// The GID that RoCE gives to an IP address; empty where it is none.
std::string gid_of(const std::string& address) {
  std::string gid(16, '\0');
  if (inet_pton(AF_INET6, address.c_str(), gid.data()) == 1) return gid;
  gid[10] = gid[11] = '\xff';
  return inet_pton(AF_INET, address.c_str(), &gid[12]) == 1 ? gid : std::string();
}

bool has_gid(const RdmaPort& port, const std::string& gid) {
  return std::any_of(port.gids.begin(), port.gids.end(), [&](const Gid& one) { return gid_bytes(one.gid) == gid; });
}

// RoCE v2 with an IPv4 address goes through routers and is what most set-ups mean; first of all, `wanted`.
const Gid* best_gid(const RdmaPort& port, const std::string& wanted) {
  const auto worth = [&](const Gid& gid) {
    return (gid_bytes(gid.gid) == wanted ? 4 : 0) + (gid.type == "RoCE v2" ? 2 : 0) +
           (gid.gid.find(":ffff:") != std::string::npos ? 1 : 0);
  };
  const auto best = std::max_element(port.gids.begin(), port.gids.end(),
                                     [&](const Gid& a, const Gid& b) { return worth(a) < worth(b); });
  return best == port.gids.end() ? nullptr : &*best;
}

class VerbsChannel : public Channel {
 public:
  explicit VerbsChannel(const Control& control) : control_(control) {}
  ~VerbsChannel() override;

  Outcome offer(std::string* how) override;
  Outcome join(const std::string& how) override;
  bool post() override;
  void progress() override;
  bool registration(uint64_t bytes, uint32_t duration_ms, Histogram* histogram) override;
  Facts facts() override;

 protected:
  Outcome resize(uint64_t bytes) override {
    window_ = window(bytes);
    pieces_ = uint32_t((bytes + kBufferBytes - 1) / kBufferBytes);
    return {};
  }

 private:
  Outcome open();
  Outcome make_queues();
  Outcome make_buffers();
  Outcome open_port();
  Outcome move_to_ready(const End& there);
  bool post_receive();
  bool post_piece(uint64_t bytes, bool last);

  const Control& control_;
  const Verbs& verbs_ = Verbs::get();
  RdmaPort port_;
  Gid gid_;
  std::string device_;
  ibv_context* context_ = nullptr;
  ibv_pd* pd_ = nullptr;
  ibv_cq* cq_ = nullptr;
  ibv_qp* qp_ = nullptr;
  char* memory_ = nullptr;  // the first half is sent, the second is written by the far side
  ibv_mr* mr_ = nullptr;
  End there_;
  uint64_t window_ = 2;
  uint32_t pieces_ = 1;
};

VerbsChannel::~VerbsChannel() {
  if (qp_ != nullptr) verbs_.destroy_qp(qp_);
  if (cq_ != nullptr) verbs_.destroy_cq(cq_);
  if (mr_ != nullptr) verbs_.dereg_mr(mr_);
  if (memory_ != nullptr) munmap(memory_, 2 * kBufferBytes);
  if (pd_ != nullptr) verbs_.dealloc_pd(pd_);
  if (context_ != nullptr) verbs_.close_device(context_);
}

Outcome VerbsChannel::open_port() {
  std::string why_not;
  const std::string wanted = gid_of(control_.own_address());
  for (const RdmaDevice& device : rdma_devices(&why_not)) {
    for (const RdmaPort& port : device.ports) {
      const bool better = device_.empty() || (has_gid(port, wanted) && !has_gid(port_, wanted));
      if (port.state != "active" || !better) continue;
      port_ = port;
      device_ = device.name;
      if (const Gid* gid = best_gid(port, wanted)) gid_ = *gid;
    }
  }
  if (!why_not.empty() || device_.empty()) return Outcome::fail(why_not.empty() ? "no active RDMA port" : why_not);
  int count = 0;
  ibv_device** devices = verbs_.get_device_list(&count);
  for (int i = 0; devices != nullptr && i < count; ++i) {
    if (device_ == verbs_.get_device_name(devices[i])) context_ = verbs_.open_device(devices[i]);
  }
  if (devices != nullptr) verbs_.free_device_list(devices);
  return context_ != nullptr ? Outcome{} : Outcome::fail(device_ + " cannot be opened: " + strerror(errno));
}

Outcome VerbsChannel::make_buffers() {
  void* memory =
      mmap(nullptr, 2 * kBufferBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (memory == MAP_FAILED) return Outcome::fail("no memory");
  memory_ = static_cast<char*>(memory);
  mr_ = verbs_.reg_mr(pd_, memory_, 2 * kBufferBytes, kAccess);
  if (mr_ != nullptr) return {};
  return Outcome::fail(format("cannot register 8 MiB: %s; raise memlock (ulimit -l unlimited)", strerror(errno)));
}

Outcome VerbsChannel::make_queues() {
  cq_ = verbs_.create_cq(context_, int(kPiecesMax + kReceives), nullptr, nullptr, 0);
  ibv_qp_init_attr attributes{};
  attributes.send_cq = attributes.recv_cq = cq_;
  attributes.qp_type = IBV_QPT_RC;
  attributes.cap.max_send_wr = kPiecesMax;
  attributes.cap.max_recv_wr = kReceives;
  attributes.cap.max_send_sge = attributes.cap.max_recv_sge = 1;
  attributes.cap.max_inline_data = kInlineBytes;
  if (cq_ != nullptr) qp_ = verbs_.create_qp(pd_, &attributes);
  if (qp_ == nullptr) return Outcome::fail(format("cannot make queues: %s; is memlock too small?", strerror(errno)));
  ibv_qp_attr init{};
  init.qp_state = IBV_QPS_INIT;
  init.port_num = uint8_t(port_.number);
  init.qp_access_flags = IBV_ACCESS_REMOTE_WRITE;
  const int mask = IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS;
  const int error = verbs_.modify_qp(qp_, &init, mask);
  if (error != 0) return Outcome::fail(format("cannot initialise a queue pair: %s", strerror(error)));
  for (uint32_t i = 0; i < kReceives; ++i) {
    if (!post_receive()) return Outcome::fail("cannot post receives");
  }
  return {};
}

Outcome VerbsChannel::open() {
  Outcome outcome = open_port();
  if (!outcome.ok()) return outcome;
  pd_ = verbs_.alloc_pd(context_);
  if (pd_ == nullptr) return Outcome::fail(format("no protection domain: %s", strerror(errno)));
  outcome = make_buffers();
  return outcome.ok() ? make_queues() : outcome;
}

Outcome VerbsChannel::offer(std::string* how) {
  const Outcome outcome = open();
  if (!outcome.ok()) return outcome;
  End here;
  here.qp = qp_->qp_num;
  here.lid = port_.lid;
  here.mtu = port_.mtu;
  here.rkey = mr_->rkey;
  here.address = reinterpret_cast<uint64_t>(memory_ + kBufferBytes);
  here.gid = gid_bytes(gid_.gid);
  *how = pack(here);
  return {};
}

Outcome VerbsChannel::join(const std::string& how) {
  if (!unpack(how, &there_) || (!there_.gid.empty() && there_.gid.size() != 16)) {
    return Outcome::fail("the other side's queue pair is not understood");
  }
  return move_to_ready(there_);
}

Outcome VerbsChannel::move_to_ready(const End& there) {
  ibv_qp_attr ready{};
  ready.qp_state = IBV_QPS_RTR;
  const uint32_t mtu = std::min(port_.mtu, there.mtu);
  ready.path_mtu = mtu >= 4096 ? IBV_MTU_4096 : mtu >= 2048 ? IBV_MTU_2048 : mtu >= 1024 ? IBV_MTU_1024 : IBV_MTU_256;
  ready.dest_qp_num = there.qp;
  ready.max_dest_rd_atomic = 1;
  ready.min_rnr_timer = 1;  // 10 us
  ready.ah_attr.dlid = uint16_t(there.lid);
  ready.ah_attr.port_num = uint8_t(port_.number);
  if (port_.link_layer == "Ethernet" || there.lid == 0) {
    if (there.gid.empty()) return Outcome::fail("the other side's port has no GID; give its interface an address");
    ready.ah_attr.is_global = 1;
    memcpy(ready.ah_attr.grh.dgid.raw, there.gid.data(), 16);
    ready.ah_attr.grh.sgid_index = uint8_t(gid_.index);
    ready.ah_attr.grh.hop_limit = 64;
  }
  int mask = IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC |
             IBV_QP_MIN_RNR_TIMER;
  int error = verbs_.modify_qp(qp_, &ready, mask);
  if (error != 0) {
    return Outcome::fail(
        format("cannot connect through GID %u (%s): %s; is the other side's network reachable from it?", gid_.index,
               gid_.gid.c_str(), strerror(error)));
  }
  ibv_qp_attr send{};
  send.qp_state = IBV_QPS_RTS;
  send.timeout = 14;  // 67 ms; seven times
  send.retry_cnt = 7;
  send.rnr_retry = 7;  // as long as it takes
  send.max_rd_atomic = 1;
  mask = IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC;
  error = verbs_.modify_qp(qp_, &send, mask);
  return error == 0 ? Outcome{} : Outcome::fail(format("cannot make a queue pair send: %s", strerror(error)));
}

bool VerbsChannel::post_receive() {
  ibv_recv_wr receive{}, *bad = nullptr;  // of an immediate only: no memory
  return ibv_post_recv(qp_, &receive, &bad) == 0;
}

bool VerbsChannel::post_piece(uint64_t bytes, bool last) {
  ibv_sge what{.addr = reinterpret_cast<uint64_t>(memory_), .length = uint32_t(bytes), .lkey = mr_->lkey};
  ibv_send_wr send{}, *bad = nullptr;
  send.wr_id = 1;
  send.sg_list = &what;
  send.num_sge = 1;
  send.opcode = last ? IBV_WR_RDMA_WRITE_WITH_IMM : IBV_WR_RDMA_WRITE;
  send.send_flags =
      (last ? unsigned(IBV_SEND_SIGNALED) : 0u) | (bytes <= kInlineBytes ? unsigned(IBV_SEND_INLINE) : 0u);
  send.wr.rdma.remote_addr = there_.address;
  send.wr.rdma.rkey = there_.rkey;
  const int error = ibv_post_send(qp_, &send, &bad);
  if (error != 0) fail(format("sending over %s failed: %s", device_.c_str(), strerror(error)));
  return error == 0;
}

bool VerbsChannel::post() {
  const uint64_t under_way = posted_ - sent_;
  if (under_way >= window_ || (under_way + 1) * pieces_ > kPiecesMax || !failure().empty()) return false;
  for (uint64_t left = bytes_; left > 0;) {
    const uint64_t bytes = std::min(left, kBufferBytes);
    left -= bytes;
    if (!post_piece(bytes, left == 0)) return false;
  }
  ++posted_;
  return true;
}

void VerbsChannel::progress() {
  ibv_wc done[16];
  const int count = ibv_poll_cq(cq_, 16, done);
  if (count < 0) fail(device_ + ": its completion queue is broken; was the device taken away?");
  for (int i = 0; i < count; ++i) {
    if (done[i].status != IBV_WC_SUCCESS) {
      fail(format("%s: %s; look at the link, the GID's network and the MTU on both sides", device_.c_str(),
                  verbs_.wc_status_str(done[i].status)));
    } else if (done[i].wr_id == 1) {
      ++sent_;
    } else {
      ++received_;
      if (!post_receive()) fail(device_ + ": cannot post receives");
    }
  }
}

bool VerbsChannel::registration(uint64_t bytes, uint32_t duration_ms, Histogram* histogram) {
  std::vector<char> memory(bytes, 'x');
  const uint64_t end_ns = now_ns() + uint64_t(duration_ms) * 1'000'000;
  while (now_ns() < end_ns) {
    const uint64_t begin = ticks();
    ibv_mr* mr = verbs_.reg_mr(pd_, memory.data(), bytes, kAccess);
    if (mr == nullptr) {
      fail(format("cannot register %llu bytes: %s; raise memlock (ulimit -l unlimited)", (unsigned long long)bytes,
                  strerror(errno)));
      return false;
    }
    verbs_.dereg_mr(mr);
    histogram->add(uint64_t(double(ticks() - begin) * ns_per_tick()));
  }
  return true;
}

Facts VerbsChannel::facts() {
  Facts facts;
  facts.route = format("%s port %u, GID %u %s", device_.c_str(), port_.number, gid_.index, gid_.type.c_str());
  return facts;
}

}  // namespace

std::unique_ptr<Channel> make_verbs(const PathKind&, const Control& control) {
  return std::make_unique<VerbsChannel>(control);
}

}  // namespace tide::fabric
