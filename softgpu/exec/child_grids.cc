// What NVIDIA's device runtime library (libcudadevrt) asks of the driver: grids launched by kernels, and questions
// about the device. Its functions are PTX like any other; these are the calls at their end.

#include <bit>
#include <cstring>

#include "softgpu/exec/builtin.h"
#include "softgpu/exec/handlers.h"
#include "softgpu/exec/services.h"
#include "softgpu/exec/warp.h"

namespace softgpu {
namespace {

// What a handler sees of one lane's call.
struct Call {
  const MicroOp& op;
  Warp& w;
  uint32_t lane;
  DeviceServices& services;

  uint64_t argument(size_t index) const { return builtin_argument(op, w, lane, index); }
  // Through a pointer of the program; a fault where that leads nowhere.
  template <typename T>
  void write(uint64_t address, T value) const {
    std::byte* to = translate_generic(w, lane, address, sizeof(T));
    if (to == nullptr) return raise(w, FaultKind::kIllegalAddress, address, lane);
    std::memcpy(to, &value, sizeof(T));
  }
};

template <auto Body, uint32_t ResultBytes = 4>
void each_lane(const MicroOp& op, Warp& w, uint32_t mask) {
  DeviceServices* services = w.block->launch->services;
  const auto first = static_cast<uint32_t>(std::countr_zero(mask));
  if (services == nullptr) return raise(w, FaultKind::kIllegalInstruction, 0, first);
  for (uint32_t m = mask; m != 0; m &= m - 1) {
    const auto lane = static_cast<uint32_t>(std::countr_zero(m));
    const auto result = static_cast<uint64_t>(Body(Call{op, w, lane, *services}));
    set_builtin_result(op, w, lane, result, ResultBytes);
  }
}

uint64_t parameter_buffer(const Call& c) {
  ChildShape shape;
  shape.entry = c.argument(0);
  const bool whole = builtin_bytes(c.op, c.w, c.lane, 1, &shape.grid, sizeof(Dim3)) &&
                     builtin_bytes(c.op, c.w, c.lane, 2, &shape.block, sizeof(Dim3));
  shape.shared_bytes = static_cast<uint32_t>(c.argument(3));
  return whole ? c.services.parameter_buffer(shape) : 0;
}

DeviceError launch(const Call& c) {
  const Block& block = *c.w.block;
  const Dim3& grid = block.launch->grid;
  const uint64_t order = block.index.x + uint64_t{grid.x} * (block.index.y + uint64_t{grid.y} * block.index.z);
  return c.services.launch(c.argument(0), c.argument(1), order);
}

// The last error of a thread, in its block.
uint32_t& last_error(const Call& c) {
  Block& block = *c.w.block;
  if (block.last_errors.empty()) block.last_errors.resize(block.warps.size() * 32);
  return block.last_errors[c.w.index * 32 + c.lane];
}

uint32_t set_last_error(const Call& c) { return last_error(c) = static_cast<uint32_t>(c.argument(0)); }
uint32_t get_last_error(const Call& c) { return last_error(c); }

DeviceError device_attribute(const Call& c) {
  int value = 0;
  const DeviceError e =
      c.services.device_attribute(static_cast<int>(c.argument(2)), static_cast<int>(c.argument(1)), &value);
  if (e == DeviceError::kNone) c.write(c.argument(0), value);
  return e;
}

DeviceError function_attribute(const Call& c) {
  int value = 0;
  const DeviceError e = c.services.function_attribute(c.argument(2), static_cast<int>(c.argument(1)), &value);
  if (e == DeviceError::kNone) c.write(c.argument(0), value);
  return e;
}

DeviceError get_limit(const Call& c) {
  uint64_t value = 0;
  const DeviceError e = c.services.limit(static_cast<int>(c.argument(1)), &value);
  if (e == DeviceError::kNone) c.write(c.argument(0), value);
  return e;
}

DeviceError active_blocks(const Call& c) {
  int value = 0;
  const DeviceError e =
      c.services.active_blocks(c.argument(1), static_cast<uint32_t>(c.argument(2)), c.argument(3), &value);
  if (e == DeviceError::kNone) c.write(c.argument(0), value);
  return e;
}

DeviceError get_device(const Call& c) {
  c.write(c.argument(0), c.services.device());
  return DeviceError::kNone;
}

DeviceError get_device_count(const Call& c) {
  c.write(c.argument(0), c.services.device_count());
  return DeviceError::kNone;
}

DeviceError new_handle(const Call& c) {
  c.write(c.argument(0), c.services.new_handle());
  return DeviceError::kNone;
}

DeviceError write_zero(const Call& c) {
  c.write(c.argument(0), uint32_t{0});
  return DeviceError::kNone;
}

// Order among the grids that kernels launch is the order of their launches.
DeviceError nothing_to_do(const Call&) { return DeviceError::kNone; }

#define CNP(name, body, bytes) \
  {"call.__cuda_syscall_cnpv2" name, each_lane<body, bytes>}, { "call.cnp" name, each_lane<body, bytes> }

constexpr HandlerRow kRows[] = {
    CNP("GetParameterBufferV2", parameter_buffer, 8),
    CNP("LaunchDeviceV2", launch, 4),
    CNP("SetLastError", set_last_error, 4),
    CNP("GetLastError", get_last_error, 4),
    CNP("DeviceGetAttribute", device_attribute, 4),
    CNP("FuncGetAttribute", function_attribute, 4),
    CNP("GetLimit", get_limit, 4),
    CNP("GetDevice", get_device, 4),
    CNP("GetDeviceCount", get_device_count, 4),
    CNP("GetCacheConfig", write_zero, 4),
    CNP("GetSharedMemConfig", write_zero, 4),
    CNP("StreamCreate", new_handle, 4),
    CNP("StreamDestroy", nothing_to_do, 4),
    CNP("StreamWaitEvent", nothing_to_do, 4),
    CNP("EventCreate", new_handle, 4),
    CNP("EventRecord", nothing_to_do, 4),
    CNP("EventDestroy", nothing_to_do, 4),
    {"call.__cuda_syscall_cnpv2MaxActiveBlocksPerMultiprocessor", each_lane<active_blocks>},
    {"call.__cuda_syscall_cnpv2MaxActiveBlocksPerMultiprocessorWithFlags", each_lane<active_blocks>},
    {"call.__cuda_syscall_cnpMaxActiveBlocksPerMultiprocessor", each_lane<active_blocks>},
    {"call.__cuda_syscall_cnpMaxActiveBlocksPerMultiprocessorWithFlags", each_lane<active_blocks>},
};
#undef CNP

}  // namespace

HandlerRows child_grid_rows() { return {kRows, std::size(kRows)}; }

}  // namespace softgpu
