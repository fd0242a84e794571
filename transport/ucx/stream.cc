#include "transport/ucx/stream.h"

#include <poll.h>
#include <sched.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <mutex>
#include <vector>

#include "base/clock.h"
#include "transport/ucx/worker.h"

namespace tide {
namespace {

constexpr unsigned kPieceId = 1;  // header: StreamHeader; data: bytes
constexpr unsigned kTakenId = 2;  // header: StreamHeader with the number of bytes taken so far
constexpr unsigned kFlushId = 3;  // header: StreamHeader; asks for kTaken as soon as all is taken
constexpr unsigned kEndId = 4;    // header: StreamHeader with the number of bytes sent in all

constexpr uint64_t kPieceBytes = 256u << 10;
constexpr uint64_t kWindowBytes = 8u << 20;  // sent and not yet taken
constexpr uint64_t kTakenEvery = 1u << 20;
constexpr size_t kPiecesUnderWay = 8;
constexpr uint64_t kSpinNs = 100'000;
constexpr int kSleepMs = 5;  // another thread may have taken the event that a sleeper waits for
constexpr size_t kBacklog = 16;
constexpr uint64_t kLingerNs = 500'000'000;
constexpr uint32_t kLingerSleepUs = 100;

struct StreamHeader {
  uint64_t position = 0;  // of the first byte; of kTaken and kEnd see above
};

class UcxStream : public ByteStream {
 public:
  ~UcxStream() override {
    close();
    worker_.reset();
  }
  Outcome open();
  Outcome connect(const std::string& address, uint32_t timeout_ms, bool* refused);
  Outcome accept(ucp_conn_request_h request);

  Outcome send(const void* data, size_t bytes, uint32_t timeout_ms) override;
  Outcome receive(void* data, size_t bytes, uint32_t timeout_ms) override;
  Outcome flush(uint32_t timeout_ms) override;
  void cancel() override;
  void close() override;

 private:
  struct Sending {
    UcxStream* owner = nullptr;
    StreamHeader header;
    bool counted = false;  // among under_way_
  };

  // Drives the worker until done() under the lock; fails when nothing moved for `timeout_ms`.
  template <class Done>
  Outcome wait(Done done, uint32_t timeout_ms, const char* what);
  void post(unsigned id, uint64_t position, const void* data, size_t bytes, bool counted);
  void linger();
  void tell_taken(bool now);
  void take_queued();
  void fail(const std::string& why);
  void lose(ucs_status_t why);

  static ucs_status_t on_piece(void* self, const void* header, size_t header_bytes, void* data, size_t bytes,
                               const ucp_am_recv_param_t* param);
  template <unsigned id>
  static ucs_status_t on_word(void* self, const void* header, size_t header_bytes, void* data, size_t bytes,
                              const ucp_am_recv_param_t* param);
  static void on_sent(void* request, ucs_status_t status, void* sending);
  static void on_failure(void* self, ucp_ep_h endpoint, ucs_status_t status);

  std::mutex mu_;  // guards all below, and the worker
  std::unique_ptr<UcxWorker> worker_;
  ucp_ep_h endpoint_ = nullptr;
  std::string failure_;
  bool refused_ = false;  // or not reached
  bool closed_ = false;
  bool moved_ = false;  // something happened since a waiter looked
  size_t under_way_ = 0;
  uint64_t sent_ = 0, acknowledged_ = 0;
  uint64_t arrived_ = 0, taken_ = 0, told_ = 0;
  uint64_t flush_answers_ = 0, flush_answers_wanted_ = 0;
  uint64_t end_ = ~uint64_t{0};  // all that will ever arrive
  bool flush_asked_ = false;
  std::byte* target_ = nullptr;  // of the receive() under way
  size_t wanted_ = 0;
  std::deque<std::vector<std::byte>> queue_;  // arrived, but nobody wanted it yet
  size_t front_done_ = 0;
};

void UcxStream::fail(const std::string& why) {
  if (failure_.empty()) failure_ = why;
}

void UcxStream::lose(ucs_status_t why) {
  refused_ |= why == UCS_ERR_REJECTED || why == UCS_ERR_NOT_CONNECTED;
  fail(std::string("the far side is gone: ") + ucs_status_string(why));
}

Outcome UcxStream::open() {
  Outcome outcome = UcxWorker::create_for_stream(&worker_);
  if (outcome.ok()) outcome = worker_->handle(kPieceId, on_piece, this);
  if (outcome.ok()) outcome = worker_->handle(kTakenId, on_word<kTakenId>, this);
  if (outcome.ok()) outcome = worker_->handle(kFlushId, on_word<kFlushId>, this);
  if (outcome.ok()) outcome = worker_->handle(kEndId, on_word<kEndId>, this);
  return outcome;
}

Outcome UcxStream::connect(const std::string& address, uint32_t timeout_ms, bool* refused) {
  Outcome outcome = open();
  if (outcome.ok()) outcome = worker_->connect(address, on_failure, this, &endpoint_);
  // The far side answers at once, whoever uses it: it has taken nothing so far.
  if (outcome.ok()) outcome = flush(timeout_ms);
  if (outcome.ok()) return outcome;
  *refused = refused_;
  return Outcome::fail("cannot open a stream to " + address + ": " + outcome.message());
}

Outcome UcxStream::accept(ucp_conn_request_h request) {
  const Outcome outcome = open();
  return outcome.ok() ? worker_->accept(request, on_failure, this, &endpoint_) : outcome;
}

template <class Done>
Outcome UcxStream::wait(Done done, uint32_t timeout_ms, const char* what) {
  uint64_t moved_ns = now_ns();
  while (true) {
    bool sleep = false;
    {
      const std::lock_guard lock(mu_);
      if (worker_->progress()) moved_ = true;
      if (done()) return {};
      if (!failure_.empty()) return Outcome::fail(failure_);
      const uint64_t now = now_ns();
      if (moved_) moved_ns = now;
      moved_ = false;
      if (now - moved_ns > uint64_t(timeout_ms) * 1'000'000) break;
      sleep = now - moved_ns > kSpinNs && worker_->arm();
    }
    if (!sleep) {
      sched_yield();
      continue;
    }
    pollfd poll_fd{.fd = worker_->fd(), .events = POLLIN, .revents = 0};
    poll(&poll_fd, 1, kSleepMs);
  }
  const std::lock_guard lock(mu_);
  fail(what);
  return Outcome::fail(failure_);
}

void UcxStream::post(unsigned id, uint64_t position, const void* data, size_t bytes, bool counted) {
  auto* sending = new Sending{this, {position}, counted};
  ucp_request_param_t params{};
  params.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS | UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA;
  params.flags = UCP_AM_SEND_FLAG_REPLY | UCP_AM_SEND_FLAG_EAGER;
  params.cb.send = on_sent;
  params.user_data = sending;
  if (counted) ++under_way_;
  ucs_status_ptr_t request =
      ucp_am_send_nbx(endpoint_, id, &sending->header, sizeof sending->header, data, bytes, &params);
  if (UCS_PTR_IS_PTR(request)) return;
  if (counted) --under_way_;
  delete sending;
  if (UCS_PTR_IS_ERR(request)) lose(UCS_PTR_STATUS(request));
}

void UcxStream::on_sent(void* request, ucs_status_t status, void* data) {
  auto* sending = static_cast<Sending*>(data);
  UcxStream& stream = *sending->owner;
  if (sending->counted) --stream.under_way_;
  if (status != UCS_OK) stream.lose(status);
  stream.moved_ = true;
  delete sending;
  ucp_request_free(request);
}

void UcxStream::on_failure(void* self, ucp_ep_h, ucs_status_t status) { static_cast<UcxStream*>(self)->lose(status); }

Outcome UcxStream::send(const void* data, size_t bytes, uint32_t timeout_ms) {
  const auto* at = static_cast<const std::byte*>(data);
  size_t left = bytes;
  const auto post_some = [&] {
    if (endpoint_ == nullptr || closed_) fail("the stream is closed");
    while (failure_.empty() && left > 0 && under_way_ < kPiecesUnderWay && sent_ - acknowledged_ < kWindowBytes) {
      const size_t n = std::min<uint64_t>(left, kPieceBytes);
      post(kPieceId, sent_, at, n, true);
      sent_ += n;
      at += n;
      left -= n;
    }
    return failure_.empty() && left == 0 && under_way_ == 0;
  };
  return wait(post_some, timeout_ms, "the far side does not take what is sent");
}

void UcxStream::take_queued() {
  while (wanted_ > 0 && !queue_.empty()) {
    const std::vector<std::byte>& front = queue_.front();
    const size_t n = std::min(wanted_, front.size() - front_done_);
    memcpy(target_, front.data() + front_done_, n);
    target_ += n;
    wanted_ -= n;
    taken_ += n;
    front_done_ += n;
    if (front_done_ < front.size()) break;
    queue_.pop_front();
    front_done_ = 0;
  }
}

void UcxStream::tell_taken(bool now) {
  if (endpoint_ == nullptr || !failure_.empty()) return;
  const bool asked = flush_asked_ && taken_ == arrived_;
  if (!asked && !now && taken_ - told_ < kTakenEvery) return;
  flush_asked_ = flush_asked_ && !asked;
  told_ = taken_;
  post(kTakenId, taken_, nullptr, 0, false);
}

Outcome UcxStream::receive(void* data, size_t bytes, uint32_t timeout_ms) {
  {
    const std::lock_guard lock(mu_);
    target_ = static_cast<std::byte*>(data);
    wanted_ = bytes;
  }
  const auto filled = [&] {
    take_queued();
    tell_taken(false);
    if (wanted_ > 0 && taken_ == end_) fail("the far side closed the stream");
    return wanted_ == 0;
  };
  const Outcome outcome = wait(filled, timeout_ms, "the far side sends nothing");
  const std::lock_guard lock(mu_);
  target_ = nullptr;
  wanted_ = 0;
  return outcome;
}

Outcome UcxStream::flush(uint32_t timeout_ms) {
  {
    const std::lock_guard lock(mu_);
    if (endpoint_ == nullptr || closed_) return Outcome::fail("the stream is closed");
    post(kFlushId, sent_, nullptr, 0, false);
    flush_answers_wanted_ = flush_answers_ + 1;
  }
  return wait([&] { return acknowledged_ == sent_ && flush_answers_ >= flush_answers_wanted_; }, timeout_ms,
              "the far side does not take what is sent");
}

// Who waits looks every kSleepMs.
void UcxStream::cancel() {
  const std::lock_guard lock(mu_);
  fail("the stream was given up");
}

// The notice that an endpoint was closed travels beside what was sent, and may overtake it: the far side would lose the
// last words. So both say that they end, and the first one stays until the other has said it, too. And until nothing is
// half sent any more.
void UcxStream::linger() {
  const uint64_t until = now_ns() + kLingerNs;
  while (now_ns() < until) {
    bool idle = false;
    {
      const std::lock_guard lock(mu_);
      idle = !worker_->progress();
      if (under_way_ == 0 && (end_ != ~uint64_t{0} || !failure_.empty())) return;
    }
    if (idle) sleep_us(kLingerSleepUs);
  }
}

void UcxStream::close() {
  {
    const std::lock_guard lock(mu_);
    if (closed_ || endpoint_ == nullptr) return;
    if (failure_.empty()) post(kEndId, sent_, nullptr, 0, false);
    closed_ = true;
  }
  linger();
  const std::lock_guard lock(mu_);
  if (under_way_ == 0) {
    worker_->close(endpoint_, failure_.empty() ? 2000 : 0);
  } else {
    worker_->leave();
  }
  endpoint_ = nullptr;
  fail("the stream is closed");
}

ucs_status_t UcxStream::on_piece(void* self, const void* header, size_t header_bytes, void* data, size_t bytes,
                                 const ucp_am_recv_param_t* param) {
  auto& stream = *static_cast<UcxStream*>(self);
  if (stream.endpoint_ == nullptr || sender_of(param) != stream.endpoint_ || !stream.failure_.empty()) return UCS_OK;
  StreamHeader piece;
  const bool whole = header_bytes == sizeof piece && (param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) == 0;
  if (whole) memcpy(&piece, header, sizeof piece);
  const bool fits = bytes <= kPieceBytes && stream.arrived_ - stream.taken_ + bytes <= kWindowBytes + kPieceBytes;
  if (!whole || !fits || piece.position != stream.arrived_ || stream.arrived_ + bytes > stream.end_) {
    stream.fail("the far side sent a malformed piece");
    return UCS_OK;
  }
  stream.moved_ = true;
  stream.arrived_ += bytes;
  stream.take_queued();
  const auto* at = static_cast<const std::byte*>(data);
  const size_t now = stream.queue_.empty() ? std::min(stream.wanted_, bytes) : 0;
  if (now > 0) memcpy(stream.target_, at, now);
  stream.target_ += now;
  stream.wanted_ -= now;
  stream.taken_ += now;
  if (now < bytes) stream.queue_.emplace_back(at + now, at + bytes);
  return UCS_OK;
}

template <unsigned id>
ucs_status_t UcxStream::on_word(void* self, const void* header, size_t header_bytes, void*, size_t,
                                const ucp_am_recv_param_t* param) {
  auto& stream = *static_cast<UcxStream*>(self);
  if (stream.endpoint_ == nullptr || sender_of(param) != stream.endpoint_) return UCS_OK;
  StreamHeader word;
  if (header_bytes != sizeof word) {
    stream.fail("the far side sent a malformed message");
    return UCS_OK;
  }
  memcpy(&word, header, sizeof word);
  stream.moved_ = true;
  if (id == kTakenId) {
    if (word.position < stream.acknowledged_ || word.position > stream.sent_) stream.fail("the far side took too much");
    stream.acknowledged_ = word.position;
    ++stream.flush_answers_;
  } else if (id == kFlushId) {
    stream.flush_asked_ = true;
    stream.tell_taken(false);
  } else {
    stream.end_ = word.position;
    if (word.position < stream.arrived_) stream.fail("the far side sent a malformed end");
  }
  return UCS_OK;
}

class UcxStreamListener : public StreamListener {
 public:
  Outcome open(std::string* address) {
    const Outcome outcome = UcxWorker::create_for_stream(&worker_);
    return outcome.ok() ? worker_->listen(address, on_connection, this) : outcome;
  }
  ~UcxStreamListener() override {
    for (ucp_conn_request_h request : waiting_) worker_->reject(request);
  }

  Outcome accept(uint32_t timeout_ms, std::unique_ptr<ByteStream>* stream) override {
    const uint64_t end = now_ns() + uint64_t(timeout_ms) * 1'000'000;
    while (waiting_.empty()) {
      if (worker_->progress()) continue;
      const uint64_t now = now_ns();
      if (now >= end) return Outcome::fail("nobody connected in time");
      pollfd poll_fd{.fd = worker_->fd(), .events = POLLIN, .revents = 0};
      const uint64_t left_ms = (end - now) / 1'000'000 + 1;
      if (worker_->arm()) poll(&poll_fd, 1, int(std::min<uint64_t>(left_ms, 100)));
    }
    ucp_conn_request_h request = waiting_.front();
    waiting_.pop_front();
    auto made = std::make_unique<UcxStream>();
    const Outcome outcome = made->accept(request);
    if (outcome.ok()) *stream = std::move(made);
    return outcome;
  }

 private:
  static void on_connection(ucp_conn_request_h request, void* self) {
    auto* listener = static_cast<UcxStreamListener*>(self);
    if (listener->waiting_.size() >= kBacklog) return listener->worker_->reject(request);
    listener->waiting_.push_back(request);
  }

  std::unique_ptr<UcxWorker> worker_;
  std::deque<ucp_conn_request_h> waiting_;
};

}  // namespace

Outcome ucx_listen_stream(std::string* address, std::unique_ptr<StreamListener>* listener) {
  auto made = std::make_unique<UcxStreamListener>();
  const Outcome outcome = made->open(address);
  if (outcome.ok()) *listener = std::move(made);
  return outcome;
}

Outcome ucx_connect_stream(const std::string& address, uint32_t timeout_ms, std::unique_ptr<ByteStream>* stream,
                           bool* refused) {
  auto made = std::make_unique<UcxStream>();
  const Outcome outcome = made->connect(address, timeout_ms, refused);
  if (outcome.ok()) *stream = std::move(made);
  return outcome;
}

}  // namespace tide
