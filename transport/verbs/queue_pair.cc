#include "transport/verbs/queue_pair.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/random.h>
#include <sys/resource.h>

#include <algorithm>
#include <cstring>

#include "base/log.h"

namespace tide {
namespace {

constexpr uint32_t kSequenceMask = 0xffffff;

ibv_mtu mtu_of(uint32_t bytes) {
  return bytes >= 4096   ? IBV_MTU_4096
         : bytes >= 2048 ? IBV_MTU_2048
         : bytes >= 1024 ? IBV_MTU_1024
         : bytes >= 512  ? IBV_MTU_512
                         : IBV_MTU_256;
}

// What a refused registration most often means.
std::string memory_hint() {
  rlimit limit{};
  if (getrlimit(RLIMIT_MEMLOCK, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return "";
  return format(
      "; this process may lock %llu KiB: raise it (ulimit -l unlimited, or LimitMEMLOCK=infinity of a service)",
      (unsigned long long)limit.rlim_cur / 1024);
}

bool never_blocks(int fd) { return fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) == 0; }

}  // namespace

const char* what_ends_with(ibv_event_type event) {
  switch (event) {
    case IBV_EVENT_DEVICE_FATAL:
      return kDeviceGone;
    case IBV_EVENT_CQ_ERR:
    case IBV_EVENT_QP_FATAL:
    case IBV_EVENT_QP_REQ_ERR:
    case IBV_EVENT_QP_ACCESS_ERR:
      return "its RDMA device gave the connection up";
    default:
      return nullptr;
  }
}

Outcome QueuePair::open(const VerbsWish& wish, const uint8_t* address, const QueuePairSizes& sizes,
                        std::unique_ptr<QueuePair>* pair) {
  auto made = std::make_unique<QueuePair>();
  Outcome outcome = made->port_.open(wish, address);
  if (outcome.ok()) outcome = made->make_queues(sizes);
  if (outcome.ok()) outcome = made->move_to_init();
  if (outcome.ok()) *pair = std::move(made);
  return outcome;
}

QueuePair::~QueuePair() {
  // The pair first: after that the device touches none of the memory.
  if (qp_ != nullptr) verbs_.destroy_qp(qp_);
  if (cq_ != nullptr) verbs_.destroy_cq(cq_);
  if (events_ != nullptr) verbs_.destroy_comp_channel(events_);
  for (ibv_mr* memory : memory_) verbs_.dereg_mr(memory);
  if (pd_ != nullptr) verbs_.dealloc_pd(pd_);
}

Outcome QueuePair::make_queues(const QueuePairSizes& sizes) {
  if (getrandom(&sequence_, sizeof sequence_, 0) != sizeof sequence_) return Outcome::fail("cannot get random bytes");
  sequence_ &= kSequenceMask;
  pd_ = verbs_.alloc_pd(port_.context);
  if (pd_ == nullptr)
    return Outcome::fail(format("%s: no protection domain: %s", port_.device.c_str(), strerror(errno)));
  if (sizes.events) {
    events_ = verbs_.create_comp_channel(port_.context);
    if (events_ == nullptr || !never_blocks(events_->fd) || !never_blocks(device_fd())) {
      return Outcome::fail(format("%s: no completion channel: %s", port_.device.c_str(), strerror(errno)));
    }
  }
  cq_ = verbs_.create_cq(port_.context, int(sizes.sends + sizes.receives), nullptr, events_, 0);
  return make_pair(sizes);
}

// Devices say what fits inline only by refusing.
Outcome QueuePair::make_pair(const QueuePairSizes& sizes) {
  for (uint32_t bytes = sizes.inline_bytes; cq_ != nullptr && qp_ == nullptr; bytes = bytes > 32 ? bytes / 2 : 0) {
    ibv_qp_init_attr attributes{};
    attributes.send_cq = attributes.recv_cq = cq_;
    attributes.qp_type = IBV_QPT_RC;
    attributes.cap.max_send_wr = sizes.sends;
    attributes.cap.max_recv_wr = sizes.receives;
    attributes.cap.max_send_sge = 2;
    attributes.cap.max_recv_sge = 1;
    attributes.cap.max_inline_data = bytes;
    qp_ = verbs_.create_qp(pd_, &attributes);
    inline_bytes_ = std::min(attributes.cap.max_inline_data, sizes.inline_bytes);
    if (bytes == 0) break;
  }
  if (qp_ != nullptr) return {};
  return Outcome::fail(
      format("%s: cannot make queues: %s%s", port_.device.c_str(), strerror(errno), memory_hint().c_str()));
}

Outcome QueuePair::move_to_init() {
  ibv_qp_attr init{};
  init.qp_state = IBV_QPS_INIT;
  init.port_num = port_.number;
  init.qp_access_flags = IBV_ACCESS_REMOTE_WRITE;
  const int mask = IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS;
  const int error = verbs_.modify_qp(qp_, &init, mask);
  if (error == 0) return {};
  return Outcome::fail(format("%s: cannot initialise a queue pair: %s", port_.device.c_str(), strerror(error)));
}

QueuePairAddress QueuePair::address() const {
  QueuePairAddress address;
  address.number = qp_->qp_num;
  address.sequence = sequence_;
  address.mtu = port_.mtu;
  address.lid = port_.lid;
  if (port_.has_gid) memcpy(address.gid, port_.gid.raw, sizeof address.gid);
  return address;
}

Outcome QueuePair::no_memory(uint64_t bytes) const {
  return Outcome::fail(format("%s: cannot register %llu KiB of memory: %s%s", port_.device.c_str(),
                              (unsigned long long)bytes / 1024, strerror(errno), memory_hint().c_str()));
}

Outcome QueuePair::try_memory(void* memory, uint64_t bytes, int access) {
  ibv_mr* made = verbs_.reg_mr(pd_, memory, bytes, access);
  if (made == nullptr) return no_memory(bytes);
  verbs_.dereg_mr(made);
  return {};
}

Outcome QueuePair::add_memory(void* memory, uint64_t bytes, int access, const ibv_mr** registered) {
  ibv_mr* made = verbs_.reg_mr(pd_, memory, bytes, access);
  if (made == nullptr) return no_memory(bytes);
  memory_.push_back(made);
  *registered = made;
  return {};
}

void QueuePair::drop_memory(const ibv_mr* registered) {
  const auto found = std::find(memory_.begin(), memory_.end(), registered);
  if (found == memory_.end()) return;
  verbs_.dereg_mr(*found);
  memory_.erase(found);
}

Outcome QueuePair::connect(const QueuePairAddress& far) {
  const Outcome outcome = move_to_receive(far);
  return outcome.ok() ? move_to_send() : outcome;
}

Outcome QueuePair::move_to_receive(const QueuePairAddress& far) {
  constexpr uint8_t kNone[16] = {};
  const bool has_gid = memcmp(far.gid, kNone, sizeof kNone) != 0;
  ibv_qp_attr ready{};
  ready.qp_state = IBV_QPS_RTR;
  ready.path_mtu = mtu_of(std::min(port_.mtu, far.mtu));
  ready.dest_qp_num = far.number;
  ready.rq_psn = far.sequence & kSequenceMask;
  ready.max_dest_rd_atomic = 1;
  ready.min_rnr_timer = 1;  // 10 us
  ready.ah_attr.dlid = far.lid;
  ready.ah_attr.port_num = port_.number;
  if (port_.ethernet || far.lid == 0) {
    if (!has_gid || !port_.has_gid) {
      return Outcome::fail(std::string(port_.has_gid ? "the far side's" : "this side's") +
                           " RDMA port has no GID; give its network interface an address");
    }
    ready.ah_attr.is_global = 1;
    memcpy(ready.ah_attr.grh.dgid.raw, far.gid, 16);
    ready.ah_attr.grh.sgid_index = port_.gid_index;
    ready.ah_attr.grh.hop_limit = 64;
  }
  const int mask = IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
                   IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER;
  const int error = verbs_.modify_qp(qp_, &ready, mask);
  if (error == 0) return {};
  return Outcome::fail(format(
      "%s port %u, GID %u (%s) does not reach the far side: %s; choose others with TIDE_VERBS_DEVICE=NAME:PORT:GID",
      port_.device.c_str(), port_.number, port_.gid_index, port_.gid_type.c_str(), strerror(error)));
}

Outcome QueuePair::move_to_send() {
  ibv_qp_attr send{};
  send.qp_state = IBV_QPS_RTS;
  send.sq_psn = sequence_;
  send.timeout = 16;   // 268 ms; six times more
  send.retry_cnt = 6;  // 7 means for ever to soft-RoCE
  send.rnr_retry = 7;  // as long as it takes
  send.max_rd_atomic = 1;
  const int mask =
      IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC;
  const int error = verbs_.modify_qp(qp_, &send, mask);
  if (error == 0) return {};
  return Outcome::fail(format("%s: cannot make a queue pair send: %s", port_.device.c_str(), strerror(error)));
}

const char* QueuePair::take_events() {
  const char* why = nullptr;
  for (ibv_async_event event; verbs_.get_async_event(port_.context, &event) == 0;) {
    const ibv_event_type type = event.event_type;
    const bool of_our_port = event.element.port_num == port_.number;
    verbs_.ack_async_event(&event);
    if (const char* ends = what_ends_with(type); ends != nullptr) {
      log(LogLevel::kWarning, "%s: %s", port_.device.c_str(), ends);
      why = ends;
    } else if ((type == IBV_EVENT_PORT_ERR || type == IBV_EVENT_PORT_ACTIVE) && of_our_port) {
      log(LogLevel::kWarning, "%s port %u is %s", port_.device.c_str(), port_.number,
          type == IBV_EVENT_PORT_ERR ? "down: nothing gets through until it is up again" : "up again");
    }
  }
  return why;
}

bool QueuePair::ask_for_event() {
  ibv_cq* of = nullptr;
  void* user = nullptr;
  unsigned count = 0;
  while (verbs_.get_cq_event(events_, &of, &user) == 0) ++count;
  if (count != 0) verbs_.ack_cq_events(cq_, count);
  return ibv_req_notify_cq(cq_, 0) == 0;
}

}  // namespace tide
