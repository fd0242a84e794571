#include "softgpu/driver/access.h"

#include "softgpu/driver/driver.h"

namespace softgpu {

CUresult read_access(const CUmemAccessDesc* descriptions, size_t count, DeviceSet* grant, DeviceSet* take) {
  if (descriptions == nullptr || count == 0) return CUDA_ERROR_INVALID_VALUE;
  for (size_t i = 0; i < count; ++i) {
    const CUmemAccessDesc& description = descriptions[i];
    if (description.location.type != CU_MEM_LOCATION_TYPE_DEVICE) return CUDA_ERROR_NOT_SUPPORTED;
    if (find_device(description.location.id) == nullptr) return CUDA_ERROR_INVALID_DEVICE;
    const DeviceSet device = only(description.location.id);
    switch (description.flags) {
      case CU_MEM_ACCESS_FLAGS_PROT_NONE:
        *take |= device;
        *grant &= ~device;
        break;
      case CU_MEM_ACCESS_FLAGS_PROT_READWRITE:
        *grant |= device;
        *take &= ~device;
        break;
      case CU_MEM_ACCESS_FLAGS_PROT_READ:
        return CUDA_ERROR_NOT_SUPPORTED;
      default:
        return CUDA_ERROR_INVALID_VALUE;
    }
  }
  return CUDA_SUCCESS;
}

}  // namespace softgpu
