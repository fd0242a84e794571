#pragma once

// The socket between client and worker. After kOpened nothing is said on it, but that on one machine the client gives
// the worker a descriptor once, and over a network sends bytes that mean nothing (answers(), keep()); it ends when
// either side ends. The worker says nothing: a client that ends with something unread would look like one that was cut
// off.

#include <atomic>
#include <cstdint>

#include "transport/path_time.h"

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
  // one is not confirmed for `patience_ms`, or longer than the network may take (PathTime::silence_us).
  bool answers(uint64_t now_ns, uint64_t heard_ns, uint32_t patience_ms);
  // Of a client, every second or more often: sends a byte now and then, which keeps the measured time of the path
  // fresh. The system sends it again where it is lost, unlike its own signs of life, with which one loss is the end.
  void keep(uint64_t now_ns);
  // Over a network, of the worker: reads what means nothing; what is unread at the end looks like a reset.
  LifelineState read_on();
  // Of the worker, which sends nothing and so measures nothing later: as the path was when it was connected.
  void follow_path();
  // As measured last. 0: not over a network.
  uint64_t round_trip_us() const { return round_trip_us_.load(std::memory_order_relaxed); }
  // How long a live far side may be silent.
  uint64_t peer_timeout_ns() const { return peer_timeout_ms_.load(std::memory_order_relaxed) * uint64_t{1'000'000}; }
  // Of a unix socket.
  bool give_descriptor(int fd);
  int take_descriptor();  // -1: none has come
  int fd() const { return socket_; }
  void close();  // this copy only
  void release() { socket_ = -1; }

 private:
  bool measure(PathTime* path);
  void send_byte(uint64_t now_ns);

  int socket_;
  std::atomic<uint64_t> round_trip_us_{0};
  std::atomic<uint32_t> peer_timeout_ms_{0};
  std::atomic<bool> reset_{false};     // found by reading, which the system tells once
  std::atomic<uint64_t> asked_ns_{0};  // when the last byte was sent
};

}  // namespace tide
