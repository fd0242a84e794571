#pragma once

// Launches of graphs: each node becomes the command of the call that it stands for. Nodes around a conditional one,
// which only the GPU can decide, are sent to be made a graph of by the worker (server/graph_builder.h).
//
// Threads: graph::mutex() is held.

#include <cuda.h>

#include <vector>

#include "api/graph/model.h"
#include "interpose/process.h"
#include "interpose/transfer.h"

namespace tide {

// Logs once, and is what the call gives.
CUresult refuse_kind(const char* what);
CUresult context_of(const graph::Content& content, Context** context);

bool with_arrays(const CUDA_MEMCPY3D& what);
// One order for each layer. No side is an array.
CUresult orders_of(const CUDA_MEMCPY3D& what, std::vector<CopyOrder>* orders);

// The program gets names for handles of conditionals; the driver's come and go with each launch.
CUgraphConditionalHandle name_conditional(unsigned value, unsigned flags);
bool known_conditional(CUgraphConditionalHandle name);

// Nothing is sent before all of it is known to be possible.
CUresult check_nodes(const graph::Graph& graph, const Stream& stream);
CUresult launch_nodes(const graph::Graph& graph, Stream& stream);

}  // namespace tide
