#include "interpose/trace/sink.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/clock.h"
#include "interpose/trace/table.h"

namespace tide::trace {
namespace {

// A write beyond the limit of file sizes sends a signal that would end the program. It is held off, and taken back.
class NoSizeSignal {
 public:
  NoSizeSignal() {
    sigemptyset(&size_);
    sigaddset(&size_, SIGXFSZ);
    pthread_sigmask(SIG_BLOCK, &size_, &before_);
  }
  ~NoSizeSignal() {
    const timespec none = {};
    sigtimedwait(&size_, nullptr, &none);
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  NoSizeSignal(const NoSizeSignal&) = delete;
  NoSizeSignal& operator=(const NoSizeSignal&) = delete;

 private:
  sigset_t size_, before_;
};

size_t read_file(const char* path, char* to, size_t most) {
  const int fd = ::open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  size_t have = 0;
  for (ssize_t n; have < most && (n = read(fd, to + have, most - have)) != 0;) {
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) break;
    have += size_t(n);
  }
  close(fd);
  return have;
}

}  // namespace

bool Sink::open(const char* path) {
  FileHead head;
  const size_t have = read_file(path, reinterpret_cast<char*>(&head), sizeof head);
  if (strlen(path) >= sizeof path_ || have != sizeof head || memcmp(head.magic, kMagic, sizeof kMagic) != 0 ||
      head.version != kVersion || head.table_hash != kTableHash) {
    dprintf(2, "tidepool: warning: no trace: %s was not made by this version's `tide run --trace`\n", path);
    return false;
  }
  strcpy(path_, path);
  restart();
  return true;
}

void Sink::restart() {
  process_ns_ = now_ns();
  announced_ = failed_ = false;
}

bool Sink::append(FrameHead head, const void* payload) {
  if (failed_) return false;
  if (!announced_ && !announce()) return false;
  return write_frame(head, payload);
}

bool Sink::announce() {
  char payload[sizeof(ProcessPayload) + kCommandBytesMax];
  const ProcessPayload about = {kTableHash, wall_seconds(), uint32_t(getppid()), 0};
  memcpy(payload, &about, sizeof about);
  const size_t command = read_file("/proc/self/cmdline", payload + sizeof about, kCommandBytesMax);
  FrameHead head = {};
  head.kind = FrameKind::kProcess;
  head.bytes = uint32_t(sizeof about + command);
  announced_ = write_frame(head, payload);
  return announced_;
}

bool Sink::write_frame(FrameHead head, const void* payload) {
  head.magic = kFrameMagic;
  head.pid = uint32_t(getpid());
  head.process_ns = process_ns_;
  head.check = check_of(payload, head.bytes);
  uint64_t zeros = 0;
  const size_t padding = (8 - head.bytes % 8) % 8;
  const iovec parts[] = {{&head, sizeof head}, {const_cast<void*>(payload), head.bytes}, {&zeros, padding}};
  const int fd = ::open(path_, O_WRONLY | O_APPEND | O_CLOEXEC | O_NOCTTY);
  if (fd < 0) {
    give_up(strerror(errno));
    return false;
  }
  ssize_t written;
  int error;
  {
    const NoSizeSignal guard;
    do {
      written = writev(fd, parts, 3);
      error = errno;
    } while (written < 0 && error == EINTR);
  }
  close(fd);
  if (written == ssize_t(sizeof head + head.bytes + padding)) return true;
  give_up(written < 0 ? strerror(error) : "no room");
  return false;
}

void Sink::give_up(const char* why) {
  failed_ = true;
  dprintf(2, "tidepool: warning: the trace %s is not complete: %s; the program goes on\n", path_, why);
}

}  // namespace tide::trace
