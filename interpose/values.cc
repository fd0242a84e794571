#include "interpose/values.h"

#include "api/stream_values.h"

namespace tide {
namespace {

// Where the vGPU finds the bytes. Host memory that none has reached yet becomes reachable.
CUresult find_value(const Entered& entered, Context& context, const ValueStep& step, uint64_t* device) {
  HostMemory& host = entered.process->host;
  HostBlock block;
  Vgpu* owner = entered.process->worker_of(step.address, step.bytes, context.vgpu, device);
  if (owner == nullptr && host.find(step.address, &block)) {
    if (CUresult r = host.attach(context, step.address, device); r != CUDA_SUCCESS) return r;
    owner = entered.process->worker_of(step.address, step.bytes, context.vgpu, device);
  }
  if (owner != context.vgpu || !owner->is_open()) return CUDA_ERROR_INVALID_VALUE;
  const bool own = entered.process->vgpu_of(step.address) == owner;
  return own && !owner->memory->covers(step.address, step.bytes) ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

}  // namespace

CUresult resolve_values(const Entered& entered, Context& context, CUstreamBatchMemOpParams* steps, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    ValueStep step;
    uint64_t device = 0;
    if (CUresult r = read_value_step(steps[i], &step); r != CUDA_SUCCESS) return r;
    if (step.bytes == 0) continue;
    if (CUresult r = find_value(entered, context, step, &device); r != CUDA_SUCCESS) return r;
    const bool wait =
        steps[i].operation == CU_STREAM_MEM_OP_WAIT_VALUE_32 || steps[i].operation == CU_STREAM_MEM_OP_WAIT_VALUE_64;
    (wait ? steps[i].waitValue.address : steps[i].writeValue.address) = device;
  }
  return CUDA_SUCCESS;
}

}  // namespace tide
