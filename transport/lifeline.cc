#include "transport/lifeline.h"

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

uint64_t since(uint64_t then_ns, uint64_t now_ns) { return now_ns - std::min(now_ns, then_ns); }

}  // namespace

LifelineState Lifeline::state() const {
  pollfd poll_fd{.fd = socket_, .events = POLLRDHUP, .revents = 0};
  if (socket_ >= 0 && (poll(&poll_fd, 1, 0) <= 0 || poll_fd.revents == 0)) return LifelineState::kAlive;
  return (poll_fd.revents & (POLLERR | POLLNVAL)) != 0 ? LifelineState::kBroken : LifelineState::kClosed;
}

Lifeline::~Lifeline() {
  // A forked child may hold a copy; the far side shall learn now.
  if (socket_ >= 0) shutdown(socket_, SHUT_RDWR);
  close();
}

bool Lifeline::answers(uint64_t now_ns, uint64_t heard_ns, uint32_t patience_ms) {
  tcp_info info{};
  socklen_t bytes = sizeof info;
  if (getsockopt(socket_, IPPROTO_TCP, TCP_INFO, &info, &bytes) != 0) return true;  // not over a network
  uint64_t asked_ns = asked_ns_.load(std::memory_order_relaxed);
  if (info.tcpi_unacked != 0) {
    const uint64_t usual_us = 3 * (uint64_t{info.tcpi_rtt} + 4 * uint64_t{info.tcpi_rttvar});
    return since(asked_ns, now_ns) < std::max(patience_ms * uint64_t{1'000'000}, usual_us * 1000);
  }
  const uint64_t pause_ns = std::clamp(since(heard_ns, now_ns) / 2, kAskLeastNs, kAskMostNs);
  if (since(asked_ns, now_ns) < pause_ns) return true;
  const char word = 0;
  if (asked_ns_.compare_exchange_strong(asked_ns, now_ns)) send(socket_, &word, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
  return true;
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
