#include "tools/rdma_bench/control.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "base/clock.h"
#include "base/log.h"

namespace tide::fabric {
namespace {

constexpr uint32_t kResolveMs = 10'000;  // of the own address
constexpr char kMagic[4] = {'R', 'D', 'M', 'B'};

struct Head {
  char magic[4];
  uint16_t version;
  uint16_t word;
  uint32_t bytes;
};
static_assert(sizeof(Head) == 12);

bool wait_for(int fd, short events, uint64_t end_ns) {
  for (;;) {
    const uint64_t now = now_ns();
    const int ms = now >= end_ns ? 0 : int(std::min<uint64_t>((end_ns - now) / 1'000'000 + 1, 1'000'000));
    pollfd what{.fd = fd, .events = events, .revents = 0};
    const int ready = poll(&what, 1, ms);
    if (ready > 0) return true;
    if (ready == 0 || errno != EINTR) return false;
  }
}

// A name, in a thread of the library's: name servers that do not answer would hold us for half a minute.
int resolve_name(const std::string& host, const std::string& port, const addrinfo& hints, uint32_t timeout_ms,
                 addrinfo** found) {
  struct Question {  // outlives us where the answer comes too late
    std::string host, port;
    addrinfo hints;
    gaicb one;
  };
  auto* question = new Question{host, port, hints, {}};
  question->one.ar_name = question->host.c_str();
  question->one.ar_service = question->port.c_str();
  question->one.ar_request = &question->hints;
  gaicb* list[] = {&question->one};
  int error = getaddrinfo_a(GAI_NOWAIT, list, 1, nullptr);
  if (error != 0) return error;
  const uint64_t end_ns = now_ns() + uint64_t(timeout_ms) * 1'000'000;
  while ((error = gai_error(&question->one)) == EAI_INPROGRESS) {
    const uint64_t now = now_ns();
    if (now >= end_ns) return error;
    const timespec patience{.tv_sec = time_t((end_ns - now) / 1'000'000'000),
                            .tv_nsec = long((end_ns - now) % 1'000'000'000)};
    gai_suspend(list, 1, &patience);
  }
  *found = question->one.ar_result;
  delete question;
  return error;
}

Outcome resolve(const std::string& host, uint32_t port, int flags, uint32_t timeout_ms, addrinfo** found) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags | AI_NUMERICHOST;
  const std::string service = std::to_string(port);
  if (getaddrinfo(host.c_str(), service.c_str(), &hints, found) == 0) return {};
  hints.ai_flags = flags;
  const int error = resolve_name(host, service, hints, timeout_ms, found);
  if (error == 0) return {};
  if (error == EAI_INPROGRESS) {
    return Outcome::fail(format("no name server answered for '%s' in %u ms", host.c_str(), timeout_ms));
  }
  const char* const hint = host.find(':') == std::string::npos ? "is the name right?" : "a port goes into --port";
  return Outcome::fail("there is no host '" + host + "' (" + gai_strerror(error) + "); " + hint);
}

bool bind_to_device(int fd, const std::string& device) {
  return device.empty() || setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, device.c_str(), socklen_t(device.size())) == 0;
}

Outcome connect_one(const addrinfo* to, const std::string& device, uint64_t end_ns, int* made) {
  const int fd = socket(to->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return Outcome::fail(strerror(errno));
  int error = bind_to_device(fd, device) && connect(fd, to->ai_addr, to->ai_addrlen) == 0 ? 0 : errno;
  if (error == EINPROGRESS) {
    socklen_t bytes = sizeof error;
    error = wait_for(fd, POLLOUT, end_ns) ? 0 : ETIMEDOUT;
    if (error == 0) getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &bytes);
  }
  if (error == 0) {
    *made = fd;
    return {};
  }
  close(fd);
  return Outcome::fail(strerror(error));
}

}  // namespace

std::string address_text(const void* address, bool with_port) {
  char host[NI_MAXHOST] = {}, port[NI_MAXSERV] = {};
  const auto* socket = static_cast<const sockaddr*>(address);
  const socklen_t bytes = socket->sa_family == AF_INET6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in);
  if (getnameinfo(socket, bytes, host, sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV) != 0)
    return "?";
  if (!with_port) return host;
  return socket->sa_family == AF_INET6 ? format("[%s]:%s", host, port) : format("%s:%s", host, port);
}

Outcome listen_on(const std::string& address, uint32_t* port, int* made, const std::string& device) {
  addrinfo* found = nullptr;
  const Outcome outcome = resolve(address, *port, AI_PASSIVE, kResolveMs, &found);
  if (!outcome.ok()) return outcome;
  const int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  const bool ok =
      fd >= 0 && bind_to_device(fd, device) && bind(fd, found->ai_addr, found->ai_addrlen) == 0 && listen(fd, 16) == 0;
  const int error = errno;
  freeaddrinfo(found);
  sockaddr_storage bound{};
  socklen_t bytes = sizeof bound;
  if (!ok || getsockname(fd, reinterpret_cast<sockaddr*>(&bound), &bytes) != 0) {
    if (fd >= 0) close(fd);
    return Outcome::fail(format("cannot listen on %s port %u: %s", address.c_str(), *port, strerror(error)));
  }
  *port = ntohs(bound.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6&>(bound).sin6_port
                                            : reinterpret_cast<sockaddr_in&>(bound).sin_port);
  *made = fd;
  return {};
}

Control::~Control() {
  if (fd_ >= 0) close(fd_);
}

Outcome Control::connect(const std::string& host, uint32_t port, const std::string& device) {
  addrinfo* found = nullptr;
  Outcome outcome = resolve(host, port, 0, timeout_ms_, &found);
  if (!outcome.ok()) return outcome;
  const uint64_t end_ns = now_ns() + uint64_t(timeout_ms_) * 1'000'000;
  int fd = -1;
  for (const addrinfo* to = found; to != nullptr && fd < 0; to = to->ai_next) {
    outcome = connect_one(to, device, end_ns, &fd);
  }
  freeaddrinfo(found);
  if (fd < 0) {
    return Outcome::fail(
        format("no rdma-bench answers at %s port %u (%s); run `rdma-bench serve --listen ADDRESS` there, "
               "with an ADDRESS of it that this machine reaches",
               host.c_str(), port, outcome.message().c_str()));
  }
  adopt(fd, host);
  is_client_ = true;
  return {};
}

void Control::adopt(int fd, const std::string& peer) {
  fd_ = fd;
  peer_ = peer;
  fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  // A machine that vanishes without a word must be noticed, too.
  const unsigned ms = timeout_ms_;
  setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof ms);
}

std::string Control::own_address() const {
  sockaddr_storage address{};
  socklen_t bytes = sizeof address;
  if (getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &bytes) != 0) return "";
  return address_text(&address, false);
}

std::string Control::peer_address() const {
  sockaddr_storage address{};
  socklen_t bytes = sizeof address;
  if (getpeername(fd_, reinterpret_cast<sockaddr*>(&address), &bytes) != 0) return "";
  return address_text(&address, false);
}

Outcome Control::lost(const char* what) const { return Outcome::fail(format("%s: %s", peer_.c_str(), what)); }

Outcome Control::send(Word word, const std::string& payload) {
  if (payload.size() > kMessageBytesMax) return Outcome::fail("a control message is too large");
  Head head{};
  memcpy(head.magic, kMagic, sizeof kMagic);
  head.version = kProtocolVersion;
  head.word = uint16_t(word);
  head.bytes = uint32_t(payload.size());
  const std::string all = std::string(reinterpret_cast<const char*>(&head), sizeof head) + payload;
  const uint64_t end_ns = now_ns() + uint64_t(timeout_ms_) * 1'000'000;
  for (size_t at = 0; at < all.size();) {
    const ssize_t sent = ::send(fd_, all.data() + at, all.size() - at, MSG_NOSIGNAL);
    if (sent > 0) {
      at += size_t(sent);
    } else if (sent < 0 && errno == EAGAIN) {
      if (!wait_for(fd_, POLLOUT, end_ns)) return lost("takes no more control messages; is it stopped?");
    } else if (errno != EINTR) {
      return lost("its rdma-bench is gone");
    }
  }
  return {};
}

Outcome Control::read_all(char* bytes, size_t count, uint64_t end_ns) {
  for (size_t at = 0; at < count;) {
    const ssize_t got = recv(fd_, bytes + at, count - at, 0);
    if (got > 0) {
      at += size_t(got);
    } else if (got < 0 && errno == EAGAIN) {
      if (!wait_for(fd_, POLLIN, end_ns)) {
        return lost(format("said nothing for %u ms (--timeout); is it stopped, or is another program on that port?",
                           timeout_ms_)
                        .c_str());
      }
    } else if (got == 0 || errno != EINTR) {
      return lost("its rdma-bench is gone: it ended, was killed, or the network broke; look at its terminal");
    }
  }
  return {};
}

Outcome Control::receive(Word* word, std::string* payload, uint32_t wait_ms) {
  const uint64_t begin_ns = now_ns();
  if (wait_ms == 0) wait_for(fd_, POLLIN, UINT64_MAX);
  if (wait_ms > timeout_ms_) wait_for(fd_, POLLIN, begin_ns + uint64_t(wait_ms - timeout_ms_) * 1'000'000);
  const uint64_t end_ns = now_ns() + uint64_t(timeout_ms_) * 1'000'000;
  Head head{};
  Outcome outcome = read_all(reinterpret_cast<char*>(&head), sizeof head, end_ns);
  if (!outcome.ok()) return outcome;
  if (memcmp(head.magic, kMagic, sizeof kMagic) != 0) return lost("what answers on that port is not rdma-bench");
  if (head.version != kProtocolVersion) {
    return lost(
        format("its rdma-bench speaks version %u of the protocol, this one version %u; install the same Tidepool "
               "on both machines",
               head.version, kProtocolVersion)
            .c_str());
  }
  if (head.bytes > kMessageBytesMax) return lost("sent a control message that is too large");
  payload->resize(head.bytes);
  outcome = read_all(payload->data(), head.bytes, end_ns);
  *word = Word(head.word);
  return outcome;
}

Outcome Control::expect(Word word, std::string* payload, uint32_t more_ms) {
  Word came;
  const Outcome outcome = receive(&came, payload, timeout_ms_ + more_ms);
  if (!outcome.ok()) return outcome;
  if (came == Word::kError) return lost(payload->c_str());
  if (came == word) return {};
  return lost(format("sent message %u where %u was due", unsigned(came), unsigned(word)).c_str());
}

bool Control::readable() const {
  pollfd what{.fd = fd_, .events = POLLIN, .revents = 0};
  return poll(&what, 1, 0) > 0;
}

bool Control::gone(uint32_t wait_ms) const {
  const uint64_t end_ns = now_ns() + uint64_t(wait_ms) * 1'000'000;
  pollfd what{.fd = fd_, .events = POLLRDHUP, .revents = 0};
  return wait_for(fd_, POLLRDHUP, end_ns) && poll(&what, 1, 0) > 0;
}

}  // namespace tide::fabric
