// Two rings of bytes in one piece of shared memory, one for each direction: what two processes of one machine can have
// at best with a copy in and a copy out.

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>

#include "base/log.h"
#include "tools/rdma_bench/stream_path.h"

namespace tide::fabric {
namespace {

constexpr uint64_t kRingBytes = 1 << 20;  // within the caches of both

struct Ring {
  alignas(64) std::atomic<uint64_t> written{0};
  alignas(64) std::atomic<uint64_t> read{0};
  alignas(64) char bytes[kRingBytes];
};

class MemoryChannel : public StreamChannel {
 public:
  explicit MemoryChannel(const Control& control) : control_(control) {}
  ~MemoryChannel() override {
    if (rings_ != nullptr) munmap(rings_, 2 * sizeof(Ring));
    if (fd_ >= 0) close(fd_);
  }

  // A file without a name in /dev/shm: whoever is killed leaves nothing behind.
  Outcome offer(std::string* how) override {
    if (control_.is_client()) return {};
    fd_ = memfd_create("rdma-bench", MFD_CLOEXEC);
    if (fd_ < 0 || ftruncate(fd_, 2 * sizeof(Ring)) != 0) return Outcome::fail("no shared memory can be made");
    const Outcome outcome = map(fd_);
    if (!outcome.ok()) return outcome;
    *how = format("/proc/%d/fd/%d", getpid(), fd_);
    out_ = &rings_[0], in_ = &rings_[1];
    return {};
  }

  Outcome join(const std::string& how) override {
    if (!control_.is_client()) return {};
    if (how.rfind("/proc/", 0) != 0) return Outcome::fail("the other side offered no memory");
    const int fd = open(how.c_str(), O_RDWR | O_CLOEXEC);
    if (fd < 0) {
      return Outcome::fail(format("cannot open the other side's memory (%s); do both run as one user in one container?",
                                  strerror(errno)));
    }
    const Outcome outcome = map(fd);
    close(fd);
    if (outcome.ok()) out_ = &rings_[1], in_ = &rings_[0];
    return outcome;
  }

  Facts facts() override {
    Facts facts;
    facts.route = "shared memory";
    return facts;
  }

 protected:
  int64_t write_some(const char* data, uint64_t bytes) override {
    const uint64_t at = out_->written.load(std::memory_order_relaxed);
    const uint64_t room = kRingBytes - (at - out_->read.load(std::memory_order_acquire));
    bytes = std::min({bytes, room, kRingBytes - at % kRingBytes});
    memcpy(out_->bytes + at % kRingBytes, data, bytes);
    out_->written.store(at + bytes, std::memory_order_release);
    return int64_t(bytes);
  }
  int64_t read_some(char* data, uint64_t bytes) override {
    const uint64_t at = in_->read.load(std::memory_order_relaxed);
    const uint64_t there = in_->written.load(std::memory_order_acquire) - at;
    bytes = std::min({bytes, there, kRingBytes - at % kRingBytes, kRingBytes / 4});
    if (bytes == 0) return 0;
    memcpy(data, in_->bytes + at % kRingBytes, bytes);
    in_->read.store(at + bytes, std::memory_order_release);
    return int64_t(bytes);
  }

 private:
  Outcome map(int fd) {
    struct stat status {};
    // Shorter would be a SIGBUS later.
    if (fstat(fd, &status) != 0 || status.st_size != off_t(2 * sizeof(Ring))) return Outcome::fail("not our memory");
    void* memory = mmap(nullptr, 2 * sizeof(Ring), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED) return Outcome::fail(format("cannot map shared memory: %s", strerror(errno)));
    rings_ = static_cast<Ring*>(memory);
    return {};
  }

  const Control& control_;
  Ring* rings_ = nullptr;
  Ring *out_ = nullptr, *in_ = nullptr;
  int fd_ = -1;
};

}  // namespace

std::unique_ptr<Channel> make_memory(const Making& making) { return std::make_unique<MemoryChannel>(making.control); }

}  // namespace tide::fabric
