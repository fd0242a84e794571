#include "transport/shm.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

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
  void sleep(uint32_t timeout_us, uint32_t seen) override {
    futex_wait(side_ == Side::kClient ? region_.worker().wake : region_.client().doorbell, seen, timeout_us);
  }
  bool alive() override { return lifeline_.alive(); }
  const char* transport() const override { return "shm"; }
  void abandon() override { lifeline_.close(); }

 private:
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
  transport_data->clear();
  *link = std::make_unique<ShmLink>(region, lifeline, Side::kWorker);
  return {};
}

}  // namespace tide
