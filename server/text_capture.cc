#include "server/text_capture.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

namespace tide {

TextCapture::~TextCapture() {
  if (file_ >= 0) close(file_);
}

bool TextCapture::start(int descriptor, int* before) {
  file_ = memfd_create("tide-text", MFD_CLOEXEC);
  if (file_ < 0) return false;
  fcntl(file_, F_SETFL, O_APPEND);
  if (before != nullptr) *before = fcntl(descriptor, F_DUPFD_CLOEXEC, 3);
  return dup2(file_, descriptor) >= 0;
}

size_t TextCapture::read(char* to, size_t room) {
  if (file_ < 0) return 0;
  const ssize_t n = pread(file_, to, room, off_t(read_));
  if (n <= 0) return 0;
  // What has been read need not be kept; the file's length goes on growing.
  fallocate(file_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off_t(read_), n);
  read_ += uint64_t(n);
  return size_t(n);
}

}  // namespace tide
