#pragma once

// A reliable connection (RC) of libibverbs: a queue pair with one completion queue, and the memory that its device may
// read or write.

#include <cstdint>
#include <memory>
#include <vector>

#include "transport/verbs/port.h"

namespace tide {

inline constexpr const char* kDeviceGone = "its RDMA device failed or was removed";
// Why a connection is of no use after this event of its device; null: it may go on.
const char* what_ends_with(ibv_event_type event);

struct QueuePairSizes {
  uint32_t sends = 0, receives = 0;
  uint32_t inline_bytes = 0;  // at most; the device may have less
  bool events = false;        // fd() tells of completions
};

// How the far side reaches it.
struct QueuePairAddress {
  uint32_t number = 0;
  uint32_t sequence = 0;  // of its first packet, 24 bits
  uint32_t mtu = 0;       // bytes
  uint16_t lid = 0;
  uint8_t gid[16] = {};  // zero: InfiniBand within a subnet, by LID
};

class QueuePair {
 public:
  static Outcome open(const VerbsWish& wish, const uint8_t* address, const QueuePairSizes& sizes,
                      std::unique_ptr<QueuePair>* pair);
  ~QueuePair();

  const VerbsPort& port() const { return port_; }
  QueuePairAddress address() const;
  uint32_t inline_bytes() const { return inline_bytes_; }
  // The memory must outlive the pair.
  Outcome add_memory(void* memory, uint64_t bytes, int access, const ibv_mr** registered);
  // Of add_memory(); no request that is under way uses it.
  void drop_memory(const ibv_mr* registered);
  // Registers and forgets at once; for measuring.
  Outcome try_memory(void* memory, uint64_t bytes, int access);
  Outcome connect(const QueuePairAddress& far);

  bool post(ibv_send_wr* first) {
    ibv_send_wr* bad = nullptr;
    return ibv_post_send(qp_, first, &bad) == 0;
  }
  // Of an immediate only: no memory.
  bool post_receive(uint64_t id) {
    ibv_recv_wr receive{}, *bad = nullptr;
    receive.wr_id = id;
    return ibv_post_recv(qp_, &receive, &bad) == 0;
  }
  int poll(ibv_wc* completions, int most) { return ibv_poll_cq(cq_, most, completions); }
  // fd() becomes readable at the next completion; poll once more before sleeping on it.
  bool ask_for_event();
  int fd() const { return events_ != nullptr ? events_->fd : -1; }
  // Readable when something has become of the device itself; take_events() then logs it, and says why the pair is of no
  // use any more, or nothing: a port that is down may come up again before the retries end. With `events` only.
  int device_fd() const { return port_.context->async_fd; }
  const char* take_events();

 private:
  Outcome make_queues(const QueuePairSizes& sizes);
  Outcome make_pair(const QueuePairSizes& sizes);
  Outcome move_to_init();
  Outcome no_memory(uint64_t bytes) const;
  Outcome move_to_receive(const QueuePairAddress& far);
  Outcome move_to_send();

  const Verbs& verbs_ = Verbs::get();
  VerbsPort port_;
  ibv_pd* pd_ = nullptr;
  ibv_comp_channel* events_ = nullptr;
  ibv_cq* cq_ = nullptr;
  ibv_qp* qp_ = nullptr;
  std::vector<ibv_mr*> memory_;
  uint32_t sequence_ = 0, inline_bytes_ = 0;
};

}  // namespace tide
