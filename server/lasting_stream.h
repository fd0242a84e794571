#pragma once

// A stream between two workers that can go on over another connection when its own broke. Who uses it notices the break
// as a failure, and decides whether and where to go on; what was under way then is lost, as with any stream.
//
// Threads as of any stream; go_on_over() is for the only one that uses it.

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>

#include "transport/stream.h"

namespace tide {

class LastingStream final : public ByteStream {
 public:
  explicit LastingStream(std::unique_ptr<ByteStream> first) : present_(std::move(first)) {}

  Outcome send(const void* data, size_t bytes, uint32_t timeout_ms = 30'000) override;
  Outcome receive(void* data, size_t bytes, uint32_t timeout_ms = 30'000) override;
  Outcome flush(uint32_t timeout_ms = 30'000) override;
  // Also of what it would go on over.
  void cancel() override;
  void close() override { present_->close(); }

  // Something failed since it goes over the present connection.
  bool broke() const { return broke_; }
  bool cancelled() const { return cancelled_; }
  // What is under way fails, as when the connection breaks. Any thread.
  void interrupt();
  // Closes the present connection, if that is not done.
  void go_on_over(std::unique_ptr<ByteStream> next);
  // How long a send may wait for the far side to take something, at most. Any thread.
  void set_patience(uint32_t ms) { patience_ms_ = ms; }

 private:
  Outcome note(Outcome outcome);

  std::atomic<bool> broke_{false}, cancelled_{false};
  std::atomic<uint32_t> patience_ms_{~0u};
  std::mutex mu_;  // guards what follows where another thread looks at it, or it is replaced
  std::unique_ptr<ByteStream> present_;
};

}  // namespace tide
