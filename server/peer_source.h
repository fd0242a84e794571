#pragma once

// Gives device memory of this vGPU away to other workers of the job: who knows the secret, which only the client tells,
// may read what lies in the vGPU's range. Threads of its own from the first address() on, one for each worker that
// fetches; the worker's own thread never waits for them.

#include <atomic>
#include <list>
#include <memory>
#include <mutex>

#include "api/payload.h"
#include "base/threads.h"
#include "server/contexts.h"
#include "server/memory.h"
#include "server/peer_wire.h"
#include "transport/stream.h"

namespace tide {

class PeerSource {
 public:
  PeerSource(const Driver& driver, Contexts& contexts, const Memory& memory, PeerPins& pins)
      : driver_(driver), contexts_(contexts), memory_(memory), pins_(pins) {}
  ~PeerSource();

  // Where to fetch; listens from the first time on.
  Outcome address(PeerAddress* peer);
  // For a move: false while something is being read; when true, nothing is until open().
  bool close();
  void open();
  // For what must not go away under a reader: runs it, or not while something is being read.
  template <class Action>
  void unless_read(Action action) {
    const std::lock_guard lock(mu_);
    if (reads_ == 0) action();
  }

 private:
  struct Connection {
    std::unique_ptr<ByteStream> stream;
    std::atomic<bool> over{false};
    Thread thread;
  };
  // What one thread serves its fetcher with.
  struct Server {
    ByteStream& stream;
    PeerLane lane;
    std::unique_ptr<PeerSlots> slots;
  };
  class Giving;

  void accept();
  void reap();
  void serve(Connection& connection);
  bool greet(Server& server);
  bool answer(Server& server, const PeerRequest& request);
  FetchState begin_read(const PeerRequest& request);
  void end_read();

  const Driver& driver_;
  Contexts& contexts_;
  const Memory& memory_;
  PeerPins& pins_;
  CUcontext context_ = nullptr;
  PeerAddress peer_;
  std::unique_ptr<StreamListener> listener_;
  Thread acceptor_;
  std::atomic<bool> stop_{false};
  std::list<Connection> connections_;  // of the acceptor
  std::mutex mu_;                      // guards what follows; nothing waits with it held
  uint32_t reads_ = 0;
  bool closed_ = false;
};

}  // namespace tide
