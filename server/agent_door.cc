#include "server/agent_door.h"

#include <arpa/inet.h>
#include <errno.h>
#include <kj/io.h>
#include <netdb.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/descriptors.h"
#include "base/log.h"

namespace tide {
namespace {

constexpr uint32_t kConnectionsMax = 256;
constexpr auto kOpenPatience = 60 * kj::SECONDS;  // from accept to the hand-over, a move in between included
constexpr auto kFramePatience = 10 * kj::SECONDS;
constexpr int kBacklog = 128;
constexpr int kInvalidValue = 1;  // CUresult

Outcome listen_unix(const std::string& path, int* fd) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) {
    return Outcome::fail("the path " + path + " is too long for a socket; choose a shorter --dir");
  }
  memcpy(address.sun_path, path.c_str(), path.size());
  int other = -1;
  if (access(path.c_str(), F_OK) == 0 && connect_unix(path, 500, &other).ok()) {
    close(other);
    return Outcome::fail("another tide-agent listens on " + path + "; give each its own --dir");
  }
  unlink(path.c_str());
  *fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (bind(*fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0 || ::listen(*fd, kBacklog) != 0) {
    return errno_failure("cannot listen on " + path);
  }
  return {};
}

Outcome listen_tcp(const std::string& text, int* fd, std::string* bound) {
  const size_t colon = text.rfind(':');
  if (colon == std::string::npos) return Outcome::fail("'" + text + "' is not ADDRESS:PORT");
  addrinfo hints = {}, *found = nullptr;
  hints.ai_family = AF_INET;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  const std::string host = text.substr(0, colon), port = text.substr(colon + 1);
  if (const int error = getaddrinfo(host.c_str(), port.c_str(), &hints, &found); error != 0) {
    return Outcome::fail("cannot listen on " + text + ": " + gai_strerror(error));
  }
  *fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  const int one = 1;
  setsockopt(*fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
  const bool listening = bind(*fd, found->ai_addr, found->ai_addrlen) == 0 && ::listen(*fd, kBacklog) == 0;
  freeaddrinfo(found);
  if (!listening) {
    const Outcome failure = errno_failure("cannot listen on " + text);
    close(*fd);
    return failure;
  }
  sockaddr_in address = {};
  socklen_t size = sizeof(address);
  getsockname(*fd, reinterpret_cast<sockaddr*>(&address), &size);
  *bound = host + ":" + std::to_string(ntohs(address.sin_port));
  return {};
}

Outcome check_request(const DoorHeader& header) {
  const Outcome sound = check_header(header, "the client", "this tide-agent");
  if (!sound.ok()) return sound;
  if (header.type == uint16_t(DoorType::kOpen) && header.payload_bytes == sizeof(DoorOpen)) return {};
  return Outcome::fail("this is the door of a tide-agent, and these bytes are no request of Tidepool's");
}

// Whether that is what "HOST:0" has become once.
bool is_choice_of(const std::string& last, const std::string& wanted) {
  const size_t colon = wanted.rfind(':');
  return colon != std::string::npos && wanted.substr(colon) == ":0" && last.rfind(wanted.substr(0, colon + 1), 0) == 0;
}

void refuse(int socket, const Refusal& why) {
  DoorRefused refused;
  refused.code = why.code;
  set_text(refused.message, why.message);
  const Outcome sent = send_frame(socket, DoorType::kRefused, &refused, sizeof(refused));
  if (!sent.ok()) log(LogLevel::kDebug, "a refusal was not heard: %s", sent.message().c_str());
}

}  // namespace

struct AgentDoor::Listener {
  Listener(kj::UnixEventPort& events, int descriptor)
      : fd(descriptor), observer(events, descriptor, kj::UnixEventPort::FdObserver::OBSERVE_READ) {}
  kj::AutoCloseFd fd;  // closed after the observer is gone
  kj::UnixEventPort::FdObserver observer;
};

struct AgentDoor::Connection {
  Connection(kj::UnixEventPort& events, int descriptor, uint32_t& c, std::list<Connection*>& s)
      : fd(descriptor),
        count(c),
        silent(s),
        place(silent.insert(silent.end(), this)),
        observer(
            kj::heap<kj::UnixEventPort::FdObserver>(events, descriptor, kj::UnixEventPort::FdObserver::OBSERVE_READ)) {
    ++count;
  }
  ~Connection() {
    --count;
    spoke();
    observer = nullptr;
    if (region_fd >= 0) close(region_fd);
    close(fd);
  }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // It has said what it wants, or will not.
  void spoke() {
    if (place != silent.end()) silent.erase(place);
    place = silent.end();
  }

  const int fd;
  uint32_t& count;
  std::list<Connection*>& silent;
  std::list<Connection*>::iterator place;
  kj::Own<kj::UnixEventPort::FdObserver> observer;
  struct {
    DoorHeader header;
    DoorOpen open;
  } frame;
  size_t got = 0;
  int region_fd = -1;
};

AgentDoor::AgentDoor(Agent& agent) : agent_(agent), tasks_(*this) {}

AgentDoor::~AgentDoor() {
  if (!unix_path_.empty()) unlink(unix_path_.c_str());
}

void AgentDoor::taskFailed(kj::Exception&& exception) {
  log(LogLevel::kDebug, "a connection at the door ended: %s", exception.getDescription().cStr());
}

Outcome AgentDoor::listen(const std::string& directory, const std::string& tcp_address, const std::string& last) {
  int local = -1, tcp = -1;
  Endpoint endpoint;
  endpoint.unix_path = directory + "/door.sock";
  if (Outcome outcome = listen_unix(endpoint.unix_path, &local); !outcome.ok()) return outcome;
  unix_path_ = endpoint.unix_path;
  add(local);
  if (!is_choice_of(last, tcp_address) || !listen_tcp(last, &tcp, &endpoint.tcp_address).ok()) {
    if (Outcome outcome = listen_tcp(tcp_address, &tcp, &endpoint.tcp_address); !outcome.ok()) return outcome;
  }
  add(tcp);
  tcp_address_ = endpoint.tcp_address;
  endpoint.host = this_host_id();
  endpoint_ = endpoint.text();
  return {};
}

void AgentDoor::add(int fd) {
  listeners_.add(kj::heap<Listener>(agent_.io().unixEventPort, fd));
  tasks_.add(accept(listeners_.back().get()));
}

kj::Promise<void> AgentDoor::accept(Listener* listener) {
  while (true) {
    const int fd = accept4(listener->fd, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0 && errno == EINTR) continue;
    if (fd < 0 && errno != EAGAIN && errno != ECONNABORTED) {
      // Out of descriptors: what waits at the door waits a little longer.
      log(LogLevel::kWarning, "cannot accept a connection: %s", strerror(errno));
      return agent_.io().provider->getTimer().afterDelay(100 * kj::MILLISECONDS).then([this, listener] {
        return accept(listener);
      });
    }
    if (fd < 0) break;
    if (connections_ >= kConnectionsMax && !make_room()) {
      close(fd);
      continue;
    }
    watch_peer(fd);  // which does nothing to a unix socket
    auto connection = kj::heap<Connection>(agent_.io().unixEventPort, fd, connections_, silent_);
    Connection* c = connection.get();
    auto& timer = agent_.io().provider->getTimer();
    auto work = timer.timeoutAfter(kFramePatience, read_frame(c)).then([this, c] { return answer(c); });
    tasks_.add(timer.timeoutAfter(kOpenPatience, kj::mv(work)).attach(kj::mv(connection)));
  }
  return listener->observer.whenBecomesReadable().then([this, listener] { return accept(listener); });
}

// Who has said nothing for the longest time goes, so that connections that say nothing keep nobody out.
bool AgentDoor::make_room() {
  if (silent_.empty()) return false;
  shutdown(silent_.front()->fd, SHUT_RDWR);  // its reader finds the end
  silent_.front()->spoke();
  return true;
}

// Reads exactly a header and a DoorOpen: what comes behind them belongs to the worker.
kj::Promise<void> AgentDoor::read_frame(Connection* c) {
  while (c->got < sizeof(c->frame)) {
    const bool in_header = c->got < sizeof(DoorHeader);
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
    iovec part = {reinterpret_cast<std::byte*>(&c->frame) + c->got,
                  (in_header ? sizeof(DoorHeader) : sizeof(c->frame)) - c->got};
    msghdr message = {};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    const ssize_t n = recvmsg(c->fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) return c->observer->whenBecomesReadable().then([this, c] { return read_frame(c); });
    if (n <= 0) return refusal(kInvalidValue, "the connection ended");
    for (cmsghdr* h = CMSG_FIRSTHDR(&message); h != nullptr; h = CMSG_NXTHDR(&message, h)) {
      if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS || h->cmsg_len < CMSG_LEN(sizeof(int))) continue;
      if (c->region_fd >= 0) close(c->region_fd);
      memcpy(&c->region_fd, CMSG_DATA(h), sizeof(int));
    }
    c->got += size_t(n);
    const DoorHeader& header = c->frame.header;
    if (c->got != sizeof(DoorHeader)) continue;
    if (const Outcome sound = check_request(header); !sound.ok()) {
      refuse(c->fd, {kInvalidValue, sound.message()});
      return refusal(kInvalidValue, "garbage");
    }
  }
  return kj::READY_NOW;
}

kj::Promise<void> AgentDoor::answer(Connection* c) {
  c->spoke();
  const DoorOpen open = c->frame.open;
  if (const Outcome sound = check_open(open); !sound.ok()) {
    refuse(c->fd, {kInvalidValue, sound.message()});
    return kj::READY_NOW;
  }
  // Moved into the promise: an lvalue would be kept by reference, and the promise outlives this function.
  auto refused = [c](kj::Exception&& e) { refuse(c->fd, refusal_of(e)); };
  const bool guards = strcmp(open.transport, kGuardTransport) == 0;
  if (guards || strcmp(open.transport, kMoveTransport) == 0) {
    return (guards ? agent_.guard(open) : agent_.receive(open))
        .then(
            [c, open](std::string address) {
              DoorOpened opened;
              opened.epoch = open.epoch;
              set_text(opened.transport_data, address);
              const Outcome sent = send_frame(c->fd, DoorType::kOpened, &opened, sizeof(opened));
              if (!sent.ok()) log(LogLevel::kDebug, "an answer was not heard: %s", sent.message().c_str());
            },
            kj::mv(refused));
  }
  const int region_fd = c->region_fd;
  c->region_fd = -1;
  return agent_.open(open, c->fd, region_fd).then([] {}, kj::mv(refused));
}

}  // namespace tide
