// Entry points: kernel launches.

#include <cstdlib>
#include <cstring>
#include <vector>

#include "api/handshake/handshake.h"
#include "base/log.h"
#include "softgpu/driver/driver.h"
#include "softgpu/driver/grid.h"
#include "softgpu/driver/kernel_work.h"
#include "softgpu/driver/occupancy.h"
#include "softgpu/driver/skipped.h"

using namespace softgpu;  // an entry point is C; everything it uses is ours

namespace {

bool valid_shape(const Shape& shape) {
  const Dim3 &grid = shape.grid, &block = shape.block;
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || block.x == 0 || block.y == 0 || block.z == 0) return false;
  if (grid.x > 2147483647u || grid.y > 65535 || grid.z > 65535) return false;
  if (block.x > 1024 || block.y > 1024 || block.z > 64) return false;
  return uint64_t{block.x} * block.y * block.z <= static_cast<uint64_t>(kThreadsPerBlock);
}

// The cluster of a launch: what it asks for, what the kernel demands, or one block.
Dim3 cluster_of(const Shape& shape, const Launchable& kernel) {
  if (shape.cluster.x != 0) return shape.cluster;
  return kernel.info().cluster.x != 0 ? kernel.info().cluster : Dim3{1, 1, 1};
}

CUresult check_cluster(const Shape& shape, const Launchable& kernel) {
  const Dim3 c = cluster_of(shape, kernel), wanted = kernel.info().cluster;
  const bool other = wanted.x != 0 && (c.x != wanted.x || c.y != wanted.y || c.z != wanted.z);
  const uint32_t most = blocks_per_cluster(kernel);
  if (other || c.x > most || c.y > most || c.z > most || c.x * c.y * c.z > most) return CUDA_ERROR_INVALID_CLUSTER_SIZE;
  const bool fits = shape.grid.x % c.x == 0 && shape.grid.y % c.y == 0 && shape.grid.z % c.z == 0;
  return fits ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult check_shape(const Shape& shape, const Launchable& kernel) {
  if (!valid_shape(shape)) return CUDA_ERROR_INVALID_VALUE;
  const unsigned threads = shape.block.x * shape.block.y * shape.block.z;
  if (threads > kernel.info().max_threads_per_block) return CUDA_ERROR_INVALID_VALUE;
  const auto dynamic_max = static_cast<size_t>(kernel.dynamic_shared_max());
  if (shape.shared_bytes > dynamic_max) return CUDA_ERROR_INVALID_VALUE;
  const CUresult cluster = check_cluster(shape, kernel);
  if (cluster != CUDA_SUCCESS || !shape.cooperative) return cluster;
  const uint64_t blocks = uint64_t{shape.grid.x} * shape.grid.y * shape.grid.z;
  const int fit = blocks_per_multiprocessor(kernel, threads, shape.shared_bytes);
  const auto at_once = static_cast<uint64_t>(fit) * static_cast<uint64_t>(driver().devices[0]->profile.multiprocessors);
  return blocks > at_once ? CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE : CUDA_SUCCESS;
}

// The caller's buffer from the list of `extra`.
CUresult copy_extra(void** extra, std::vector<std::byte>* params) {
  const void* buffer = nullptr;
  size_t bytes = 0;
  for (; *extra != CU_LAUNCH_PARAM_END; extra += 2) {
    if (*extra == CU_LAUNCH_PARAM_BUFFER_POINTER) {
      buffer = extra[1];
    } else if (*extra == CU_LAUNCH_PARAM_BUFFER_SIZE && extra[1] != nullptr) {
      bytes = *static_cast<size_t*>(extra[1]);
    } else {
      return CUDA_ERROR_INVALID_VALUE;
    }
  }
  // A buffer may be longer than the parameters, as compilers pad, but not shorter.
  if ((buffer == nullptr && !params->empty()) || bytes < params->size()) return CUDA_ERROR_INVALID_VALUE;
  if (!params->empty()) std::memcpy(params->data(), buffer, params->size());
  return CUDA_SUCCESS;
}

CUresult copy_params(const KernelInfo& info, void** values, void** extra, std::vector<std::byte>* params) {
  params->resize(info.param_bytes);
  if (values != nullptr && extra != nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (extra != nullptr) return copy_extra(extra, params);
  if (info.params.empty()) return CUDA_SUCCESS;
  if (values == nullptr) return CUDA_ERROR_INVALID_VALUE;
  for (size_t i = 0; i < info.params.size(); ++i) {
    const ParamInfo& param = info.params[i];
    if (values[i] == nullptr) return CUDA_ERROR_INVALID_VALUE;
    std::memcpy(params->data() + param.offset, values[i], param.bytes);
  }
  return CUDA_SUCCESS;
}

// Whether cp.async brings its bytes as late as it may.
bool late_copies() {
  static const char* const text = std::getenv("SOFTGPU_LATE_COPIES");
  return text != nullptr && std::strcmp(text, "1") == 0;
}

CUresult run_kernel(const Launchable& kernel, const Shape& shape, const std::vector<std::byte>& params,
                    Context& context) {
  Launch launch;
  launch.program = kernel.code->program;
  launch.kernel = kernel.index;
  launch.grid = shape.grid;
  launch.block = shape.block;
  launch.dynamic_shared_bytes = static_cast<uint32_t>(shape.shared_bytes);
  launch.params = params.data();
  launch.image_address = kernel.module->image.address;
  launch.memory = &driver().memory.views().of(context.device.index);
  launch.textures = &driver().texture_tables;
  launch.cooperative = shape.cooperative;
  launch.cluster = cluster_of(shape, kernel);
  launch.late_copies = late_copies();
  launch.cancel = &context.cancel;
  if (tide::log_enabled(tide::LogLevel::kDebug)) {
    tide::log(tide::LogLevel::kDebug, "kernel %s, grid (%u,%u,%u), block (%u,%u,%u)", kernel.info().name.c_str(),
              shape.grid.x, shape.grid.y, shape.grid.z, shape.block.x, shape.block.y, shape.block.z);
  }
  return run_grid(context, kernel, launch);
}

struct Attributes {
  const CUlaunchAttribute* first = nullptr;
  unsigned count = 0;
};

// Events that come with a launch: both kinds are recorded behind all of it, the latest that is allowed.
CUresult record_events(Context& context, const std::shared_ptr<Stream>& stream, const Attributes& attributes) {
  for (unsigned i = 0; i < attributes.count; ++i) {
    const CUlaunchAttribute& attribute = attributes.first[i];
    CUevent handle = nullptr;
    if (attribute.id == CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_EVENT) handle = attribute.value.programmaticEvent.event;
    if (attribute.id == CU_LAUNCH_ATTRIBUTE_LAUNCH_COMPLETION_EVENT) {
      handle = attribute.value.launchCompletionEvent.event;
    }
    if (handle == nullptr) continue;
    const auto event = driver().events.find(handle);
    const CUresult result = record_in_stream(context, stream, handle, *event, 0);
    if (result != CUDA_SUCCESS) return result;
  }
  return CUDA_SUCCESS;
}

CUresult launch_kernel(CUfunction function, const Shape& shape, CUstream stream_handle, void** values, void** extra,
                       const Attributes& attributes = {}) {
  return on_stream(stream_handle, [&](Context& context, const std::shared_ptr<Stream>& stream) -> CUresult {
    std::shared_ptr<KernelWork> work;
    CUresult result = make_kernel_work(context, function, shape, values, extra, &work);
    if (result != CUDA_SUCCESS) return result;
    work->attributes.assign(attributes.first, attributes.first + attributes.count);
    result = enqueue(context, stream, std::move(work));
    if (result == CUDA_SUCCESS) result = record_events(context, stream, attributes);
    if (result != CUDA_SUCCESS || !driver().launch_blocking || stream->capturing()) return result;
    stream->last().wait();
    return context.error();
  });
}

CUresult check_event(CUevent handle) {
  const auto event = driver().events.find(handle);
  if (event == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  return (event->flags & CU_EVENT_DISABLE_TIMING) != 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult apply_attribute(const CUlaunchAttribute& attribute, Shape* shape) {
  switch (attribute.id) {
    case CU_LAUNCH_ATTRIBUTE_COOPERATIVE:
      shape->cooperative = attribute.value.cooperative != 0;
      return CUDA_SUCCESS;
    case CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION: {
      const auto& cluster = attribute.value.clusterDim;
      if (cluster.x == 0 || cluster.y == 0 || cluster.z == 0) return CUDA_ERROR_INVALID_VALUE;
      shape->cluster = {cluster.x, cluster.y, cluster.z};
      return CUDA_SUCCESS;
    }
    case CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_EVENT:
      return check_event(attribute.value.programmaticEvent.event);
    case CU_LAUNCH_ATTRIBUTE_LAUNCH_COMPLETION_EVENT:
      return check_event(attribute.value.launchCompletionEvent.event);
    case CU_LAUNCH_ATTRIBUTE_DEVICE_UPDATABLE_KERNEL_NODE:
      return attribute.value.deviceUpdatableKernelNode.deviceUpdatable == 0 ? CUDA_SUCCESS : CUDA_ERROR_NOT_SUPPORTED;
    default:
      return CUDA_SUCCESS;
  }
}

}  // namespace

CUresult softgpu::KernelWork::run(Context& context) const {
  if (kernel.code->machine_code) return launch_machine_code(kernel.info().name);
  return run_kernel(kernel, shape, params, context);
}

CUresult softgpu::apply_attributes(const CUlaunchAttribute* attributes, unsigned count, Shape* shape) {
  for (unsigned i = 0; i < count; ++i) {
    const CUresult result = apply_attribute(attributes[i], shape);
    if (result != CUDA_SUCCESS) return result;
  }
  return CUDA_SUCCESS;
}

CUresult softgpu::make_kernel_work(Context& context, CUfunction function, const Shape& shape, void** values,
                                   void** extra, std::shared_ptr<KernelWork>* work) {
  auto made = std::make_shared<KernelWork>();
  CUresult result = find_launchable(function, &context, &made->kernel);
  if (result != CUDA_SUCCESS) return result;
  if (made->kernel.code->machine_code && !skips_machine_code()) return launch_machine_code(made->kernel.info().name);
  result = check_shape(shape, made->kernel);
  if (result != CUDA_SUCCESS) return result;
  result = copy_params(made->kernel.info(), values, extra, &made->params);
  if (result != CUDA_SUCCESS) return result;
  made->function = function;
  made->shape = shape;
  *work = std::move(made);
  return CUDA_SUCCESS;
}

extern "C" CUresult cuLaunchKernel(CUfunction function, unsigned int grid_x, unsigned int grid_y, unsigned int grid_z,
                                   unsigned int block_x, unsigned int block_y, unsigned int block_z,
                                   unsigned int shared, CUstream stream, void** values, void** extra) {
  return launch_kernel(function, {{grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, shared, false}, stream, values,
                       extra);
}

extern "C" CUresult cuLaunchCooperativeKernel(CUfunction function, unsigned int grid_x, unsigned int grid_y,
                                              unsigned int grid_z, unsigned int block_x, unsigned int block_y,
                                              unsigned int block_z, unsigned int shared, CUstream stream,
                                              void** values) {
  return launch_kernel(function, {{grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, shared, true}, stream, values,
                       nullptr);
}

extern "C" CUresult cuLaunchKernelEx(const CUlaunchConfig* config, CUfunction function, void** values, void** extra) {
  if (config == nullptr || (config->numAttrs != 0 && config->attrs == nullptr)) return CUDA_ERROR_INVALID_VALUE;
  Shape shape{{config->gridDimX, config->gridDimY, config->gridDimZ},
              {config->blockDimX, config->blockDimY, config->blockDimZ},
              config->sharedMemBytes,
              false};
  const CUresult result = apply_attributes(config->attrs, config->numAttrs, &shape);
  if (result != CUDA_SUCCESS) return result;
  return launch_kernel(function, shape, config->hStream, values, extra, {config->attrs, config->numAttrs});
}
