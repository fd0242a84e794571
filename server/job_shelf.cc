#include "server/job_shelf.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <new>
#include <string>
#include <utility>

#include "base/clock.h"
#include "base/descriptors.h"
#include "server/shelf.h"
#include "server/shelf_file.h"

namespace tide {
namespace {

constexpr uint64_t kMagic = 0x32666c6873626f6a;  // grows when what follows changes
constexpr uint32_t kBuckets = 1u << 16;
constexpr uint64_t kLedgerMost = 1u << 24;
constexpr uint32_t kInMemory = ~0u;
constexpr uint64_t kWindowBytes = uint64_t{1} << 30;
constexpr uint32_t kSweptAtOnce = 256;

off_t lock_of(uint64_t member) { return off_t(std::countr_zero(member)); }

bool is_held(int fd, off_t at) {
  struct flock lock = {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = at;
  lock.l_len = 1;
  return fcntl(fd, F_OFD_GETLK, &lock) != 0 || lock.l_type != F_UNLCK;
}

bool set_lock(int fd, off_t at, short type) {
  struct flock lock = {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = at;
  lock.l_len = 1;
  return fcntl(fd, F_OFD_SETLK, &lock) == 0;
}

void punch(int fd, uint64_t at) {
  [[maybe_unused]] const int punched =
      fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off_t(at), off_t(kChunkBytes));
}

}  // namespace

// Belongs to those whose bits are in `users`; with none of them it is free, and nothing lies there. What is written of
// it is written so that a keeper may end at any moment: what it had begun is its own, and goes with it.
struct JobShelf::Slot {
  std::atomic<uint64_t> users;
  ChunkHash hash;
  std::atomic<uint32_t> stored;  // 0: nothing yet; kInMemory; else so many bytes of the file
  std::atomic<uint32_t> next;    // in its bucket, + 1
  uint64_t ledger;               // its slot there, + 1
};

// What the memory begins with. Zero is what is empty.
struct JobShelf::Head {
  uint64_t magic;
  ChunkSecret secret;
  pthread_mutex_t mutex;  // guards what follows; of a slot's `users`, who sets or takes its bit
  std::atomic<uint64_t> members;
  std::atomic<uint32_t> used;  // slots from here on never were
  uint32_t free_from;          // before it none is free
  uint64_t ledger_next;
  std::atomic<uint32_t> buckets[kBuckets];  // slot + 1
  Slot slots[kSlots];
  uint64_t ledger_ours[kLedgerMost / 64];
};

namespace {
constexpr uint64_t kDataAt = uint64_t{64} << 20;
constexpr uint64_t kAllBytes = kDataAt + JobShelf::kSlots * kChunkBytes;
}  // namespace

JobShelfFiles::~JobShelfFiles() {
  for (const int fd : fds_) {
    if (fd >= 0) close(fd);
  }
}

std::shared_ptr<const JobShelfFiles> JobShelfFiles::take(int* fds, int count) {
  std::shared_ptr<JobShelfFiles> files(new JobShelfFiles());
  bool all = count >= kCount;
  for (int i = 0; i < count; ++i) {
    const int fd = std::exchange(fds[i], -1);
    if (i < kCount) files->fds_[i] = fd;
    if (i < kCount) all = all && fd >= 0;
    if (i >= kCount && fd >= 0) close(fd);
  }
  return all ? files : nullptr;
}

Outcome JobShelf::make_head(int memory) {
  void* const at = mmap(nullptr, sizeof(Head), PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
  if (at == MAP_FAILED) return errno_failure("cannot map memory for a job's chunks");
  auto* const head = static_cast<Head*>(at);
  pthread_mutexattr_t kind;
  pthread_mutexattr_init(&kind);
  pthread_mutexattr_setpshared(&kind, PTHREAD_PROCESS_SHARED);
  pthread_mutexattr_setrobust(&kind, PTHREAD_MUTEX_ROBUST);
  const bool made = pthread_mutex_init(&head->mutex, &kind) == 0 && make_secret(&head->secret);
  pthread_mutexattr_destroy(&kind);
  head->magic = kMagic;
  munmap(at, sizeof(Head));
  return made ? Outcome() : Outcome::fail("the system gives no lock between processes, or no random numbers");
}

Outcome JobShelfFiles::make(const ShelfPlace& place, std::shared_ptr<const JobShelfFiles>* files) {
  std::shared_ptr<JobShelfFiles> made(new JobShelfFiles());
  int* const fds = made->fds_;
  fds[0] = memfd_create("tide-job-shelf", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  // Of one size for ever: who reads it shall not find that it ends.
  const bool sized = fds[0] >= 0 && ftruncate(fds[0], off_t(kAllBytes)) == 0 &&
                     fcntl(fds[0], F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0;
  if (!sized) return errno_failure("cannot make memory for a job's chunks");
  if (Outcome outcome = JobShelf::make_head(fds[0]); !outcome.ok()) return outcome;
  fds[1] = open_shelf_file(place.directory);
  if (fds[1] < 0) return errno_failure("cannot make a file in " + place.directory);
  fds[2] = open(place.ledger.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fds[2] < 0) return errno_failure("cannot open " + place.ledger);
  *files = std::move(made);
  return {};
}

JobShelf::JobShelf(std::shared_ptr<const JobShelfFiles> files, const ShelfPlace& place)
    : files_(std::move(files)),
      limited_(place.memory_bytes_max.has_value()),
      ledger_slots_(std::min(place.memory_bytes_max.value_or(0) / kChunkBytes, kLedgerMost)),
      windows_(kSlots * kChunkBytes / kWindowBytes, nullptr) {}

JobShelf::~JobShelf() {
  for (const std::byte* const window : windows_) {
    if (window != nullptr) munmap(const_cast<std::byte*>(window), kWindowBytes);
  }
  if (head_ != nullptr) munmap(head_, sizeof(Head));
  if (own_ >= 0) close(own_);
}

Outcome JobShelf::join(std::shared_ptr<const JobShelfFiles> files, const ShelfPlace& place,
                       std::unique_ptr<JobShelf>* shelf) {
  std::unique_ptr<JobShelf> joined(new JobShelf(std::move(files), place));
  if (Outcome outcome = joined->open(); !outcome.ok()) return outcome;
  if (!joined->enter()) return Outcome::fail("too many processes keep chunks of this job, or one of them is stopped");
  joined->sweep();
  *shelf = std::move(joined);
  return {};
}

Outcome JobShelf::open() {
  static_assert(sizeof(Head) <= kDataAt);
  struct stat found = {};
  if (fstat(files_->memory(), &found) != 0 || uint64_t(found.st_size) != kAllBytes) {
    return Outcome::fail("the memory for the job's chunks is another version's");
  }
  own_ = ::open(("/proc/self/fd/" + std::to_string(files_->memory())).c_str(), O_RDWR | O_CLOEXEC);
  if (own_ < 0) return errno_failure("cannot open the memory for the job's chunks");
  void* const at = mmap(nullptr, sizeof(Head), PROT_READ | PROT_WRITE, MAP_SHARED, own_, 0);
  if (at == MAP_FAILED) return errno_failure("cannot map the memory for the job's chunks");
  head_ = static_cast<Head*>(at);
  if (head_->magic != kMagic) return Outcome::fail("the memory for the job's chunks is another version's");
  return {};
}

const ChunkSecret& JobShelf::secret() const { return head_->secret; }

// The lock first: who has a bit and no lock is dead.
bool JobShelf::enter() {
  if (!lock()) return false;
  const uint64_t members = head_->members;
  for (uint64_t bit = 1; bit != 0 && me_ == 0; bit <<= 1) {
    if ((members & bit) == 0 && set_lock(own_, lock_of(bit), F_WRLCK)) me_ = bit;
  }
  head_->members = members | me_;
  unlock();
  return me_ != 0;
}

// A keeper that was stopped while it had the lock holds the others up once: they keep for themselves from then on.
bool JobShelf::lock() {
  const uint64_t until_ns = now_ns() + (gave_up_ ? 0 : kPatienceMs * 1'000'000ull);
  const timespec until = {.tv_sec = time_t(until_ns / 1'000'000'000), .tv_nsec = long(until_ns % 1'000'000'000)};
  const int error = pthread_mutex_clocklock(&head_->mutex, CLOCK_MONOTONIC, &until);
  if (error == EOWNERDEAD) {
    pthread_mutex_consistent(&head_->mutex);
    rebuild_ledger();
  }
  const bool locked = error == 0 || error == EOWNERDEAD;
  gave_up_ = gave_up_ || !locked;
  return locked;
}

void JobShelf::unlock() { pthread_mutex_unlock(&head_->mutex); }

JobShelf::Slot* JobShelf::linked(const ChunkHash& hash) const {
  uint32_t next = head_->buckets[hash.low % kBuckets];
  for (uint32_t steps = head_->used; next != 0 && next <= kSlots && steps != 0; --steps) {
    Slot& slot = head_->slots[next - 1];
    if (slot.hash == hash) return &slot;
    next = slot.next;
  }
  return nullptr;
}

// Of one that may not be linked.
void JobShelf::unlink(uint32_t number) {
  Slot& slot = head_->slots[number];
  std::atomic<uint32_t>* from = &head_->buckets[slot.hash.low % kBuckets];
  for (uint32_t steps = head_->used; *from != 0 && *from <= kSlots && steps != 0; --steps) {
    if (*from == number + 1) {
      *from = slot.next.load();
      return;
    }
    from = &head_->slots[*from - 1].next;
  }
}

// Of one that is on disk in memory that cannot be mapped here: no slot.
JobShelf::Chunk JobShelf::chunk_of(uint32_t number) {
  const Slot& slot = head_->slots[number];
  Chunk chunk{.slot = number, .data = nullptr, .stored = slot.stored};
  if (chunk.stored != kInMemory) return chunk;
  chunk.stored = 0;
  chunk.data = data_at(number);
  return chunk.data != nullptr ? chunk : Chunk();
}

const std::byte* JobShelf::data_at(uint32_t slot) {
  const uint64_t window = at(slot) / kWindowBytes;
  if (windows_[window] == nullptr) {
    const off_t from = off_t(kDataAt + window * kWindowBytes);
    void* const mapped = mmap(nullptr, kWindowBytes, PROT_READ, MAP_SHARED | MAP_NORESERVE, own_, from);
    if (mapped == MAP_FAILED) return nullptr;
    madvise(mapped, kWindowBytes, MADV_DONTDUMP);
    windows_[window] = static_cast<const std::byte*>(mapped);
  }
  return windows_[window] + at(slot) % kWindowBytes;
}

bool JobShelf::find(const ChunkHash& hash, Chunk* chunk) {
  if (gave_up_ || !lock()) return false;
  Slot* const slot = linked(hash);
  if (slot != nullptr) slot->users |= me_;
  unlock();
  if (slot == nullptr) return false;
  const auto number = uint32_t(slot - head_->slots);
  *chunk = chunk_of(number);
  if (chunk->slot == kNoSlot) leave(number);
  return chunk->slot != kNoSlot;
}

bool JobShelf::begin(uint32_t* slot) {
  if (gave_up_ || !lock()) return false;
  uint32_t free = head_->free_from;
  while (free < kSlots && head_->slots[free].users != 0) ++free;
  if (free < kSlots) {
    head_->slots[free].users = me_;
    if (free >= head_->used) head_->used = free + 1;
  }
  head_->free_from = std::min(free + 1, kSlots);
  unlock();
  *slot = free;
  return free < kSlots;
}

// Of the limit, with a lock that is the job's. What is written first is found by who comes after us if we end here.
bool JobShelf::take_ledger(Slot* slot) {
  uint64_t at = head_->ledger_next;
  for (uint64_t looked = 0; looked < ledger_slots_; ++looked, ++at) {
    if (at >= ledger_slots_) at = 0;
    uint64_t& word = head_->ledger_ours[at / 64];
    const uint64_t bit = uint64_t{1} << at % 64;
    if ((word & bit) != 0) continue;
    uint64_t last = at;
    word |= bit;
    slot->ledger = at + 1;
    if (lock_ledger_slot(files_->ledger(), &last)) {
      head_->ledger_next = at + 1;
      return true;
    }
    word &= ~bit;
    slot->ledger = 0;
    looked += last - at;
    at = last;
  }
  return false;
}

// Somebody ended in the middle of the lock.
void JobShelf::rebuild_ledger() {
  // No further than the limit: to write there is to take memory.
  std::fill_n(head_->ledger_ours, (ledger_slots_ + 63) / 64, 0);
  for (uint32_t i = 0; i < head_->used; ++i) {
    const uint64_t ledger = head_->slots[i].ledger;
    if (ledger != 0 && ledger <= ledger_slots_)
      head_->ledger_ours[(ledger - 1) / 64] |= uint64_t{1} << (ledger - 1) % 64;
  }
  head_->free_from = 0;
}

bool JobShelf::keep_in_memory(uint32_t number, const std::byte* data) {
  Slot& slot = head_->slots[number];
  if (limited_) {
    if (!lock()) return false;
    const bool taken = take_ledger(&slot);
    unlock();
    if (!taken) return false;
  } else if (!look_.plenty(kChunkBytes)) {
    return false;
  }
  if (write_at(own_, data, kChunkBytes, kDataAt + at(number)) && data_at(number) != nullptr) return true;
  punch(own_, kDataAt + at(number));
  return false;
}

bool JobShelf::end(uint32_t number, const ChunkHash& hash, uint32_t stored, Chunk* chunk) {
  Slot& slot = head_->slots[number];
  if (!lock()) return false;
  Slot* const before = linked(hash);
  if (before != nullptr) {
    before->users |= me_;
  } else {
    slot.hash = hash;
    slot.stored = stored == 0 ? kInMemory : stored;
    std::atomic<uint32_t>& bucket = head_->buckets[hash.low % kBuckets];
    slot.next = bucket.load();
    bucket = number + 1;
  }
  unlock();
  if (before != nullptr) leave(number);
  const uint32_t found = before != nullptr ? uint32_t(before - head_->slots) : number;
  *chunk = chunk_of(found);
  if (chunk->slot == kNoSlot) leave(found);
  return chunk->slot != kNoSlot;
}

// Where the lock cannot be had it stays this keeper's, and goes with it.
void JobShelf::leave(uint32_t number) {
  Slot& slot = head_->slots[number];
  if (!lock()) return;
  const bool last = slot.users == me_;
  if (last) unlink(number);
  if (!last) slot.users &= ~me_;
  unlock();
  if (last) discard(number);
}

// One that is this keeper's alone, and not linked. Nobody finds what was there: the system gives zeros for a hole.
void JobShelf::discard(uint32_t number) {
  Slot& slot = head_->slots[number];
  const uint32_t stored = slot.stored;
  if (stored == 0 || stored == kInMemory) punch(own_, kDataAt + at(number));
  if (stored != kInMemory) punch(files_->disk(), at(number));
  if (!lock()) return;
  if (slot.ledger != 0) {
    set_lock(files_->ledger(), off_t(slot.ledger - 1), F_UNLCK);
    head_->ledger_ours[(slot.ledger - 1) / 64] &= ~(uint64_t{1} << (slot.ledger - 1) % 64);
  }
  slot.ledger = 0;
  slot.stored = 0;
  slot.hash = ChunkHash();
  slot.users = 0;
  head_->free_from = std::min(head_->free_from, number);
  unlock();
}

uint64_t JobShelf::dead() const {
  uint64_t gone = 0;
  for (uint64_t rest = head_->members & ~me_; rest != 0; rest &= rest - 1) {
    const uint64_t bit = rest & ~(rest - 1);
    if (!is_held(own_, lock_of(bit))) gone |= bit;
  }
  return gone;
}

// In parts, so that nobody waits long: what they alone had becomes ours, and is given up.
void JobShelf::sweep() {
  std::vector<uint32_t> found;
  do {
    found.clear();
    if (me_ == 0 || gave_up_ || dead() == 0 || !lock()) return;
    const uint64_t gone = dead();
    uint32_t i = 0;
    for (; i < head_->used && found.size() < kSweptAtOnce; ++i) {
      Slot& slot = head_->slots[i];
      const uint64_t left = slot.users & ~gone;
      if (left == slot.users) continue;
      if (left != 0) slot.users = left;
      if (left != 0) continue;
      slot.users = me_;
      unlink(i);
      found.push_back(i);
    }
    if (i == head_->used) head_->members &= ~gone;
    unlock();
    for (const uint32_t slot : found) discard(slot);
  } while (!found.empty());
}

JobShelf::Share JobShelf::share() const {
  Share share;
  for (uint32_t i = 0, used = head_->used; i < used; ++i) {
    const uint64_t users = head_->slots[i].users;
    const uint32_t stored = head_->slots[i].stored;
    if ((users & me_) == 0 || stored == 0) continue;
    const auto count = uint64_t(std::popcount(users));
    (stored == kInMemory ? share.in_memory : share.on_disk) +=
        (stored == kInMemory ? kChunkBytes : on_disk_bytes(stored)) / count;
  }
  return share;
}

}  // namespace tide
