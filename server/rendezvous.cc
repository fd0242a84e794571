#include "server/rendezvous.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>

#include "base/descriptors.h"
#include "base/hex.h"
#include "base/log.h"

namespace tide {
namespace {

// Of a socket in a directory of any length: by the directory's descriptor. Not found: descriptor -1.
class Place {
 public:
  Place(const std::string& directory, const std::string& name)
      : directory_(open(directory.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC)) {
    const std::string path = "/proc/self/fd/" + std::to_string(directory_) + "/" + name;
    address_.sun_family = AF_UNIX;
    found_ = directory_ >= 0 && path.size() < sizeof(address_.sun_path);
    if (found_) memcpy(address_.sun_path, path.c_str(), path.size());
  }
  ~Place() {
    if (directory_ >= 0) close(directory_);
  }
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;
  bool found() const { return found_; }
  const sockaddr* address() const { return reinterpret_cast<const sockaddr*>(&address_); }
  static constexpr socklen_t kBytes = sizeof(sockaddr_un);

 private:
  const int directory_;
  sockaddr_un address_ = {};
  bool found_ = false;
};

bool peer_of(int socket, ucred* peer) {
  socklen_t size = sizeof(*peer);
  return getsockopt(socket, SOL_SOCKET, SO_PEERCRED, peer, &size) == 0 && peer->uid == geteuid();
}

// What name_of() gives: another's socket is none of ours.
bool is_name(const std::string& text) {
  const size_t dot = text.find('.');
  const auto only = [](const std::string& part, const char* digits) {
    return !part.empty() && part.find_first_not_of(digits) == std::string::npos;
  };
  return dot == 32 && only(text.substr(0, dot), "0123456789abcdef") && only(text.substr(dot + 1), "0123456789");
}

int new_socket() { return socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0); }

}  // namespace

std::string Rendezvous::name_of(const uint8_t session[16], uint64_t epoch) {
  return hex(session, 16) + "." + std::to_string(epoch);
}

Outcome Rendezvous::bind(const std::string& name, int* socket) const {
  if (mkdir(directory_.c_str(), 0700) != 0 && errno != EEXIST) return errno_failure("cannot make " + directory_);
  remove(name);
  const Place place(directory_, name);
  const int fd = new_socket();
  if (fd < 0 || !place.found() || ::bind(fd, place.address(), Place::kBytes) != 0) {
    const Outcome failure = errno_failure("cannot make a socket in " + directory_);
    if (fd >= 0) close(fd);
    return failure;
  }
  *socket = fd;
  return {};
}

Outcome Rendezvous::connect(const std::string& name, int* socket, pid_t* worker) const {
  const Place place(directory_, name);
  const int fd = new_socket();
  ucred peer = {};
  if (fd < 0 || !place.found() || ::connect(fd, place.address(), Place::kBytes) != 0 || !peer_of(fd, &peer)) {
    const Outcome failure = errno_failure("cannot connect to " + directory_ + "/" + name);
    if (fd >= 0) close(fd);
    return failure;
  }
  *socket = fd;
  *worker = peer.pid;
  return {};
}

void Rendezvous::remove(const std::string& name) const { unlink((directory_ + "/" + name).c_str()); }

std::vector<std::string> Rendezvous::names() const {
  std::vector<std::string> names;
  std::error_code error;
  for (std::filesystem::directory_iterator at(directory_, error), end; !error && at != end; at.increment(error)) {
    std::error_code gone;
    if (at->is_socket(gone) && is_name(at->path().filename())) names.push_back(at->path().filename());
  }
  return names;
}

int accept_agent(int listener) {
  const int fd = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  ucred peer = {};
  if (fd < 0 || peer_of(fd, &peer)) return fd;
  log(LogLevel::kWarning, "somebody else than our agent connects (user %u); refused", peer.uid);
  close(fd);
  return -1;
}

}  // namespace tide
