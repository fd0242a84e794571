#include "interpose/graphs.h"

#include <algorithm>
#include <cstring>

#include "api/graph/host.h"
#include "api/graph/memory.h"
#include "base/log.h"
#include "interpose/array.h"
#include "interpose/crossing.h"
#include "interpose/graph_launch.h"
#include "interpose/thread.h"
#include "interpose/values.h"

namespace tide {
namespace {

using graph::Content;
using graph::Exec;
using graph::Graph;
using graph::Node;

CUcontext handle_of_context(const Context& context) { return reinterpret_cast<CUcontext>(context.handle); }

// Memory of an allocation node; its content holds it.
struct GraphAllocation {
  uint64_t address;
  Vgpu* vgpu;
  uint32_t context;
  ~GraphAllocation() {
    graph::remove_memory(address);
    // Gone already with its context.
    Allocation found;
    if (vgpu->memory->find(address, &found) && found.context == context) vgpu->memory->release(address);
  }
};

// The event that marks the end of an executable graph's last launch.
struct LastLaunch {
  uint64_t event = 0;
  ~LastLaunch() {
    Process* p = process();
    if (p == nullptr) return;
    if (Event* found = p->events.find(event); found != nullptr) drop_event(*p, *found);
  }
};

CUDA_MEMCPY3D describe(const CopyOrder& o) {
  CUDA_MEMCPY3D what = {};
  Process& p = *process();
  const bool to_device = p.vgpu_of(o.to.address) != nullptr, from_device = p.vgpu_of(o.from.address) != nullptr;
  what.srcMemoryType = from_device ? CU_MEMORYTYPE_DEVICE : CU_MEMORYTYPE_HOST;
  what.dstMemoryType = to_device ? CU_MEMORYTYPE_DEVICE : CU_MEMORYTYPE_HOST;
  if (from_device) what.srcDevice = o.from.address;
  if (!from_device) what.srcHost = reinterpret_cast<const void*>(o.from.address);
  if (to_device) what.dstDevice = o.to.address;
  if (!to_device) what.dstHost = reinterpret_cast<void*>(o.to.address);
  what.srcPitch = o.from.pitch;
  what.dstPitch = o.to.pitch;
  what.srcHeight = what.dstHeight = o.height;
  what.WidthInBytes = o.width;
  what.Height = o.height;
  what.Depth = 1;
  return what;
}

bool may_fill(uint64_t address) {
  HostBlock block;
  return process()->vgpu_of(address) != nullptr || process()->host.find(address, &block);
}

// Device memory that a node names must be the program's now; host memory is believed.
CUresult check_side(const CopySide& side, uint64_t width, uint64_t height) {
  const Vgpu* vgpu = process()->vgpu_of(side.address);
  if (vgpu == nullptr || width == 0 || height == 0) return CUDA_SUCCESS;
  const uint64_t bytes = side.pitch * (height - 1) + width;
  return vgpu->is_open() && vgpu->memory->covers(side.address, bytes) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

// One launch of a graph ends before its next one begins, whatever the streams.
CUresult behind_last(Process& p, Exec& exec, Stream& stream) {
  const auto* last = static_cast<LastLaunch*>(exec.host_state.get());
  Event* event = last == nullptr ? nullptr : p.events.find(last->event);
  return event == nullptr ? CUDA_SUCCESS : wait_for(p, stream, *event);
}

CUresult mark_last(Process& p, Exec& exec, Stream& stream) {
  const auto* last = static_cast<LastLaunch*>(exec.host_state.get());
  Event* event = last == nullptr ? nullptr : p.events.find(last->event);
  if (event == nullptr || event->context != stream.context) {
    if (CUresult r = make_event(p, *stream.context, CU_EVENT_DISABLE_TIMING, &event); r != CUDA_SUCCESS) return r;
    auto made = std::make_shared<LastLaunch>();
    made->event = event->handle;
    exec.host_state = std::move(made);
  }
  return record(*event, stream, 0);
}

class ClientHost final : public graph::Host {
 public:
  CUresult ready() override {
    if (process() == nullptr) return CUDA_ERROR_NOT_INITIALIZED;
    return thread_state.in_callback != 0 ? CUDA_ERROR_NOT_PERMITTED : CUDA_SUCCESS;
  }

  CUresult current(CUcontext* context) override {
    Entered e;
    const CUresult r = enter(&e);
    if (r == CUDA_SUCCESS) *context = handle_of_context(*e.context);
    return r;
  }

  CUresult find_stream(CUstream handle, graph::StreamId* id) override {
    Entered e;
    Stream* stream = nullptr;
    if (CUresult r = enter(&e); r != CUDA_SUCCESS) return r;
    if (CUresult r = tide::find_stream(e, handle, &stream); r != CUDA_SUCCESS) return r;
    *id = id_of(*stream);
    return CUDA_SUCCESS;
  }

  CUresult kernel(const CUDA_KERNEL_NODE_PARAMS_v3& params, Content* content) override {
    Context* context = nullptr;
    Kernel* kernel = nullptr;
    if (CUresult r = context_of(*content, &context); r != CUDA_SUCCESS) return r;
    if (CUresult r = check_launch(params, *context, &kernel); r != CUDA_SUCCESS) return r;
    if (CUresult r = copy_parameters(*kernel, params, &content->args); r != CUDA_SUCCESS) return r;
    content->kernel = params;
    content->arg_pointers.clear();
    for (const ParamEntry& p : kernel->params) content->arg_pointers.push_back(content->args.data() + p.offset);
    return CUDA_SUCCESS;
  }

  CUresult copy(Content* content) override {
    if (with_arrays(content->copy)) return check_box(content->copy);
    std::vector<CopyOrder> orders;
    if (CUresult r = orders_of(content->copy, &orders); r != CUDA_SUCCESS) return r;
    for (const CopyOrder& o : orders) {
      if (CUresult r = check_side(o.to, o.width, o.height); r != CUDA_SUCCESS) return r;
      if (CUresult r = check_side(o.from, o.width, o.height); r != CUDA_SUCCESS) return r;
    }
    return CUDA_SUCCESS;
  }

  CUresult fill(Content* content) override {
    const auto& f = content->fill;
    if (f.elementSize != 1 && f.elementSize != 2 && f.elementSize != 4) return CUDA_ERROR_INVALID_VALUE;
    if (f.width == 0 || f.height == 0 || !may_fill(f.dst)) return CUDA_ERROR_INVALID_VALUE;
    const uint64_t width = f.width * f.elementSize;
    if (f.height > 1 && f.pitch < width) return CUDA_ERROR_INVALID_VALUE;
    return check_side({f.dst, f.pitch}, width, f.height);
  }

  CUresult event(Content* content) override {
    return process()->events.find(content->event) != nullptr ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
  }

  CUresult host_function(Content*) override { return CUDA_SUCCESS; }

  CUresult values(unsigned flags, Content* content) override {
    Entered e;
    Context* context = nullptr;
    if (CUresult r = enter_quietly(&e); r != CUDA_SUCCESS) return r;
    if (CUresult r = context_of(*content, &context); r != CUDA_SUCCESS) return r;
    if (flags != 0 || content->values.size() > kValueStepsMax) return CUDA_ERROR_INVALID_VALUE;
    std::vector<CUstreamBatchMemOpParams> steps = content->values;  // addresses are looked up at each launch
    return resolve_values(e, *context, steps.data(), steps.size());
  }
  CUresult conditional(Content* content) override {
    return known_conditional(content->conditional.handle) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
  }
  CUresult make_conditional(CUcontext, unsigned value, unsigned flags, CUgraphConditionalHandle* handle) override {
    *handle = name_conditional(value, flags);
    return CUDA_SUCCESS;
  }

  CUresult alloc(Content* content) override {
    const CUmemLocation& at = content->alloc.poolProps.location;
    Vgpu* vgpu = at.type == CU_MEM_LOCATION_TYPE_DEVICE ? process()->device(at.id) : nullptr;
    Context* context = nullptr;
    if (vgpu == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (CUresult r = context_of(*content, &context); r != CUDA_SUCCESS) return r;
    if (context->vgpu != vgpu) context = vgpu->primary;
    if (CUresult r = activate(*context); r != CUDA_SUCCESS) return r;
    uint64_t address = 0;
    if (CUresult r = vgpu->memory->allocate(*context, content->alloc.bytesize, &address); r != CUDA_SUCCESS) return r;
    content->prepared = std::shared_ptr<GraphAllocation>(new GraphAllocation{address, vgpu, context->number.load()});
    content->alloc.dptr = address;
    graph::add_memory(address, content->alloc.bytesize, vgpu->ordinal);
    return CUDA_SUCCESS;
  }

  CUresult free(Content* content) override {
    return graph::is_memory(content->freed) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
  }

  CUresult launch(Exec& exec, CUstream handle) override {
    Entered e;
    Stream* stream = nullptr;
    if (CUresult r = enter(&e); r != CUDA_SUCCESS) return r;
    if (CUresult r = use_stream(e, handle, &stream); r != CUDA_SUCCESS) return r;
    if (CUresult r = check_nodes(*exec.graph, *stream); r != CUDA_SUCCESS) return r;
    if (CUresult r = graph::launch_memory(exec); r != CUDA_SUCCESS) return r;
    if (CUresult r = behind_last(*e.process, exec, *stream); r != CUDA_SUCCESS) return r;
    if (CUresult r = launch_nodes(*exec.graph, *stream); r != CUDA_SUCCESS) return r;
    return mark_last(*e.process, exec, *stream);
  }

  CUresult upload(Exec&, CUstream handle) override {
    graph::StreamId id;
    return find_stream(handle, &id);
  }

  void run_destructor(CUhostFn destroy, void* pointer) override {
    ++thread_state.in_callback;
    destroy(pointer);
    --thread_state.in_callback;
  }

  std::string kernel_name(const Content& content) override {
    const auto& k = content.kernel;
    const Kernel* kernel = process()->kernels.find(k.func != nullptr ? static_cast<const void*>(k.func) : k.kern);
    return kernel == nullptr ? "?" : kernel->name;
  }

  CUresult memory_attribute(CUdevice device, CUgraphMem_attribute attribute, cuuint64_t* value, bool set) override {
    if (process()->device(device) == nullptr) return CUDA_ERROR_INVALID_DEVICE;
    return graph::memory_attribute(device, attribute, value, set);
  }

  CUresult trim_memory(CUdevice device) override {
    return process()->device(device) == nullptr ? CUDA_ERROR_INVALID_DEVICE : CUDA_SUCCESS;
  }
};

std::shared_ptr<Content> content_of(const Stream& stream, CUgraphNodeType type) {
  auto content = std::make_shared<Content>();
  content->type = type;
  content->context = handle_of_context(*stream.context);
  return content;
}

}  // namespace

void install_graphs() { graph::set_host(new ClientHost); }

graph::StreamId id_of(const Stream& stream) {
  const bool legacy = &stream == stream.context->legacy.load();
  return {&stream, stream.context, legacy, (stream.flags & CU_STREAM_NON_BLOCKING) == 0};
}

CUresult use_stream(const Entered& entered, CUstream handle, Stream** stream) {
  const CUresult r = find_stream(entered, handle, stream);
  if (r != CUDA_SUCCESS || !graph::capturing_anywhere()) return r;
  return graph::check_use(id_of(**stream));
}

CUresult ask_stream(const Stream& stream) {
  if (!graph::capturing_anywhere()) return CUDA_SUCCESS;
  const CUresult r = graph::refuse_in(id_of(stream));
  return r != CUDA_SUCCESS ? r : graph::unsafe_call();
}

CUresult ask_event(CUevent event) {
  const CUresult r = graph::refuse_captured(event);
  return r != CUDA_SUCCESS ? r : graph::unsafe_call();
}

CUresult capture_launch(const Stream& stream, const CapturedLaunch& launch) {
  auto content = content_of(stream, CU_GRAPH_NODE_TYPE_KERNEL);
  for (unsigned i = 0; i < launch.attribute_count; ++i) {
    content->attributes[launch.attributes[i].id] = launch.attributes[i].value;
  }
  if (launch.cooperative) content->attributes[CU_LAUNCH_ATTRIBUTE_COOPERATIVE].cooperative = 1;
  if (CUresult r = graph::host().kernel(launch.params, content.get()); r != CUDA_SUCCESS) return r;
  content->kernel.kernelParams = content->arg_pointers.empty() ? nullptr : content->arg_pointers.data();
  content->kernel.extra = nullptr;
  return graph::capture_node(id_of(stream), std::move(content));
}

CUresult capture_copy(const Stream& stream, const CopyOrder& order) {
  auto content = content_of(stream, CU_GRAPH_NODE_TYPE_MEMCPY);
  content->copy = describe(order);
  if (CUresult r = graph::host().copy(content.get()); r != CUDA_SUCCESS) return r;
  return graph::capture_node(id_of(stream), std::move(content));
}

CUresult capture_fill(const Stream& stream, const CUDA_MEMSET_NODE_PARAMS_v2& fill) {
  auto content = content_of(stream, CU_GRAPH_NODE_TYPE_MEMSET);
  content->fill = fill;
  if (fill.width == 0 || fill.height == 0) return CUDA_SUCCESS;
  if (CUresult r = graph::host().fill(content.get()); r != CUDA_SUCCESS) return r;
  return graph::capture_node(id_of(stream), std::move(content));
}

CUresult capture_host_function(const Stream& stream, CUhostFn function, void* data) {
  auto content = content_of(stream, CU_GRAPH_NODE_TYPE_HOST);
  content->host = {function, data};
  return graph::capture_node(id_of(stream), std::move(content));
}

CUresult capture_external_event(const Stream& stream, CUgraphNodeType type, CUevent event) {
  if (!capturing(stream)) return CUDA_ERROR_INVALID_VALUE;
  auto content = content_of(stream, type);
  content->event = event;
  return graph::capture_node(id_of(stream), std::move(content));
}

CUresult capture_values(const Stream& stream, std::vector<CUstreamBatchMemOpParams> steps) {
  auto content = content_of(stream, CU_GRAPH_NODE_TYPE_BATCH_MEM_OP);
  content->values = std::move(steps);
  if (CUresult r = graph::host().values(0, content.get()); r != CUDA_SUCCESS) return r;
  return graph::capture_node(id_of(stream), std::move(content));
}

CUresult capture_box(const Stream& stream, const CUDA_MEMCPY3D& what) {
  auto content = content_of(stream, CU_GRAPH_NODE_TYPE_MEMCPY);
  content->copy = what;
  if (CUresult r = graph::host().copy(content.get()); r != CUDA_SUCCESS) return r;
  return graph::capture_node(id_of(stream), std::move(content));
}

CUresult capture_alloc(const Stream& stream, size_t bytes, CUdeviceptr* address) {
  auto content = content_of(stream, CU_GRAPH_NODE_TYPE_MEM_ALLOC);
  content->alloc.poolProps.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
  content->alloc.poolProps.location = {CU_MEM_LOCATION_TYPE_DEVICE, stream.vgpu->ordinal};
  content->alloc.bytesize = bytes;
  if (CUresult r = graph::host().alloc(content.get()); r != CUDA_SUCCESS) return r;
  *address = content->alloc.dptr;
  return graph::capture_node(id_of(stream), std::move(content));
}

CUresult capture_free(const Stream& stream, CUdeviceptr address) {
  auto content = content_of(stream, CU_GRAPH_NODE_TYPE_MEM_FREE);
  content->freed = address;
  if (CUresult r = graph::host().free(content.get()); r != CUDA_SUCCESS) return r;
  return graph::capture_node(id_of(stream), std::move(content));
}

}  // namespace tide
