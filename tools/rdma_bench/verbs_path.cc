// A reliable connection with the verbs themselves: a message is an RDMA write whose last piece carries an immediate, so
// that the far side learns of it from its completion queue. The port is that of the address by which the two sides
// reach each other, else the first active one.

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
#include "transport/verbs/queue_pair.h"

namespace tide::fabric {
namespace {

constexpr uint64_t kBufferBytes = 4 << 20;  // registered on each side, twice; larger messages are several writes
constexpr uint32_t kPiecesMax = 1024, kReceives = 512;
constexpr uint32_t kInlineBytes = 64;
constexpr uint64_t kSendId = 1, kReceiveId = 2;
constexpr int kAccess = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE;

// How to reach an end.
struct End {
  uint32_t qp = 0, sequence = 0, lid = 0, mtu = 0, rkey = 0;
  uint64_t address = 0;
  std::string gid;  // 16 bytes
  template <class F>
  void fields(F& f) {
    f("qp", qp), f("sequence", sequence), f("lid", lid), f("mtu", mtu), f("rkey", rkey), f("address", address),
        f("gid", gid);
  }
};

class VerbsChannel : public Channel {
 public:
  explicit VerbsChannel(const Making& making)
      : control_(making.control), device_(making.devices.empty() ? "" : making.devices[0]) {}
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
  Outcome make_buffers();
  bool post_piece(uint64_t bytes, bool last);

  const Control& control_;
  const std::string device_;
  const Verbs& verbs_ = Verbs::get();
  std::unique_ptr<QueuePair> pair_;
  char* memory_ = nullptr;  // the first half is sent, the second is written by the far side
  const ibv_mr* mr_ = nullptr;
  End there_;
  uint64_t window_ = 2;
  uint32_t pieces_ = 1;
};

VerbsChannel::~VerbsChannel() {
  pair_.reset();
  if (memory_ != nullptr) munmap(memory_, 2 * kBufferBytes);
}

Outcome VerbsChannel::make_buffers() {
  void* memory =
      mmap(nullptr, 2 * kBufferBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (memory == MAP_FAILED) return Outcome::fail("no memory");
  memory_ = static_cast<char*>(memory);
  return pair_->add_memory(memory_, 2 * kBufferBytes, kAccess, &mr_);
}

Outcome VerbsChannel::open() {
  VerbsWish wish;
  Outcome outcome = device_.empty() ? VerbsWish::from_environment(&wish) : VerbsWish::parse(device_, &wish);
  const QueuePairSizes sizes{.sends = kPiecesMax, .receives = kReceives, .inline_bytes = kInlineBytes};
  uint8_t near[16];
  const bool has_address = gid_of_socket(control_.fd(), near);
  if (outcome.ok()) outcome = QueuePair::open(wish, has_address ? near : nullptr, sizes, &pair_);
  if (outcome.ok()) outcome = make_buffers();
  for (uint32_t i = 0; outcome.ok() && i < kReceives; ++i) {
    if (!pair_->post_receive(kReceiveId)) outcome = Outcome::fail("cannot post receives");
  }
  return outcome;
}

Outcome VerbsChannel::offer(std::string* how) {
  const Outcome outcome = open();
  if (!outcome.ok()) return outcome;
  const QueuePairAddress address = pair_->address();
  End here;
  here.qp = address.number;
  here.sequence = address.sequence;
  here.lid = address.lid;
  here.mtu = address.mtu;
  here.rkey = mr_->rkey;
  here.address = reinterpret_cast<uint64_t>(memory_ + kBufferBytes);
  here.gid.assign(reinterpret_cast<const char*>(address.gid), sizeof address.gid);
  *how = pack(here);
  return {};
}

Outcome VerbsChannel::join(const std::string& how) {
  if (!unpack(how, &there_) || there_.gid.size() != sizeof(QueuePairAddress::gid)) {
    return Outcome::fail("the other side's queue pair is not understood");
  }
  QueuePairAddress address{there_.qp, there_.sequence, there_.mtu, uint16_t(there_.lid), {}};
  memcpy(address.gid, there_.gid.data(), sizeof address.gid);
  return pair_->connect(address);
}

bool VerbsChannel::post_piece(uint64_t bytes, bool last) {
  ibv_sge what{.addr = reinterpret_cast<uint64_t>(memory_), .length = uint32_t(bytes), .lkey = mr_->lkey};
  ibv_send_wr send{};
  send.wr_id = kSendId;
  send.sg_list = &what;
  send.num_sge = 1;
  send.opcode = last ? IBV_WR_RDMA_WRITE_WITH_IMM : IBV_WR_RDMA_WRITE;
  send.send_flags =
      (last ? unsigned(IBV_SEND_SIGNALED) : 0u) | (bytes <= pair_->inline_bytes() ? unsigned(IBV_SEND_INLINE) : 0u);
  send.wr.rdma.remote_addr = there_.address;
  send.wr.rdma.rkey = there_.rkey;
  const bool posted = pair_->post(&send);
  if (!posted) fail("sending over " + pair_->port().device + " failed");
  return posted;
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
  const int count = pair_->poll(done, 16);
  const std::string& device = pair_->port().device;
  if (count < 0) fail(device + ": its completion queue is broken; was the device taken away?");
  for (int i = 0; i < count; ++i) {
    if (done[i].status != IBV_WC_SUCCESS) {
      fail(format("%s: %s; look at the link, the GID's network and the MTU on both sides", device.c_str(),
                  verbs_.wc_status_str(done[i].status)));
    } else if (done[i].wr_id == kSendId) {
      ++sent_;
    } else {
      ++received_;
      if (!pair_->post_receive(kReceiveId)) fail(device + ": cannot post receives");
    }
  }
}

bool VerbsChannel::registration(uint64_t bytes, uint32_t duration_ms, Histogram* histogram) {
  std::vector<char> memory(bytes, 'x');
  const uint64_t end_ns = now_ns() + uint64_t(duration_ms) * 1'000'000;
  while (now_ns() < end_ns) {
    const uint64_t begin = ticks();
    if (const Outcome outcome = pair_->try_memory(memory.data(), bytes, kAccess); !outcome.ok()) {
      fail(outcome.message());
      return false;
    }
    histogram->add(uint64_t(double(ticks() - begin) * ns_per_tick()));
  }
  return true;
}

Facts VerbsChannel::facts() {
  Facts facts;
  const VerbsPort& port = pair_->port();
  facts.route =
      format("%s port %u, GID %u %s", port.device.c_str(), port.number, port.gid_index, port.gid_type.c_str());
  return facts;
}

}  // namespace

std::unique_ptr<Channel> make_verbs(const Making& making) { return std::make_unique<VerbsChannel>(making); }

}  // namespace tide::fabric
