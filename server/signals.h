#pragma once

// Streams that wait until the client says go: a word of the client's page reaches a value. Where the driver can wait
// on such memory by itself it does; else one host function per wait looks at the word. One thread makes waits; host
// functions run in the driver's threads.

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "server/contexts.h"
#include "transport/layout.h"

namespace tide {

class Signals {
 public:
  Signals(const Driver& driver, Contexts& contexts) : driver_(driver), contexts_(contexts) {}
  ~Signals();
  // The client's page; waits that are under way on another one end. Null: none.
  void attach(ClientPage* page);
  // Work put on the stream from now on waits for signals[slot] >= value. Requires: the stream's context is current.
  CUresult wait(CUstream stream, uint32_t slot, uint64_t value);
  // Whether a signal that was waited for has not come yet. Such a stream may need later commands of its own client to
  // go on, so it must not be expected to come to rest.
  bool outstanding();
  // All streams have come to rest: nothing waits.
  void forget() { awaited_.clear(); }

 private:
  struct Shared {
    std::atomic<bool> stop{false};
  };
  struct Awaited {
    uint32_t slot;
    uint64_t value;
  };
  struct Wait {
    std::shared_ptr<Shared> shared;
    const Word* word;
    uint64_t value;
  };
  static void CUDA_CB run(void* argument);
  bool driver_waits();

  const Driver& driver_;
  Contexts& contexts_;
  ClientPage* page_ = nullptr;
  CUdeviceptr device_page_ = 0;  // where kernels see the page; 0: the driver cannot wait on it
  std::vector<Awaited> awaited_;
  std::shared_ptr<Shared> shared_ = std::make_shared<Shared>();
};

}  // namespace tide
