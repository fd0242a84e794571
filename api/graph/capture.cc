#include "api/graph/capture.h"

#include <algorithm>
#include <set>
#include <thread>
#include <utility>

namespace tide::graph {

std::atomic<int> captures{0};

namespace {

std::atomic<bool> g_ever_captured{false};  // else no event can belong to a capture
thread_local CUstreamCaptureMode t_mode = CU_STREAM_CAPTURE_MODE_GLOBAL;

struct Capture {
  uint64_t id = 0;
  std::shared_ptr<Graph> graph;
  bool made_graph = false;
  bool valid = true;
  bool ended = false;
  CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_GLOBAL;
  std::thread::id thread;
  const void* origin = nullptr;
  std::vector<Edge> left;  // ends of streams that are gone: to be joined like those of streams that are there
};
using CaptureRef = std::shared_ptr<Capture>;

struct Member {
  StreamId stream;
  CaptureRef capture;
  std::vector<Edge> after;
  std::vector<CUgraphNode> shown_nodes;  // as capture_info() gave them out
  std::vector<CUgraphEdgeData> shown_data;
};

struct Recorded {
  CaptureRef capture;
  std::vector<Edge> after;
};

struct State {
  uint64_t next_id = 1;
  std::unordered_map<const void*, Member> members;
  std::unordered_map<CUevent, Recorded> events;
};

State& state() {
  static State* const the = new State;
  return *the;
}

Member* member_of(const void* key) {
  const auto found = state().members.find(key);
  return found == state().members.end() ? nullptr : &found->second;
}

CUresult spoil(Capture& capture, CUresult error) {
  capture.valid = false;
  return error;
}

void extend(std::vector<Edge>* edges, const std::vector<Edge>& more) {
  for (const Edge& edge : more) {
    const bool there = std::any_of(edges->begin(), edges->end(), [&](const Edge& e) { return e.node == edge.node; });
    if (!there) edges->push_back(edge);
  }
}

// Blocking streams of the context that capture: the legacy stream would wait for them.
std::vector<Capture*> implied(const StreamId& legacy) {
  std::vector<Capture*> found;
  for (auto& [key, member] : state().members) {
    if (member.stream.context == legacy.context && member.stream.blocking) found.push_back(member.capture.get());
  }
  return found;
}

// Everything that leads to the nodes, and themselves.
std::set<const Node*> ancestors(const std::vector<Edge>& ends) {
  std::set<const Node*> seen;
  std::vector<const Node*> todo;
  for (const Edge& e : ends) todo.push_back(e.node);
  while (!todo.empty()) {
    const Node* node = todo.back();
    todo.pop_back();
    if (!seen.insert(node).second) continue;
    for (const Edge& e : node->in) todo.push_back(e.node);
  }
  return seen;
}

bool all_joined(const Member& origin) {
  const auto reached = ancestors(origin.after);
  const auto joined = [&](const Edge& e) { return reached.count(e.node) != 0; };
  for (const auto& [key, member] : state().members) {
    if (member.capture == origin.capture && !std::all_of(member.after.begin(), member.after.end(), joined))
      return false;
  }
  return std::all_of(origin.capture->left.begin(), origin.capture->left.end(), joined);
}

void finish(const CaptureRef& capture) {
  capture->ended = true;
  std::erase_if(state().members, [&](const auto& m) { return m.second.capture == capture; });
  for (auto& [event, recorded] : state().events) {
    if (recorded.capture == capture) recorded.after.clear();  // the graph may go
  }
  --captures;
}

}  // namespace

CUstreamCaptureStatus capture_status(const void* key) {
  if (!capturing_anywhere()) return CU_STREAM_CAPTURE_STATUS_NONE;
  const std::lock_guard lock(mutex());
  const Member* member = member_of(key);
  if (member == nullptr) return CU_STREAM_CAPTURE_STATUS_NONE;
  return member->capture->valid ? CU_STREAM_CAPTURE_STATUS_ACTIVE : CU_STREAM_CAPTURE_STATUS_INVALIDATED;
}

CUresult begin_capture(const StreamId& stream, CUstreamCaptureMode mode, std::shared_ptr<Graph> into,
                       std::vector<Edge> after) {
  const std::lock_guard lock(mutex());
  if (stream.legacy) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  if (Member* member = member_of(stream.key)) return spoil(*member->capture, CUDA_ERROR_ILLEGAL_STATE);
  auto capture = std::make_shared<Capture>();
  capture->id = state().next_id++;
  capture->made_graph = into == nullptr;
  capture->graph = into == nullptr ? make_graph() : std::move(into);
  capture->mode = mode;
  capture->thread = std::this_thread::get_id();
  capture->origin = stream.key;
  state().members[stream.key] = {stream, std::move(capture), std::move(after), {}, {}};
  g_ever_captured = true;
  ++captures;
  return CUDA_SUCCESS;
}

CUresult end_capture(const StreamId& stream, CUgraph* graph) {
  const std::lock_guard lock(mutex());
  *graph = nullptr;
  const Member* member = member_of(stream.key);
  if (member == nullptr) return CUDA_ERROR_ILLEGAL_STATE;
  const CaptureRef capture = member->capture;
  if (capture->origin != stream.key) return spoil(*capture, CUDA_ERROR_STREAM_CAPTURE_UNMATCHED);
  if (capture->mode != CU_STREAM_CAPTURE_MODE_RELAXED && capture->thread != std::this_thread::get_id()) {
    return spoil(*capture, CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD);
  }
  const CUresult result = !capture->valid        ? CUDA_ERROR_STREAM_CAPTURE_INVALIDATED
                          : !all_joined(*member) ? CUDA_ERROR_STREAM_CAPTURE_UNJOINED
                                                 : CUDA_SUCCESS;
  finish(capture);
  if (result == CUDA_SUCCESS) {
    *graph = capture->graph->handle;
  } else if (capture->made_graph) {
    destroy_graph(capture->graph->handle);
  }
  capture->graph = nullptr;
  return result;
}

CUresult capture_info(const StreamId& stream, CaptureInfo* info) {
  *info = {};
  if (!capturing_anywhere()) return CUDA_SUCCESS;
  const std::lock_guard lock(mutex());
  // The capture itself stays valid: only asked.
  if (stream.legacy && !implied(stream).empty()) return CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
  Member* member = member_of(stream.key);
  if (member == nullptr) return CUDA_SUCCESS;
  info->id = member->capture->id;
  info->status = CU_STREAM_CAPTURE_STATUS_INVALIDATED;
  if (!member->capture->valid) return CUDA_SUCCESS;
  info->status = CU_STREAM_CAPTURE_STATUS_ACTIVE;
  info->graph = member->capture->graph->handle;
  member->shown_nodes.clear();
  member->shown_data.clear();
  for (const Edge& e : member->after) {
    member->shown_nodes.push_back(e.node->handle);
    member->shown_data.push_back(e.data);
  }
  info->nodes = member->shown_nodes.data();
  info->data = member->shown_data.data();
  info->count = member->shown_nodes.size();
  return CUDA_SUCCESS;
}

CUresult update_dependencies(const StreamId& stream, std::vector<Edge> after, bool replace) {
  const std::lock_guard lock(mutex());
  Member* member = member_of(stream.key);
  if (member == nullptr) return CUDA_ERROR_ILLEGAL_STATE;
  if (!member->capture->valid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  for (const Edge& e : after) {
    if (e.node->graph != member->capture->graph.get()) return CUDA_ERROR_INVALID_VALUE;
  }
  if (replace) member->after.clear();
  extend(&member->after, after);
  return CUDA_SUCCESS;
}

CUresult capture_node(const StreamId& stream, ContentRef content, Node** made, const Graph* child) {
  const std::lock_guard lock(mutex());
  Member* member = member_of(stream.key);
  if (member == nullptr) return CUDA_ERROR_ILLEGAL_STATE;
  if (!member->capture->valid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  Node* node = add_node(*member->capture->graph, std::move(content), member->after);
  if (child != nullptr) {
    auto body = std::make_shared<Graph>();
    body->owner = node;
    clone_into(*child, body.get());
    node->body_handles.push_back(body->handle);
    node->bodies.push_back(std::move(body));
  }
  member->after = {{node, {}}};
  if (made != nullptr) *made = node;
  return CUDA_SUCCESS;
}

CUresult check_use(const StreamId& stream) {
  if (!capturing_anywhere()) return CUDA_SUCCESS;
  const std::lock_guard lock(mutex());
  if (stream.legacy) {
    const auto disturbed = implied(stream);
    for (Capture* capture : disturbed) capture->valid = false;
    return disturbed.empty() ? CUDA_SUCCESS : CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
  }
  const Member* member = member_of(stream.key);
  return member == nullptr || member->capture->valid ? CUDA_SUCCESS : CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
}

CUresult refuse_in(const StreamId& stream) {
  if (!capturing_anywhere()) return CUDA_SUCCESS;
  const std::lock_guard lock(mutex());
  const Member* member = member_of(stream.key);
  return member == nullptr ? CUDA_SUCCESS : spoil(*member->capture, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
}

CUresult refuse_in_context(const void* context) {
  if (!capturing_anywhere()) return CUDA_SUCCESS;
  const std::lock_guard lock(mutex());
  CUresult result = CUDA_SUCCESS;
  for (auto& [key, member] : state().members) {
    if (member.stream.context == context) result = spoil(*member.capture, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  }
  return result == CUDA_SUCCESS ? unsafe_call() : result;
}

CUresult unsafe_call() {
  if (!capturing_anywhere() || t_mode == CU_STREAM_CAPTURE_MODE_RELAXED) return CUDA_SUCCESS;
  const std::lock_guard lock(mutex());
  CUresult result = CUDA_SUCCESS;
  for (auto& [key, member] : state().members) {
    Capture& capture = *member.capture;
    const bool own = capture.thread == std::this_thread::get_id() && capture.mode != CU_STREAM_CAPTURE_MODE_RELAXED;
    const bool everybodys = t_mode == CU_STREAM_CAPTURE_MODE_GLOBAL && capture.mode == CU_STREAM_CAPTURE_MODE_GLOBAL;
    if (own || everybodys) result = spoil(capture, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  }
  return result;
}

CUresult capture_record(const StreamId& stream, CUevent event, bool* handled) {
  *handled = false;
  if (!g_ever_captured) return CUDA_SUCCESS;
  const std::lock_guard lock(mutex());
  const Member* member = member_of(stream.key);
  *handled = member != nullptr;
  if (member == nullptr) {
    state().events.erase(event);
    return CUDA_SUCCESS;
  }
  if (!member->capture->valid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  state().events[event] = {member->capture, member->after};
  return CUDA_SUCCESS;
}

CUresult capture_wait(const StreamId& stream, CUevent event, bool recorded, bool* handled) {
  *handled = false;
  if (!g_ever_captured) return CUDA_SUCCESS;
  const std::lock_guard lock(mutex());
  Member* member = member_of(stream.key);
  const auto found = state().events.find(event);
  *handled = true;
  if (member != nullptr && !member->capture->valid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  if (found == state().events.end()) {
    *handled = member != nullptr;
    // What was recorded outside cannot be waited for inside.
    if (member != nullptr && recorded) return spoil(*member->capture, CUDA_ERROR_STREAM_CAPTURE_ISOLATION);
    return CUDA_SUCCESS;
  }
  const Recorded& source = found->second;
  if (source.capture->ended) {
    if (member != nullptr) return spoil(*member->capture, CUDA_ERROR_STREAM_CAPTURE_ISOLATION);
    return CUDA_ERROR_STREAM_CAPTURE_ISOLATION;
  }
  if (!source.capture->valid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  if (stream.legacy) return spoil(*source.capture, CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
  if (member == nullptr) {
    state().members[stream.key] = {stream, source.capture, source.after, {}, {}};
    return CUDA_SUCCESS;
  }
  if (member->capture != source.capture) {
    spoil(*source.capture, CUDA_ERROR_STREAM_CAPTURE_MERGE);
    return spoil(*member->capture, CUDA_ERROR_STREAM_CAPTURE_MERGE);
  }
  extend(&member->after, source.after);
  return CUDA_SUCCESS;
}

CUresult refuse_captured(CUevent event) {
  if (!g_ever_captured) return CUDA_SUCCESS;
  const std::lock_guard lock(mutex());
  const auto found = state().events.find(event);
  if (found == state().events.end()) return CUDA_SUCCESS;
  if (!found->second.capture->ended) found->second.capture->valid = false;
  return CUDA_ERROR_CAPTURED_EVENT;
}

void forget_event(CUevent event) {
  if (!g_ever_captured) return;
  const std::lock_guard lock(mutex());
  state().events.erase(event);
}

void forget_node(const Node* node) {
  const auto gone = [node](const Edge& e) { return e.node == node; };
  for (auto& [key, member] : state().members) {
    std::erase_if(member.after, gone);
    std::erase_if(member.capture->left, gone);
  }
  for (auto& [event, recorded] : state().events) std::erase_if(recorded.after, gone);
}

void forget_stream(const void* key) {
  if (!capturing_anywhere()) return;
  const std::lock_guard lock(mutex());
  const Member* member = member_of(key);
  if (member == nullptr) return;
  const CaptureRef capture = member->capture;
  if (capture->origin != key) {
    extend(&capture->left, member->after);
    state().members.erase(key);
    return;
  }
  capture->valid = false;
  finish(capture);  // nobody can end it any more
  if (capture->made_graph) destroy_graph(capture->graph->handle);
}

CUstreamCaptureMode exchange_mode(CUstreamCaptureMode mode) { return std::exchange(t_mode, mode); }

}  // namespace tide::graph
