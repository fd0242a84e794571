#pragma once

// The destination's part of a move: a thread that receives the vGPU, so that the worker hears its agent meanwhile. What
// it is received into is the thread's from start() to the end.

#include <atomic>
#include <functional>
#include <memory>
#include <utility>

#include "base/threads.h"
#include "transport/stream.h"

namespace tide {

class Reception {
 public:
  using Receive = std::function<Outcome(ByteStream& from)>;

  Reception(Receive receive, std::unique_ptr<ByteStream> stream)
      : receive_(std::move(receive)), stream_(std::move(stream)) {}
  // Gives up what is not over.
  ~Reception();
  Reception(const Reception&) = delete;
  Reception& operator=(const Reception&) = delete;

  Outcome start();
  // Readable from then on when it is over.
  int over_fd() const { return over_fd_; }
  bool over() const { return over_; }
  // Requires: over(). How it went; nothing is the thread's any more.
  Outcome finish();
  ByteStream& stream() { return *stream_; }

 private:
  void run();

  const Receive receive_;
  std::unique_ptr<ByteStream> stream_;
  Thread thread_;
  int over_fd_ = -1;
  std::atomic<bool> over_{false};
  Outcome outcome_;  // of the thread, until over_
};

}  // namespace tide
