#pragma once

// Parcels as UCX active messages. docs/wire.md says every byte.

#include <list>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "transport/carrier.h"
#include "transport/ucx/worker.h"

namespace tide {

inline constexpr uint32_t kUcxCookieBytes = 16;
// Of one parcel. With its head it is one fragment of UCX's TCP (64 KiB), which is handed over where it was received;
// what is larger is put together in memory that is taken for it, a copy more on the receiver's side.
inline constexpr uint32_t kUcxRingBytes = 60u << 10;

// The first message of a client shows that it is the one to which kOpened was sent; the worker answers with the same,
// or with a refusal. No parcel is sent before the answer. Magic and version are where they are in every version.
inline constexpr uint32_t kUcxMagic = 0x6f6c6568;  // "helo"
inline constexpr uint32_t kUcxVersion = 2;
struct UcxHello {
  uint32_t magic = kUcxMagic;
  uint32_t version = kUcxVersion;
  uint8_t cookie[kUcxCookieBytes] = {};
};
static_assert(sizeof(UcxHello) == 24);

enum class UcxRefused : uint32_t { kNothing = 0, kVersion = 1, kCookie = 2, kMalformed = 3 };
struct UcxRefusal {
  uint32_t magic = kUcxMagic;
  uint32_t version = kUcxVersion;
  uint32_t why = 0;
  uint32_t reserved = 0;
};
static_assert(sizeof(UcxRefusal) == 16);

inline constexpr unsigned kUcxHelloId = 1;
inline constexpr unsigned kUcxParcelId = 2;
inline constexpr unsigned kUcxPingId = 3;
inline constexpr unsigned kUcxPongId = 4;
inline constexpr unsigned kUcxRefusalId = 5;

class UcxCarrier : public Carrier {
 public:
  // Worker: *data is where to listen, as for UcxWorker::listen(), and becomes "ADDRESS:PORT/COOKIE" for the client.
  static Outcome listen(std::string* data, std::unique_ptr<Carrier>* carrier);
  static Outcome connect(const std::string& data, std::unique_ptr<Carrier>* carrier);
  ~UcxCarrier() override;

  const char* name() const override { return "ucx"; }
  bool progress(Replica* replica) override;
  uint32_t ring_bytes_most() const override { return kUcxRingBytes; }
  bool lends() const override { return true; }
  bool lands() const override { return true; }
  bool may_send() override { return greeted_ && failure_ == nullptr && !free_.empty(); }
  void send(const Parcel& parcel) override;
  bool idle() override { return free_.size() == slots_.size(); }
  uint64_t applied() const override { return applied_; }
  bool arm() override { return worker_->arm(); }
  int fd() const override { return worker_->fd(); }
  const char* failure() const override { return failure_; }
  bool may_ping() override { return greeted_ && failure_ == nullptr; }
  void ping() override { sign(kUcxPingId); }
  uint64_t pongs() const override { return pongs_; }
  void give_up() override { fail("given up"); }
  // What UCX has not sent yet it will not send: the end of an endpoint that failed is forced.
  void release() override { fail("it was given back"); }

 private:
  // A message under way: UCX may read the head until it is done.
  struct Slot {
    UcxCarrier* owner = nullptr;
    std::byte head[sizeof(ParcelHeader) + kParcelEntriesMax * sizeof(ParcelEntry)];
  };
  struct Held {
    ParcelHeader header;
    std::vector<ParcelEntry> entries;
    std::vector<std::byte> ring;
  };
  // Connected, but has not said hello.
  struct Stranger {
    ucp_ep_h endpoint = nullptr;
    uint64_t until_ns = 0;  // then it is cut off
    UcxRefused refused = UcxRefused::kNothing;
    bool told = false, gone = false;
    UcxRefusal words;
  };

  Outcome open();
  Outcome say_hello();
  void sign(unsigned id);
  void deliver(const ParcelHeader& header, const ParcelEntry* entries, const std::byte* ring);
  void deliver_held();
  void look_after_strangers();
  void tell_refusal(Stranger* stranger);
  Stranger* find_stranger(ucp_ep_h endpoint);
  void refuse(ucp_ep_h endpoint, UcxRefused why);
  UcxRefused why_not(const UcxHello& hello, size_t bytes) const;
  void fail(const char* why);
  void fail_with(const std::string& why);

  static ucs_status_t on_hello(void* self, const void* header, size_t header_bytes, void* data, size_t bytes,
                               const ucp_am_recv_param_t* param);
  static ucs_status_t on_parcel(void* self, const void* header, size_t header_bytes, void* data, size_t bytes,
                                const ucp_am_recv_param_t* param);
  static ucs_status_t on_ping(void* self, const void*, size_t, void*, size_t, const ucp_am_recv_param_t* param);
  static ucs_status_t on_pong(void* self, const void*, size_t, void*, size_t, const ucp_am_recv_param_t* param);
  static ucs_status_t on_refusal(void* self, const void* header, size_t header_bytes, void* data, size_t bytes,
                                 const ucp_am_recv_param_t* param);
  static void on_failure(void* self, ucp_ep_h endpoint, ucs_status_t status);
  static void on_connection(ucp_conn_request_h request, void* self);
  static void on_sent(void* request, ucs_status_t status, void* slot);

  std::unique_ptr<UcxWorker> worker_;
  ucp_ep_h endpoint_ = nullptr;    // of the far side; the worker's only after its hello
  std::list<Stranger> strangers_;  // who has waited longest first
  bool listens_ = false;           // the worker's side
  bool greeted_ = false;           // hellos have been exchanged
  bool answer_due_ = false;        // the worker's hello is to be sent
  uint32_t pongs_due_ = 0;
  uint64_t pongs_ = 0;
  uint8_t cookie_[kUcxCookieBytes] = {};
  UcxHello hello_;
  std::vector<std::unique_ptr<Slot>> slots_;
  std::vector<Slot*> free_;
  Replica* replica_ = nullptr;     // during progress()
  std::map<uint64_t, Held> held_;  // parcels that overtook others
  uint64_t next_serial_ = 0, applied_ = 0;
  const char* failure_ = nullptr;
  std::string failure_text_;  // where it is not a literal
};

}  // namespace tide
