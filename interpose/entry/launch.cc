// Launches: the hot path.

#include <algorithm>
#include <cstring>

#include "api/payload.h"
#include "base/log.h"
#include "commands.h"
#include "interpose/entry/entry.h"
#include "interpose/graphs.h"

using namespace tide;

namespace {

static_assert(sizeof(CUlaunchAttribute) == kLaunchAttributeBytes);

struct Geometry {
  unsigned grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_bytes;
};

// No name in cuda.h, but the runtime passes it on as cudaErrorInvalidConfiguration, which is what programs see of the
// real driver, and asks nothing else before it does. Still to be compared with a real GPU.
constexpr auto kInvalidConfiguration = CUresult(9);

// What the driver refuses at once.
CUresult check_geometry(const Geometry& g, const Kernel& kernel, const DeviceInfo& info) {
  const int* a = info.attributes;
  if (g.grid_x == 0 || g.grid_y == 0 || g.grid_z == 0 || g.block_x == 0 || g.block_y == 0 || g.block_z == 0) {
    return kInvalidConfiguration;
  }
  if (g.grid_x > unsigned(a[CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X]) ||
      g.grid_y > unsigned(a[CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y]) ||
      g.grid_z > unsigned(a[CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z]) ||
      g.block_x > unsigned(a[CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X]) ||
      g.block_y > unsigned(a[CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Y]) ||
      g.block_z > unsigned(a[CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Z])) {
    return kInvalidConfiguration;
  }
  const uint64_t threads = uint64_t(g.block_x) * g.block_y * g.block_z;
  if (threads > unsigned(a[CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK])) return kInvalidConfiguration;
  if (kernel.max_threads != 0 && threads > kernel.max_threads) return CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES;
  // Beyond the default limit only after cuFuncSetAttribute(MAX_DYNAMIC_SHARED_SIZE_BYTES).
  const int allowed =
      std::max(kernel.shared_limit.load(std::memory_order_relaxed), a[CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK]);
  return g.shared_bytes > unsigned(allowed) ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

// All blocks of a cooperative grid must be able to run at once. The worker is asked once for each kind of launch.
CUresult check_cooperative(CUfunction function, const Geometry& g, const DeviceInfo& info) {
  const auto threads = int(uint64_t(g.block_x) * g.block_y * g.block_z);
  int blocks = 0;
  TIDE_TRY(cuOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, function, threads, g.shared_bytes));
  const uint64_t most = uint64_t(blocks) * unsigned(info.attributes[CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT]);
  const bool fits = uint64_t(g.grid_x) * g.grid_y * g.grid_z <= most;
  return fits ? CUDA_SUCCESS : CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE;
}

// `extra`: {CU_LAUNCH_PARAM_BUFFER_POINTER, p, CU_LAUNCH_PARAM_BUFFER_SIZE, &n, CU_LAUNCH_PARAM_END}
CUresult read_extra(void** extra, const void** buffer, size_t* bytes) {
  for (int i = 0; extra[i] != CU_LAUNCH_PARAM_END; i += 2) {
    if (extra[i] == CU_LAUNCH_PARAM_BUFFER_POINTER)
      *buffer = extra[i + 1];
    else if (extra[i] == CU_LAUNCH_PARAM_BUFFER_SIZE)
      *bytes = *static_cast<size_t*>(extra[i + 1]);
    else
      return CUDA_ERROR_INVALID_VALUE;
  }
  return *buffer != nullptr || *bytes == 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

// The event that an attribute names, which happens during or after the kernel; null for other attributes.
CUevent event_of(const CUlaunchAttribute& attribute) {
  if (attribute.id == CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_EVENT) return attribute.value.programmaticEvent.event;
  if (attribute.id == CU_LAUNCH_ATTRIBUTE_LAUNCH_COMPLETION_EVENT) return attribute.value.launchCompletionEvent.event;
  return nullptr;
}

bool names_an_event(const CUlaunchAttribute& attribute) {
  return attribute.id == CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_EVENT ||
         attribute.id == CU_LAUNCH_ATTRIBUTE_LAUNCH_COMPLETION_EVENT;
}

// Attributes whose values are handles or host addresses do not travel: events are recorded behind the kernel, which is
// late, but never too early; kernel nodes that the device updates are refused.
CUresult check_attributes(const Stream& stream, const CUlaunchAttribute* attributes, unsigned count, bool* has_events) {
  for (unsigned i = 0; i < count; ++i) {
    const CUlaunchAttribute& attribute = attributes[i];
    if (attribute.id == CU_LAUNCH_ATTRIBUTE_DEVICE_UPDATABLE_KERNEL_NODE) {
      if (attribute.value.deviceUpdatableKernelNode.deviceUpdatable != 0) return CUDA_ERROR_NOT_SUPPORTED;
    } else if (names_an_event(attribute)) {
      const Event* event = process()->events.find(event_of(attribute));
      if (event == nullptr || event->context != stream.context) return CUDA_ERROR_INVALID_HANDLE;
      if ((event->flags & CU_EVENT_DISABLE_TIMING) == 0) return CUDA_ERROR_INVALID_VALUE;
      if ((event->flags & CU_EVENT_INTERPROCESS) != 0) return CUDA_ERROR_INVALID_VALUE;
      *has_events = true;
    }
  }
  return CUDA_SUCCESS;
}

constexpr unsigned kAttributesMax = 64;

struct Launch {
  CUfunction function;
  Geometry geometry;
  CUstream stream;
  void** params;
  void** extra;
  const CUlaunchAttribute* attributes = nullptr;
  unsigned attribute_count = 0;
  bool cooperative = false;
};

CUresult capture(const Stream& stream, const Launch& l) {
  bool has_events = false;
  if (l.attribute_count != 0) TIDE_TRY(check_attributes(stream, l.attributes, l.attribute_count, &has_events));
  if (has_events) return CUDA_ERROR_NOT_SUPPORTED;
  const Geometry& g = l.geometry;
  CapturedLaunch captured;
  captured.params = {l.function, g.grid_x,       g.grid_y, g.grid_z, g.block_x, g.block_y,
                     g.block_z,  g.shared_bytes, l.params, l.extra,  nullptr,   nullptr};
  captured.attributes = l.attributes;
  captured.attribute_count = l.attribute_count;
  captured.cooperative = l.cooperative;
  return capture_launch(stream, captured);
}

// Those that stay here mean nothing to the worker.
void write_attributes(std::byte* payload, const Launch& l) {
  memcpy(payload, l.attributes, l.attribute_count * kLaunchAttributeBytes);
  auto* written = reinterpret_cast<CUlaunchAttribute*>(payload);
  for (unsigned i = 0; i < l.attribute_count; ++i) {
    const bool stays = names_an_event(written[i]) || written[i].id == CU_LAUNCH_ATTRIBUTE_DEVICE_UPDATABLE_KERNEL_NODE;
    if (stays) written[i].id = CU_LAUNCH_ATTRIBUTE_IGNORE;
  }
}

CUresult after_launch(const Entered& e, const Launch& l, const Stream& stream, uint64_t sequence) {
  for (unsigned i = 0; i < l.attribute_count; ++i) {
    if (names_an_event(l.attributes[i])) TIDE_TRY(cuEventRecord(event_of(l.attributes[i]), l.stream));
  }
  if (!e.process->launch_blocking) return CUDA_SUCCESS;
  return e.process->host.after_wait(*stream.vgpu, stream.vgpu->channel().wait_stream(stream.slot, sequence));
}

CUresult launch(const Launch& l) {
  Entered e;
  Stream* stream = nullptr;
  TIDE_TRY(enter(&e));
  Kernel* kernel = e.process->kernels.find(l.function);
  if (kernel == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  TIDE_TRY(use_stream(e, l.stream, &stream));
  if (capturing(*stream)) return capture(*stream, l);
  Context& context = *stream->context;
  TIDE_TRY(check_geometry(l.geometry, *kernel, context.vgpu->info));
  if (l.cooperative) TIDE_TRY(check_cooperative(l.function, l.geometry, context.vgpu->info));
  bool has_events = false;
  if (l.attribute_count != 0) TIDE_TRY(check_attributes(*stream, l.attributes, l.attribute_count, &has_events));
  uint64_t number = 0;
  TIDE_TRY(wire_kernel(*e.process, *kernel, context, &number));
  const void* buffer = nullptr;
  size_t buffer_bytes = 0;
  const bool packed = l.params == nullptr && l.extra != nullptr;
  if (packed) TIDE_TRY(read_extra(l.extra, &buffer, &buffer_bytes));
  if (l.params == nullptr && !packed && !kernel->params.empty()) return CUDA_ERROR_INVALID_VALUE;
  if (packed) {
    TIDE_TRY(e.process->host.before_words(context, buffer, buffer_bytes));
  } else {
    for (size_t i = 0; i < kernel->params.size(); ++i) {
      TIDE_TRY(e.process->host.before_words(context, l.params[i], kernel->params[i].bytes));
    }
  }
  TIDE_TRY(e.process->host.before_work(*context.vgpu));
  const uint32_t param_bytes = packed ? uint32_t(std::min<size_t>(buffer_bytes, 32768)) : kernel->param_bytes;
  const uint32_t attribute_bytes = uint32_t(l.attribute_count * kLaunchAttributeBytes);
  const Geometry& g = l.geometry;
  const command::Launch command{number,    g.grid_x,       g.grid_y,      g.grid_z,          g.block_x,   g.block_y,
                                g.block_z, g.shared_bytes, l.cooperative, l.attribute_count, param_bytes, 0};
  uint64_t sequence = 0;
  const CUresult sent = context.vgpu->channel().send(
      {.call = Call::tideLaunch,
       .context = context.number.load(std::memory_order_relaxed),
       .stream = stream->slot,
       .payload_bytes = uint32_t(command::kLaunchDataOffset) + attribute_bytes + param_bytes},
      [&](std::byte* payload) {
        memcpy(payload, &command, sizeof command);
        memset(payload + sizeof command, 0, command::kLaunchDataOffset - sizeof command);
        payload += command::kLaunchDataOffset;
        if (attribute_bytes != 0) write_attributes(payload, l);
        payload += attribute_bytes;
        if (packed) {
          if (param_bytes != 0) memcpy(payload, buffer, param_bytes);
          return;
        }
        for (size_t i = 0; i < kernel->params.size(); ++i) {
          memcpy(payload + kernel->params[i].offset, l.params[i], kernel->params[i].bytes);
        }
      },
      &sequence);
  const bool more = has_events || e.process->launch_blocking;
  return sent != CUDA_SUCCESS || !more ? sent : after_launch(e, l, *stream, sequence);
}

}  // namespace

CUresult tide::check_launch(const CUDA_KERNEL_NODE_PARAMS_v3& p, const Context& context, Kernel** found) {
  const void* handle = p.func != nullptr ? static_cast<const void*>(p.func) : static_cast<const void*>(p.kern);
  Kernel* kernel = process()->kernels.find(handle);
  if (kernel == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  const Geometry geometry{p.gridDimX, p.gridDimY, p.gridDimZ, p.blockDimX, p.blockDimY, p.blockDimZ, p.sharedMemBytes};
  TIDE_TRY(check_geometry(geometry, *kernel, context.vgpu->info));
  *found = kernel;
  return CUDA_SUCCESS;
}

CUresult tide::copy_parameters(const Kernel& kernel, const CUDA_KERNEL_NODE_PARAMS_v3& p, std::vector<std::byte>* out) {
  out->assign(kernel.param_bytes, std::byte{0});
  if (p.kernelParams == nullptr && p.extra != nullptr) {
    const void* buffer = nullptr;
    size_t bytes = 0;
    TIDE_TRY(read_extra(p.extra, &buffer, &bytes));
    if (bytes < out->size()) return CUDA_ERROR_INVALID_VALUE;
    if (!out->empty()) memcpy(out->data(), buffer, out->size());
    return CUDA_SUCCESS;
  }
  if (p.kernelParams == nullptr) return kernel.params.empty() ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
  for (size_t i = 0; i < kernel.params.size(); ++i) {
    memcpy(out->data() + kernel.params[i].offset, p.kernelParams[i], kernel.params[i].bytes);
  }
  return CUDA_SUCCESS;
}

#pragma GCC visibility push(default)
extern "C" {

CUresult cuLaunchKernel(CUfunction f, unsigned int grid_x, unsigned int grid_y, unsigned int grid_z,
                        unsigned int block_x, unsigned int block_y, unsigned int block_z, unsigned int shared_bytes,
                        CUstream stream, void** params, void** extra) {
  return launch({.function = f,
                 .geometry = {grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_bytes},
                 .stream = stream,
                 .params = params,
                 .extra = extra});
}

CUresult cuLaunchKernelEx(const CUlaunchConfig* c, CUfunction f, void** params, void** extra) {
  if (c == nullptr || c->numAttrs > kAttributesMax || (c->numAttrs != 0 && c->attrs == nullptr))
    return CUDA_ERROR_INVALID_VALUE;
  return launch(
      {.function = f,
       .geometry = {c->gridDimX, c->gridDimY, c->gridDimZ, c->blockDimX, c->blockDimY, c->blockDimZ, c->sharedMemBytes},
       .stream = c->hStream,
       .params = params,
       .extra = extra,
       .attributes = c->attrs,
       .attribute_count = c->numAttrs});
}

CUresult cuLaunchCooperativeKernel(CUfunction f, unsigned int grid_x, unsigned int grid_y, unsigned int grid_z,
                                   unsigned int block_x, unsigned int block_y, unsigned int block_z,
                                   unsigned int shared_bytes, CUstream stream, void** params) {
  return launch({.function = f,
                 .geometry = {grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_bytes},
                 .stream = stream,
                 .params = params,
                 .extra = nullptr,
                 .cooperative = true});
}

CUresult cuFuncSetSharedMemConfig(CUfunction handle, CUsharedconfig config) {
  Process* p = process();
  if (p == nullptr) return CUDA_ERROR_NOT_INITIALIZED;
  if (p->kernels.find(handle) == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  return config > CU_SHARED_MEM_CONFIG_EIGHT_BYTE_BANK_SIZE ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

}  // extern "C"
#pragma GCC visibility pop
