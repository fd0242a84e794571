// Entry points: stream capture.

#include "api/graph/entry.h"

using namespace tide::graph;  // an entry point is C; everything it uses is ours

namespace {

// Calls about one stream; `id` is what the handle means to the calling thread.
template <typename Body>
CUresult of_stream(CUstream handle, Body body) noexcept {
  return guarded([&]() -> CUresult {
    StreamId id;
    const CUresult result = host().find_stream(handle, &id);
    return result != CUDA_SUCCESS ? result : body(id);
  });
}

CUresult begin(CUstream handle, CUstreamCaptureMode mode, const std::shared_ptr<Graph>& into,
               const std::vector<Edge>& after) {
  return of_stream(handle, [&](const StreamId& id) -> CUresult {
    if (mode > CU_STREAM_CAPTURE_MODE_RELAXED) return CUDA_ERROR_INVALID_VALUE;
    return begin_capture(id, mode, into, after);
  });
}

CUresult update(CUstream handle, CUgraphNode* nodes, const CUgraphEdgeData* data, size_t count, unsigned flags) {
  return of_stream(handle, [&](const StreamId& id) -> CUresult {
    if (flags > CU_STREAM_SET_CAPTURE_DEPENDENCIES) return CUDA_ERROR_INVALID_VALUE;
    CaptureInfo info;
    const CUresult result = capture_info(id, &info);
    if (result != CUDA_SUCCESS) return result;
    if (info.status == CU_STREAM_CAPTURE_STATUS_NONE) return CUDA_ERROR_ILLEGAL_STATE;
    if (info.status != CU_STREAM_CAPTURE_STATUS_ACTIVE) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    std::vector<Edge> after;
    const CUresult read = read_edges(*find_graph(info.graph), nodes, data, count, &after);
    if (read != CUDA_SUCCESS) return read;
    return update_dependencies(id, std::move(after), flags == CU_STREAM_SET_CAPTURE_DEPENDENCIES);
  });
}

struct InfoOutputs {
  CUstreamCaptureStatus* status;
  cuuint64_t* id;
  CUgraph* graph;
  const CUgraphNode** nodes;
  const CUgraphEdgeData** data;
  size_t* count;
};

CUresult get_info(CUstream handle, const InfoOutputs& out) {
  return of_stream(handle, [&](const StreamId& id) -> CUresult {
    if (out.status == nullptr) return CUDA_ERROR_INVALID_VALUE;
    CaptureInfo info;
    const CUresult result = capture_info(id, &info);
    if (result != CUDA_SUCCESS) return result;
    if (out.nodes != nullptr && out.data == nullptr) {  // edge data would be lost
      for (size_t i = 0; i < info.count; ++i) {
        if (info.data[i].from_port != 0 || info.data[i].type != 0) return CUDA_ERROR_LOSSY_QUERY;
      }
    }
    *out.status = info.status;
    if (info.status == CU_STREAM_CAPTURE_STATUS_NONE) return CUDA_SUCCESS;
    if (out.id != nullptr) *out.id = info.id;
    if (out.graph != nullptr) *out.graph = info.graph;
    if (out.nodes != nullptr) *out.nodes = info.nodes;
    if (out.data != nullptr) *out.data = info.data;
    if (out.count != nullptr) *out.count = info.count;
    return CUDA_SUCCESS;
  });
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

CUresult cuStreamBeginCapture_v2(CUstream stream, CUstreamCaptureMode mode) { return begin(stream, mode, nullptr, {}); }

CUresult cuStreamBeginCaptureToGraph(CUstream stream, CUgraph graph_handle, const CUgraphNode* nodes,
                                     const CUgraphEdgeData* data, size_t count, CUstreamCaptureMode mode) {
  return guarded([&]() -> CUresult {
    const auto graph = find_graph(graph_handle);
    if (graph == nullptr) return CUDA_ERROR_INVALID_VALUE;
    std::vector<Edge> after;
    const CUresult result = read_edges(*graph, nodes, data, count, &after);
    return result != CUDA_SUCCESS ? result : begin(stream, mode, graph, after);
  });
}

CUresult cuStreamEndCapture(CUstream stream, CUgraph* graph) {
  return of_stream(stream, [&](const StreamId& id) -> CUresult {
    CUgraph ended = nullptr;  // who captured into a graph of his own need not be told
    const CUresult result = end_capture(id, &ended);
    if (graph != nullptr) *graph = ended;
    return result;
  });
}

CUresult cuStreamIsCapturing(CUstream stream, CUstreamCaptureStatus* status) {
  return get_info(stream, {status, nullptr, nullptr, nullptr, nullptr, nullptr});
}

CUresult cuStreamGetCaptureInfo_v2(CUstream stream, CUstreamCaptureStatus* status, cuuint64_t* id, CUgraph* graph,
                                   const CUgraphNode** nodes, size_t* count) {
  return get_info(stream, {status, id, graph, nodes, nullptr, count});
}

CUresult cuStreamGetCaptureInfo_v3(CUstream stream, CUstreamCaptureStatus* status, cuuint64_t* id, CUgraph* graph,
                                   const CUgraphNode** nodes, const CUgraphEdgeData** data, size_t* count) {
  return get_info(stream, {status, id, graph, nodes, data, count});
}

CUresult cuStreamUpdateCaptureDependencies_v2(CUstream stream, CUgraphNode* nodes, const CUgraphEdgeData* data,
                                              size_t count, unsigned int flags) {
  return update(stream, nodes, data, count, flags);
}

CUresult cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode* mode) {
  const CUresult result = ready();
  if (result != CUDA_SUCCESS) return result;
  if (mode == nullptr || *mode < CU_STREAM_CAPTURE_MODE_GLOBAL || *mode > CU_STREAM_CAPTURE_MODE_RELAXED) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  *mode = exchange_mode(*mode);
  return CUDA_SUCCESS;
}

}  // extern "C"
#pragma GCC visibility pop
