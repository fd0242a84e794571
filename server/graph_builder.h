#pragma once

// Graphs with conditional nodes: what runs, only the GPU can decide. Between tideBeginGraph and tideLaunchGraph the
// commands of one stream are not executed but captured by the driver below, into a graph of its own and the bodies of
// its conditional nodes. It is made anew for each launch: nothing is kept, and a move finds nothing. One thread.

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "server/contexts.h"
#include "server/streams.h"

namespace tide {

class GraphBuilder {
 public:
  GraphBuilder(const Driver& driver, Contexts& contexts, Streams& streams)
      : driver_(driver), contexts_(contexts), streams_(streams) {}

  bool building() const { return building_; }

  // Commands of `slot` are captured from here on.
  CUresult begin(uint32_t slot, uint32_t context);
  // A conditional's handle; `name` is the number that the client gave the program for it.
  CUresult add_handle(uint64_t name, uint32_t value, uint32_t flags);
  CUresult begin_conditional(uint64_t name, uint32_t kind, uint32_t bodies);
  // What follows belongs to this body of the innermost conditional.
  CUresult begin_body(uint32_t index);
  CUresult end_conditional();
  // Puts the graph on another stream than the slot's. In any case, commands of the slot are executed again.
  CUresult launch(CUstream stream);

  // In a kernel's parameters, the driver's handles in place of the client's names.
  void put_handles(std::span<std::byte> params) const;
  // Requires: the context is current.
  void forget_context(uint32_t context);

  // Forgets what was begun; nothing of it is launched.
  void abandon();

 private:
  struct Level {
    CUstream stream = nullptr;
    CUgraph graph = nullptr;
    std::vector<CUgraph> bodies;  // of the conditional that this level is inside of
    bool capturing = false;
  };

  bool served() const;
  CUresult open_level(CUgraph graph, std::vector<CUgraph> bodies);
  CUresult capture_into(CUgraph graph);
  CUresult end_capture();
  CUresult add_node(CUgraphNodeParams* params);
  // Passes `result` on; after a failure all commands of the slot are refused until the launch.
  CUresult done(CUresult result);

  const Driver& driver_;
  Contexts& contexts_;
  Streams& streams_;
  bool building_ = false;
  CUresult failure_ = CUDA_SUCCESS;
  uint32_t slot_ = 0;
  uint32_t context_ = 0;
  CUgraph graph_ = nullptr;
  std::vector<Level> levels_;
  std::unordered_map<uint64_t, CUgraphConditionalHandle> handles_;  // by name
  std::unordered_map<uint32_t, std::vector<CUstream>> scratch_;     // one for each depth, by context
};

}  // namespace tide
