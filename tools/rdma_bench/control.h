#pragma once

// The control connection between the two sides: whole messages over TCP, each wait with an end. It is also how each
// side learns at once that the other one is gone. Owned and used by one thread.

#include <algorithm>
#include <cstdint>
#include <string>

#include "base/outcome.h"

namespace tide::fabric {

// Both sides must be of the same one; the first 12 bytes of a message stay as they are in every version.
inline constexpr uint16_t kProtocolVersion = 2;
inline constexpr uint32_t kMessageBytesMax = 1 << 20;

enum class Word : uint16_t {
  kHello = 1,  // client: Hello
  kWelcome,    // server: Machine
  kOpen,       // client: Opening
  kOffer,      // server, then client: how to reach its end of the path
  kReady,      // both: the path is connected; server: the measurement may begin; a receiver: it is warm
  kRun,        // client: Run
  kCount,      // a sender: how many messages it sent
  kStop,       // client: no more round trips
  kResult,     // server: Flow
  kClose,      // client: end of the path
  kClosed,     // server: Facts
  kError,      // either: one sentence
};

class Control {
 public:
  explicit Control(uint32_t timeout_ms) : timeout_ms_(timeout_ms) {}
  Control(const Control&) = delete;
  ~Control();

  // `device`: only over this network interface; empty: any.
  Outcome connect(const std::string& host, uint32_t port, const std::string& device = "");
  void adopt(int fd, const std::string& peer);

  Outcome send(Word word, const std::string& payload = "");
  // The next message must be `word`. A kError of the other side is the outcome.
  Outcome expect(Word word, std::string* payload, uint32_t more_ms = 0);
  // Any message within the timeout; with `wait_ms` the first byte may come that late (0: for ever).
  Outcome receive(Word* word, std::string* payload, uint32_t wait_ms);
  // True: receive() will not wait, because something came or the other side is gone.
  bool readable() const;
  // The other side is gone; waits a moment for that.
  bool gone(uint32_t wait_ms) const;

  bool is_client() const { return is_client_; }  // this side asked for the connection
  int fd() const { return fd_; }
  uint32_t timeout_ms() const { return timeout_ms_; }
  void wait_at_least(uint32_t timeout_ms) { timeout_ms_ = std::max(timeout_ms_, timeout_ms); }
  const std::string& peer() const { return peer_; }  // as people call it
  std::string own_address() const;                   // numeric, of this end
  std::string peer_address() const;                  // and of the other one

 private:
  Outcome read_all(char* bytes, size_t count, uint64_t end_ns);
  Outcome lost(const char* what) const;

  int fd_ = -1;
  uint32_t timeout_ms_;
  bool is_client_ = false;
  std::string peer_;
};

// Listens on a numeric or named address; *port: in, 0 for any; out, which.
Outcome listen_on(const std::string& address, uint32_t* port, int* fd, const std::string& device = "");
std::string address_text(const void* sockaddr, bool with_port);

}  // namespace tide::fabric
