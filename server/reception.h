#pragma once

// The destination's part of a move: a thread that receives the session, so that the worker hears its agent meanwhile.
// The session is the thread's from start() to the end.

#include <atomic>
#include <memory>
#include <utility>

#include "base/threads.h"
#include "server/session.h"
#include "transport/stream.h"

namespace tide {

class Reception {
 public:
  // `session` outlives it.
  Reception(Session& session, std::unique_ptr<ByteStream> stream) : session_(session), stream_(std::move(stream)) {}
  // Gives up what is not over.
  ~Reception();
  Reception(const Reception&) = delete;
  Reception& operator=(const Reception&) = delete;

  Outcome start();
  // Readable from then on when it is over.
  int over_fd() const { return over_fd_; }
  bool over() const { return over_; }
  // Requires: over(). How it went; the session is the caller's again.
  Outcome finish();
  ByteStream& stream() { return *stream_; }

 private:
  void run();

  Session& session_;
  std::unique_ptr<ByteStream> stream_;
  Thread thread_;
  int over_fd_ = -1;
  std::atomic<bool> over_{false};
  Outcome outcome_;  // of the thread, until over_
};

}  // namespace tide
