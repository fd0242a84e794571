#include "server/chunk_slots.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <climits>
#include <cstdlib>
#include <cstring>
#include <sstream>

#include "base/clock.h"
#include "base/descriptors.h"
#include "base/hex.h"
#include "base/log.h"
#include "transport/door.h"

namespace tide {
namespace {

constexpr uint64_t kMappedBytes = ChunkSlots::kBytes + 4096;
constexpr const char* kWord = "slots";
constexpr int kSealed = F_SEAL_SHRINK | F_SEAL_GROW;
constexpr timespec kLookAgain = {0, 20'000'000};  // whether the stream is still there
constexpr uint64_t kPatienceNs = 30'000'000'000;

// Between processes.
void wait_on(std::atomic<uint32_t>& word, uint32_t seen) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAIT, seen, &kLookAgain, nullptr, 0);
}
void wake(std::atomic<uint32_t>& word) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

// TIDE_MOVE_OVER=ucx: chunks go over the stream within a machine, too.
bool are_wanted() {
  const char* const over = getenv("TIDE_MOVE_OVER");
  return over == nullptr || strcmp(over, "ucx") != 0;
}

}  // namespace

Outcome ChunkSlots::map() {
  void* const data = mmap(nullptr, kMappedBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0);
  if (data == MAP_FAILED) return errno_failure("cannot map memory for moves");
  data_ = static_cast<std::byte*>(data);
  return {};
}

Outcome ChunkSlots::make(std::unique_ptr<ChunkSlots>* slots) {
  if (!are_wanted()) return Outcome::fail("TIDE_MOVE_OVER=ucx");
  std::unique_ptr<ChunkSlots> made(new ChunkSlots);
  made->fd_ = memfd_create("tide-move-slots", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  // Sealed: nobody who maps it can make it shorter under us.
  if (made->fd_ < 0 || ftruncate(made->fd_, kMappedBytes) != 0 ||
      fcntl(made->fd_, F_ADD_SEALS, kSealed | F_SEAL_SEAL) != 0) {
    return errno_failure("cannot make memory for moves");
  }
  if (Outcome outcome = made->map(); !outcome.ok()) return outcome;
  constexpr auto kNonceBytes = sizeof(Page::nonce);
  if (getrandom(made->page().nonce, kNonceBytes, 0) != ssize_t(kNonceBytes)) return Outcome::fail("no random bytes");
  *slots = std::move(made);
  return {};
}

std::string ChunkSlots::offer() const {
  return format("%s %d %d %s %s", kWord, int(getpid()), fd_, hex(page().nonce, sizeof(Page::nonce)).c_str(),
                this_host_id().c_str());
}

Outcome ChunkSlots::take(const std::string& offer, std::unique_ptr<ChunkSlots>* slots) {
  std::istringstream words(offer);
  std::string word, nonce_text, host;
  int pid = 0, fd = -1;
  Page expected = {};
  words >> word >> pid >> fd >> nonce_text >> host;
  if (word != kWord || pid <= 0 || fd < 0 || !parse_hex(nonce_text, expected.nonce, sizeof(expected.nonce))) {
    return Outcome::fail("it offers none");
  }
  if (host.empty() || host != this_host_id()) return Outcome::fail("it is on another machine");
  std::unique_ptr<ChunkSlots> made(new ChunkSlots);
  made->fd_ = open(format("/proc/%d/fd/%d", pid, fd).c_str(), O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  struct stat file {};
  if (made->fd_ < 0 || fstat(made->fd_, &file) != 0 || file.st_size != off_t(kMappedBytes) ||
      (fcntl(made->fd_, F_GET_SEALS) & kSealed) != kSealed) {
    return Outcome::fail("its memory is not within reach");
  }
  if (Outcome outcome = made->map(); !outcome.ok()) return outcome;
  // Another process may have that number where this one does not see it.
  if (memcmp(made->page().nonce, expected.nonce, sizeof(expected.nonce)) != 0) {
    return Outcome::fail("what is there is somebody else's");
  }
  *slots = std::move(made);
  return {};
}

ChunkSlots::~ChunkSlots() {
  if (data_ != nullptr) munmap(data_, kMappedBytes);
  if (fd_ >= 0) close(fd_);
}

// The destination gives back all but the last without another word from us, so that there is one for who holds one
// other.
Outcome ChunkSlots::find_free(uint32_t but, ByteStream& stream, uint32_t* slot) {
  Page& shared = page();
  for (const uint64_t begin = now_ns(); now_ns() - begin < kPatienceNs;) {
    const uint32_t seen = shared.given_back.load();
    for (uint32_t i = 0; i < kSlots; ++i) {
      const uint32_t candidate = (next_ + i) % kSlots;
      if (candidate == but || shared.full[candidate].load(std::memory_order_acquire) != 0) continue;
      next_ = (candidate + 1) % kSlots;
      *slot = candidate;
      return {};
    }
    shared.asleep = 1;
    wait_on(shared.given_back, seen);
    shared.asleep = 0;
    // Of nothing; it fails where the stream has.
    if (Outcome outcome = stream.send(nullptr, 0); !outcome.ok()) return outcome;
  }
  return Outcome::fail("the destination takes no chunk that it was sent");
}

void ChunkSlots::hand_over(uint32_t slot) { page().full[slot].store(1, std::memory_order_release); }

bool ChunkSlots::is_ours(uint32_t slot) const {
  return slot < kSlots && page().full[slot].load(std::memory_order_acquire) != 0;
}

// Either the source sees the count, or we see that it sleeps.
void ChunkSlots::give_back(uint32_t slot) {
  Page& shared = page();
  shared.full[slot].store(0, std::memory_order_release);
  ++shared.given_back;
  if (shared.asleep != 0) wake(shared.given_back);
}

}  // namespace tide
