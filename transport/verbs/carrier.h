#pragma once

// Parcels over a reliable connection. Ring bytes are written straight into the far side's ring; header and entries
// follow as a write with immediate into one of its mailbox's slots, with the ring bytes too where both fit inline.
// docs/wire.md says every byte.
//
// No system call on the way, no copy of what is large, and a completion only for one message in many: a slot is free
// again when the far side says so (credits, in each message's immediate), not when a send has completed.

#include <memory>
#include <string>
#include <vector>

#include "transport/carrier.h"
#include "transport/verbs/queue_pair.h"

namespace tide {

inline constexpr uint32_t kVerbsSlots = 64;  // messages under way; at 64 KiB of ring bytes each, 4 MiB
inline constexpr uint32_t kVerbsSlotBytes = 2048;
inline constexpr uint32_t kVerbsInlineBytes = 256;

// What each side tells the other: the worker in `transport_data`, in hex; the client then on the lifeline.
struct VerbsAddress {
  uint32_t magic = 0x62726576;  // "verb"
  uint16_t version = 2;
  uint16_t lid = 0;
  uint32_t queue_pair = 0;
  uint32_t sequence = 0;  // of the first packet
  uint32_t mtu = 0;       // bytes
  uint32_t ring_key = 0, mailbox_key = 0;
  uint32_t connection = 0;       // any number but 0, drawn for this one: RemotePlace
  uint64_t ring_address = 0;     // of the ring that its reader may have written, kCommandRingBytes long
  uint64_t mailbox_address = 0;  // kVerbsSlots * kVerbsSlotBytes
  uint8_t gid[16] = {};

  std::string text() const;
  static Outcome parse(const std::string& text, VerbsAddress* address);
  Outcome check() const;
};
static_assert(sizeof(VerbsAddress) == 64);

// The immediate of a message: what it is (high half), and how many of the far side's slots are free again (low half).
enum class VerbsMessage : uint16_t { kHello = 1, kParcel = 2, kCredits = 3, kPing = 4, kPong = 5 };

class VerbsCarrier : public Carrier {
 public:
  VerbsCarrier() = default;
  ~VerbsCarrier() override;
  // Worker: *data becomes its address in hex. The client's is read from the lifeline.
  Outcome listen(Region region, int lifeline, std::string* data);
  Outcome connect(Region region, int lifeline, const std::string& data);

  const char* name() const override { return "verbs"; }
  bool progress(Replica* replica) override;
  bool lends() const override { return true; }
  bool asks_for_memory() const override { return true; }
  void know_memory(const std::byte* base, uint64_t bytes, bool written) override;
  void forget_memory(const std::byte* base) override;
  RemotePlace place_for(const std::byte* to, uint64_t bytes) const override;
  bool writes_to(uint32_t connection) const override { return connection != 0 && connection == far_.connection; }
  bool may_send() override { return greeted_ && failure_ == nullptr && credits_ > 0 && has_room(); }
  void send(const Parcel& parcel) override;
  bool idle() override;
  uint64_t applied() const override { return applied_; }
  bool arm() override;
  int fd() const override { return epoll_; }
  bool reads_lifeline() const override { return own_ == Side::kWorker && heard_bytes_ < sizeof heard_; }
  const char* failure() const override { return failure_; }
  void release() override;
  bool may_ping() override { return greeted_ && failure_ == nullptr && has_room(); }
  void ping() override { say(VerbsMessage::kPing); }
  uint64_t pongs() const override { return pongs_; }

 private:
  class Work;
  // Memory of which pieces are sent from where they lie; few, so they are looked through.
  struct Known {
    const std::byte* base = nullptr;
    uint64_t bytes = 0;
    const ibv_mr* memory = nullptr;
    bool written = false;
  };
  static constexpr int kCompletionsAtOnce = 16;

  Outcome open(Region region, Side own, int lifeline);
  Outcome open_memory();
  Outcome open_events();
  VerbsAddress address() const;
  Outcome join(const VerbsAddress& far);
  bool hear_client();
  bool poll();
  void look_at_descriptors();
  bool handle(const ibv_wc& completion, Replica* replica);
  bool hear(uint32_t immediate, uint32_t bytes, Replica* replica);
  void deliver(uint32_t bytes, Replica* replica);
  void drop_left();
  const Known* find_known(const std::byte* at, uint64_t bytes) const;
  const std::byte* sendable(const Parcel& parcel, uint32_t* key);
  bool has_room() const;
  void post(Work* work, bool must_signal);
  void post_message(Work* work, VerbsMessage kind, bool must_signal);
  void say(VerbsMessage kind);
  void fail(const char* why);

  std::unique_ptr<QueuePair> pair_;
  Side own_ = Side::kClient;
  int lifeline_ = -1, epoll_ = -1;
  std::byte* pool_ = nullptr;  // the mailbox, then the slots of what does not fit inline
  std::byte* in_ring_ = nullptr;
  std::byte* out_ring_ = nullptr;
  const ibv_mr *in_memory_ = nullptr, *out_memory_ = nullptr, *mailbox_memory_ = nullptr, *slots_memory_ = nullptr;
  std::vector<Known> known_;
  uint32_t connection_ = 0;  // VerbsAddress
  struct Left {
    const ibv_mr* memory = nullptr;
    uint32_t posted = 0;  // requests, when it was forgotten
  };
  std::vector<Left> left_;
  VerbsAddress far_;
  VerbsAddress heard_;  // the client's, as far as it has come
  size_t heard_bytes_ = 0;
  bool greeted_ = false;  // the far side is ready to receive
  bool landed_ = false;   // a parcel's bytes came to where they belong
  const char* failure_ = nullptr;

  uint32_t credits_ = kVerbsSlots;  // slots of the far side that are free
  uint32_t owed_ = 0;               // slots of ours that are free again, and the far side does not know
  uint64_t sent_ = 0;               // parcels
  uint64_t applied_ = 0, pongs_ = 0;
  // What was posted in all, to the last piece of work that asked for a completion, and to the last completion. They
  // wrap.
  struct Progress {
    uint32_t requests = 0, bytes = 0;
    uint64_t id() const { return uint64_t(requests) << 32 | bytes; }
    static Progress of(uint64_t id) { return {uint32_t(id >> 32), uint32_t(id)}; }
  };
  Progress posted_, signalled_, completed_;
  ibv_wc completions_[kCompletionsAtOnce];
  int completion_ = 0, completion_count_ = 0;
  alignas(16) std::byte message_[kVerbsSlotBytes];
};

}  // namespace tide
