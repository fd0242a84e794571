#include "server/graph_builder.h"

#include <cstring>
#include <utility>

namespace tide {
namespace {

constexpr size_t kDepthMax = 32;
constexpr uint32_t kBodiesMax = 1024;
constexpr size_t kHandlesMax = 4096;

}  // namespace

// Since driver 12.4.
bool GraphBuilder::served() const {
  return driver_.cuGraphConditionalHandleCreate != nullptr && driver_.cuStreamBeginCaptureToGraph != nullptr &&
         driver_.cuGraphAddNode != nullptr && driver_.cuStreamUpdateCaptureDependencies != nullptr;
}

CUresult GraphBuilder::begin(uint32_t slot, uint32_t context) {
  abandon();
  building_ = true;
  failure_ = CUDA_SUCCESS;
  slot_ = slot;
  context_ = context;
  if (!served()) return done(CUDA_ERROR_NOT_SUPPORTED);
  if (contexts_.find(context) == nullptr) return done(CUDA_ERROR_INVALID_CONTEXT);
  CUresult result = contexts_.use(context);
  if (result == CUDA_SUCCESS) result = driver_.cuGraphCreate(&graph_, 0);
  if (result == CUDA_SUCCESS) result = open_level(graph_, {});
  return done(result);
}

CUresult GraphBuilder::done(CUresult result) {
  if (failure_ == CUDA_SUCCESS) failure_ = result;
  const bool good = failure_ == CUDA_SUCCESS && !levels_.empty();
  streams_.divert(slot_, good ? levels_.back().stream : nullptr);
  return result;
}

CUresult GraphBuilder::open_level(CUgraph graph, std::vector<CUgraph> bodies) {
  if (levels_.size() == kDepthMax) return CUDA_ERROR_INVALID_VALUE;
  std::vector<CUstream>& scratch = scratch_[context_];
  if (scratch.size() == levels_.size()) {
    CUstream made = nullptr;
    const CUresult result = driver_.cuStreamCreate(&made, CU_STREAM_NON_BLOCKING);
    if (result != CUDA_SUCCESS) return result;
    scratch.push_back(made);
  }
  levels_.push_back({scratch[levels_.size()], nullptr, std::move(bodies), false});
  return graph == nullptr ? CUDA_SUCCESS : capture_into(graph);
}

CUresult GraphBuilder::capture_into(CUgraph graph) {
  Level& level = levels_.back();
  const CUresult result =
      driver_.cuStreamBeginCaptureToGraph(level.stream, graph, nullptr, nullptr, 0, CU_STREAM_CAPTURE_MODE_RELAXED);
  level.capturing = result == CUDA_SUCCESS;
  level.graph = graph;
  return result;
}

CUresult GraphBuilder::end_capture() {
  Level& level = levels_.back();
  CUgraph captured = nullptr;
  return std::exchange(level.capturing, false) ? driver_.cuStreamEndCapture(level.stream, &captured) : CUDA_SUCCESS;
}

CUresult GraphBuilder::add_handle(uint64_t name, uint32_t value, uint32_t flags) {
  if (failure_ != CUDA_SUCCESS) return failure_;
  if (levels_.empty() || levels_.back().graph == nullptr || handles_.size() == kHandlesMax) {
    return done(CUDA_ERROR_INVALID_VALUE);
  }
  return done(driver_.cuGraphConditionalHandleCreate(&handles_[name], levels_.back().graph,
                                                     contexts_.find(context_)->handle, value, flags));
}

// Behind what the level has captured so far, as the next captured node would be.
CUresult GraphBuilder::add_node(CUgraphNodeParams* params) {
  Level& level = levels_.back();
  CUstreamCaptureStatus status = {};
  const CUgraphNode* last = nullptr;
  size_t count = 0;
  CUresult result = driver_.cuStreamGetCaptureInfo_v2(level.stream, &status, nullptr, nullptr, &last, &count);
  if (result != CUDA_SUCCESS) return result;
  if (status != CU_STREAM_CAPTURE_STATUS_ACTIVE) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  const std::vector<CUgraphNode> after(last, last + count);
  CUgraphNode node = nullptr;
  result = driver_.cuGraphAddNode(&node, level.graph, after.data(), after.size(), params);
  if (result != CUDA_SUCCESS) return result;
  return driver_.cuStreamUpdateCaptureDependencies(level.stream, &node, 1, CU_STREAM_SET_CAPTURE_DEPENDENCIES);
}

CUresult GraphBuilder::begin_conditional(uint64_t name, uint32_t kind, uint32_t bodies) {
  if (failure_ != CUDA_SUCCESS) return failure_;
  const auto handle = handles_.find(name);
  if (levels_.empty() || !levels_.back().capturing || handle == handles_.end() || bodies > kBodiesMax) {
    return done(CUDA_ERROR_INVALID_VALUE);
  }
  CUgraphNodeParams params = {};
  params.type = CU_GRAPH_NODE_TYPE_CONDITIONAL;
  params.conditional.handle = handle->second;
  params.conditional.type = static_cast<CUgraphConditionalNodeType>(kind);
  params.conditional.size = bodies;
  params.conditional.ctx = contexts_.find(context_)->handle;
  const CUresult result = add_node(&params);
  if (result != CUDA_SUCCESS) return done(result);
  const CUgraph* made = params.conditional.phGraph_out;
  return done(open_level(nullptr, {made, made + bodies}));
}

CUresult GraphBuilder::begin_body(uint32_t index) {
  if (failure_ != CUDA_SUCCESS) return failure_;
  if (levels_.empty() || index >= levels_.back().bodies.size()) return done(CUDA_ERROR_INVALID_VALUE);
  const CUresult result = end_capture();
  return done(result != CUDA_SUCCESS ? result : capture_into(levels_.back().bodies[index]));
}

CUresult GraphBuilder::end_conditional() {
  if (failure_ != CUDA_SUCCESS) return failure_;
  if (levels_.size() < 2) return done(CUDA_ERROR_INVALID_VALUE);
  const CUresult result = end_capture();
  levels_.pop_back();
  return done(result);
}

CUresult GraphBuilder::launch(CUstream stream) {
  CUresult result = building_ ? failure_ : CUDA_ERROR_INVALID_VALUE;
  if (result == CUDA_SUCCESS) result = levels_.size() == 1 ? end_capture() : CUDA_ERROR_INVALID_VALUE;
  CUgraphExec exec = nullptr;
  if (result == CUDA_SUCCESS) result = driver_.cuGraphInstantiateWithFlags(&exec, graph_, 0);
  if (result == CUDA_SUCCESS) result = driver_.cuGraphLaunch(exec, stream);
  if (exec != nullptr) driver_.cuGraphExecDestroy(exec);  // which ends when the launch has
  abandon();
  return result;
}

void GraphBuilder::abandon() {
  if (!building_) return;
  for (; !levels_.empty(); levels_.pop_back()) end_capture();
  if (graph_ != nullptr) driver_.cuGraphDestroy(graph_);
  graph_ = nullptr;
  handles_.clear();
  building_ = false;
  streams_.restore(slot_);
}

void GraphBuilder::put_handles(std::span<std::byte> params) const {
  for (size_t at = 0; at + sizeof(uint64_t) <= params.size(); at += sizeof(uint64_t)) {
    uint64_t word = 0;
    memcpy(&word, params.data() + at, sizeof word);
    const auto handle = handles_.find(word);
    if (handle != handles_.end()) memcpy(params.data() + at, &handle->second, sizeof word);
  }
}

void GraphBuilder::forget_context(uint32_t context) {
  if (building_ && context_ == context) abandon();
  for (CUstream stream : scratch_[context]) driver_.cuStreamDestroy_v2(stream);
  scratch_.erase(context);
}

}  // namespace tide
