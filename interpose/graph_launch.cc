#include "interpose/graph_launch.h"

#include <algorithm>
#include <map>
#include <span>

#include "base/log.h"
#include "commands.h"
#include "interpose/array.h"
#include "interpose/crossing.h"
#include "interpose/graphs.h"

namespace tide {

using graph::Content;
using graph::Graph;
using graph::Node;

CUresult context_of(const Content& content, Context** context) {
  *context = process()->contexts.find(content.context);
  return *context != nullptr ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

CUresult refuse_kind(const char* what) {
  static constinit std::atomic<bool> logged{false};
  if (!logged.exchange(true)) log(LogLevel::kWarning, "%s in graphs are not served", what);
  return CUDA_ERROR_NOT_SUPPORTED;
}

namespace {

constexpr uint64_t kConditionalTag = 0xC0D0ull << 48;  // so that no other word of a parameter is taken for a name

struct Conditional {
  unsigned value, flags;
};

// By name.
std::map<CUgraphConditionalHandle, Conditional>& conditionals() {
  static auto* const the = new std::map<CUgraphConditionalHandle, Conditional>;
  return *the;
}

uint64_t number(const void* pointer) { return reinterpret_cast<uint64_t>(pointer); }

struct Corner {
  CUmemorytype type;
  uint64_t host, device, x, y, z, pitch, height;
};

// The first byte of one side; 0 where arrays would be needed.
CopySide side_of(const Corner& c, const CUDA_MEMCPY3D& what, uint64_t* layer) {
  const uint64_t base = c.type == CU_MEMORYTYPE_HOST ? c.host : c.type == CU_MEMORYTYPE_ARRAY ? 0 : c.device;
  const uint64_t pitch = c.pitch != 0 ? c.pitch : c.x + what.WidthInBytes;
  *layer = pitch * (c.height != 0 ? c.height : c.y + what.Height);
  return {base == 0 ? 0 : base + c.z * *layer + c.y * pitch + c.x, pitch};
}

}  // namespace

CUgraphConditionalHandle name_conditional(unsigned value, unsigned flags) {
  const CUgraphConditionalHandle name = kConditionalTag | process()->next_id++;
  conditionals()[name] = {value, flags};
  return name;
}

bool known_conditional(CUgraphConditionalHandle name) { return conditionals().count(name) != 0; }

bool with_arrays(const CUDA_MEMCPY3D& what) {
  return what.srcMemoryType == CU_MEMORYTYPE_ARRAY || what.dstMemoryType == CU_MEMORYTYPE_ARRAY;
}

CUresult orders_of(const CUDA_MEMCPY3D& what, std::vector<CopyOrder>* orders) {
  uint64_t to_layer = 0, from_layer = 0;
  CopyOrder order;
  order.from = side_of({what.srcMemoryType, number(what.srcHost), what.srcDevice, what.srcXInBytes, what.srcY,
                        what.srcZ, what.srcPitch, what.srcHeight},
                       what, &from_layer);
  order.to = side_of({what.dstMemoryType, number(what.dstHost), what.dstDevice, what.dstXInBytes, what.dstY, what.dstZ,
                      what.dstPitch, what.dstHeight},
                     what, &to_layer);
  if (order.to.address < kLowestAddress || order.from.address < kLowestAddress) return CUDA_ERROR_INVALID_VALUE;
  order.width = what.WidthInBytes;
  order.height = what.Height;
  order.in_graph = true;
  if (order.height > 1 && order.width == order.to.pitch && order.width == order.from.pitch) {
    order.width *= order.height;
    order.to.pitch = order.from.pitch = order.width;
    order.height = 1;
  }
  for (uint64_t z = 0; z < what.Depth; ++z) {
    orders->push_back(order);
    order.to.address += to_layer;
    order.from.address += from_layer;
  }
  return CUDA_SUCCESS;
}

// --- what the worker can make a graph of ---

namespace {

// Whether the vGPU's own work copies it: no host memory that it does not reach.
bool on_gpu(const Vgpu& vgpu, CUmemorytype type, const void* host, CUdeviceptr device) {
  if (type == CU_MEMORYTYPE_ARRAY) return true;
  const uint64_t address = type == CU_MEMORYTYPE_HOST ? number(host) : device;
  return process()->vgpu_of(address) == &vgpu || process()->host.on_device(vgpu, address, 1) == address;
}

bool buildable(const Vgpu& vgpu, const Graph& graph);

bool buildable(const Vgpu& vgpu, const Node& node) {
  const CUDA_MEMCPY3D& copy = node.content->copy;
  switch (node.content->type) {
    case CU_GRAPH_NODE_TYPE_KERNEL:
    case CU_GRAPH_NODE_TYPE_MEMSET:
    case CU_GRAPH_NODE_TYPE_EMPTY:
    case CU_GRAPH_NODE_TYPE_MEM_ALLOC:
    case CU_GRAPH_NODE_TYPE_MEM_FREE:
      return true;
    case CU_GRAPH_NODE_TYPE_MEMCPY:
      return on_gpu(vgpu, copy.srcMemoryType, copy.srcHost, copy.srcDevice) &&
             on_gpu(vgpu, copy.dstMemoryType, copy.dstHost, copy.dstDevice);
    case CU_GRAPH_NODE_TYPE_GRAPH:
      return node.bodies[0]->conditionals.empty() && buildable(vgpu, *node.bodies[0]);
    case CU_GRAPH_NODE_TYPE_CONDITIONAL:
      return std::all_of(node.bodies.begin(), node.bodies.end(),
                         [&](const auto& body) { return buildable(vgpu, *body); });
    default:
      return false;  // host functions, events, values: the client takes part in them
  }
}

bool buildable(const Vgpu& vgpu, const Graph& graph) {
  return std::all_of(graph.nodes.begin(), graph.nodes.end(),
                     [&](const auto& node) { return !node->enabled || buildable(vgpu, *node); });
}

bool is_conditional(const Node* node) { return node->content->type == CU_GRAPH_NODE_TYPE_CONDITIONAL; }

std::vector<Node*> enabled_nodes(const Graph& graph) {
  std::vector<Node*> order = in_order(graph);
  std::erase_if(order, [](const Node* node) { return !node->enabled; });
  return order;
}

// --- launching ---

class Launcher {
 public:
  explicit Launcher(Stream& stream) : stream_(stream), handle_(reinterpret_cast<CUstream>(stream.handle)) {}

  CUresult launch(const Graph& graph) {
    const std::vector<Node*> order = enabled_nodes(graph);
    for (size_t i = 0; i < order.size();) {
      // As much as possible goes into one graph: kernels before a conditional set its value.
      size_t end = i;
      while (end < order.size() && buildable(*stream_.vgpu, *order[end])) ++end;
      const std::span<Node* const> run(order.data() + i, std::max(end, i + 1) - i);
      const bool decides = std::any_of(run.begin(), run.end(), is_conditional);
      if (CUresult r = decides ? build(run) : launch_all(run); r != CUDA_SUCCESS) return r;
      i += run.size();
    }
    return CUDA_SUCCESS;
  }

 private:
  CUresult launch_all(std::span<Node* const> nodes) {
    for (const Node* node : nodes) {
      if (CUresult r = launch_node(*node); r != CUDA_SUCCESS) return r;
    }
    return CUDA_SUCCESS;
  }

  template <typename Command>
  CUresult send(Call call, const Command& command) {
    return send_command(*stream_.context, call, command);
  }

  // The nodes' commands go to a hidden stream, where the worker makes a graph of them.
  CUresult build(std::span<Node* const> nodes) {
    Process& p = *process();
    Context& context = *stream_.context;
    Stream* hidden = p.streams.find(context.builder);
    if (hidden == nullptr) {
      if (CUresult r = make_stream(p, context, CU_STREAM_NON_BLOCKING, 0, true, &hidden); r != CUDA_SUCCESS) return r;
      context.builder = hidden->handle;
    }
    if (CUresult r = send(Call::tideBeginGraph, command::BeginGraph{hidden->slot, 0}); r != CUDA_SUCCESS) return r;
    // The worker ends what was begun, whatever became of it.
    CUresult built = send_handles(nodes);
    if (built == CUDA_SUCCESS) built = Launcher(*hidden).launch_all(nodes);
    const CUresult r = send_command(context, Call::tideLaunchGraph, command::LaunchGraph{0}, stream_.slot);
    return built != CUDA_SUCCESS ? built : r;
  }

  // Of conditionals within others too: a kernel outside may set what a body goes by.
  CUresult send_handles(std::span<Node* const> nodes) {
    for (const Node* node : nodes) {
      if (is_conditional(node)) {
        const CUgraphConditionalHandle name = node->content->conditional.handle;
        const Conditional& made = conditionals()[name];
        const command::ConditionalHandle command{name, made.value, made.flags};
        if (CUresult r = send(Call::tideConditionalHandle, command); r != CUDA_SUCCESS) return r;
      }
      for (const auto& body : node->bodies) {
        if (CUresult r = send_handles(enabled_nodes(*body)); r != CUDA_SUCCESS) return r;
      }
    }
    return CUDA_SUCCESS;
  }

  CUresult build_conditional(const Node& node) {
    const auto& what = node.content->conditional;
    const command::BeginConditional begin{what.handle, uint32_t(what.type), uint32_t(node.bodies.size())};
    if (CUresult r = send(Call::tideBeginConditional, begin); r != CUDA_SUCCESS) return r;
    for (uint32_t i = 0; i < node.bodies.size(); ++i) {
      if (CUresult r = send(Call::tideBeginBody, command::BeginBody{i, 0}); r != CUDA_SUCCESS) return r;
      if (CUresult r = launch_all(enabled_nodes(*node.bodies[i])); r != CUDA_SUCCESS) return r;
    }
    return send(Call::tideEndConditional, command::EndConditional{0});
  }

  CUresult launch_node(const Node& node) {
    const Content& c = *node.content;
    switch (c.type) {
      case CU_GRAPH_NODE_TYPE_KERNEL:
        return launch_kernel(c);
      case CU_GRAPH_NODE_TYPE_MEMCPY:
        return launch_copy(c);
      case CU_GRAPH_NODE_TYPE_MEMSET:
        return launch_fill(c.fill);
      case CU_GRAPH_NODE_TYPE_HOST:
        return launch_host_function(stream_, c.host.fn, c.host.userData);
      case CU_GRAPH_NODE_TYPE_GRAPH:
        return launch(*node.bodies[0]);
      case CU_GRAPH_NODE_TYPE_EVENT_RECORD:
      case CU_GRAPH_NODE_TYPE_WAIT_EVENT:
        return launch_event(c);
      case CU_GRAPH_NODE_TYPE_BATCH_MEM_OP:
        return launch_values(c);
      case CU_GRAPH_NODE_TYPE_CONDITIONAL:
        return build_conditional(node);
      case CU_GRAPH_NODE_TYPE_EMPTY:
      case CU_GRAPH_NODE_TYPE_MEM_ALLOC:
      case CU_GRAPH_NODE_TYPE_MEM_FREE:
        return CUDA_SUCCESS;
      default:
        return CUDA_ERROR_NOT_SUPPORTED;
    }
  }

  CUresult launch_kernel(const Content& c) {
    const auto& k = c.kernel;
    std::vector<CUlaunchAttribute> attributes;
    for (const auto& [id, value] : c.attributes) {
      CUlaunchAttribute attribute = {};
      attribute.id = id;
      attribute.value = value;
      attributes.push_back(attribute);
    }
    CUlaunchConfig config = {};
    config.gridDimX = k.gridDimX;
    config.gridDimY = k.gridDimY;
    config.gridDimZ = k.gridDimZ;
    config.blockDimX = k.blockDimX;
    config.blockDimY = k.blockDimY;
    config.blockDimZ = k.blockDimZ;
    config.sharedMemBytes = k.sharedMemBytes;
    config.hStream = handle_;
    config.attrs = attributes.data();
    config.numAttrs = unsigned(attributes.size());
    const CUfunction function = k.func != nullptr ? k.func : reinterpret_cast<CUfunction>(k.kern);
    return cuLaunchKernelEx(&config, function, k.kernelParams, nullptr);
  }

  CUresult launch_copy(const Content& c) {
    if (with_arrays(c.copy)) return copy_box(c.copy, {.stream = handle_, .in_graph = true});
    std::vector<CopyOrder> orders;
    if (CUresult r = orders_of(c.copy, &orders); r != CUDA_SUCCESS) return r;
    for (CopyOrder& order : orders) {
      order.stream = handle_;
      if (CUresult r = copy(order); r != CUDA_SUCCESS) return r;
    }
    return CUDA_SUCCESS;
  }

  CUresult launch_fill(const CUDA_MEMSET_NODE_PARAMS_v2& f) {
    const auto byte = static_cast<unsigned char>(f.value);
    const auto word = static_cast<unsigned short>(f.value);
    if (f.height <= 1) {
      if (f.elementSize == 1) return cuMemsetD8Async(f.dst, byte, f.width, handle_);
      if (f.elementSize == 2) return cuMemsetD16Async(f.dst, word, f.width, handle_);
      return cuMemsetD32Async(f.dst, f.value, f.width, handle_);
    }
    if (f.elementSize == 1) return cuMemsetD2D8Async(f.dst, f.pitch, byte, f.width, f.height, handle_);
    if (f.elementSize == 2) return cuMemsetD2D16Async(f.dst, f.pitch, word, f.width, f.height, handle_);
    return cuMemsetD2D32Async(f.dst, f.pitch, f.value, f.width, f.height, handle_);
  }

  CUresult launch_values(const Content& c) {
    auto* steps = const_cast<CUstreamBatchMemOpParams*>(c.values.data());  // they are only read
    return cuStreamBatchMemOp_v2(handle_, unsigned(c.values.size()), steps, 0);
  }

  CUresult launch_event(const Content& c) {
    Process& p = *process();
    Event* event = p.events.find(c.event);
    if (event == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    if (c.type == CU_GRAPH_NODE_TYPE_WAIT_EVENT) return wait_for(p, stream_, *event);
    return event->context == stream_.context ? record(*event, stream_, 0) : CUDA_ERROR_INVALID_HANDLE;
  }

  Stream& stream_;
  const CUstream handle_;
};

CUresult check_node(const Node& node, const Stream& stream) {
  const CUgraphNodeType type = node.content->type;
  if (type == CU_GRAPH_NODE_TYPE_CONDITIONAL && !buildable(*stream.vgpu, node)) {
    return refuse_kind("host functions, events, values and host memory within conditional nodes");
  }
  const bool somewhere =
      type == CU_GRAPH_NODE_TYPE_KERNEL || type == CU_GRAPH_NODE_TYPE_MEMSET || type == CU_GRAPH_NODE_TYPE_BATCH_MEM_OP;
  if (!node.enabled || !somewhere) return CUDA_SUCCESS;
  Context* context = nullptr;
  if (CUresult r = context_of(*node.content, &context); r != CUDA_SUCCESS) return r;
  return context->vgpu == stream.vgpu ? CUDA_SUCCESS : refuse_kind("nodes of several vGPUs");
}

}  // namespace

CUresult check_nodes(const Graph& graph, const Stream& stream) {
  for (const auto& node : graph.nodes) {
    for (const auto& body : node->bodies) {
      if (CUresult r = check_nodes(*body, stream); r != CUDA_SUCCESS) return r;
    }
    if (CUresult r = check_node(*node, stream); r != CUDA_SUCCESS) return r;
  }
  return CUDA_SUCCESS;
}

CUresult launch_nodes(const Graph& graph, Stream& stream) { return Launcher(stream).launch(graph); }

}  // namespace tide
