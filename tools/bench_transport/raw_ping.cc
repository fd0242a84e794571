// The floor of shared memory: two words, each in its own cache line, each written by one side.

#include "tools/bench_transport/raw_ping.h"

#include <poll.h>
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>

#include "base/clock.h"
#include "transport/door.h"
#include "transport/region.h"

namespace tide::bench {
namespace {

struct Shared {
  alignas(64) std::atomic<uint64_t> ping{0};
  alignas(64) std::atomic<uint64_t> pong{0};
  alignas(64) std::atomic<uint32_t> bell{0};
  std::atomic<uint32_t> asleep{0};
};

Shared* map(int fd) {
  void* memory = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  return memory == MAP_FAILED ? nullptr : static_cast<Shared*>(memory);
}

// Both sides may be on one core; then only yielding helps.
void relax(uint32_t* spins) {
  if (++*spins % 64 == 0) sched_yield();
  __builtin_ia32_pause();
}

class RawPing : public Ping {
 public:
  using Ping::Ping;
  ~RawPing() override {
    if (shared_ != nullptr) munmap(shared_, sizeof(Shared));
  }
  Outcome open() {
    const int fd = memfd_create("tide-ping", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, sizeof(Shared)) != 0) return Outcome::fail("cannot create shared memory");
    shared_ = map(fd);
    const Outcome sent = send_frame(socket_, DoorType::kOpen, "", 0, fd);
    close(fd);
    return shared_ == nullptr ? Outcome::fail("cannot map shared memory") : sent;
  }

 protected:
  bool round_trip() override {
    shared_->ping.store(++count_, std::memory_order_release);
    if (shared_->asleep.load(std::memory_order_relaxed) != 0) futex_bump(shared_->bell);
    uint32_t spins = 0;
    while (shared_->pong.load(std::memory_order_acquire) != count_) relax(&spins);
    return true;
  }

 private:
  Shared* shared_ = nullptr;
  uint64_t count_ = 0;
};

}  // namespace

Outcome start_raw_ping(int socket, std::unique_ptr<Ping>* ping) {
  auto made = std::make_unique<RawPing>(socket);
  const Outcome outcome = made->open();
  if (outcome.ok()) *ping = std::move(made);
  return outcome;
}

int serve_raw_ping(int socket) {
  DoorType type;
  std::string payload;
  int fd = -1;
  if (!receive_frame(socket, 10'000, &type, &payload, &fd).ok()) return 1;
  Shared* shared = map(fd);
  if (shared == nullptr) return 1;
  uint64_t count = 0, heard_ns = now_ns();
  for (uint32_t spins = 1;; relax(&spins)) {
    const uint64_t ping = shared->ping.load(std::memory_order_acquire);
    if (ping != count) {
      count = ping;
      shared->pong.store(count, std::memory_order_release);
      spins = 0;
      continue;
    }
    if (spins % 4096 != 0) continue;
    if (spins == 4096) heard_ns = now_ns();
    if (now_ns() - heard_ns < 2'000'000) continue;
    // Between the measurements it must not take the core from others.
    shared->asleep.store(1);
    const uint32_t seen = shared->bell.load();
    if (shared->ping.load() == count) futex_wait(shared->bell, seen, 20'000);
    shared->asleep.store(0);
    pollfd poll_fd{.fd = socket, .events = POLLRDHUP, .revents = 0};
    if (poll(&poll_fd, 1, 0) > 0) return 0;
  }
}

}  // namespace tide::bench
