#include "transport/shm.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>

#include "transport/lifeline.h"
#include "transport/region.h"
#include "transport/wait.h"

namespace tide {

bool Lifeline::alive() const {
  pollfd poll_fd{.fd = socket_, .events = POLLRDHUP, .revents = 0};
  return socket_ >= 0 && (poll(&poll_fd, 1, 0) <= 0 || poll_fd.revents == 0);
}

Lifeline::~Lifeline() {
  // A forked child may hold a copy; the far side shall learn now.
  if (socket_ >= 0) shutdown(socket_, SHUT_RDWR);
  close();
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

namespace {

// One memory, mapped by both: there is nothing to carry.
class ShmLink : public Link {
 public:
  ShmLink(Region region, int lifeline, Side side) : lifeline_(lifeline), side_(side) { region_ = region; }
  ~ShmLink() override {
    if (side_ == Side::kWorker) unmap_region(region_);
  }

  bool progress() override { return false; }
  void note(const Word&) override {}
  void wake() override { futex_bump(side_ == Side::kClient ? region_.client().doorbell : region_.worker().wake); }
  void sleep(uint32_t timeout_us, uint32_t seen) override { futex_wait(own_futex(), seen, timeout_us); }
  void interrupt() override { futex_bump(own_futex()); }
  bool alive() override { return lifeline_.alive(); }
  const char* transport() const override { return "shm"; }
  bool shares_memory() const override { return true; }
  bool give_descriptor(int fd) override { return lifeline_.give_descriptor(fd); }
  int take_descriptor() override { return lifeline_.take_descriptor(); }
  void abandon() override { lifeline_.close(); }

 private:
  std::atomic<uint32_t>& own_futex() {
    return side_ == Side::kClient ? region_.worker().wake : region_.client().doorbell;
  }

  Lifeline lifeline_;
  const Side side_;
};

}  // namespace

Outcome shm_connect(Region region, int lifeline, const char*, std::unique_ptr<Link>* link) {
  *link = std::make_unique<ShmLink>(region, lifeline, Side::kClient);
  return {};
}

Outcome shm_accept(int lifeline, int region_fd, std::string* transport_data, std::unique_ptr<Link>* link) {
  Region region;
  const Outcome outcome = map_shared_region(region_fd, &region);
  if (!outcome.ok()) return outcome;
  close(region_fd);
  region.worker().asleep.store(0);  // a worker that was killed in its sleep left it set
  region.worker().staging_unwanted.store(0);
  transport_data->clear();
  *link = std::make_unique<ShmLink>(region, lifeline, Side::kWorker);
  return {};
}

}  // namespace tide
