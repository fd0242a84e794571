// The floor of UCX: its own active messages of 8 bytes, with the same settings and the same kind of connection as ours.

#include "tools/bench_transport/ucx_ping.h"

#include <poll.h>
#include <sched.h>
#include <unistd.h>

#include "base/clock.h"
#include "transport/door.h"
#include "transport/ucx/worker.h"

namespace tide::bench {
namespace {

constexpr unsigned kId = 1;
constexpr uint64_t kTimeoutNs = 5'000'000'000;

class UcxPing : public Ping {
 public:
  using Ping::Ping;
  ~UcxPing() override {
    if (endpoint_ != nullptr) worker_->close(endpoint_, 100);
  }
  Outcome open();
  int serve();

 protected:
  bool round_trip() override { return send() && wait(); }

 private:
  Outcome create();
  bool send();
  bool wait();

  static ucs_status_t on_message(void* self, const void*, size_t, void*, size_t, const ucp_am_recv_param_t*) {
    ++static_cast<UcxPing*>(self)->heard_;
    return UCS_OK;
  }
  static void on_failure(void* self, ucp_ep_h, ucs_status_t) { static_cast<UcxPing*>(self)->failed_ = true; }
  static void on_connection(ucp_conn_request_h request, void* self) {
    auto* ping = static_cast<UcxPing*>(self);
    ping->failed_ |= !ping->worker_->accept(request, on_failure, self, &ping->endpoint_).ok();
  }

  std::unique_ptr<UcxWorker> worker_;
  ucp_ep_h endpoint_ = nullptr;
  uint64_t heard_ = 0, answered_ = 0;
  uint64_t word_ = 0;
  bool failed_ = false;
};

Outcome UcxPing::create() {
  const Outcome outcome = UcxWorker::create(&worker_);
  return outcome.ok() ? worker_->handle(kId, on_message, this) : outcome;
}

Outcome UcxPing::open() {
  DoorType type;
  std::string address;
  Outcome outcome = receive_frame(socket_, 10'000, &type, &address);
  if (outcome.ok()) outcome = create();
  if (outcome.ok()) outcome = worker_->connect(address, on_failure, this, &endpoint_);
  return outcome;
}

bool UcxPing::send() {
  ucp_request_param_t params{};
  params.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS;
  params.flags = UCP_AM_SEND_FLAG_EAGER;
  ++word_;
  ucs_status_ptr_t request = ucp_am_send_nbx(endpoint_, kId, &word_, sizeof word_, nullptr, 0, &params);
  if (UCS_PTR_IS_ERR(request)) return false;
  while (UCS_PTR_IS_PTR(request) && ucp_request_check_status(request) == UCS_INPROGRESS) worker_->progress();
  if (UCS_PTR_IS_PTR(request)) ucp_request_free(request);
  return true;
}

bool UcxPing::wait() {
  const uint64_t begin = now_ns();
  for (uint32_t i = 1; heard_ == answered_; ++i) {
    worker_->progress();
    if (i % 16 != 0) continue;
    sched_yield();
    if (failed_ || now_ns() - begin > kTimeoutNs) return false;
  }
  ++answered_;
  return true;
}

int UcxPing::serve() {
  std::string address;
  if (!create().ok() || !worker_->listen(&address, on_connection, this).ok()) return 1;
  if (!send_frame(socket_, DoorType::kOpened, address.data(), address.size()).ok()) return 1;
  for (uint64_t heard_ns = now_ns(); !failed_;) {
    worker_->progress();
    if (heard_ != answered_) {
      ++answered_;
      if (!send()) return 1;
      heard_ns = now_ns();
      continue;
    }
    sched_yield();
    if (now_ns() - heard_ns < 2'000'000 || !worker_->arm()) continue;
    pollfd fds[2] = {{.fd = worker_->fd(), .events = POLLIN, .revents = 0},
                     {.fd = socket_, .events = POLLRDHUP, .revents = 0}};
    poll(fds, 2, 100);
    if (fds[1].revents != 0) break;
  }
  return 0;
}

}  // namespace

Outcome start_ucx_ping(int socket, std::unique_ptr<Ping>* ping) {
  auto made = std::make_unique<UcxPing>(socket);
  const Outcome outcome = made->open();
  if (outcome.ok()) *ping = std::move(made);
  return outcome;
}

int serve_ucx_ping(int socket) { return UcxPing(socket).serve(); }

}  // namespace tide::bench
