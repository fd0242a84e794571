#pragma once

// CUDA graphs in the client: built, captured and kept here (api/graph), and launched as the plain commands of their
// nodes. So building and updating costs no round trip, a launch none either, and a move of the vGPU needs to know
// nothing of graphs. What only the GPU can decide, the worker makes a graph of for each launch (graph_launch.h).

#include <cuda.h>

#include "api/graph/capture.h"
#include "interpose/process.h"
#include "interpose/transfer.h"

namespace tide {

// Called whenever a process comes to life.
void install_graphs();

graph::StreamId id_of(const Stream& stream);
inline bool capturing(const Stream& stream) {
  return graph::capturing_anywhere() && graph::capture_status(&stream) != CU_STREAM_CAPTURE_STATUS_NONE;
}

// find_stream() for calls that use the stream: fails where that would disturb a capture.
CUresult use_stream(const Entered& entered, CUstream handle, Stream** stream);
// For calls that ask whether the stream is done or wait for it.
CUresult ask_stream(const Stream& stream);
// For calls that ask an event or wait for it.
CUresult ask_event(CUevent event);

// What the calls of these names become while their stream captures.
struct CapturedLaunch {
  CUDA_KERNEL_NODE_PARAMS_v3 params = {};
  const CUlaunchAttribute* attributes = nullptr;
  unsigned attribute_count = 0;
  bool cooperative = false;
};
CUresult capture_launch(const Stream& stream, const CapturedLaunch& launch);
CUresult capture_copy(const Stream& stream, const CopyOrder& order);
CUresult capture_fill(const Stream& stream, const CUDA_MEMSET_NODE_PARAMS_v2& fill);
CUresult capture_host_function(const Stream& stream, CUhostFn function, void* data);
CUresult capture_external_event(const Stream& stream, CUgraphNodeType type, CUevent event);
CUresult capture_values(const Stream& stream, std::vector<CUstreamBatchMemOpParams> steps);
// Of boxes with arrays, or of several slices.
CUresult capture_box(const Stream& stream, const CUDA_MEMCPY3D& what);
CUresult capture_alloc(const Stream& stream, size_t bytes, CUdeviceptr* address);
CUresult capture_free(const Stream& stream, CUdeviceptr address);

// Defined with the launches (entry/launch.cc): refuses what a launch of these parameters would be refused for.
CUresult check_launch(const CUDA_KERNEL_NODE_PARAMS_v3& params, const Context& context, Kernel** kernel);
// The caller's parameters as the kernel reads them.
CUresult copy_parameters(const Kernel& kernel, const CUDA_KERNEL_NODE_PARAMS_v3& params, std::vector<std::byte>* out);
// Defined with the host functions (entry/stream.cc).
CUresult launch_host_function(Stream& stream, CUhostFn function, void* data);

}  // namespace tide
