#pragma once

// The software GPU's side of api/graph: nodes that run on streams.

#include "api/graph/capture.h"
#include "softgpu/driver/work.h"

namespace softgpu {

// Makes graphs possible; called once, when the driver is initialised.
void set_graph_host();

tide::graph::StreamId id_of(Stream& stream);

// Work as a captured node.
CUresult capture(Stream& stream, const Context& context, const WorkRef& work);

// Allocates memory that lives in the graph which the stream captures, or ends the life of such memory there.
CUresult capture_alloc(Stream& stream, CUdeviceptr* address, size_t bytes);
CUresult capture_free(Stream& stream, CUdeviceptr address);

}  // namespace softgpu
