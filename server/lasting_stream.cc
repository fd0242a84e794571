#include "server/lasting_stream.h"

#include <algorithm>
#include <utility>

namespace tide {

Outcome LastingStream::note(Outcome outcome) {
  if (!outcome.ok()) broke_ = true;
  return outcome;
}

Outcome LastingStream::send(const void* data, size_t bytes, uint32_t timeout_ms) {
  return note(present_->send(data, bytes, std::min(timeout_ms, patience_ms_.load())));
}

Outcome LastingStream::receive(void* data, size_t bytes, uint32_t timeout_ms) {
  return note(present_->receive(data, bytes, timeout_ms));
}

Outcome LastingStream::flush(uint32_t timeout_ms) { return note(present_->flush(timeout_ms)); }

void LastingStream::cancel() {
  const std::lock_guard lock(mu_);
  cancelled_ = true;
  present_->cancel();
}

void LastingStream::interrupt() {
  const std::lock_guard lock(mu_);
  present_->cancel();
}

void LastingStream::go_on_over(std::unique_ptr<ByteStream> next) {
  present_->close();  // may take a while
  const std::lock_guard lock(mu_);
  present_.swap(next);
  broke_ = false;
  if (cancelled_) present_->cancel();
}

}  // namespace tide
