#pragma once

// A guard's work (docs/decisions/0019-*.md): takes checkpoints of a session as they come, one after the other over one
// stream, and gives the last one that is whole to a worker that shall be the session from there on. Two threads of its
// own, one at a time: the one that takes, and the one that gives; while it gives nothing is taken. The rest belongs to
// the worker's thread, which never waits for the network.

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "base/threads.h"
#include "server/kept.h"
#include "server/transfer.h"
#include "transport/stream.h"

namespace tide {

class Guard {
 public:
  // `kept` outlives it.
  explicit Guard(Kept& kept) : kept_(kept) {}
  // Gives up what is under way.
  ~Guard();
  Guard(const Guard&) = delete;
  Guard& operator=(const Guard&) = delete;

  // A source that shows `expected` is taken at *address, and after its end the next one. What comes over an earlier
  // stream counts no more; what is whole stays.
  Outcome listen(const TransferHello& expected, std::string* address);
  // Nothing is taken any more.
  void close();

  // Begins to give; over() then says when that is done. Requires: over() or never given.
  Outcome give(const std::string& address, const TransferHello& hello);
  bool giving() const { return giver_.joinable(); }
  // Readable when it is over.
  int over_fd() const { return over_fd_; }
  // Requires: giving(). False: it is not over yet. *outcome: how it went; *bytes: that were sent.
  bool over(Outcome* outcome, uint64_t* bytes);

 private:
  void take(const TransferHello& expected);
  void let_it_hear(ByteStream& stream);
  void take_from(std::unique_ptr<ByteStream> stream);
  Outcome send(const std::string& address, const TransferHello& hello);
  ByteStream* hold(std::unique_ptr<ByteStream> stream);
  void drop();

  Kept& kept_;
  std::unique_ptr<StreamListener> listener_;
  Thread taker_, giver_;
  std::atomic<bool> stop_{false}, over_{false};
  int over_fd_ = -1;
  Outcome outcome_;     // of the giver, until over_
  uint64_t bytes_ = 0;  // as well
  std::mutex stream_mu_;
  std::unique_ptr<ByteStream> stream_;  // of the thread that runs; cancelled by the other one
};

}  // namespace tide
