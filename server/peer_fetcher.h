#pragma once

// Fetches device memory of other vGPUs of the job into this one's, from worker to worker. A thread of its own from the
// first fetch on; the worker's own thread puts orders into its queue and looks whether they are over.

#include <atomic>
#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "api/payload.h"
#include "base/threads.h"
#include "server/contexts.h"
#include "server/peer_wire.h"
#include "transport/stream.h"

namespace tide {

struct FetchOrder {
  PeerAddress peer;
  uint64_t to = 0, to_pitch = 0;
  uint64_t from = 0, from_pitch = 0;
  uint64_t width = 0, height = 0;
};

struct Fetch {
  FetchOrder order;
  FetchAnswer answer;  // once it is over
  std::atomic<bool> over{false};
};

class PeerFetcher {
 public:
  PeerFetcher(const Driver& driver, Contexts& contexts, PeerPins& pins)
      : driver_(driver), contexts_(contexts), pins_(pins) {}
  ~PeerFetcher();
  // Null: too many are under way.
  std::shared_ptr<Fetch> start(const FetchOrder& order);

 private:
  struct Connection {
    std::unique_ptr<ByteStream> stream;
    std::unique_ptr<PeerSlots> slots;  // the source's where `mapped`, else our own
    bool mapped = false;
    uint64_t used_ns = 0;
  };

  void run();
  std::shared_ptr<Fetch> next();
  void drop_idle(uint64_t now);
  void drop(std::string name);
  FetchAnswer carry_out(FetchOrder order);
  FetchAnswer connect(const PeerAddress& peer, Connection* connection);
  FetchAnswer ask(Connection& connection, const FetchOrder& order);
  FetchAnswer take(Connection& connection, const FetchOrder& order);
  Outcome take_part(Connection& connection, uint32_t slot, const FetchOrder& order, const Part& part,
                    FetchAnswer* failed);

  const Driver& driver_;
  Contexts& contexts_;
  PeerPins& pins_;
  CUcontext context_ = nullptr;
  std::unique_ptr<PeerLane> lane_;                 // of the thread
  std::map<std::string, Connection> connections_;  // by address and secret; of the thread
  Thread thread_;
  std::mutex mu_;  // guards what follows
  std::condition_variable wake_;
  std::deque<std::shared_ptr<Fetch>> queue_;
  bool stop_ = false;
};

}  // namespace tide
