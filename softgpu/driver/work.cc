#include "softgpu/driver/work.h"

#include <atomic>

#include "api/stream_values.h"
#include "base/clock.h"
#include "softgpu/driver/driver.h"
#include "softgpu/driver/graph_host.h"

namespace softgpu {
namespace {

constexpr unsigned kStepsMax = 256;  // of one batch, as the documentation says

// Host memory behind a value that streams and the program share; null when the address means nothing.
template <typename T>
std::atomic<T>* shared_value(CUdeviceptr address) {
  static_assert(sizeof(std::atomic<T>) == sizeof(T));
  if (address % sizeof(T) != 0) return nullptr;
  return reinterpret_cast<std::atomic<T>*>(driver().memory.space().translate(address, sizeof(T)));
}

template <typename T>
bool reached(T present, T value, unsigned condition) {
  switch (condition) {
    case CU_STREAM_WAIT_VALUE_GEQ:
      return static_cast<std::make_signed_t<T>>(present - value) >= 0;
    case CU_STREAM_WAIT_VALUE_EQ:
      return present == value;
    case CU_STREAM_WAIT_VALUE_AND:
      return (present & value) != 0;
    default:
      return static_cast<T>(~(present | value)) != 0;
  }
}

template <typename T>
CUresult wait_for_value(const Context& context, CUdeviceptr address, T value, unsigned flags) {
  const std::atomic<T>* shared = shared_value<T>(address);
  if (shared == nullptr) return CUDA_ERROR_ILLEGAL_ADDRESS;
  constexpr int kSpins = 200;  // then the waiting thread leaves the core to others
  const unsigned condition = flags & ~unsigned{CU_STREAM_WAIT_VALUE_FLUSH};
  for (int i = 0; !reached(shared->load(), value, condition); ++i) {
    if (context.cancel) return CUDA_ERROR_CONTEXT_IS_DESTROYED;
    if (i > kSpins) tide::sleep_us(20);
  }
  return CUDA_SUCCESS;
}

template <typename T>
CUresult write_value(CUdeviceptr address, T value) {
  std::atomic<T>* shared = shared_value<T>(address);
  if (shared == nullptr) return CUDA_ERROR_ILLEGAL_ADDRESS;
  shared->store(value);
  return CUDA_SUCCESS;
}

CUresult run_step(const Context& context, const CUstreamBatchMemOpParams& step) {
  const auto& wait = step.waitValue;
  const auto& write = step.writeValue;
  switch (step.operation) {
    case CU_STREAM_MEM_OP_WAIT_VALUE_32:
      return wait_for_value<uint32_t>(context, wait.address, wait.value, wait.flags);
    case CU_STREAM_MEM_OP_WAIT_VALUE_64:
      return wait_for_value<uint64_t>(context, wait.address, wait.value64, wait.flags);
    case CU_STREAM_MEM_OP_WRITE_VALUE_32:
      return write_value<uint32_t>(write.address, write.value);
    case CU_STREAM_MEM_OP_WRITE_VALUE_64:
      return write_value<uint64_t>(write.address, write.value64);
    default:
      return CUDA_SUCCESS;  // barriers: every step is ordered behind the one before
  }
}

CUresult check_step(const CUstreamBatchMemOpParams& step) {
  tide::ValueStep what;
  const CUresult result = tide::read_value_step(step, &what);
  if (result != CUDA_SUCCESS || what.bytes == 0) return result;
  const bool there = driver().memory.space().translate(what.address, what.bytes) != nullptr;
  return there ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

}  // namespace

Task task_of(Context& context, WorkRef work) {
  Task task;
  task.brief = work->brief();
  if (work->type() == CU_GRAPH_NODE_TYPE_BATCH_MEM_OP) task.ready = [work] { return work->ready(); };
  task.run = [work = std::move(work), &context] { return work->run(context); };
  return task;
}

CUresult enqueue(Context& context, const std::shared_ptr<Stream>& stream, WorkRef work, Ticket* ticket) {
  if (stream->capturing()) {
    if (ticket != nullptr) *ticket = {};
    return capture(*stream, context, work);
  }
  Ticket made = context.submit(stream, task_of(context, std::move(work)));
  if (ticket != nullptr) *ticket = std::move(made);
  return CUDA_SUCCESS;
}

CUresult enqueue_now(Context& context, const std::shared_ptr<Stream>& stream, std::function<CUresult()> run,
                     bool brief) {
  CUresult result = tide::graph::refuse_in(id_of(*stream));
  if (result == CUDA_SUCCESS) result = tide::graph::unsafe_call();
  if (result != CUDA_SUCCESS) return result;
  if (brief) {
    context.submit_and_wait(stream, std::move(run));
  } else {
    context.submit(stream, {std::move(run), {}, false}).wait();
  }
  return context.error();
}

CUresult enqueue_uncaptured(Context& context, const std::shared_ptr<Stream>& stream, Task task) {
  const CUresult result = tide::graph::refuse_in(id_of(*stream));
  if (result != CUDA_SUCCESS) return result;
  context.submit(stream, std::move(task));
  return CUDA_SUCCESS;
}

CUresult FillWork::run(Context&) const {
  for (uint64_t row = 0; row < rect.height; ++row) {
    const uint64_t at = rect.address + row * rect.pitch;
    if (!driver().memory.fill(at, rect.pattern, rect.element_bytes, rect.width)) return CUDA_ERROR_ILLEGAL_ADDRESS;
  }
  return CUDA_SUCCESS;
}

CUresult HostWork::run(Context&) const {
  run_host_function([this] { function(data); });
  return CUDA_SUCCESS;
}

CUresult ValuesWork::run(Context& context) const {
  for (const CUstreamBatchMemOpParams& step : steps) {
    const CUresult result = run_step(context, step);
    if (result != CUDA_SUCCESS) return result;
  }
  return CUDA_SUCCESS;
}

bool ValuesWork::ready() const {
  for (const CUstreamBatchMemOpParams& step : steps) {
    const auto& wait = step.waitValue;
    const unsigned condition = wait.flags & ~unsigned{CU_STREAM_WAIT_VALUE_FLUSH};
    if (step.operation == CU_STREAM_MEM_OP_WAIT_VALUE_32) {
      const auto* shared = shared_value<uint32_t>(wait.address);
      if (shared != nullptr && !reached<uint32_t>(shared->load(), wait.value, condition)) return false;
    } else if (step.operation == CU_STREAM_MEM_OP_WAIT_VALUE_64) {
      const auto* shared = shared_value<uint64_t>(wait.address);
      if (shared != nullptr && !reached<uint64_t>(shared->load(), wait.value64, condition)) return false;
    } else {
      return true;  // what it writes first may be what it waits for
    }
  }
  return true;
}

CUresult make_values_work(const CUstreamBatchMemOpParams* steps, unsigned count, unsigned flags, WorkRef* work) {
  if (flags != 0 || count > kStepsMax || (count != 0 && steps == nullptr)) return CUDA_ERROR_INVALID_VALUE;
  for (unsigned i = 0; i < count; ++i) {
    const CUresult result = check_step(steps[i]);
    if (result != CUDA_SUCCESS) return result;
  }
  *work = std::make_shared<ValuesWork>(std::vector<CUstreamBatchMemOpParams>(steps, steps + count));
  return CUDA_SUCCESS;
}

void run_host_function(const std::function<void()>& function) {
  this_thread().in_callback = true;
  function();
  this_thread().in_callback = false;
}

}  // namespace softgpu
