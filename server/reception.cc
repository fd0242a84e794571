#include "server/reception.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace tide {

Reception::~Reception() {
  if (!over_) stream_->cancel();
  if (thread_.joinable()) thread_.join();
  if (over_fd_ >= 0) close(over_fd_);
}

Outcome Reception::start() {
  over_fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (over_fd_ < 0) return Outcome::fail(std::string("cannot make an eventfd: ") + strerror(errno));
  const SignalsBlocked blocked;  // they are for the executing thread
  return thread_.start([this] { run(); });
}

void Reception::run() {
  outcome_ = receive_(*stream_);
  over_ = true;
  eventfd_write(over_fd_, 1);
}

Outcome Reception::finish() {
  thread_.join();
  return outcome_;
}

}  // namespace tide
