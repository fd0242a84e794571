#pragma once

// The destination's part of a move: a thread that receives the vGPU, so that the worker hears its agent meanwhile. What
// it is received into is the thread's from start() until over(). Then the thread stays by the stream until the source
// ends that, which so learns of our end as long as the vGPU may still be its own.

#include <atomic>
#include <functional>
#include <memory>
#include <utility>

#include "base/threads.h"
#include "server/lasting_stream.h"
#include "server/source_door.h"
#include "transport/stream.h"

namespace tide {

class Reception {
 public:
  using Receive = std::function<Outcome(ByteStream& from)>;

  // `door`: of the stream; it is what receives that opens and closes it.
  Reception(Receive receive, std::unique_ptr<LastingStream> stream, std::unique_ptr<SourceDoor> door)
      : receive_(std::move(receive)), stream_(std::move(stream)), door_(std::move(door)) {}
  // Gives up what is not over.
  ~Reception();
  Reception(const Reception&) = delete;
  Reception& operator=(const Reception&) = delete;

  Outcome start();
  // Readable from then on when it is over.
  int over_fd() const { return over_fd_; }
  bool over() const { return over_; }
  // Requires: over(). How it went; what it was received into is not the thread's any more.
  const Outcome& outcome() const { return outcome_; }
  // Behind over() to be sent on, not to be received from.
  ByteStream& stream() { return *stream_; }
  // The source has ended the stream: nothing is left to be done.
  bool left() const { return left_; }

 private:
  void run();

  const Receive receive_;
  const std::unique_ptr<LastingStream> stream_;
  const std::unique_ptr<SourceDoor> door_;
  Thread thread_;
  int over_fd_ = -1;
  std::atomic<bool> over_{false}, left_{false};
  Outcome outcome_;  // of the thread, until over_
};

}  // namespace tide
