// The floors of verbs: an inline write each way, of as many bytes as a null call and its answer are. The receiver
// learns of it by the completion of its immediate, as ours does, or polls the last word.

#include "tools/bench_transport/verbs_ping.h"

#include <poll.h>
#include <sched.h>

#include <cstring>

#include "base/clock.h"
#include "transport/door.h"
#include "transport/verbs/queue_pair.h"
#include "transport/wait.h"

namespace tide::bench {
namespace {

constexpr uint32_t kBytes = 96;
constexpr uint32_t kReceives = 16, kSends = 64, kSignalEvery = 32;
constexpr uint64_t kSendId = 1, kReceiveId = 2;
constexpr uint64_t kTimeoutNs = 5'000'000'000;
constexpr uint64_t kPatienceNs = 2'000'000;

// How to reach an end.
struct End {
  QueuePairAddress pair;
  uint64_t address = 0;
  uint32_t key = 0;
};

class VerbsPing : public Ping {
 public:
  VerbsPing(VerbsPingKind kind, int socket) : Ping(socket), kind_(kind) {}
  Outcome open();
  int serve();

 protected:
  bool round_trip() override { return send() && wait(now_ns() + kTimeoutNs); }

 private:
  Outcome create(End* end);
  bool send();
  bool look();
  bool take_completions();
  bool wait(uint64_t end_ns);

  const VerbsPingKind kind_;
  alignas(64) std::byte memory_[2 * kBytes] = {};  // what is sent, and what the far side writes
  std::unique_ptr<QueuePair> pair_;
  const ibv_mr* registered_ = nullptr;
  End far_;
  uint64_t sent_ = 0, heard_ = 0, answered_ = 0;
  bool failed_ = false;
};

Outcome VerbsPing::create(End* end) {
  VerbsWish wish;
  Outcome outcome = VerbsWish::from_environment(&wish);
  const QueuePairSizes sizes{.sends = kSends, .receives = kReceives, .inline_bytes = kBytes, .events = true};
  if (outcome.ok()) outcome = QueuePair::open(wish, nullptr, sizes, &pair_);
  const int access = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE;
  if (outcome.ok()) outcome = pair_->add_memory(memory_, sizeof memory_, access, &registered_);
  if (!outcome.ok()) return outcome;
  for (uint32_t i = 0; i < kReceives; ++i) pair_->post_receive(kReceiveId);
  *end = {pair_->address(), reinterpret_cast<uint64_t>(memory_ + kBytes), registered_->rkey};
  return {};
}

Outcome VerbsPing::open() {
  End here;
  DoorType type;
  std::string there;
  Outcome outcome = create(&here);
  if (outcome.ok()) outcome = receive_frame(socket_, 10'000, &type, &there);
  if (outcome.ok() && there.size() != sizeof far_) outcome = Outcome::fail("the other process has no verbs");
  if (!outcome.ok()) return outcome;
  memcpy(&far_, there.data(), sizeof far_);
  outcome = pair_->connect(far_.pair);
  if (outcome.ok()) outcome = send_frame(socket_, DoorType::kOpen, &here, sizeof here);
  // It can receive when it answers.
  if (outcome.ok()) outcome = receive_frame(socket_, 10'000, &type, &there);
  return outcome;
}

bool VerbsPing::send() {
  ibv_sge part{.addr = reinterpret_cast<uint64_t>(memory_), .length = kBytes, .lkey = registered_->lkey};
  ibv_send_wr request{};
  request.wr_id = kSendId;
  request.sg_list = &part;
  request.num_sge = 1;
  ++sent_;
  memcpy(memory_ + kBytes - sizeof sent_, &sent_, sizeof sent_);
  request.opcode = kind_ == VerbsPingKind::kImmediate ? IBV_WR_RDMA_WRITE_WITH_IMM : IBV_WR_RDMA_WRITE;
  request.send_flags = (pair_->inline_bytes() >= kBytes ? unsigned(IBV_SEND_INLINE) : 0u) |
                       (sent_ % kSignalEvery == 0 ? unsigned(IBV_SEND_SIGNALED) : 0u);
  request.wr.rdma.remote_addr = far_.address;
  request.wr.rdma.rkey = far_.key;
  return pair_->post(&request);
}

// True if a message has come.
bool VerbsPing::look() {
  if (kind_ == VerbsPingKind::kImmediate) return take_completions();
  const auto* last = reinterpret_cast<const volatile uint64_t*>(memory_ + 2 * kBytes - sizeof(uint64_t));
  heard_ = *last;
  // Of our own writes.
  if (heard_ != answered_ && sent_ % kSignalEvery == 0) take_completions();
  return heard_ != answered_;
}

bool VerbsPing::take_completions() {
  ibv_wc done[8];
  const int count = pair_->poll(done, 8);
  failed_ |= count < 0;
  for (int i = 0; i < count; ++i) {
    failed_ |= done[i].status != IBV_WC_SUCCESS;
    if (failed_ || done[i].wr_id != kReceiveId) continue;
    ++heard_;
    failed_ |= !pair_->post_receive(kReceiveId);
  }
  return heard_ != answered_;
}

bool VerbsPing::wait(uint64_t end_ns) {
  const uint32_t looks = is_one_core() ? 1 : 16;
  for (uint32_t i = 1; !look(); ++i) {
    if (i % looks != 0) continue;
    sched_yield();
    if (failed_ || now_ns() > end_ns) return false;
  }
  ++answered_;
  return true;
}

int VerbsPing::serve() {
  End here;
  DoorType type;
  std::string there;
  if (!create(&here).ok()) return 1;
  if (!send_frame(socket_, DoorType::kOpened, &here, sizeof here).ok()) return 1;
  if (!receive_frame(socket_, 10'000, &type, &there).ok() || there.size() != sizeof far_) return 1;
  memcpy(&far_, there.data(), sizeof far_);
  if (!pair_->connect(far_.pair).ok() || !send_frame(socket_, DoorType::kOpened, "", 0).ok()) return 1;
  for (uint64_t patience_ns = kPatienceNs; !failed_;) {
    if (wait(now_ns() + patience_ns)) {
      if (!send()) return 1;
      patience_ns = kPatienceNs;
      continue;
    }
    patience_ns = 0;
    if (failed_ || !pair_->ask_for_event() || look()) continue;
    // Between the measurements it must not take the core from others. Nothing tells of a word that changes.
    const bool immediate = kind_ == VerbsPingKind::kImmediate;
    pollfd fds[2] = {{.fd = immediate ? pair_->fd() : -1, .events = POLLIN, .revents = 0},
                     {.fd = socket_, .events = POLLRDHUP, .revents = 0}};
    poll(fds, 2, immediate ? 100 : 1);
    if (fds[1].revents != 0) break;
  }
  return 0;
}

}  // namespace

Outcome start_verbs_ping(VerbsPingKind kind, int socket, std::unique_ptr<Ping>* ping) {
  auto made = std::make_unique<VerbsPing>(kind, socket);
  const Outcome outcome = made->open();
  if (outcome.ok()) *ping = std::move(made);
  return outcome;
}

int serve_verbs_ping(VerbsPingKind kind, int socket) { return VerbsPing(kind, socket).serve(); }

}  // namespace tide::bench
