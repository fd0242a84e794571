#include "server/rectangle.h"

#include "server/session.h"

namespace tide {
namespace {

CUmemorytype kind_of(bool device) { return device ? CU_MEMORYTYPE_DEVICE : CU_MEMORYTYPE_HOST; }

}  // namespace

bool valid(Session& session, uint64_t address, const Rectangle& r) {
  uint64_t span = 0;
  return r.span(&span) && session.covers(address, span);
}

CUresult copy_rows(const Driver& driver, CUstream stream, uint64_t device, const Rectangle& r, std::byte* host,
                   bool in) {
  if (r.contiguous()) {
    return in ? driver.cuMemcpyHtoDAsync_v2(device, host, r.bytes(), stream)
              : driver.cuMemcpyDtoHAsync_v2(host, device, r.bytes(), stream);
  }
  CUDA_MEMCPY2D copy = {};
  copy.srcMemoryType = kind_of(!in);
  copy.dstMemoryType = kind_of(in);
  copy.srcHost = copy.dstHost = host;
  copy.srcDevice = copy.dstDevice = device;
  copy.srcPitch = in ? r.width : r.pitch;
  copy.dstPitch = in ? r.pitch : r.width;
  copy.WidthInBytes = r.width;
  copy.Height = r.height;
  return driver.cuMemcpy2DAsync_v2(&copy, stream);
}

}  // namespace tide
