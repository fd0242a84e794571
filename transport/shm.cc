#include "transport/shm.h"

#include <unistd.h>

#include <cstring>

#include "transport/lifeline.h"
#include "transport/region.h"
#include "transport/wait.h"

namespace tide {

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
