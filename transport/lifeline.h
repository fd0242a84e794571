#pragma once

// The socket between client and worker. After kOpened nothing is said on it, but that on one machine the client gives
// the worker a descriptor once; it ends when either side ends.

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
  // Of a unix socket.
  bool give_descriptor(int fd);
  int take_descriptor();  // -1: none has come
  int fd() const { return socket_; }
  void close();  // this copy only
  void release() { socket_ = -1; }

 private:
  int socket_;
};

}  // namespace tide
