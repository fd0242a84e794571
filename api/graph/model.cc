#include "api/graph/model.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <set>

#include "api/graph/host.h"

namespace tide::graph {
namespace {

// Handles are numbers that no address has, and are never used twice.
uint64_t next_handle() {
  static uint64_t next = 0x47ull << 56 | 0x60ull << 48;
  return next += 16;
}

template <class Handle>
Handle take_handle() {
  return reinterpret_cast<Handle>(next_handle());
}

// Never destroyed: libraries call in while the process exits.
struct Tables {
  std::unordered_map<CUgraph, Graph*> graphs;                // all, bodies too
  std::unordered_map<CUgraph, std::shared_ptr<Graph>> held;  // by a handle of the program
  std::unordered_map<CUgraphNode, Node*> nodes;
  std::unordered_map<CUgraphExec, std::shared_ptr<Exec>> execs;
  std::unordered_map<CUuserObject, UserObject> objects;
};

Tables& tables() {
  static Tables* const the = new Tables;
  return *the;
}

bool same_data(const CUgraphEdgeData& a, const CUgraphEdgeData& b) { return memcmp(&a, &b, sizeof a) == 0; }

void erase_edge(std::vector<Edge>* edges, const Node* other) {
  std::erase_if(*edges, [&](const Edge& e) { return e.node == other; });
}

std::atomic<Host*> g_host{nullptr};

}  // namespace

bool has_host() { return g_host != nullptr; }
Host& host() { return *g_host; }
void set_host(Host* the) { g_host = the; }

std::recursive_mutex& mutex() {
  static auto* const the = new std::recursive_mutex;
  return *the;
}

Graph::Graph() : handle(take_handle<CUgraph>()) { tables().graphs[handle] = this; }

Graph::~Graph() {
  tables().graphs.erase(handle);
  for (const auto& node : nodes) tables().nodes.erase(node->handle);
  for (const auto& [object, count] : user_objects) release_object(object, count);
}

std::shared_ptr<Graph> find_graph(CUgraph handle) {
  const auto held = tables().held.find(handle);
  if (held != tables().held.end()) return held->second;
  const auto found = tables().graphs.find(handle);
  if (found == tables().graphs.end() || found->second->owner == nullptr) return nullptr;
  for (const auto& body : found->second->owner->bodies) {
    if (body.get() == found->second) return body;
  }
  return nullptr;
}

Node* find_node(CUgraphNode handle) {
  const auto found = tables().nodes.find(handle);
  return found == tables().nodes.end() ? nullptr : found->second;
}

std::shared_ptr<Graph> make_graph() {
  auto graph = std::make_shared<Graph>();
  tables().held[graph->handle] = graph;
  return graph;
}

CUresult destroy_graph(CUgraph handle) {
  const auto held = tables().held.find(handle);
  if (held == tables().held.end()) return CUDA_ERROR_INVALID_VALUE;
  const auto kept = held->second;  // goes after the table is in order
  tables().held.erase(held);
  return CUDA_SUCCESS;
}

Node* add_node(Graph& graph, ContentRef content, const std::vector<Edge>& after) {
  auto node = std::make_unique<Node>();
  node->handle = take_handle<CUgraphNode>();
  node->graph = &graph;
  node->content = std::move(content);
  Node* made = node.get();
  tables().nodes[made->handle] = made;
  graph.nodes.push_back(std::move(node));
  for (const Edge& edge : after) connect(edge.node, made, edge.data);
  return made;
}

void remove_node(Node* node) {
  for (const Edge& e : node->in) erase_edge(&e.node->out, node);
  for (const Edge& e : node->out) erase_edge(&e.node->in, node);
  tables().nodes.erase(node->handle);
  std::erase_if(node->graph->nodes, [&](const auto& n) { return n.get() == node; });
}

bool depends_on(const Node& node, const Node& other) {
  return std::any_of(node.in.begin(), node.in.end(), [&](const Edge& e) { return e.node == &other; });
}

void connect(Node* from, Node* to, const CUgraphEdgeData& data) {
  from->out.push_back({to, data});
  to->in.push_back({from, data});
}

bool disconnect(Node* from, Node* to, const CUgraphEdgeData& data) {
  const auto is = [&](Node* other) {
    return [other, &data](const Edge& e) { return e.node == other && same_data(e.data, data); };
  };
  const auto out = std::find_if(from->out.begin(), from->out.end(), is(to));
  if (out == from->out.end()) return false;
  from->out.erase(out);
  to->in.erase(std::find_if(to->in.begin(), to->in.end(), is(from)));
  return true;
}

void clone_into(const Graph& from, Graph* to) {
  to->origin = from.handle;
  to->conditionals = from.conditionals;
  std::unordered_map<const Node*, Node*> made;
  for (const auto& node : from.nodes) {
    Node* copy = add_node(*to, node->content, {});
    copy->origin = node->handle;
    copy->enabled = node->enabled;
    made[node.get()] = copy;
    for (const auto& body : node->bodies) {
      auto inner = std::make_shared<Graph>();
      inner->owner = copy;
      clone_into(*body, inner.get());
      copy->body_handles.push_back(inner->handle);
      copy->bodies.push_back(std::move(inner));
    }
  }
  // In the same order on both sides, so that queries of a clone answer like those of its original.
  for (const auto& node : from.nodes) {
    Node* copy = made[node.get()];
    for (const Edge& e : node->in) copy->in.push_back({made[e.node], e.data});
    for (const Edge& e : node->out) copy->out.push_back({made[e.node], e.data});
  }
  for (const auto& [object, count] : from.user_objects) {
    if (retain_object(object, count) == CUDA_SUCCESS) to->user_objects[object] += count;
  }
}

Node* find_in_clone(Graph& clone, CUgraphNode original) {
  for (const auto& node : clone.nodes) {
    if (node->origin == original) return node.get();
    for (const auto& body : node->bodies) {
      if (Node* inner = find_in_clone(*body, original)) return inner;
    }
  }
  return nullptr;
}

std::vector<Node*> in_order(const Graph& graph, size_t (*choose)(size_t ready)) {
  std::unordered_map<const Node*, size_t> waits;
  std::unordered_map<const Node*, size_t> place;
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    waits[graph.nodes[i].get()] = graph.nodes[i]->in.size();
    place[graph.nodes[i].get()] = i;
  }
  std::set<size_t> ready;
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    if (graph.nodes[i]->in.empty()) ready.insert(i);
  }
  std::vector<Node*> order;
  while (!ready.empty()) {
    const auto next = std::next(ready.begin(), choose == nullptr ? 0 : static_cast<ptrdiff_t>(choose(ready.size())));
    Node* node = graph.nodes[*next].get();
    ready.erase(next);
    order.push_back(node);
    for (const Edge& e : node->out) {
      if (--waits[e.node] == 0) ready.insert(place[e.node]);
    }
  }
  return order;
}

// --- user objects ---

CUresult create_object(CUuserObject* handle, void* pointer, CUhostFn destroy, unsigned references) {
  *handle = take_handle<CUuserObject>();
  tables().objects[*handle] = {pointer, destroy, references};
  return CUDA_SUCCESS;
}

CUresult retain_object(CUuserObject handle, size_t count) {
  const auto found = tables().objects.find(handle);
  if (found == tables().objects.end()) return CUDA_ERROR_INVALID_VALUE;
  found->second.references += count;
  return CUDA_SUCCESS;
}

CUresult check_object(CUuserObject handle, size_t count) {
  const auto found = tables().objects.find(handle);
  const bool enough = found != tables().objects.end() && found->second.references >= count;
  return enough ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult release_object(CUuserObject handle, size_t count) {
  const auto found = tables().objects.find(handle);
  if (found == tables().objects.end() || found->second.references < count) return CUDA_ERROR_INVALID_VALUE;
  found->second.references -= count;
  if (found->second.references != 0) return CUDA_SUCCESS;
  const UserObject object = found->second;
  tables().objects.erase(found);
  host().run_destructor(object.destroy, object.pointer);
  return CUDA_SUCCESS;
}

// --- executable graphs ---

Exec::Exec() : handle(take_handle<CUgraphExec>()) {}

Exec::~Exec() {
  const std::lock_guard lock(mutex());  // the last reference may be a launch's
  host_state.reset();
  graph.reset();
}

std::shared_ptr<Exec> find_exec(CUgraphExec handle) {
  const auto found = tables().execs.find(handle);
  return found == tables().execs.end() ? nullptr : found->second;
}

namespace {

// Every body, too.
bool acyclic(const Graph& graph) {
  if (in_order(graph).size() != graph.nodes.size()) return false;
  for (const auto& node : graph.nodes) {
    for (const auto& body : node->bodies) {
      if (!acyclic(*body)) return false;
    }
  }
  return true;
}

CUresult instantiation_failed(CUDA_GRAPH_INSTANTIATE_PARAMS* why, CUgraphInstantiateResult result, CUresult error) {
  if (why != nullptr) why->result_out = result;
  return error;
}

}  // namespace

CUresult instantiate(const Graph& graph, unsigned long long flags, std::shared_ptr<Exec>* exec,
                     CUDA_GRAPH_INSTANTIATE_PARAMS* why) {
  if (why != nullptr) why->hErrNode_out = nullptr;
  if (!acyclic(graph)) {
    return instantiation_failed(why, CUDA_GRAPH_INSTANTIATE_INVALID_STRUCTURE, CUDA_ERROR_INVALID_VALUE);
  }
  for (const auto& [handle, used] : graph.conditionals) {
    if (!used) {
      return instantiation_failed(why, CUDA_GRAPH_INSTANTIATE_CONDITIONAL_HANDLE_UNUSED, CUDA_ERROR_INVALID_VALUE);
    }
  }
  auto made = std::make_shared<Exec>();
  made->graph = std::make_shared<Graph>();
  clone_into(graph, made->graph.get());
  made->flags = flags;
  tables().execs[made->handle] = made;
  *exec = std::move(made);
  if (why != nullptr) why->result_out = CUDA_GRAPH_INSTANTIATE_SUCCESS;
  return CUDA_SUCCESS;
}

CUresult destroy_exec(CUgraphExec handle) {
  const auto found = tables().execs.find(handle);
  if (found == tables().execs.end()) return CUDA_ERROR_INVALID_VALUE;
  const auto kept = found->second;
  tables().execs.erase(found);
  return CUDA_SUCCESS;
}

namespace {

bool one_row(const CUDA_MEMCPY3D& c) { return c.Height <= 1 && c.Depth <= 1; }

// Addresses, values and conditions may change, kinds and number of the operations not.
bool same_steps(const std::vector<CUstreamBatchMemOpParams>& a, const std::vector<CUstreamBatchMemOpParams>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const auto& x, const auto& y) { return x.operation == y.operation; });
}

bool same_kinds(const CUDA_MEMCPY3D& a, const CUDA_MEMCPY3D& b) {
  return a.srcMemoryType == b.srcMemoryType && a.dstMemoryType == b.dstMemoryType;
}

}  // namespace

CUgraphExecUpdateResult may_replace(const Content& before, const Content& after) {
  if (before.type != after.type) return CU_GRAPH_EXEC_UPDATE_ERROR_NODE_TYPE_CHANGED;
  if (before.type == CU_GRAPH_NODE_TYPE_KERNEL && before.context != after.context) {
    return CU_GRAPH_EXEC_UPDATE_ERROR_UNSUPPORTED_FUNCTION_CHANGE;
  }
  bool ok = before.context == after.context;
  switch (before.type) {
    case CU_GRAPH_NODE_TYPE_MEMCPY:
      ok = ok && same_kinds(before.copy, after.copy);
      ok = ok && (memcmp(&before.copy, &after.copy, sizeof before.copy) == 0 ||
                  (one_row(before.copy) && one_row(after.copy)));
      break;
    case CU_GRAPH_NODE_TYPE_BATCH_MEM_OP:
      ok = ok && same_steps(before.values, after.values);
      break;
    case CU_GRAPH_NODE_TYPE_MEM_ALLOC:
      ok = ok && before.alloc.dptr == after.alloc.dptr;
      break;
    case CU_GRAPH_NODE_TYPE_MEM_FREE:
      ok = ok && before.freed == after.freed;
      break;
    case CU_GRAPH_NODE_TYPE_CONDITIONAL:
      ok = before.conditional.handle == after.conditional.handle && before.conditional.type == after.conditional.type;
      break;
    case CU_GRAPH_NODE_TYPE_HOST:
    case CU_GRAPH_NODE_TYPE_EMPTY:
    case CU_GRAPH_NODE_TYPE_GRAPH:
    case CU_GRAPH_NODE_TYPE_WAIT_EVENT:
    case CU_GRAPH_NODE_TYPE_EVENT_RECORD:
      ok = true;
      break;
    default:
      break;
  }
  return ok ? CU_GRAPH_EXEC_UPDATE_SUCCESS : CU_GRAPH_EXEC_UPDATE_ERROR_PARAMETERS_CHANGED;
}

namespace {

using Pairs = std::vector<std::pair<Node*, const Node*>>;

// Nodes are matched in the order in which they were created, as a program that builds a graph twice creates them.
CUgraphExecUpdateResult match(const Graph& old, const Graph& fresh, Pairs* pairs, CUgraphExecUpdateResultInfo* info) {
  std::unordered_map<const Node*, const Node*> partner;
  const size_t both = std::min(old.nodes.size(), fresh.nodes.size());
  for (size_t i = 0; i < both; ++i) partner[old.nodes[i].get()] = fresh.nodes[i].get();
  for (size_t i = 0; i < both; ++i) {
    const Node& before = *old.nodes[i];
    const Node& after = *fresh.nodes[i];
    info->errorNode = after.handle;
    bool same = before.in.size() == after.in.size();
    for (const Edge& e : before.in) {
      const auto other = partner.find(e.node);
      same = same && other != partner.end() && depends_on(after, *other->second);
    }
    if (!same) {
      for (const Edge& e : after.in) {
        const bool known = std::any_of(before.in.begin(), before.in.end(), [&](const Edge& b) {
          const auto other = partner.find(b.node);
          return other != partner.end() && other->second == e.node;
        });
        if (!known) info->errorFromNode = e.node->handle;
      }
      return CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED;
    }
    const CUgraphExecUpdateResult result = may_replace(*before.content, *after.content);
    if (result != CU_GRAPH_EXEC_UPDATE_SUCCESS) return result;
    if (before.bodies.size() != after.bodies.size()) return CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED;
    for (size_t b = 0; b < before.bodies.size(); ++b) {
      const CUgraphExecUpdateResult inner = match(*before.bodies[b], *after.bodies[b], pairs, info);
      if (inner != CU_GRAPH_EXEC_UPDATE_SUCCESS) return inner;
    }
    pairs->emplace_back(old.nodes[i].get(), &after);
  }
  info->errorNode = nullptr;
  if (old.nodes.size() == fresh.nodes.size()) return CU_GRAPH_EXEC_UPDATE_SUCCESS;
  if (fresh.nodes.size() > both) info->errorNode = fresh.nodes[both]->handle;
  return CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED;
}

}  // namespace

CUresult update(Exec& exec, const Graph& graph, CUgraphExecUpdateResultInfo* info) {
  Pairs pairs;
  *info = {};
  info->result = match(*exec.graph, graph, &pairs, info);
  if (info->result != CU_GRAPH_EXEC_UPDATE_SUCCESS) return CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE;
  for (const auto& [before, after] : pairs) before->content = after->content;
  return CUDA_SUCCESS;
}

}  // namespace tide::graph
