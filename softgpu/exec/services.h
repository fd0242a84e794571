#pragma once

// What running kernels ask of the driver: text for the host, memory, grids of their own. Calls come from the threads of
// the pool, from many at once.

#include <cstdint>
#include <string_view>

#include "softgpu/exec/program.h"

namespace softgpu {

// Errors of NVIDIA's device runtime; libcudadevrt translates them to cudaError_t.
enum class DeviceError : uint32_t {
  kNone = 0,
  kInvalidValue = 1,
  kInvalidDevice = 3,
  kOutOfMemory = 4,
  kTooDeep = 5,
  kOutOfResources = 6,
  kInvalidGrid = 7,
  kInvalidBlock = 8,
  kTooManyPending = 12,
  kUnsupportedLimit = 13,
};

struct ChildShape {
  uint64_t entry = 0;  // the kernel's address
  Dim3 grid, block;
  uint32_t shared_bytes = 0;
};

class DeviceServices {
 public:
  virtual ~DeviceServices() = default;
  virtual void print(std::string_view text) = 0;     // printf
  virtual void complain(std::string_view text) = 0;  // assert
  // The device heap. 0 when it is exhausted; false for an address that it did not give.
  virtual uint64_t allocate(uint64_t bytes) = 0;
  virtual bool release(uint64_t address) = 0;

  // Room for the parameters of a grid to come, 0 when there is none, or the shape is wrong: then launch() says why.
  virtual uint64_t parameter_buffer(const ChildShape& shape) = 0;
  // Launches what a parameter buffer was made for. `order` is the same for all launches of one block.
  virtual DeviceError launch(uint64_t buffer, uint64_t stream, uint64_t order) = 0;
  virtual DeviceError check(const ChildShape& shape) = 0;

  virtual int device() const = 0;
  virtual int device_count() const = 0;
  virtual DeviceError device_attribute(int device, int attribute, int* value) const = 0;
  virtual DeviceError function_attribute(uint64_t entry, int attribute, int* value) = 0;
  virtual DeviceError limit(int limit, uint64_t* value) = 0;
  virtual DeviceError active_blocks(uint64_t entry, uint32_t threads, uint64_t shared_bytes, int* value) = 0;
  // A name for a stream or an event. All grids that kernels launch run in the order of their launches, so that these
  // have nothing to keep.
  virtual uint64_t new_handle() = 0;
};

}  // namespace softgpu
