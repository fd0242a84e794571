#include "softgpu/driver/grid.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "api/handshake/handshake.h"
#include "base/log.h"
#include "softgpu/driver/attributes.h"
#include "softgpu/driver/driver.h"
#include "softgpu/driver/occupancy.h"
#include "softgpu/driver/simulation.h"
#include "softgpu/exec/services.h"

namespace softgpu {
namespace {

constexpr unsigned kDeepest = 24;               // generations of grids, CUDA's own limit
constexpr uint64_t kParameterBytes = 16 << 20;  // of grids that wait
constexpr size_t kPendingMax = 1 << 18;         // grids of one parent that wait
constexpr uint64_t kTailLaunch = 3;             // cudaStreamTailLaunch
constexpr uint64_t kSmallestHandle = 0x100;     // above the streams that are named by number

struct Child {
  uint64_t buffer = 0;  // device address of its parameters
  uint64_t order = 0;
  ChildShape shape;
  Launchable kernel;
};

class GridServices final : public DeviceServices {
 public:
  GridServices(Context& context, const Launchable& kernel, unsigned depth)
      : context_(context), parent_(kernel), depth_(depth) {}

  void print(std::string_view text) override { context_.prints.add(text, context_.limit(CU_LIMIT_PRINTF_FIFO_SIZE)); }
  void complain(std::string_view text) override {
    context_.prints.flush();
    std::fwrite(text.data(), 1, text.size(), stderr);
  }
  uint64_t allocate(uint64_t bytes) override {
    return context_.heap.allocate(context_, bytes, context_.limit(CU_LIMIT_MALLOC_HEAP_SIZE));
  }
  bool release(uint64_t address) override { return context_.heap.release(address); }

  DeviceError check(const ChildShape& shape) override {
    Launchable kernel;
    return find(shape.entry, &kernel) ? check_shape(shape, kernel) : DeviceError::kInvalidValue;
  }

  uint64_t parameter_buffer(const ChildShape& shape) override {
    Child child;
    child.shape = shape;
    if (!find(shape.entry, &child.kernel)) return 0;
    child.buffer =
        context_.parameters.allocate(context_, std::max(1u, child.kernel.info().param_bytes), kParameterBytes);
    if (child.buffer == 0) return 0;
    const std::lock_guard lock(mu_);
    begun_[child.buffer] = child;
    return child.buffer;
  }

  DeviceError launch(uint64_t buffer, uint64_t stream, uint64_t order) override {
    const std::lock_guard lock(mu_);
    const auto found = begun_.find(buffer);
    if (found == begun_.end()) return DeviceError::kInvalidValue;
    Child child = std::move(found->second);
    begun_.erase(found);
    child.order = order;
    DeviceError error = check_shape(child.shape, child.kernel);
    if (depth_ >= kDeepest) error = DeviceError::kTooDeep;
    if (children_.size() + tails_.size() >= kPendingMax) error = DeviceError::kTooManyPending;
    if (error != DeviceError::kNone) {
      context_.parameters.release(buffer);
      return error;
    }
    (stream == kTailLaunch ? tails_ : children_).push_back(std::move(child));
    return DeviceError::kNone;
  }

  int device() const override { return context_.device.index; }
  int device_count() const override { return static_cast<int>(driver().devices.size()); }
  DeviceError device_attribute(int device, int attribute, int* value) const override {
    if (device < 0 || device >= device_count()) return DeviceError::kInvalidDevice;
    const bool known = driver().devices[static_cast<size_t>(device)]->attribute(attribute, value);
    return known ? DeviceError::kNone : DeviceError::kInvalidValue;
  }
  DeviceError function_attribute(uint64_t entry, int attribute, int* value) override {
    Launchable kernel;
    if (!find(entry, &kernel)) return DeviceError::kInvalidValue;
    const CUfunction function = kernel.module->functions[kernel.index];
    const CUresult result = get_function_attribute(function, static_cast<CUfunction_attribute>(attribute), value);
    return result == CUDA_SUCCESS ? DeviceError::kNone : DeviceError::kInvalidValue;
  }
  DeviceError limit(int limit, uint64_t* value) override {
    if (limit < 0 || limit > CU_LIMIT_DEV_RUNTIME_PENDING_LAUNCH_COUNT) return DeviceError::kUnsupportedLimit;
    *value = context_.limit(static_cast<CUlimit>(limit));
    return DeviceError::kNone;
  }
  DeviceError active_blocks(uint64_t entry, uint32_t threads, uint64_t shared_bytes, int* value) override {
    Launchable kernel;
    if (threads == 0 || !find(entry, &kernel)) return DeviceError::kInvalidValue;
    *value = blocks_per_multiprocessor(kernel, threads, shared_bytes);
    return DeviceError::kNone;
  }
  uint64_t new_handle() override { return kSmallestHandle + 16 * next_handle_.fetch_add(1); }

  // In the order of the blocks that launched them, whatever thread of the host ran these.
  std::vector<Child> take(bool tails) {
    const std::lock_guard lock(mu_);
    std::vector<Child> out = std::move(tails ? tails_ : children_);
    (tails ? tails_ : children_).clear();
    std::stable_sort(out.begin(), out.end(), [](const Child& a, const Child& b) { return a.order < b.order; });
    return out;
  }

  // What was begun and never launched, or launched by a grid that failed.
  void drop() {
    const std::lock_guard lock(mu_);
    for (const auto& [buffer, child] : begun_) context_.parameters.release(buffer);
    for (const auto* list : {&children_, &tails_}) {
      for (const Child& child : *list) context_.parameters.release(child.buffer);
    }
    begun_.clear();
  }

 private:
  bool find(uint64_t entry, Launchable* kernel) const {
    const int64_t index = parent_.code->program->kernel_at(entry);
    if (index < 0) return false;
    *kernel = {parent_.code, static_cast<uint32_t>(index), parent_.module};
    return kernel->code->lower(kernel->index, &kernel->lowered) == CUDA_SUCCESS;
  }

  static DeviceError check_shape(const ChildShape& s, const Launchable& kernel) {
    if (s.grid.x == 0 || s.grid.y == 0 || s.grid.z == 0 || s.grid.x > 2147483647u || s.grid.y > 65535 ||
        s.grid.z > 65535) {
      return DeviceError::kInvalidGrid;
    }
    const uint64_t threads = uint64_t{s.block.x} * s.block.y * s.block.z;
    if (threads == 0 || s.block.z > 64 || threads > kernel.info().max_threads_per_block) {
      return DeviceError::kInvalidBlock;
    }
    const Dim3& c = kernel.info().cluster;
    if (c.x != 0 && (s.grid.x % c.x != 0 || s.grid.y % c.y != 0 || s.grid.z % c.z != 0)) {
      return DeviceError::kInvalidGrid;
    }
    return s.shared_bytes > static_cast<uint32_t>(kernel.dynamic_shared_max()) ? DeviceError::kOutOfResources
                                                                               : DeviceError::kNone;
  }

  Context& context_;
  const Launchable& parent_;
  const unsigned depth_;
  std::atomic<uint64_t> next_handle_{0};
  std::mutex mu_;
  std::unordered_map<uint64_t, Child> begun_;  // by their buffer; guarded by mu_
  std::vector<Child> children_, tails_;        // guarded by mu_
};

CUresult run_generation(Context& context, const Launchable& kernel, Launch launch, unsigned depth);

CUresult run_child(Context& context, const Child& child, const Launch& parent, unsigned depth) {
  std::vector<std::byte> params(child.kernel.info().param_bytes);
  const std::byte* from = params.empty() ? nullptr : parent.memory->translate(child.buffer, params.size());
  if (from != nullptr) std::memcpy(params.data(), from, params.size());
  context.parameters.release(child.buffer);
  Launch launch = parent;
  launch.kernel = child.kernel.index;
  launch.grid = child.shape.grid;
  launch.block = child.shape.block;
  launch.dynamic_shared_bytes = child.shape.shared_bytes;
  launch.params = params.data();
  launch.cooperative = false;
  const Dim3& cluster = child.kernel.info().cluster;
  launch.cluster = cluster.x != 0 ? cluster : Dim3{1, 1, 1};
  launch.hold = false;
  return run_generation(context, child.kernel, launch, depth);
}

CUresult run_generation(Context& context, const Launchable& kernel, Launch launch, unsigned depth) {
  GridServices services(context, kernel, depth);
  launch.services = &services;
  CUresult planned = CUDA_SUCCESS;
  const Fault fault = simulation().run_grid(context, kernel.info().name, &launch, &planned);
  context.prints.flush();
  CUresult result = planned != CUDA_SUCCESS ? planned : result_of(fault.kind);
  if (!fault.ok() && fault.kind != FaultKind::kCancelled) {
    const char* what = tide::handshake::error_text(result);
    char place[40] = "";
    if (fault.kind == FaultKind::kIllegalAddress || fault.kind == FaultKind::kMisalignedAddress) {
      std::snprintf(place, sizeof place, " at address %#llx", static_cast<unsigned long long>(fault.address));
    }
    tide::log(tide::LogLevel::kWarning, "%s%s: %s%s", what, place, fault.where.c_str(),
              fault.kind == FaultKind::kStackOverflow ? " (the stack is full: CU_LIMIT_STACK_SIZE)" : "");
  }
  for (const bool tails : {false, true}) {
    for (const Child& child : services.take(tails)) {
      if (result == CUDA_SUCCESS) {
        result = run_child(context, child, launch, depth + 1);
      } else {
        context.parameters.release(child.buffer);
      }
    }
  }
  services.drop();
  return result;
}

}  // namespace

CUresult result_of(FaultKind kind) {
  switch (kind) {
    case FaultKind::kNone:
      return CUDA_SUCCESS;
    case FaultKind::kIllegalAddress:
    case FaultKind::kStackOverflow:
      return CUDA_ERROR_ILLEGAL_ADDRESS;
    case FaultKind::kMisalignedAddress:
      return CUDA_ERROR_MISALIGNED_ADDRESS;
    case FaultKind::kIllegalInstruction:
      return CUDA_ERROR_ILLEGAL_INSTRUCTION;
    case FaultKind::kAssert:
      return CUDA_ERROR_ASSERT;
    case FaultKind::kInvalidPc:
      return CUDA_ERROR_INVALID_PC;
    case FaultKind::kCancelled:
      return CUDA_ERROR_CONTEXT_IS_DESTROYED;
    case FaultKind::kTrap:
      return CUDA_ERROR_LAUNCH_FAILED;
  }
  return CUDA_ERROR_LAUNCH_FAILED;
}

CUresult run_grid(Context& context, const Launchable& kernel, Launch launch) {
  launch.stack_bytes = static_cast<uint32_t>(context.limit(CU_LIMIT_STACK_SIZE));
  return run_generation(context, kernel, launch, 0);
}

}  // namespace softgpu
