#include "transport/ucx/carrier.h"

#include <sys/random.h>

#include <algorithm>
#include <cstring>

#include "base/hex.h"
#include "base/log.h"
#include "base/secrets.h"

namespace tide {
namespace {

constexpr size_t kSlots = 64;  // messages under way; at 256 KiB each, the whole ring
constexpr size_t kStrangersMax = 4;
constexpr size_t kHeldMax = 256;
constexpr uint32_t kPongsDueMax = 4;  // nobody asks again before the answer
constexpr uint32_t kCloseFlushMs = 1000;

ucp_request_param_t reply_params() {
  ucp_request_param_t params{};
  params.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS;
  params.flags = UCP_AM_SEND_FLAG_REPLY | UCP_AM_SEND_FLAG_EAGER;
  return params;
}

}  // namespace

Outcome UcxCarrier::open() {
  Outcome outcome = UcxWorker::create(&worker_);
  if (!outcome.ok()) return outcome;
  if (worker_->header_bytes_max() < sizeof(Slot::head)) {
    return Outcome::fail(format("UCX: this transport takes headers of %zu bytes only; %zu are needed",
                                worker_->header_bytes_max(), sizeof(Slot::head)));
  }
  for (size_t i = 0; i < kSlots; ++i) {
    slots_.push_back(std::make_unique<Slot>());
    slots_.back()->owner = this;
    free_.push_back(slots_.back().get());
  }
  outcome = worker_->handle(kUcxParcelId, on_parcel, this);
  if (outcome.ok()) outcome = worker_->handle(kUcxPingId, on_ping, this);
  if (outcome.ok()) outcome = worker_->handle(kUcxPongId, on_pong, this);
  return outcome.ok() ? worker_->handle(kUcxHelloId, on_hello, this) : outcome;
}

Outcome UcxCarrier::listen(std::string* data, std::unique_ptr<Carrier>* carrier) {
  auto made = std::make_unique<UcxCarrier>();
  if (getrandom(made->cookie_, kUcxCookieBytes, 0) != ssize_t(kUcxCookieBytes)) {
    return Outcome::fail("cannot get random bytes");
  }
  made->listens_ = true;
  Outcome outcome = made->open();
  std::string address;
  if (outcome.ok()) outcome = made->worker_->listen(&address, on_connection, made.get());
  if (!outcome.ok()) return outcome;
  *data = address + "/" + hex(made->cookie_, kUcxCookieBytes);
  *carrier = std::move(made);
  return {};
}

Outcome UcxCarrier::connect(const std::string& data, std::unique_ptr<Carrier>* carrier) {
  auto made = std::make_unique<UcxCarrier>();
  const size_t slash = data.find('/');
  if (slash == std::string::npos || !parse_hex(data.substr(slash + 1), made->cookie_, kUcxCookieBytes)) {
    return Outcome::fail("the worker's UCX address is malformed");
  }
  Outcome outcome = made->open();
  if (outcome.ok()) outcome = made->worker_->connect(data.substr(0, slash), on_failure, made.get(), &made->endpoint_);
  if (outcome.ok()) outcome = made->say_hello();
  if (!outcome.ok()) return outcome;
  *carrier = std::move(made);
  return {};
}

Outcome UcxCarrier::say_hello() {
  memcpy(hello_.cookie, cookie_, kUcxCookieBytes);
  const ucp_request_param_t params = reply_params();
  ucs_status_ptr_t request = ucp_am_send_nbx(endpoint_, kUcxHelloId, &hello_, sizeof hello_, nullptr, 0, &params);
  if (UCS_PTR_IS_ERR(request)) return Outcome::fail("UCX: cannot send the first message");
  if (request != nullptr) ucp_request_free(request);
  return {};
}

void UcxCarrier::sign(unsigned id) {
  const ucp_request_param_t params = reply_params();
  ucs_status_ptr_t request = ucp_am_send_nbx(endpoint_, id, &hello_.magic, sizeof hello_.magic, nullptr, 0, &params);
  if (UCS_PTR_IS_ERR(request)) return fail("cannot send");
  if (request != nullptr) ucp_request_free(request);
}

UcxCarrier::~UcxCarrier() {
  if (worker_ == nullptr) return;
  worker_->stop_listening();
  // Callbacks that come during the closing find nothing to do.
  replica_ = nullptr;
  const bool broken = failure_ != nullptr || !greeted_;
  fail("closed");
  for (ucp_ep_h stranger : strangers_) worker_->close(stranger, 0);
  if (endpoint_ != nullptr) worker_->close(endpoint_, broken ? 0 : kCloseFlushMs);
}

void UcxCarrier::fail(const char* why) {
  if (failure_ == nullptr) failure_ = why;
}

bool UcxCarrier::progress(Replica* replica) {
  replica_ = replica;
  const bool moved = worker_->progress();
  replica_ = nullptr;
  if (answer_due_) {
    answer_due_ = false;
    greeted_ = say_hello().ok();
    if (!greeted_) fail("cannot answer the client");
  }
  for (; pongs_due_ > 0 && may_ping(); --pongs_due_) sign(kUcxPongId);
  close_strangers();
  return moved;
}

// Once the right client has come, nobody else may.
void UcxCarrier::close_strangers() {
  if (endpoint_ == nullptr || strangers_.empty()) return;
  worker_->stop_listening();
  std::vector<ucp_ep_h> strangers;
  strangers.swap(strangers_);
  for (ucp_ep_h stranger : strangers) {
    if (stranger != endpoint_) worker_->close(stranger, 0);
  }
}

void UcxCarrier::send(const Parcel& parcel) {
  Slot* slot = free_.back();
  free_.pop_back();
  memcpy(slot->head, &parcel.header, parcel.head_bytes());
  ucp_request_param_t params = reply_params();
  params.op_attr_mask |= UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA;
  params.cb.send = on_sent;
  params.user_data = slot;
  ucs_status_ptr_t request = ucp_am_send_nbx(endpoint_, kUcxParcelId, slot->head, parcel.head_bytes(), parcel.ring,
                                             parcel.header.ring_bytes, &params);
  if (UCS_PTR_IS_PTR(request)) return;
  free_.push_back(slot);
  if (UCS_PTR_IS_ERR(request)) fail("cannot send");
}

void UcxCarrier::on_sent(void* request, ucs_status_t status, void* data) {
  auto* slot = static_cast<Slot*>(data);
  slot->owner->free_.push_back(slot);
  if (status != UCS_OK) slot->owner->fail("a message was not delivered");
  ucp_request_free(request);
}

void UcxCarrier::on_failure(void* self, ucp_ep_h endpoint, ucs_status_t status) {
  auto* carrier = static_cast<UcxCarrier*>(self);
  log(LogLevel::kDebug, "ucx: an endpoint failed: %s", ucs_status_string(status));
  if (endpoint == carrier->endpoint_) carrier->fail(ucs_status_string(status));
}

void UcxCarrier::on_connection(ucp_conn_request_h request, void* self) {
  auto* carrier = static_cast<UcxCarrier*>(self);
  if (carrier->endpoint_ != nullptr || carrier->strangers_.size() >= kStrangersMax) {
    carrier->worker_->reject(request);
    return;
  }
  ucp_ep_h endpoint = nullptr;
  const Outcome outcome = carrier->worker_->accept(request, on_failure, self, &endpoint);
  if (outcome.ok()) carrier->strangers_.push_back(endpoint);
}

ucs_status_t UcxCarrier::on_hello(void* self, const void* header, size_t header_bytes, void*, size_t,
                                  const ucp_am_recv_param_t* param) {
  auto* carrier = static_cast<UcxCarrier*>(self);
  UcxHello hello;
  const UcxHello ours;
  const bool expected = carrier->listens_ ? carrier->endpoint_ == nullptr : sender_of(param) == carrier->endpoint_;
  if (header_bytes != sizeof hello || !expected) return UCS_OK;
  memcpy(&hello, header, sizeof hello);
  const bool same = same_secret(hello.cookie, carrier->cookie_, kUcxCookieBytes);
  if (hello.magic != ours.magic || hello.version != ours.version || !same) return UCS_OK;
  carrier->endpoint_ = sender_of(param);
  (carrier->listens_ ? carrier->answer_due_ : carrier->greeted_) = true;
  return UCS_OK;
}

ucs_status_t UcxCarrier::on_ping(void* self, const void*, size_t, void*, size_t, const ucp_am_recv_param_t* param) {
  auto* carrier = static_cast<UcxCarrier*>(self);
  const bool known = carrier->endpoint_ != nullptr && sender_of(param) == carrier->endpoint_;
  if (known && carrier->pongs_due_ < kPongsDueMax) ++carrier->pongs_due_;
  return UCS_OK;
}

ucs_status_t UcxCarrier::on_pong(void* self, const void*, size_t, void*, size_t, const ucp_am_recv_param_t* param) {
  auto* carrier = static_cast<UcxCarrier*>(self);
  if (carrier->endpoint_ != nullptr && sender_of(param) == carrier->endpoint_) ++carrier->pongs_;
  return UCS_OK;
}

ucs_status_t UcxCarrier::on_parcel(void* self, const void* header, size_t header_bytes, void* data, size_t bytes,
                                   const ucp_am_recv_param_t* param) {
  auto* carrier = static_cast<UcxCarrier*>(self);
  if (carrier->replica_ == nullptr || carrier->failure_ != nullptr) return UCS_OK;
  // Of somebody who has not said hello, or after the end: not worth an answer.
  if (carrier->endpoint_ == nullptr || sender_of(param) != carrier->endpoint_) return UCS_OK;
  ParcelHeader parcel;
  ParcelEntry entries[kParcelEntriesMax];
  if (header_bytes < sizeof parcel || header_bytes > sizeof parcel + sizeof entries ||
      (param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) != 0) {
    carrier->fail("a malformed message");
    return UCS_OK;
  }
  memcpy(&parcel, header, sizeof parcel);
  memcpy(entries, static_cast<const std::byte*>(header) + sizeof parcel, header_bytes - sizeof parcel);
  if (header_bytes != sizeof parcel + parcel.entry_count * sizeof(ParcelEntry) || bytes != parcel.ring_bytes ||
      bytes > kParcelRingBytesMax) {
    carrier->fail("a malformed message");
    return UCS_OK;
  }
  carrier->deliver(parcel, entries, static_cast<const std::byte*>(data));
  return UCS_OK;
}

// With several lanes a small message may overtake a large one; the order is ours to keep.
void UcxCarrier::deliver(const ParcelHeader& header, const ParcelEntry* entries, const std::byte* ring) {
  if (header.serial != next_serial_) {
    if (header.serial < next_serial_ || held_.size() >= kHeldMax) return fail("parcels out of order");
    Held& held = held_[header.serial];
    held.header = header;
    held.entries.assign(entries, entries + header.entry_count);
    held.ring.assign(ring, ring + header.ring_bytes);
    return;
  }
  const char* refused = replica_->apply(header, entries, ring);
  if (refused != nullptr) return fail(refused);
  ++next_serial_;
  ++applied_;
  if (!held_.empty()) deliver_held();
}

void UcxCarrier::deliver_held() {
  while (failure_ == nullptr && !held_.empty() && held_.begin()->first == next_serial_) {
    const auto node = held_.extract(held_.begin());
    const Held& held = node.mapped();
    deliver(held.header, held.entries.data(), held.ring.data());
  }
}

}  // namespace tide
