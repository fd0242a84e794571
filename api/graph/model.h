#pragma once

// CUDA graphs as objects: nodes with parameters, edges, clones, executable copies. The software GPU and the preload
// library share it; what differs between them (checking parameters, doing the work) is behind Host (host.h).
//
// Threads: every function here and in capture.h requires mutex() to be held. Content is immutable once it is in a node,
// so an execution may keep it after the lock.

#include <cuda.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

namespace tide::graph {

// One for all graphs and captures of the process: graphs are not thread safe in CUDA either. Recursive, since hosts
// call back.
std::recursive_mutex& mutex();

struct Graph;

// What a node does. Only the part that belongs to `type` means something.
struct Content {
  CUgraphNodeType type = CU_GRAPH_NODE_TYPE_EMPTY;
  CUcontext context = nullptr;             // where it runs
  CUDA_KERNEL_NODE_PARAMS_v3 kernel = {};  // kernelParams point into `args`
  std::vector<std::byte> args;
  std::vector<void*> arg_pointers;
  std::map<CUlaunchAttributeID, CUlaunchAttributeValue> attributes;
  CUDA_MEMCPY3D copy = {};
  CUDA_MEMSET_NODE_PARAMS_v2 fill = {};
  CUDA_HOST_NODE_PARAMS_v2 host = {};
  CUevent event = nullptr;
  CUDA_MEM_ALLOC_NODE_PARAMS_v2 alloc = {};
  std::vector<CUmemAccessDesc> access;  // of alloc
  CUdeviceptr freed = 0;
  std::vector<CUstreamBatchMemOpParams> values;
  CUDA_CONDITIONAL_NODE_PARAMS conditional = {};
  std::shared_ptr<const void> prepared;  // the host's own, ready to run
};
using ContentRef = std::shared_ptr<const Content>;

struct Node;

struct Edge {
  Node* node = nullptr;  // the other end
  CUgraphEdgeData data = {};
};

struct Node {
  CUgraphNode handle = nullptr;
  Graph* graph = nullptr;
  CUgraphNode origin = nullptr;  // that it was cloned from
  ContentRef content;
  bool enabled = true;  // in executable copies
  std::vector<Edge> in, out;
  std::vector<std::shared_ptr<Graph>> bodies;  // of child graphs and conditionals
  std::vector<CUgraph> body_handles;
};

// Something of the program that lives as long as graphs refer to it.
struct UserObject {
  void* pointer = nullptr;
  CUhostFn destroy = nullptr;
  size_t references = 0;
};

struct Graph {
  Graph();
  ~Graph();
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  const CUgraph handle;
  CUgraph origin = nullptr;  // that it was cloned from
  Node* owner = nullptr;     // the node whose body it is
  std::vector<std::unique_ptr<Node>> nodes;
  std::map<CUgraphConditionalHandle, bool> conditionals;  // made for it; whether a node uses it
  std::map<CUuserObject, size_t> user_objects;            // references that it holds
};

// Objects of handles; null when there are none.
std::shared_ptr<Graph> find_graph(CUgraph handle);
Node* find_node(CUgraphNode handle);

std::shared_ptr<Graph> make_graph();
// Forgets the program's handle. Bodies are destroyed with their owners only.
CUresult destroy_graph(CUgraph handle);
// Copies nodes and edges of `from` into the empty `to`; children too.
void clone_into(const Graph& from, Graph* to);
// In a clone: the node made of `original`, else null.
Node* find_in_clone(Graph& clone, CUgraphNode original);

Node* add_node(Graph& graph, ContentRef content, const std::vector<Edge>& after);
void remove_node(Node* node);
bool depends_on(const Node& node, const Node& other);  // directly
void connect(Node* from, Node* to, const CUgraphEdgeData& data);
// False when there is no such edge.
bool disconnect(Node* from, Node* to, const CUgraphEdgeData& data);

// An order in which every node comes behind those it depends on; of the possible ones that of creation, unless `choose`
// (a number of ready nodes to an index) says otherwise. Shorter than the graph when it has a cycle.
std::vector<Node*> in_order(const Graph& graph, size_t (*choose)(size_t ready) = nullptr);

// A graph for execution: a private clone with an unchanging order.
struct Exec : std::enable_shared_from_this<Exec> {
  Exec();
  ~Exec();
  Exec(const Exec&) = delete;
  Exec& operator=(const Exec&) = delete;

  const CUgraphExec handle;
  std::shared_ptr<Graph> graph;
  unsigned long long flags = 0;
  std::shared_ptr<void> host_state;  // the host's own
};
std::shared_ptr<Exec> find_exec(CUgraphExec handle);
// `why` where not null says what instantiation reports.
CUresult instantiate(const Graph& graph, unsigned long long flags, std::shared_ptr<Exec>* exec,
                     CUDA_GRAPH_INSTANTIATE_PARAMS* why);
CUresult destroy_exec(CUgraphExec handle);
// Takes the parameters of `graph` over, when it has the same shape.
CUresult update(Exec& exec, const Graph& graph, CUgraphExecUpdateResultInfo* info);
// One node's new content, when it may be changed so.
CUgraphExecUpdateResult may_replace(const Content& before, const Content& after);

// User objects.
CUresult create_object(CUuserObject* handle, void* pointer, CUhostFn destroy, unsigned references);
CUresult retain_object(CUuserObject handle, size_t count);
CUresult release_object(CUuserObject handle, size_t count);
// Whether there are as many references.
CUresult check_object(CUuserObject handle, size_t count);

// The graph in the language of Graphviz.
std::string dot_of(const Graph& graph, unsigned flags);

}  // namespace tide::graph
