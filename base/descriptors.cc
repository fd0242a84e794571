#include "base/descriptors.h"

#include <errno.h>
#include <poll.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cstring>

#include "base/clock.h"
#include "base/log.h"

namespace tide {
namespace {

// `move`: read() or write().
template <class Byte, class Move>
Outcome move_all(int fd, Byte* at, size_t bytes, Move move) {
  while (bytes != 0) {
    const ssize_t n = move(fd, at, bytes);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return Outcome::fail(strerror(errno));
    if (n == 0) return Outcome::fail("it ends too early");
    at += n;
    bytes -= size_t(n);
  }
  return {};
}

}  // namespace

Outcome take_descriptors(uint64_t least, uint64_t* count) {
  rlimit files{};
  if (getrlimit(RLIMIT_NOFILE, &files) != 0) return errno_failure("cannot read the limit of open files");
  files.rlim_cur = files.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &files) != 0) return errno_failure("cannot raise the limit of open files");
  *count = files.rlim_cur;
  if (*count >= least) return {};
  return Outcome::fail(format(
      "this process may have %llu open files (RLIMIT_NOFILE), and needs %llu: raise it, with `ulimit -Hn` before "
      "it is started, or LimitNOFILE= of its service",
      static_cast<unsigned long long>(*count), static_cast<unsigned long long>(least)));
}

Outcome errno_failure(const std::string& what) { return Outcome::fail(what + ": " + strerror(errno)); }

Outcome fork_failure(const std::string& what) {
  const char* hint = errno == EAGAIN ? "; see the limit of processes, `ulimit -u` or the container's" : "";
  return Outcome::fail(errno_failure(what).message() + hint);
}

Outcome write_all(int fd, const void* data, size_t bytes) {
  return move_all(fd, static_cast<const char*>(data), bytes, write);
}

Outcome read_all(int fd, void* data, size_t bytes) { return move_all(fd, static_cast<char*>(data), bytes, read); }

Outcome read_to_end(int fd, const ReadLimits& limits, std::string* text) {
  const uint64_t begin = now_ns();
  char buffer[16384];
  while (true) {
    const uint64_t gone = now_ns() - begin;
    if (gone >= limits.timeout_ns) return Outcome::fail("it does not come to its end in time");
    const uint64_t left_ms = (limits.timeout_ns - gone) / 1'000'000 + 1;
    pollfd wait = {fd, POLLIN, 0};
    if (poll(&wait, 1, int(std::min<uint64_t>(left_ms, INT_MAX))) <= 0) continue;
    const ssize_t n = read(fd, buffer, sizeof buffer);
    if (n == 0) return {};
    if (n < 0 && errno != EINTR) return Outcome::fail(strerror(errno));
    if (n > 0) text->append(buffer, size_t(n));
    if (text->size() > limits.bytes_max) return Outcome::fail("it says too much");
  }
}

}  // namespace tide
