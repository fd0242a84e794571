#pragma once

// Stream capture: which streams capture into which graph, what a call does to that, and the errors 900 to 908. Streams
// and events are known by addresses or handles of the host's choice.
//
// Rules (CUDA's): a stream joins a capture by waiting for an event recorded in it; all must be joined again when the
// capture ends; a wrong call ends the capture as invalid, which cuStreamEndCapture reports.
//
// Threads: any; every function takes mutex() itself.

#include <atomic>

#include "api/graph/model.h"

namespace tide::graph {

struct StreamId {
  const void* key = nullptr;      // the stream
  const void* context = nullptr;  // its context
  bool legacy = false;
  bool blocking = true;  // the legacy stream waits for it
};

// Whether any capture is going on: while not, none of the checks below finds anything.
extern std::atomic<int> captures;
inline bool capturing_anywhere() { return captures.load(std::memory_order_acquire) != 0; }

// CU_STREAM_CAPTURE_STATUS_...
CUstreamCaptureStatus capture_status(const void* stream_key);

// `into` null: a new graph. `after`: what the first nodes depend on, nodes of `into`.
CUresult begin_capture(const StreamId& stream, CUstreamCaptureMode mode, std::shared_ptr<Graph> into,
                       std::vector<Edge> after);
CUresult end_capture(const StreamId& stream, CUgraph* graph);

struct CaptureInfo {
  CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
  cuuint64_t id = 0;
  CUgraph graph = nullptr;
  const CUgraphNode* nodes = nullptr;  // valid until the next call about the stream
  const CUgraphEdgeData* data = nullptr;
  size_t count = 0;
};
CUresult capture_info(const StreamId& stream, CaptureInfo* info);
// Replaces or extends what the stream's next node depends on.
CUresult update_dependencies(const StreamId& stream, std::vector<Edge> after, bool replace);

// A node behind what the stream captured so far. `made` may be null. Also where the content's bodies are to be cloned
// from (`child`).
CUresult capture_node(const StreamId& stream, ContentRef content, Node** made = nullptr, const Graph* child = nullptr);

// Before any use of a stream: the legacy stream cannot be used while it would have to wait for a capture, and an
// invalid capture takes nothing more.
CUresult check_use(const StreamId& stream);
// For what a capturing stream cannot do: ends the capture.
CUresult refuse_in(const StreamId& stream);
// For what waits for a whole context.
CUresult refuse_in_context(const void* context);
// For calls that may not be made while some captures go on, depending on mode and thread (cuMemAlloc, ...).
CUresult unsafe_call();

// Events. `handled` true: the capture took the call, its result is returned. False: nothing captured, go on as usual.
CUresult capture_record(const StreamId& stream, CUevent event, bool* handled);
// `recorded`: whether the event has an ordinary record.
CUresult capture_wait(const StreamId& stream, CUevent event, bool recorded, bool* handled);
// For queries of and waits for an event: CAPTURED_EVENT where it belongs to a capture.
CUresult refuse_captured(CUevent event);
void forget_event(CUevent event);
// A node that is removed from a graph; mutex() is held.
void forget_node(const Node* node);
// A stream that goes while it captures.
void forget_stream(const void* stream_key);

// The calling thread's mode; returns the one before.
CUstreamCaptureMode exchange_mode(CUstreamCaptureMode mode);

}  // namespace tide::graph
