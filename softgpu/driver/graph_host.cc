#include "softgpu/driver/graph_host.h"

#include <map>

#include "api/graph/host.h"
#include "api/graph/memory.h"
#include "softgpu/driver/driver.h"
#include "softgpu/driver/event.h"
#include "softgpu/driver/graph_memory.h"
#include "softgpu/driver/kernel_work.h"
#include "softgpu/driver/stream_order.h"
#include "softgpu/exec/conditionals.h"

namespace softgpu {
namespace {

using tide::graph::Content;
using tide::graph::ContentRef;
using tide::graph::Exec;
using tide::graph::Graph;
using tide::graph::Node;

CUresult context_of(const Content& content, std::shared_ptr<Context>* context) {
  *context = driver().contexts.find(content.context);
  if (*context == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  return (*context)->alive ? (*context)->error() : CUDA_ERROR_CONTEXT_IS_DESTROYED;
}

const Work& work_of(const Content& content) { return *static_cast<const Work*>(content.prepared.get()); }

// --- contents from work: what capture records ---

void describe_kernel(const KernelWork& work, Content* content) {
  const Shape& s = work.shape;
  content->kernel.func = work.function;
  content->kernel.gridDimX = s.grid.x;
  content->kernel.gridDimY = s.grid.y;
  content->kernel.gridDimZ = s.grid.z;
  content->kernel.blockDimX = s.block.x;
  content->kernel.blockDimY = s.block.y;
  content->kernel.blockDimZ = s.block.z;
  content->kernel.sharedMemBytes = static_cast<unsigned>(s.shared_bytes);
  content->args = work.params;
  for (const ParamInfo& param : work.kernel.info().params) {
    content->arg_pointers.push_back(content->args.data() + param.offset);
  }
  content->kernel.kernelParams = content->arg_pointers.empty() ? nullptr : content->arg_pointers.data();
  for (const CUlaunchAttribute& attribute : work.attributes) content->attributes[attribute.id] = attribute.value;
  if (s.cooperative) content->attributes[CU_LAUNCH_ATTRIBUTE_COOPERATIVE].cooperative = 1;
}

void describe(const Work& work, Content* content) {
  switch (work.type()) {
    case CU_GRAPH_NODE_TYPE_KERNEL:
      return describe_kernel(static_cast<const KernelWork&>(work), content);
    case CU_GRAPH_NODE_TYPE_MEMCPY:
      content->copy = static_cast<const CopyWork&>(work).what;
      return;
    case CU_GRAPH_NODE_TYPE_MEMSET: {
      const FillRect& r = static_cast<const FillWork&>(work).rect;
      content->fill = {r.address, r.pitch, r.pattern, r.element_bytes, r.width, r.height, content->context};
      return;
    }
    case CU_GRAPH_NODE_TYPE_HOST: {
      const auto& host = static_cast<const HostWork&>(work);
      content->host = {host.function, host.data};
      return;
    }
    case CU_GRAPH_NODE_TYPE_BATCH_MEM_OP:
      content->values = static_cast<const ValuesWork&>(work).steps;
      return;
    default:
      return;
  }
}

// --- execution ---

// Decides while it runs which of its graphs to run, and how often.
class ConditionalWork final : public Work {
 public:
  struct Step {
    WorkRef work;
    std::shared_ptr<Context> context;
  };
  using Body = std::vector<Step>;

  CUgraphNodeType type() const override { return CU_GRAPH_NODE_TYPE_CONDITIONAL; }

  CUresult run(Context& context) const override {
    uint32_t value = 0;
    while (true) {
      if (!get_conditional(handle, &value)) return CUDA_ERROR_INVALID_VALUE;
      const size_t which = kind == CU_GRAPH_COND_TYPE_SWITCH ? value : value != 0 ? 0 : 1;
      if (which >= bodies.size()) return CUDA_SUCCESS;
      const CUresult result = run_body(bodies[which]);
      if (result != CUDA_SUCCESS || kind != CU_GRAPH_COND_TYPE_WHILE) return result;
      if (context.cancel) return CUDA_ERROR_CONTEXT_IS_DESTROYED;
    }
  }

  uint64_t handle = 0;
  CUgraphConditionalNodeType kind = CU_GRAPH_COND_TYPE_IF;
  std::vector<Body> bodies;

 private:
  static CUresult run_body(const Body& body) {
    for (const Step& step : body) {
      const CUresult result = step.work->run(*step.context);
      if (result != CUDA_SUCCESS) return result;
    }
    return CUDA_SUCCESS;
  }
};

// What a conditional's handle was made with; only those with a default that each launch assigns.
std::map<uint64_t, uint32_t>& defaults() {
  static auto* const the = new std::map<uint64_t, uint32_t>;  // guarded by graph::mutex()
  return *the;
}

CUresult read_body(const Graph& graph, ConditionalWork::Body* body);

CUresult read_conditional(const Node& node, std::shared_ptr<ConditionalWork>* work) {
  auto made = std::make_shared<ConditionalWork>();
  made->handle = node.content->conditional.handle;
  made->kind = node.content->conditional.type;
  for (const auto& inner : node.bodies) {
    const CUresult result = read_body(*inner, &made->bodies.emplace_back());
    if (result != CUDA_SUCCESS) return result;
  }
  *work = std::move(made);
  return CUDA_SUCCESS;
}

CUresult read_body(const Graph& graph, ConditionalWork::Body* body) {
  for (const Node* node : in_order(graph)) {
    const Content& content = *node->content;
    if (!node->enabled || content.type == CU_GRAPH_NODE_TYPE_EMPTY) continue;
    CUresult result = CUDA_SUCCESS;
    if (content.type == CU_GRAPH_NODE_TYPE_GRAPH) {
      result = read_body(*node->bodies[0], body);
      if (result != CUDA_SUCCESS) return result;
      continue;
    }
    ConditionalWork::Step step;
    result = context_of(content, &step.context);
    if (result != CUDA_SUCCESS) return result;
    if (content.type == CU_GRAPH_NODE_TYPE_CONDITIONAL) {
      std::shared_ptr<ConditionalWork> inner;
      result = read_conditional(*node, &inner);
      step.work = std::move(inner);
    } else if (content.prepared != nullptr && content.type != CU_GRAPH_NODE_TYPE_MEM_ALLOC) {
      step.work = std::static_pointer_cast<const Work>(content.prepared);
    } else {
      result = CUDA_ERROR_NOT_SUPPORTED;  // not allowed in a body
    }
    if (result != CUDA_SUCCESS) return result;
    body->push_back(std::move(step));
  }
  return CUDA_SUCCESS;
}

// One launch: checked as a whole first, then submitted node by node, so that events and host functions in it have
// their own places in the stream.
class Launcher {
 public:
  Launcher(Exec& exec, Context& context, const std::shared_ptr<Stream>& stream)
      : exec_(exec), context_(context), stream_(stream) {}

  CUresult launch() {
    assign_defaults(*exec_.graph);
    CUresult result = plan(*exec_.graph);
    if (result == CUDA_SUCCESS) result = tide::graph::launch_memory(exec_);
    if (result != CUDA_SUCCESS) return result;
    auto* last = static_cast<Ticket*>(exec_.host_state.get());
    if (last == nullptr) {
      exec_.host_state = std::make_shared<Ticket>();
      last = static_cast<Ticket*>(exec_.host_state.get());
    }
    // One launch of a graph ends before its next one begins, whatever the streams.
    context_.submit(stream_, {[] { return CUDA_SUCCESS; }, {*last}, false});
    for (auto& step : steps_) step();
    // What the graph refers to lives until it has run.
    *last = context_.submit(stream_, {[kept = exec_.shared_from_this()] { return CUDA_SUCCESS; }, {}, true});
    return CUDA_SUCCESS;
  }

 private:
  // Of all conditionals, those within others too, when the launch begins.
  void assign_defaults(const Graph& graph) {
    for (const auto& [handle, used] : graph.conditionals) {
      const auto found = defaults().find(handle);
      if (!used || found == defaults().end()) continue;
      push([handle = found->first, value = found->second](
               Context&) { return set_conditional(handle, value) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE; },
           nullptr);
    }
    for (const auto& node : graph.nodes) {
      for (const auto& body : node->bodies) assign_defaults(*body);
    }
  }

  CUresult plan(const Graph& graph) {
    // Seeded runs try other orders of what is independent.
    for (Node* node : in_order(graph, stream_order() == StreamOrder::kSeeded ? draw : nullptr)) {
      const CUresult result = node->enabled ? plan_node(*node) : CUDA_SUCCESS;
      if (result != CUDA_SUCCESS) return result;
    }
    return CUDA_SUCCESS;
  }

  CUresult plan_node(const Node& node) {
    const Content& content = *node.content;
    switch (content.type) {
      case CU_GRAPH_NODE_TYPE_EMPTY:
      case CU_GRAPH_NODE_TYPE_MEM_ALLOC:  // these change what the program may use, see launch_memory()
      case CU_GRAPH_NODE_TYPE_MEM_FREE:
        return CUDA_SUCCESS;
      case CU_GRAPH_NODE_TYPE_GRAPH:
        return plan(*node.bodies[0]);
      case CU_GRAPH_NODE_TYPE_EVENT_RECORD:
      case CU_GRAPH_NODE_TYPE_WAIT_EVENT:
        return plan_event(content);
      default:
        break;
    }
    std::shared_ptr<Context> in;
    CUresult result = context_of(content, &in);
    if (result != CUDA_SUCCESS) return result;
    WorkRef work;
    if (content.type == CU_GRAPH_NODE_TYPE_CONDITIONAL) {
      std::shared_ptr<ConditionalWork> conditional;
      result = read_conditional(node, &conditional);
      if (result != CUDA_SUCCESS) return result;
      work = std::move(conditional);
    } else {
      work = std::static_pointer_cast<const Work>(content.prepared);
    }
    push([work = std::move(work)](Context& context) { return work->run(context); }, std::move(in));
    return CUDA_SUCCESS;
  }

  CUresult plan_event(const Content& content) {
    const auto event = driver().events.find(content.event);
    if (event == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    const bool record = content.type == CU_GRAPH_NODE_TYPE_EVENT_RECORD;
    steps_.push_back([this, event, record] {
      if (record) {
        record_event(context_, stream_, *event);
      } else {
        wait_event(context_, stream_, *event);
      }
    });
    return CUDA_SUCCESS;
  }

  template <class Run>
  void push(Run run, std::shared_ptr<Context> in) {
    steps_.push_back([this, run = std::move(run), in = std::move(in)]() mutable {
      Context& context = in == nullptr ? context_ : *in;
      context_.submit(stream_,
                      {[run = std::move(run), in = std::move(in), &context] { return run(context); }, {}, false});
    });
  }

  Exec& exec_;
  Context& context_;
  const std::shared_ptr<Stream>& stream_;
  std::vector<std::function<void()>> steps_;
};

class GraphHost final : public tide::graph::Host {
 public:
  CUresult ready() override { return softgpu::ready(); }

  CUresult current(CUcontext* context) override {
    CUresult why = CUDA_SUCCESS;
    const auto found = current_context(&why);
    if (found != nullptr) *context = found->handle;
    return why;
  }

  CUresult find_stream(CUstream handle, tide::graph::StreamId* id) override {
    CUresult why = CUDA_SUCCESS;
    const auto context = current_context(&why);
    if (context == nullptr) return why;
    const auto stream = softgpu::find_stream(*context, handle);
    if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    *id = id_of(*stream);
    return CUDA_SUCCESS;
  }

  CUresult kernel(const CUDA_KERNEL_NODE_PARAMS_v3& params, Content* content) override {
    const CUfunction handle = params.func != nullptr ? params.func : reinterpret_cast<CUfunction>(params.kern);
    if (const auto function = driver().functions.find(handle)) content->context = function->module->context->handle;
    std::shared_ptr<Context> context;
    CUresult result = context_of(*content, &context);
    if (result != CUDA_SUCCESS) return result;
    Shape shape;
    shape.grid = {params.gridDimX, params.gridDimY, params.gridDimZ};
    shape.block = {params.blockDimX, params.blockDimY, params.blockDimZ};
    shape.shared_bytes = params.sharedMemBytes;
    std::vector<CUlaunchAttribute> attributes;
    for (const auto& [id, value] : content->attributes) {
      CUlaunchAttribute attribute = {};
      attribute.id = id;
      attribute.value = value;
      attributes.push_back(attribute);
    }
    result = apply_attributes(attributes.data(), static_cast<unsigned>(attributes.size()), &shape);
    if (result != CUDA_SUCCESS) return result;
    std::shared_ptr<KernelWork> work;
    result = make_kernel_work(*context, handle, shape, params.kernelParams, params.extra, &work);
    if (result != CUDA_SUCCESS) return result;
    work->attributes = std::move(attributes);
    describe_kernel(*work, content);
    content->kernel.func = params.func;
    content->kernel.kern = params.kern;
    content->kernel.ctx = params.ctx;
    content->prepared = std::move(work);
    return CUDA_SUCCESS;
  }

  CUresult copy(Content* content) override {
    std::shared_ptr<Context> context;
    const CUresult result = context_of(*content, &context);
    if (result != CUDA_SUCCESS) return result;
    WorkRef work;
    const CUresult made = make_copy_work(content->copy, &work);
    content->prepared = std::move(work);
    return made;
  }

  CUresult fill(Content* content) override {
    std::shared_ptr<Context> context;
    const CUresult result = context_of(*content, &context);
    if (result != CUDA_SUCCESS) return result;
    const auto& f = content->fill;
    if (f.elementSize != 1 && f.elementSize != 2 && f.elementSize != 4) return CUDA_ERROR_INVALID_VALUE;
    if (f.width == 0 || f.height == 0) return CUDA_ERROR_INVALID_VALUE;
    WorkRef work;
    const CUresult made = make_fill_work({f.dst, f.pitch, f.value, f.elementSize, f.width, f.height}, &work);
    content->prepared = std::move(work);
    return made;
  }

  CUresult event(Content* content) override {
    return driver().events.find(content->event) == nullptr ? CUDA_ERROR_INVALID_HANDLE : CUDA_SUCCESS;
  }

  CUresult values(unsigned flags, Content* content) override {
    WorkRef work;
    const CUresult result =
        make_values_work(content->values.data(), static_cast<unsigned>(content->values.size()), flags, &work);
    content->prepared = std::move(work);
    return result;
  }

  CUresult host_function(Content* content) override {
    content->prepared = std::make_shared<HostWork>(content->host.fn, content->host.userData);
    if (content->context != nullptr) return CUDA_SUCCESS;
    // It runs nowhere in particular, but something must say when to give up.
    content->context = driver().devices[0]->primary()->handle;
    return CUDA_SUCCESS;
  }

  CUresult alloc(Content* content) override {
    const CUmemLocation& at = content->alloc.poolProps.location;
    const Device* device = at.type == CU_MEM_LOCATION_TYPE_DEVICE ? find_device(at.id) : nullptr;
    if (device == nullptr) return CUDA_ERROR_INVALID_VALUE;
    std::shared_ptr<Context> context;
    CUresult result = context_of(*content, &context);
    if (result != CUDA_SUCCESS) return result;
    if (&context->device != device) context = device->primary();
    std::shared_ptr<GraphAllocation> made;
    result = make_graph_allocation(*context, content->alloc.bytesize, &made);
    if (result != CUDA_SUCCESS) return result;
    content->alloc.dptr = made->address;
    content->prepared = std::move(made);
    return CUDA_SUCCESS;
  }

  CUresult free(Content* content) override {
    return tide::graph::is_memory(content->freed) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
  }

  CUresult conditional(Content* content) override {
    uint32_t value = 0;
    return get_conditional(content->conditional.handle, &value) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
  }

  CUresult make_conditional(CUcontext, unsigned value, unsigned flags, CUgraphConditionalHandle* handle) override {
    *handle = softgpu::make_conditional(value);
    if (flags == CU_GRAPH_COND_ASSIGN_DEFAULT) defaults()[*handle] = value;
    return CUDA_SUCCESS;
  }

  CUresult launch(Exec& exec, CUstream handle) override {
    return on_stream(handle, [&](Context& context, const std::shared_ptr<Stream>& stream) {
      return Launcher(exec, context, stream).launch();
    });
  }

  // Everything is where it is used already.
  CUresult upload(Exec&, CUstream handle) override {
    return on_stream(handle, [](Context&, const std::shared_ptr<Stream>&) { return CUDA_SUCCESS; });
  }

  void run_destructor(CUhostFn destroy, void* pointer) override {
    run_host_function([&] { destroy(pointer); });
  }

  std::string kernel_name(const Content& content) override {
    return static_cast<const KernelWork&>(work_of(content)).kernel.info().name;
  }

  CUresult memory_attribute(CUdevice ordinal, CUgraphMem_attribute attribute, cuuint64_t* value, bool set) override {
    if (find_device(ordinal) == nullptr) return CUDA_ERROR_INVALID_DEVICE;
    return tide::graph::memory_attribute(ordinal, attribute, value, set);
  }

  // Nothing is kept beyond the nodes' lives.
  CUresult trim_memory(CUdevice ordinal) override {
    return find_device(ordinal) == nullptr ? CUDA_ERROR_INVALID_DEVICE : CUDA_SUCCESS;
  }
};

}  // namespace

void set_graph_host() { tide::graph::set_host(new GraphHost); }

tide::graph::StreamId id_of(Stream& stream) {
  return {&stream, &stream.context(), stream.handle() == CU_STREAM_LEGACY, stream.blocking()};
}

CUresult capture(Stream& stream, const Context& context, const WorkRef& work) {
  auto content = std::make_shared<Content>();
  content->type = work->type();
  content->context = context.handle;
  content->prepared = work;
  describe(*work, content.get());
  return tide::graph::capture_node(id_of(stream), std::move(content));
}

CUresult capture_alloc(Stream& stream, CUdeviceptr* address, size_t bytes) {
  auto content = std::make_shared<Content>();
  content->type = CU_GRAPH_NODE_TYPE_MEM_ALLOC;
  content->context = stream.context().handle;
  content->alloc.poolProps.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
  content->alloc.poolProps.location = {CU_MEM_LOCATION_TYPE_DEVICE, stream.context().device.index};
  content->alloc.bytesize = bytes;
  CUresult result = tide::graph::host().alloc(content.get());
  if (result != CUDA_SUCCESS) return result;
  const CUdeviceptr made = content->alloc.dptr;
  result = tide::graph::capture_node(id_of(stream), std::move(content));
  if (result == CUDA_SUCCESS) *address = made;
  return result;
}

CUresult capture_free(Stream& stream, CUdeviceptr address) {
  if (!tide::graph::is_memory(address)) return CUDA_ERROR_INVALID_VALUE;
  auto content = std::make_shared<Content>();
  content->type = CU_GRAPH_NODE_TYPE_MEM_FREE;
  content->context = stream.context().handle;
  content->freed = address;
  return tide::graph::capture_node(id_of(stream), std::move(content));
}

}  // namespace softgpu
