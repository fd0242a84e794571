#include "server/control.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <iterator>

namespace tide {
namespace {
constexpr int kSendTimeoutMs = 5000;
}

Outcome make_control_pair(int* agent, int* worker) {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) != 0) {
    return Outcome::fail(std::string("cannot make a socket pair: ") + strerror(errno));
  }
  *agent = pair[0];
  *worker = pair[1];
  return {};
}

bool send_control(int socket, ControlType type, const void* payload, size_t bytes, const int* fds, int fd_count) {
  if (bytes > kControlPayloadMax || fd_count > kControlFdsMax) return false;
  iovec parts[2] = {{&type, sizeof(type)}, {const_cast<void*>(payload), bytes}};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kControlFdsMax)] = {};
  msghdr message = {};
  message.msg_iov = parts;
  message.msg_iovlen = bytes == 0 ? 1 : 2;
  if (fd_count > 0) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(sizeof(int) * size_t(fd_count));
    cmsghdr* c = CMSG_FIRSTHDR(&message);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int) * size_t(fd_count));
    memcpy(CMSG_DATA(c), fds, sizeof(int) * size_t(fd_count));
  }
  while (true) {
    if (sendmsg(socket, &message, MSG_NOSIGNAL) >= 0) return true;
    if (errno == EINTR) continue;
    if (errno != EAGAIN) return false;
    pollfd wait = {socket, POLLOUT, 0};
    if (poll(&wait, 1, kSendTimeoutMs) <= 0) return false;
  }
}

ControlState receive_control(int socket, ControlMessage* message) {
  iovec parts[2] = {{&message->type, sizeof(message->type)}, {message->payload, sizeof(message->payload)}};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kControlFdsMax)];
  msghdr header = {};
  header.msg_iov = parts;
  header.msg_iovlen = 2;
  header.msg_control = control;
  header.msg_controllen = sizeof(control);
  const ssize_t n = recvmsg(socket, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (n < 0) return errno == EAGAIN || errno == EINTR ? ControlState::kNothing : ControlState::kGone;
  if (n < ssize_t(sizeof(message->type))) return ControlState::kGone;
  message->bytes = size_t(n) - sizeof(message->type);
  std::fill(std::begin(message->fds), std::end(message->fds), -1);
  for (cmsghdr* c = CMSG_FIRSTHDR(&header); c != nullptr; c = CMSG_NXTHDR(&header, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    memcpy(message->fds, CMSG_DATA(c), sizeof(int) * std::min<size_t>(count, kControlFdsMax));
  }
  return ControlState::kMessage;
}

}  // namespace tide
