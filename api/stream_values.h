#pragma once

// Waits for and writes of values: what one operation of a batch touches, and whether it says it rightly. Both drivers
// ask here; what lies at the address is theirs to know.

#include <cuda.h>

namespace tide {

struct ValueStep {
  CUdeviceptr address = 0;
  unsigned bytes = 0;  // 0: touches nothing, it only orders others
};

inline CUresult read_value_step(const CUstreamBatchMemOpParams& step, ValueStep* out) {
  bool ok = true;
  switch (step.operation) {
    case CU_STREAM_MEM_OP_WAIT_VALUE_32:
    case CU_STREAM_MEM_OP_WAIT_VALUE_64:
      *out = {step.waitValue.address, step.operation == CU_STREAM_MEM_OP_WAIT_VALUE_32 ? 4u : 8u};
      ok = (step.waitValue.flags & ~unsigned{CU_STREAM_WAIT_VALUE_FLUSH}) <= CU_STREAM_WAIT_VALUE_NOR;
      break;
    case CU_STREAM_MEM_OP_WRITE_VALUE_32:
    case CU_STREAM_MEM_OP_WRITE_VALUE_64:
      *out = {step.writeValue.address, step.operation == CU_STREAM_MEM_OP_WRITE_VALUE_32 ? 4u : 8u};
      ok = step.writeValue.flags <= CU_STREAM_WRITE_VALUE_NO_MEMORY_BARRIER;
      break;
    case CU_STREAM_MEM_OP_FLUSH_REMOTE_WRITES:
    case CU_STREAM_MEM_OP_BARRIER:
      *out = {};
      return CUDA_SUCCESS;
    default:
      return CUDA_ERROR_NOT_SUPPORTED;
  }
  return ok && out->address != 0 && out->address % out->bytes == 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

}  // namespace tide
