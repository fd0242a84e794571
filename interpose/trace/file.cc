#include "interpose/trace/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "interpose/trace/format.h"
#include "interpose/trace/table.h"

namespace tide::trace {
namespace {

uint64_t hash_of(const std::string& text) {
  uint64_t value = 0xcbf29ce484222325u;
  for (const char c : text) value = (value ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return value;
}

Outcome cannot(const std::string& path) { return Outcome::fail(path + ": " + strerror(errno)); }

std::string empty_trace() {
  std::string text = kTableText;
  const uint64_t hash = hash_of(text);
  text.append((8 - text.size() % 8) % 8, '\n');
  FileHead head = {};
  memcpy(head.magic, kMagic, sizeof kMagic);
  head.version = kVersion;
  head.table_bytes = uint32_t(text.size());
  head.table_hash = hash;
  return text.insert(0, reinterpret_cast<const char*>(&head), sizeof head);
}

// The lock says that a job writes here; a file system that knows no locks goes without.
Outcome claim(int fd, const std::string& path) {
  struct stat about;
  if (fstat(fd, &about) != 0) return cannot(path);
  if (!S_ISREG(about.st_mode)) return Outcome::fail(path + " is no ordinary file");
  if (flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    return Outcome::fail(path +
                         " is the trace of a job that still runs (`tide jobs` shows it): take another name, or " +
                         "wait for its end");
  }
  char magic[sizeof kMagic] = {};
  const bool trace = pread(fd, magic, sizeof magic, 0) == sizeof magic && memcmp(magic, kMagic, sizeof kMagic) == 0;
  if (about.st_size != 0 && !trace)
    return Outcome::fail(path + " is there already and is no trace: take another name, or delete it");
  return {};
}

}  // namespace

Outcome begin_file(const std::string& path, std::string* absolute) {
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_NONBLOCK | O_CLOEXEC | O_NOCTTY, 0666);
  if (fd < 0) return cannot(path);
  Outcome outcome = claim(fd, path);
  const std::string text = empty_trace();
  char full[PATH_MAX];
  if (outcome.ok() && (ftruncate(fd, 0) != 0 || write(fd, text.data(), text.size()) != ssize_t(text.size()) ||
                       realpath(path.c_str(), full) == nullptr)) {
    outcome = cannot(path);
  }
  if (!outcome.ok()) {
    close(fd);
    return outcome;
  }
  *absolute = full;
  return {};  // the descriptor stays: it holds the lock
}

FileReader::~FileReader() {
  if (fd_ >= 0) close(fd_);
}

Outcome FileReader::open(const std::string& path) {
  fd_ = ::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
  struct stat about;
  if (fd_ < 0 || fstat(fd_, &about) != 0) return cannot(path);
  if (!S_ISREG(about.st_mode)) return Outcome::fail(path + " is no ordinary file");
  size_ = uint64_t(about.st_size);
  return {};
}

uint64_t FileReader::next_data(uint64_t at) const {
  const off_t data = lseek(fd_, off_t(at), SEEK_DATA);
  if (data >= 0) return std::min(uint64_t(data), size_);
  return errno == ENXIO ? size_ : at;  // others: the file system cannot tell
}

bool FileReader::read(uint64_t at, void* to, size_t bytes) const {
  for (size_t have = 0; have < bytes;) {
    const ssize_t n = pread(fd_, static_cast<char*>(to) + have, bytes - have, off_t(at + have));
    if (n == 0 || (n < 0 && errno != EINTR)) return false;
    if (n > 0) have += size_t(n);
  }
  return true;
}

const char* FileReader::view(uint64_t at, size_t bytes) {
  if (at > size_ || bytes > size_ - at) return nullptr;
  if (at < window_at_ || at + bytes > window_at_ + window_.size()) {
    window_.resize(size_t(std::min<uint64_t>(size_ - at, kViewMax)));
    window_at_ = at;
    if (!read(at, window_.data(), window_.size())) {
      window_.clear();
      return nullptr;
    }
  }
  return window_.data() + (at - window_at_);
}

}  // namespace tide::trace
