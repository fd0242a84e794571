#include "transport/lifeline.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

namespace tide {
namespace {

constexpr uint64_t kAskLeastNs = 100'000'000, kAskMostNs = 2'000'000'000;
constexpr uint64_t kKeepNs = 800'000'000;  // below the second after which the system asks by itself

uint64_t since(uint64_t then_ns, uint64_t now_ns) { return now_ns - std::min(now_ns, then_ns); }

}  // namespace

LifelineState Lifeline::state() const {
  if (reset_.load(std::memory_order_relaxed)) return LifelineState::kBroken;
  pollfd poll_fd{.fd = socket_, .events = POLLRDHUP, .revents = 0};
  if (socket_ >= 0 && (poll(&poll_fd, 1, 0) <= 0 || poll_fd.revents == 0)) return LifelineState::kAlive;
  return (poll_fd.revents & (POLLERR | POLLNVAL)) != 0 ? LifelineState::kBroken : LifelineState::kClosed;
}

LifelineState Lifeline::read_on() {
  pollfd poll_fd{.fd = socket_, .events = POLLRDHUP | POLLIN, .revents = 0};
  if (socket_ < 0 || poll(&poll_fd, 1, 0) <= 0 || poll_fd.revents != POLLIN) return state();
  char bytes[256];
  const ssize_t got = recv(socket_, bytes, sizeof bytes, MSG_DONTWAIT);
  if (got < 0 && errno != EAGAIN && errno != EINTR) reset_.store(true, std::memory_order_relaxed);
  return state();
}

void Lifeline::follow_path() {
  PathTime path;
  measure(&path);
}

Lifeline::~Lifeline() {
  // A forked child may hold a copy; the far side shall learn now.
  if (socket_ >= 0) shutdown(socket_, SHUT_RDWR);
  close();
}

// The system's own patience follows the path, which may have become another one.
bool Lifeline::measure(PathTime* path) {
  if (!path->measure(socket_)) return false;
  round_trip_us_.store(std::max<uint64_t>(path->rtt_us, 1), std::memory_order_relaxed);
  const uint32_t timeout_ms = path->peer_timeout_ms();
  if (peer_timeout_ms_.exchange(timeout_ms, std::memory_order_relaxed) != timeout_ms) {
    setsockopt(socket_, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms, sizeof timeout_ms);
  }
  return true;
}

void Lifeline::send_byte(uint64_t now_ns) {
  const char word = 0;
  uint64_t asked_ns = asked_ns_.load(std::memory_order_relaxed);
  if (asked_ns_.compare_exchange_strong(asked_ns, now_ns)) send(socket_, &word, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
}

bool Lifeline::answers(uint64_t now_ns, uint64_t heard_ns, uint32_t patience_ms) {
  PathTime path;
  if (!measure(&path)) return true;
  const uint64_t asked_ns = asked_ns_.load(std::memory_order_relaxed);
  if (path.unacknowledged != 0) return since(asked_ns, now_ns) < path.silence_us(patience_ms) * 1000;
  const uint64_t pause_ns = std::clamp(since(heard_ns, now_ns) / 2, kAskLeastNs, kAskMostNs);
  if (since(asked_ns, now_ns) >= pause_ns) send_byte(now_ns);
  return true;
}

void Lifeline::keep(uint64_t now_ns) {
  if (since(asked_ns_.load(std::memory_order_relaxed), now_ns) < kKeepNs) return;
  PathTime path;
  if (measure(&path) && path.unacknowledged == 0) send_byte(now_ns);
}

bool Lifeline::give_descriptor(int fd) {
  char mark = 0;
  iovec part{.iov_base = &mark, .iov_len = 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof fd)] = {};
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof fd);
  memcpy(CMSG_DATA(header), &fd, sizeof fd);
  return sendmsg(socket_, &message, MSG_DONTWAIT | MSG_NOSIGNAL) == 1;
}

int Lifeline::take_descriptor() {
  char mark = 0;
  iovec part{.iov_base = &mark, .iov_len = 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  if (recvmsg(socket_, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) != 1) return -1;
  int fd = -1;
  const cmsghdr* header = CMSG_FIRSTHDR(&message);
  if (header == nullptr || header->cmsg_type != SCM_RIGHTS || header->cmsg_len != CMSG_LEN(sizeof fd)) return -1;
  memcpy(&fd, CMSG_DATA(header), sizeof fd);
  return fd;
}

void Lifeline::close() {
  if (socket_ >= 0) ::close(socket_);
  socket_ = -1;
}

}  // namespace tide
