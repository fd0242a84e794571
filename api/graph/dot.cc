// A graph in the language of Graphviz, for cuGraphDebugDotPrint.

#include <cinttypes>
#include <cstdio>

#include "api/graph/host.h"

namespace tide::graph {
namespace {

const char* type_name(CUgraphNodeType type) {
  constexpr const char* kNames[] = {
      "KERNEL",       "MEMCPY",           "MEMSET",         "HOST",      "GRAPH",    "EMPTY",        "WAIT_EVENT",
      "EVENT_RECORD", "EXT_SEMAS_SIGNAL", "EXT_SEMAS_WAIT", "MEM_ALLOC", "MEM_FREE", "BATCH_MEM_OP", "CONDITIONAL"};
  return type <= CU_GRAPH_NODE_TYPE_CONDITIONAL ? kNames[type] : "?";
}

template <class... Args>
std::string text(const char* format, Args... args) {
  char buffer[512];
  snprintf(buffer, sizeof buffer, format, args...);
  return buffer;
}

uint64_t number(const void* pointer) { return reinterpret_cast<uint64_t>(pointer); }

std::string details(const Content& c, unsigned flags) {
  const auto wanted = [&](unsigned flag) { return (flags & (flag | CU_GRAPH_DEBUG_DOT_FLAGS_VERBOSE)) != 0; };
  switch (c.type) {
    case CU_GRAPH_NODE_TYPE_KERNEL:
      if (!wanted(CU_GRAPH_DEBUG_DOT_FLAGS_KERNEL_NODE_PARAMS)) return "\\n" + host().kernel_name(c);
      return "\\n" + host().kernel_name(c) +
             text("\\ngrid %u,%u,%u block %u,%u,%u shared %u", c.kernel.gridDimX, c.kernel.gridDimY, c.kernel.gridDimZ,
                  c.kernel.blockDimX, c.kernel.blockDimY, c.kernel.blockDimZ, c.kernel.sharedMemBytes);
    case CU_GRAPH_NODE_TYPE_MEMCPY:
      if (!wanted(CU_GRAPH_DEBUG_DOT_FLAGS_MEMCPY_NODE_PARAMS)) return "";
      return text("\\n%zu x %zu x %zu bytes", c.copy.WidthInBytes, c.copy.Height, c.copy.Depth);
    case CU_GRAPH_NODE_TYPE_MEMSET:
      if (!wanted(CU_GRAPH_DEBUG_DOT_FLAGS_MEMSET_NODE_PARAMS)) return "";
      return text("\\n%#llx: %#x in %zu x %zu elements of %u bytes", c.fill.dst, c.fill.value, c.fill.width,
                  c.fill.height, c.fill.elementSize);
    case CU_GRAPH_NODE_TYPE_HOST:
      if (!wanted(CU_GRAPH_DEBUG_DOT_FLAGS_HOST_NODE_PARAMS)) return "";
      return text("\\nfn %#" PRIx64 " data %#" PRIx64, number(reinterpret_cast<void*>(c.host.fn)),
                  number(c.host.userData));
    case CU_GRAPH_NODE_TYPE_MEM_ALLOC:
      if (!wanted(CU_GRAPH_DEBUG_DOT_FLAGS_MEM_ALLOC_NODE_PARAMS)) return "";
      return text("\\n%zu bytes at %#llx", c.alloc.bytesize, c.alloc.dptr);
    case CU_GRAPH_NODE_TYPE_MEM_FREE:
      return wanted(CU_GRAPH_DEBUG_DOT_FLAGS_MEM_FREE_NODE_PARAMS) ? text("\\n%#llx", c.freed) : "";
    case CU_GRAPH_NODE_TYPE_WAIT_EVENT:
    case CU_GRAPH_NODE_TYPE_EVENT_RECORD:
      return wanted(CU_GRAPH_DEBUG_DOT_FLAGS_EVENT_NODE_PARAMS) ? text("\\nevent %#" PRIx64, number(c.event)) : "";
    default:
      return "";
  }
}

void print(const Graph& graph, unsigned flags, const std::string& name, std::string* out) {
  *out += "subgraph cluster_" + name + " {\nlabel=\"graph_" + name + "\"\n";
  std::string edges;
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    const Node& node = *graph.nodes[i];
    const std::string id = text("n%" PRIx64, number(node.handle));
    std::string label = text("%zu\\n%s", i, type_name(node.content->type)) + details(*node.content, flags);
    if ((flags & (CU_GRAPH_DEBUG_DOT_FLAGS_HANDLES | CU_GRAPH_DEBUG_DOT_FLAGS_VERBOSE)) != 0) {
      label += text("\\nnode %#" PRIx64, number(node.handle));
    }
    *out += id + " [shape=record label=\"" + label + "\"]\n";
    for (const Edge& e : node.out) edges += id + " -> " + text("n%" PRIx64, number(e.node->handle)) + "\n";
    for (size_t b = 0; b < node.bodies.size(); ++b) {
      print(*node.bodies[b], flags, name + "_" + std::to_string(i) + "_" + std::to_string(b), out);
    }
  }
  *out += edges + "}\n";
}

}  // namespace

std::string dot_of(const Graph& graph, unsigned flags) {
  std::string out = "digraph dot {\n";
  print(graph, flags, "1", &out);
  return out + "}\n";
}

}  // namespace tide::graph
