#pragma once

// At a move's destination: where the source comes back to after the connection between the two broke. While chunks
// come (server/chunk_carrier.h) a thread waits here for the source that has said that it would, also when nobody has
// noticed a break here yet: who shows the token and comes later counts, and what it came by before counts no more.

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>

#include "base/threads.h"
#include "server/lasting_stream.h"
#include "server/transfer.h"

namespace tide {

class SourceDoor {
 public:
  // `stream`: by which the source came first; outlives it. `listener`: at which.
  SourceDoor(std::unique_ptr<StreamListener> listener, const TransferHello& expected, LastingStream& stream);
  ~SourceDoor();
  SourceDoor(const SourceDoor&) = delete;
  SourceDoor& operator=(const SourceDoor&) = delete;

  // What follows is for the thread that receives.
  // The source has said that it comes back. Whoever else comes is refused.
  Outcome open();
  // Where the stream broke: until the source is back; tells it that so many of its frames are done. Fails, as `broken`,
  // when it does not come or has not said that it would, the move is given up, or it was not the stream that failed.
  Outcome await(uint64_t done, const Outcome& broken);
  // Nobody needs to come any more. Does not wait.
  void close();

 private:
  void run();
  void hear(std::unique_ptr<ByteStream> caller);
  std::unique_ptr<ByteStream> next(uint64_t until_ns);

  const TransferHello expected_;
  LastingStream& stream_;
  std::unique_ptr<StreamListener> listener_;  // the thread's while it runs
  Thread thread_;
  std::mutex mu_;  // guards what follows
  std::condition_variable came_;
  bool closed_ = false;
  std::unique_ptr<ByteStream> next_;  // has shown who it is
  ByteStream* stranger_ = nullptr;    // has not yet
};

}  // namespace tide
