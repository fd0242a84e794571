#include "transport/ucx/carrier.h"

#include <sys/random.h>

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "base/clock.h"
#include "base/hex.h"
#include "base/log.h"
#include "base/secrets.h"
#include "base/versions.h"

namespace tide {
namespace {

constexpr size_t kSlots = 64;                    // messages under way
constexpr size_t kStrangersMax = 64;             // then who has said nothing for the longest time goes
constexpr size_t kStrangersAtOnceMax = 128;      // within one turn
constexpr uint64_t kStrangerNs = 3'000'000'000;  // to say hello
constexpr uint64_t kToldNs = 500'000'000;        // to hear a refusal
constexpr size_t kHeldMax = 256;
constexpr uint32_t kPongsDueMax = 4;  // nobody asks again before the answer
constexpr uint32_t kCloseFlushMs = 1000;

ucp_request_param_t reply_params() {
  ucp_request_param_t params{};
  params.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS;
  params.flags = UCP_AM_SEND_FLAG_REPLY | UCP_AM_SEND_FLAG_EAGER;
  return params;
}

// For the client, of a greeting that came to nothing.
std::string what_is_wrong(UcxRefused why, uint32_t version) {
  if (why == UcxRefused::kVersion) {
    return versions_differ({"the worker", version}, {"this program", kUcxVersion}, "protocol over UCX");
  }
  if (why == UcxRefused::kCookie) return "the worker expects another client: its address is of an earlier connection";
  return "what answers there is no worker of Tidepool's";
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
  if (outcome.ok()) outcome = worker_->handle(kUcxRefusalId, on_refusal, this);
  return outcome.ok() ? worker_->handle(kUcxHelloId, on_hello, this) : outcome;
}

Outcome UcxCarrier::listen(std::string* data, std::unique_ptr<Carrier>* carrier) {
  auto made = std::make_unique<UcxCarrier>();
  if (getrandom(made->cookie_, kUcxCookieBytes, 0) != ssize_t(kUcxCookieBytes)) {
    return Outcome::fail("cannot get random bytes");
  }
  made->listens_ = true;
  Outcome outcome = made->open();
  std::string address = *data;
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
  for (const Stranger& stranger : strangers_) worker_->close(stranger.endpoint, 0);
  if (endpoint_ != nullptr) worker_->close(endpoint_, broken ? 0 : kCloseFlushMs);
}

void UcxCarrier::fail(const char* why) {
  if (failure_ == nullptr) failure_ = why;
}

void UcxCarrier::fail_with(const std::string& why) {
  if (failure_ != nullptr) return;
  failure_text_ = why;
  failure_ = failure_text_.c_str();
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
  if (!strangers_.empty()) look_after_strangers();
  return moved;
}

// Once the right client has come, nobody else may. Until then there is room for who comes: who has said nothing for
// long goes, and who said something else is told so. Endpoints are not closed where UCX calls us.
void UcxCarrier::look_after_strangers() {
  if (endpoint_ != nullptr) worker_->stop_listening();
  const uint64_t now = now_ns();
  std::vector<ucp_ep_h> leaving;
  for (auto each = strangers_.begin(); each != strangers_.end();) {
    if (each->refused != UcxRefused::kNothing && !each->told && !each->gone) tell_refusal(&*each);
    const bool is_far_side = each->endpoint == endpoint_;
    const bool in_the_way = endpoint_ != nullptr || strangers_.size() > kStrangersMax;
    if (!is_far_side && !in_the_way && !each->gone && now < each->until_ns) {
      ++each;
      continue;
    }
    if (!is_far_side) leaving.push_back(each->endpoint);
    each = strangers_.erase(each);
  }
  for (ucp_ep_h endpoint : leaving) worker_->close(endpoint, 0);
}

void UcxCarrier::tell_refusal(Stranger* stranger) {
  stranger->told = true;
  stranger->until_ns = now_ns() + kToldNs;
  stranger->words.why = uint32_t(stranger->refused);
  const ucp_request_param_t params = reply_params();
  ucs_status_ptr_t request =
      ucp_am_send_nbx(stranger->endpoint, kUcxRefusalId, &stranger->words, sizeof stranger->words, nullptr, 0, &params);
  if (UCS_PTR_IS_PTR(request)) ucp_request_free(request);
}

UcxCarrier::Stranger* UcxCarrier::find_stranger(ucp_ep_h endpoint) {
  for (Stranger& each : strangers_) {
    if (each.endpoint == endpoint) return &each;
  }
  return nullptr;
}

void UcxCarrier::refuse(ucp_ep_h endpoint, UcxRefused why) {
  Stranger* stranger = find_stranger(endpoint);
  if (stranger != nullptr && stranger->refused == UcxRefused::kNothing) stranger->refused = why;
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
  if (Stranger* stranger = carrier->find_stranger(endpoint)) stranger->gone = true;
}

void UcxCarrier::on_connection(ucp_conn_request_h request, void* self) {
  auto* carrier = static_cast<UcxCarrier*>(self);
  if (carrier->endpoint_ != nullptr || carrier->strangers_.size() >= kStrangersAtOnceMax) {
    carrier->worker_->reject(request);
    return;
  }
  ucp_ep_h endpoint = nullptr;
  const Outcome outcome = carrier->worker_->accept(request, on_failure, self, &endpoint);
  if (!outcome.ok()) return;
  carrier->strangers_.emplace_back();
  carrier->strangers_.back().endpoint = endpoint;
  carrier->strangers_.back().until_ns = now_ns() + kStrangerNs;
}

ucs_status_t UcxCarrier::on_hello(void* self, const void* header, size_t header_bytes, void*, size_t,
                                  const ucp_am_recv_param_t* param) {
  auto* carrier = static_cast<UcxCarrier*>(self);
  const ucp_ep_h sender = sender_of(param);
  const bool expected = carrier->listens_ ? carrier->endpoint_ == nullptr : sender == carrier->endpoint_;
  if (!expected || sender == nullptr) return UCS_OK;
  UcxHello hello;
  memcpy(&hello, header, std::min(header_bytes, sizeof hello));
  const UcxRefused wrong = carrier->why_not(hello, header_bytes);
  if (wrong == UcxRefused::kNothing) {
    carrier->endpoint_ = sender;
    (carrier->listens_ ? carrier->answer_due_ : carrier->greeted_) = true;
  } else if (carrier->listens_) {
    carrier->refuse(sender, wrong);
  } else {
    carrier->fail_with(what_is_wrong(wrong, hello.version));
  }
  return UCS_OK;
}

// Another version may have another hello behind its number.
UcxRefused UcxCarrier::why_not(const UcxHello& hello, size_t bytes) const {
  if (bytes < offsetof(UcxHello, cookie) || hello.magic != kUcxMagic) return UcxRefused::kMalformed;
  if (hello.version != kUcxVersion) return UcxRefused::kVersion;
  if (bytes != sizeof hello) return UcxRefused::kMalformed;
  return same_secret(hello.cookie, cookie_, kUcxCookieBytes) ? UcxRefused::kNothing : UcxRefused::kCookie;
}

ucs_status_t UcxCarrier::on_refusal(void* self, const void* header, size_t header_bytes, void*, size_t,
                                    const ucp_am_recv_param_t* param) {
  auto* carrier = static_cast<UcxCarrier*>(self);
  if (carrier->listens_ || carrier->greeted_ || sender_of(param) != carrier->endpoint_) return UCS_OK;
  UcxRefusal refusal;
  const bool whole = header_bytes >= sizeof refusal;
  if (whole) memcpy(&refusal, header, sizeof refusal);
  const bool sound = whole && refusal.magic == kUcxMagic;
  carrier->fail_with(what_is_wrong(sound ? UcxRefused(refusal.why) : UcxRefused::kMalformed, refusal.version));
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
  if (carrier->endpoint_ == nullptr || sender_of(param) != carrier->endpoint_) {
    carrier->refuse(sender_of(param), UcxRefused::kMalformed);  // of somebody who has not said hello
    return UCS_OK;
  }
  if (carrier->replica_ == nullptr || carrier->failure_ != nullptr) return UCS_OK;
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
