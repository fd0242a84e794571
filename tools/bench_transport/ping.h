#pragma once

// Round trips between this process and another one, each measured in the same way: ours, and the floors beside them.
// The other process is this program again, with a role for each of them (child.h).

#include <unistd.h>

#include <memory>
#include <string>

#include "base/outcome.h"

namespace tide::bench {

class Ping {
 public:
  explicit Ping(int socket) : socket_(socket) {}
  virtual ~Ping() {  // ends the other side's part
    if (socket_ >= 0) close(socket_);
  }
  // Median of a round trip in ns, over batches of ten.
  double measure(int round_trips);

 protected:
  virtual bool round_trip() = 0;
  int socket_ = -1;
};

// "raw": one cache line each way in shared memory, spinning. "ucx-raw": UCX's own active messages. "verbs-raw": RC
// writes with immediate; "verbs-poll": RC writes whose last word the receiver polls. Else a transport of ours: a
// command without payload, and its answer. The ping owns the socket, which leads to its role in the other process.
Outcome start_ping(const std::string& kind, int socket, std::unique_ptr<Ping>* ping);

// The other process: what `role` asks for, with its parent on `socket`, until that ends. The exit status.
int serve(const std::string& role, int socket);

}  // namespace tide::bench
