#pragma once

// The socket between client and worker. After kOpened nothing is said on it, but that on one machine the client gives
// the worker a descriptor once, and over a network sends bytes that nobody reads (answers()); it ends when either side
// ends.

#include <atomic>
#include <cstdint>

namespace tide {

enum class LifelineState {
  kAlive,
  kClosed,  // by the far side: its process has ended, most likely
  kBroken,  // reset, or nothing was heard for too long
};

class Lifeline {
 public:
  explicit Lifeline(int socket) : socket_(socket) {}
  ~Lifeline();  // ends the connection, also for copies in forked children
  Lifeline(const Lifeline&) = delete;
  Lifeline& operator=(const Lifeline&) = delete;

  bool alive() const { return state() == LifelineState::kAlive; }
  LifelineState state() const;  // one system call, never blocks
  // Whether the far side's system, not its process, confirms what it is sent. Of a client that waits: to be asked again
  // and again while nothing comes; now and then a byte is sent, the less often the longer nothing was heard. False once
  // one is not confirmed for `patience_ms`, or three times as long as the network usually takes.
  bool answers(uint64_t now_ns, uint64_t heard_ns, uint32_t patience_ms);
  // Of a unix socket.
  bool give_descriptor(int fd);
  int take_descriptor();  // -1: none has come
  int fd() const { return socket_; }
  void close();  // this copy only
  void release() { socket_ = -1; }

 private:
  int socket_;
  std::atomic<uint64_t> asked_ns_{0};  // when the last byte was sent
};

}  // namespace tide
