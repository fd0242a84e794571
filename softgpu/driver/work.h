#pragma once

// Work for streams. Every entry point that gives a stream something to do makes a Work and hands it to enqueue(): the
// one place that decides whether it is executed in the stream's order or, while the stream captures, becomes a node of
// the captured graph. So a Work knows all that it needs (arguments are copied into it), can be run any number of times,
// and never refers to memory of the caller, other than what the program promised to keep.
//
// What must not be captured goes through enqueue_now() or enqueue_uncaptured(), which refuse it while the stream
// captures. Context::submit() is below all of these: only bookkeeping of the driver itself may use it.
//
// Threads: any.

#include <functional>
#include <memory>

#include "softgpu/driver/context.h"
#include "softgpu/driver/copy.h"

namespace softgpu {

inline constexpr uint64_t kBriefBytesMax = 512 << 10;  // copied while a thread is woken
inline constexpr uint64_t kBriefRowsMax = 1024;

class Work {
 public:
  virtual ~Work() = default;
  // What it is as a node of a graph.
  virtual CUgraphNodeType type() const = 0;
  // Does it, in a thread of the driver. An error poisons the context.
  virtual CUresult run(Context& context) const = 0;
  virtual bool brief() const { return false; }  // Task::brief
  // Whether it would end by itself, or wait for others.
  virtual bool ready() const { return true; }
};
using WorkRef = std::shared_ptr<const Work>;

// Puts it on the stream or records it. `ticket`, where given, says what to wait for: nothing while capturing.
CUresult enqueue(Context& context, const std::shared_ptr<Stream>& stream, WorkRef work, Ticket* ticket = nullptr);

// The work as a task.
Task task_of(Context& context, WorkRef work);

// Runs `run` in the stream's order and returns when it is done; with `brief`, perhaps in the calling thread.
CUresult enqueue_now(Context& context, const std::shared_ptr<Stream>& stream, std::function<CUresult()> run,
                     bool brief);

// For work that has no place in graphs (stream callbacks, prefetches).
CUresult enqueue_uncaptured(Context& context, const std::shared_ptr<Stream>& stream, Task task);

// A copy. `what` describes it for those who ask a node for its parameters; `execute` does it.
class CopyWork final : public Work {
 public:
  CopyWork(const CUDA_MEMCPY3D& its_what, std::function<CUresult()> its_execute)
      : what(its_what), execute(std::move(its_execute)) {}
  CUgraphNodeType type() const override { return CU_GRAPH_NODE_TYPE_MEMCPY; }
  CUresult run(Context&) const override { return execute(); }
  bool brief() const override {
    const uint64_t rows = what.Height * what.Depth;
    return rows <= kBriefRowsMax && what.WidthInBytes * rows <= kBriefBytesMax;
  }

  const CUDA_MEMCPY3D what;
  const std::function<CUresult()> execute;
};

// Any copy between linear memories, as a node. Refuses what cuMemcpy3D refuses.
CUresult make_copy_work(const CUDA_MEMCPY3D& what, WorkRef* work);

class FillWork final : public Work {
 public:
  explicit FillWork(const FillRect& its_rect) : rect(its_rect) {}
  CUgraphNodeType type() const override { return CU_GRAPH_NODE_TYPE_MEMSET; }
  CUresult run(Context& context) const override;

  const FillRect rect;
};

// Refuses addresses that are nobody's.
CUresult make_fill_work(const FillRect& rect, WorkRef* work);

// A host function. It may not call the driver while it runs.
class HostWork final : public Work {
 public:
  HostWork(CUhostFn its_function, void* its_data) : function(its_function), data(its_data) {}
  CUgraphNodeType type() const override { return CU_GRAPH_NODE_TYPE_HOST; }
  CUresult run(Context& context) const override;

  const CUhostFn function;
  void* const data;
};

// Waits for and writes of single values, one after the other.
class ValuesWork final : public Work {
 public:
  explicit ValuesWork(std::vector<CUstreamBatchMemOpParams> its_steps) : steps(std::move(its_steps)) {}
  CUgraphNodeType type() const override { return CU_GRAPH_NODE_TYPE_BATCH_MEM_OP; }
  CUresult run(Context& context) const override;
  bool ready() const override;

  const std::vector<CUstreamBatchMemOpParams> steps;
};
// Refuses operations, flags and addresses that mean nothing.
CUresult make_values_work(const CUstreamBatchMemOpParams* steps, unsigned count, unsigned flags, WorkRef* work);

// Runs a function of the program that must not call the driver.
void run_host_function(const std::function<void()>& function);

}  // namespace softgpu
