#pragma once

// Round trips between this process and another one, each measured in the same way: ours, and the floors beside them.
// The other process is this program again, in another role (serve).

#include <memory>
#include <string>

#include "base/outcome.h"

namespace tide::bench {

class Ping {
 public:
  virtual ~Ping() = default;  // ends the other process
  // Median of a round trip in ns, over batches of ten.
  double measure(int round_trips);

 protected:
  virtual bool round_trip() = 0;
};

// "raw": one cache line each way in shared memory, spinning. "ucx-raw": UCX's own active messages. "verbs-raw": RC
// writes with immediate. Else a transport of ours: a command without payload, and its answer.
Outcome start_ping(const std::string& kind, std::unique_ptr<Ping>* ping);

// The other process: what `role` asks for, with its parent on `socket`. The exit status.
int serve(const std::string& role, int socket);

}  // namespace tide::bench
