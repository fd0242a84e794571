#include "transport/door.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "base/clock.h"
#include "base/descriptors.h"
#include "base/log.h"
#include "base/versions.h"
#include "transport/path_time.h"

namespace tide {
namespace {

constexpr uint32_t kSendTimeoutMs = 10'000;
constexpr int kDescriptorsMax = 4;  // room for those that a rude peer sends, so that they can be closed

class Deadline {
 public:
  explicit Deadline(uint32_t ms) : end_ns_(now_ns() + uint64_t(ms) * 1'000'000) {}
  bool passed() const { return now_ns() >= end_ns_; }
  // Waits for `events` on the socket; false when the time is over.
  bool wait(int socket, short events) const {
    while (true) {
      const uint64_t now = now_ns();
      const int left_ms = now >= end_ns_ ? 0 : int((end_ns_ - now + 999'999) / 1'000'000);
      pollfd poll_fd{.fd = socket, .events = events, .revents = 0};
      const int n = poll(&poll_fd, 1, left_ms);
      if (n > 0) return true;
      if (n == 0 || errno != EINTR) return false;
    }
  }

 private:
  uint64_t end_ns_;
};

bool may_retry() { return errno == EINTR || errno == EAGAIN || errno == EWOULDBLOCK; }

// The descriptors that came with one recvmsg.
class Received {
 public:
  ~Received() {
    for (int i = 0; i < count_; ++i) close(fds_[i]);
  }
  void take_from(const msghdr& message) {
    for (cmsghdr* c = CMSG_FIRSTHDR(&message); c != nullptr; c = CMSG_NXTHDR(const_cast<msghdr*>(&message), c)) {
      if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
      const size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
      for (size_t i = 0; i < n; ++i) {
        int fd;
        memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
        if (count_ < kDescriptorsMax) {
          fds_[count_++] = fd;
        } else {
          close(fd);
        }
      }
    }
    truncated_ |= (message.msg_flags & MSG_CTRUNC) != 0;
  }
  bool too_many(bool wanted) const { return truncated_ || count_ > (wanted ? 1 : 0); }
  int release() { return count_ == 0 ? -1 : fds_[--count_]; }

 private:
  int fds_[kDescriptorsMax] = {};
  int count_ = 0;
  bool truncated_ = false;
};

Outcome receive_exactly(int socket, const Deadline& deadline, void* data, size_t bytes, Received* received) {
  auto* at = static_cast<char*>(data);
  while (bytes > 0) {
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kDescriptorsMax)];
    iovec part{.iov_base = at, .iov_len = bytes};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    if (!deadline.wait(socket, POLLIN)) return Outcome::fail("no answer in time");
    const ssize_t n = recvmsg(socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (n < 0 && may_retry()) continue;
    if (n < 0) return errno_failure("cannot read from the socket");
    received->take_from(message);
    if (n == 0) return Outcome::fail("the far side closed the connection");
    at += n;
    bytes -= size_t(n);
  }
  return {};
}

Outcome send_some(int socket, const char* data, size_t bytes, int fd, size_t* sent) {
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  iovec part{.iov_base = const_cast<char*>(data), .iov_len = bytes};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (fd >= 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* c = CMSG_FIRSTHDR(&message);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(c), &fd, sizeof fd);
  }
  const ssize_t n = sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  if (n < 0 && !may_retry()) return errno_failure("cannot write to the socket");
  *sent = n < 0 ? 0 : size_t(n);
  return {};
}

Outcome connect_address(int socket, const sockaddr* address, socklen_t bytes, const Deadline& deadline) {
  while (connect(socket, address, bytes) != 0) {
    if (errno == EINTR) continue;
    if (errno == EISCONN) break;
    if (errno == EAGAIN) {  // a unix listener's queue is full
      if (deadline.passed()) return Outcome::fail("the far side does not accept connections");
      sleep_us(1000);
      continue;
    }
    if (errno != EINPROGRESS && errno != EALREADY) return Outcome::fail(strerror(errno));
    if (!deadline.wait(socket, POLLOUT)) return Outcome::fail("no answer in time");
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(socket, SOL_SOCKET, SO_ERROR, &error, &size);
    errno = error;
    if (error != 0) return Outcome::fail(strerror(error));
    break;
  }
  fcntl(socket, F_SETFL, fcntl(socket, F_GETFL) & ~O_NONBLOCK);
  return {};
}

}  // namespace

Outcome check_header(const DoorHeader& header, const char* far_side, const char* this_side) {
  if (header.magic != kDoorMagic) return Outcome::fail("these bytes are no frame of Tidepool");
  if (header.version != kDoorVersion) {
    return Outcome::fail(versions_differ({far_side, header.version}, {this_side, kDoorVersion}));
  }
  if (header.reserved != 0) return Outcome::fail("a frame's reserved field is not zero");
  if (header.type < uint16_t(DoorType::kHello) || header.type > uint16_t(kDoorTypeLast)) {
    return Outcome::fail(format("frames of type %u do not exist", header.type));
  }
  if (header.payload_bytes > kDoorPayloadMax) return Outcome::fail("a frame is larger than 1 MiB");
  return {};
}

Outcome check_open(const DoorOpen& open) {
  if (!is_text(open.job) || !is_text(open.transport)) return Outcome::fail("a request's text does not end");
  if (open.vgpu >= kVgpusMax) return Outcome::fail(format("there is no vGPU %u", open.vgpu));
  if ((open.flags & ~(kOpenAgain | kOpenBereaved)) != 0)
    return Outcome::fail("a request has a flag that this version does not know");
  return {};
}

// Probes after 1 s without a word, and every second from then on; the first that finds this time over ends it.
void watch_peer(int socket) {
  const auto set = [&](int level, int option, int value) { setsockopt(socket, level, option, &value, sizeof value); };
  PathTime path;
  if (!path.measure(socket)) return;
  set(IPPROTO_TCP, TCP_NODELAY, 1);
  set(SOL_SOCKET, SO_KEEPALIVE, 1);
  set(IPPROTO_TCP, TCP_KEEPIDLE, 1);
  set(IPPROTO_TCP, TCP_KEEPINTVL, 1);
  set(IPPROTO_TCP, TCP_USER_TIMEOUT, int(path.peer_timeout_ms()));
}

Outcome send_frame(int socket, DoorType type, const void* payload, size_t bytes, int fd_to_send) {
  if (bytes > kDoorPayloadMax) return Outcome::fail("a frame would be larger than 1 MiB");
  DoorHeader header;
  header.type = uint16_t(type);
  header.payload_bytes = uint32_t(bytes);
  std::string frame(reinterpret_cast<const char*>(&header), sizeof header);
  frame.append(static_cast<const char*>(payload), bytes);
  const Deadline deadline(kSendTimeoutMs);
  for (size_t done = 0; done < frame.size();) {
    if (!deadline.wait(socket, POLLOUT)) return Outcome::fail("the far side does not read");
    size_t sent = 0;
    const Outcome outcome =
        send_some(socket, frame.data() + done, frame.size() - done, done == 0 ? fd_to_send : -1, &sent);
    if (!outcome.ok()) return outcome;
    done += sent;
  }
  return {};
}

Outcome receive_frame(int socket, uint32_t timeout_ms, DoorType* type, std::string* payload, int* fd_received) {
  const Deadline deadline(timeout_ms);
  Received received;
  DoorHeader header;
  Outcome outcome = receive_exactly(socket, deadline, &header, sizeof header, &received);
  if (outcome.ok()) outcome = check_header(header, "the far side", "this side");
  if (!outcome.ok()) return outcome;
  std::string bytes(header.payload_bytes, '\0');
  outcome = receive_exactly(socket, deadline, bytes.data(), bytes.size(), &received);
  if (!outcome.ok()) return outcome;
  if (received.too_many(fd_received != nullptr))
    return Outcome::fail("a frame came with descriptors that nobody expects");
  *type = DoorType(header.type);
  *payload = std::move(bytes);
  if (fd_received != nullptr) *fd_received = received.release();
  return {};
}

Outcome connect_unix(const std::string& path, uint32_t timeout_ms, int* socket) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) return Outcome::fail("bad socket path '" + path + "'");
  memcpy(address.sun_path, path.data(), path.size());
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return errno_failure("cannot create a socket");
  const Outcome outcome =
      connect_address(fd, reinterpret_cast<sockaddr*>(&address), sizeof address, Deadline(timeout_ms));
  if (!outcome.ok()) {
    close(fd);
    return Outcome::fail("cannot connect to " + path + ": " + outcome.message());
  }
  *socket = fd;
  return {};
}

namespace {

Outcome cannot_connect(const std::string& address, const std::string& why) {
  return Outcome::fail("cannot connect to " + address + ": " + why);
}

// To be given back by freeaddrinfo.
Outcome resolve(const std::string& address, addrinfo** found) {
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos) return Outcome::fail("'" + address + "' is not ADDRESS:PORT");
  std::string host = address.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  const int error = getaddrinfo(host.c_str(), address.c_str() + colon + 1, &hints, found);
  return error == 0 ? Outcome{} : Outcome::fail("cannot resolve " + address + ": " + gai_strerror(error));
}

}  // namespace

Outcome connect_tcp(const std::string& address, uint32_t timeout_ms, int* socket, bool* refused) {
  addrinfo* found = nullptr;
  if (Outcome o = resolve(address, &found); !o.ok()) return o;
  const Deadline deadline(timeout_ms);
  Outcome outcome = cannot_connect(address, "it has no address");
  for (const addrinfo* a = found; a != nullptr && !outcome.ok(); a = a->ai_next) {
    const int fd = ::socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) continue;
    outcome = connect_address(fd, a->ai_addr, a->ai_addrlen, deadline);
    if (outcome.ok()) {
      watch_peer(fd);
      *socket = fd;
    } else {
      if (refused != nullptr && errno == ECONNREFUSED) *refused = true;
      close(fd);
      outcome = cannot_connect(address, outcome.message());
    }
  }
  freeaddrinfo(found);
  return outcome;
}

Redial::~Redial() {
  for (const int fd : sockets_) close(fd);
}

Outcome Redial::next(const std::string& address, uint32_t wait_ms, int* socket, bool* refused) {
  addrinfo* found = nullptr;
  if (Outcome o = resolve(address, &found); !o.ok()) return o;
  std::string why = "no answer in time";
  for (const addrinfo* a = found; a != nullptr; a = a->ai_next) {
    const int fd = ::socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) continue;
    if (sockets_.size() == kMost) give_up(sockets_.begin());
    sockets_.push_back(fd);
    if (connect(fd, a->ai_addr, a->ai_addrlen) == 0 || errno == EINPROGRESS) continue;
    why = strerror(errno);
    if (refused != nullptr && errno == ECONNREFUSED) *refused = true;
    give_up(sockets_.end() - 1);
  }
  freeaddrinfo(found);
  const bool made = first_made(now_ns() + wait_ms * uint64_t{1'000'000}, socket, refused, &why);
  return made ? Outcome{} : cannot_connect(address, why);
}

void Redial::give_up(std::vector<int>::iterator which) {
  close(*which);
  sockets_.erase(which);
}

bool Redial::first_made(uint64_t end_ns, int* socket, bool* refused, std::string* why) {
  while (!sockets_.empty()) {
    std::vector<pollfd> polled;
    for (const int fd : sockets_) polled.push_back({fd, POLLOUT, 0});
    const uint64_t now = now_ns();
    const int left_ms = now >= end_ns ? 0 : int((end_ns - now + 999'999) / 1'000'000);
    if (poll(polled.data(), polled.size(), left_ms) == 0) return false;
    for (const pollfd& each : polled) {
      if (each.revents == 0) continue;
      const auto which = std::find(sockets_.begin(), sockets_.end(), each.fd);
      int error = 0;
      socklen_t size = sizeof error;
      getsockopt(each.fd, SOL_SOCKET, SO_ERROR, &error, &size);
      if (error == 0) {
        sockets_.erase(which);
        fcntl(each.fd, F_SETFL, fcntl(each.fd, F_GETFL) & ~O_NONBLOCK);
        watch_peer(each.fd);
        *socket = each.fd;
        return true;
      }
      *why = strerror(error);
      if (refused != nullptr && error == ECONNREFUSED) *refused = true;
      give_up(which);
    }
  }
  return false;
}

}  // namespace tide
