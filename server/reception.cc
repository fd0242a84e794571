#include "server/reception.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>

namespace tide {

namespace {
constexpr uint32_t kSourceLeavesMs = 600'000;  // longer than it waits for its agent's decision, and for its client
}

Reception::~Reception() {
  // What it says when it has failed shall arrive.
  if (!over_ || (outcome_.ok() && !left_)) stream_->cancel();
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
  std::byte nothing;
  if (outcome_.ok()) (void)stream_->receive(&nothing, sizeof(nothing), kSourceLeavesMs);
  if (outcome_.ok()) stream_->close();
  left_ = true;
}

}  // namespace tide
