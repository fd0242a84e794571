// The threads that run blocks, and run(): a grid as a job whose blocks start in index order. A block that runs long
// goes back to its job's queue, so that other blocks and other grids get their turn: kernels may wait for each other.

#include <algorithm>
#include <array>
#include <condition_variable>
#include <deque>
#include <list>
#include <mutex>
#include <thread>

#include "softgpu/exec/block.h"
#include "softgpu/exec/load.h"

namespace softgpu {
namespace {

constexpr uint64_t kSlice = 100'000;  // instructions a block runs before others are considered
constexpr uint32_t kPatience = 20;    // slices before further blocks are started beside it
constexpr size_t kMostSuspended = 64;
constexpr unsigned kDefaultQuantum = 32;  // programs with races that pass on hardware fail when warps run 256 and more

struct Job {
  const Launch* launch = nullptr;
  const KernelCode* code = nullptr;
  uint64_t next = 0;  // the next block to start
  uint64_t total = 0;
  uint64_t running = 0;  // blocks that a thread holds
  unsigned quantum = kDefaultQuantum;
  std::deque<std::unique_ptr<Block>> suspended;
  std::vector<std::unique_ptr<Block>> spare;
  alignas(64) std::array<std::byte, kGridWorkspaceBytes> workspace{};
  Fault fault;
  std::condition_variable ended;

  bool over() const { return running == 0 && suspended.empty() && next == total; }

  bool may_start() const { return next < total; }
  bool may_resume() const { return !suspended.empty(); }

  // Whether the next turn goes to a new block rather than to one that waits.
  bool prefers_new() const {
    if (!may_start()) return false;
    if (suspended.empty() || launch->cooperative) return true;
    return suspended.front()->slices >= kPatience && suspended.size() < kMostSuspended;
  }
};

}  // namespace

struct BlockPool::Impl {
  explicit Impl(unsigned threads) {
    if (threads == 0) threads = std::max(1u, std::thread::hardware_concurrency());
    for (unsigned i = 0; i < threads; ++i) workers.emplace_back([this] { work(); });
  }

  ~Impl() {
    {
      const std::lock_guard lock(mu);
      stopping = true;
    }
    wake.notify_all();
    for (std::thread& t : workers) t.join();
  }

  // The next job with something to do, taking turns. Called with mu held.
  Job* next_job() {
    for (size_t i = 0; i < jobs.size(); ++i) {
      Job* job = jobs.front();
      jobs.splice(jobs.end(), jobs, jobs.begin());
      if (job->may_start() || job->may_resume()) return job;
    }
    return nullptr;
  }

  // A block of the job to run now. Called with mu held; the lock is left while a new block is made.
  std::unique_ptr<Block> take_block(Job* job, std::unique_lock<std::mutex>& lock) {
    ++job->running;
    if (!job->prefers_new()) {
      std::unique_ptr<Block> block = std::move(job->suspended.front());
      job->suspended.pop_front();
      return block;
    }
    const uint64_t index = job->next++;
    std::unique_ptr<Block> block;
    if (!job->spare.empty()) {
      block = std::move(job->spare.back());
      job->spare.pop_back();
    }
    lock.unlock();
    if (block == nullptr) block = make_block(*job->launch, *job->code, job->workspace.data());
    start_block(block.get(), index);
    lock.lock();
    return block;
  }

  void give_back(Job* job, std::unique_ptr<Block> block, bool ended) {
    --job->running;
    if (ended && block->fault != FaultKind::kNone) {
      if (job->fault.ok()) job->fault = fault_of(*block);
      job->next = job->total;
    }
    const bool stopped = !job->fault.ok();
    if (stopped) {
      job->suspended.clear();
    } else if (ended) {
      job->spare.push_back(std::move(block));
    } else {
      ++block->slices;
      job->suspended.push_back(std::move(block));
    }
    if (job->over()) job->ended.notify_all();
  }

  void work() {
    std::unique_lock lock(mu);
    while (true) {
      Job* job = next_job();
      if (job == nullptr) {
        if (stopping) return;
        wake.wait(lock);
        continue;
      }
      std::unique_ptr<Block> block = take_block(job, lock);
      lock.unlock();
      const bool ended = run_block(block.get(), job->quantum, job->launch->cooperative ? 1 : kSlice);
      lock.lock();
      give_back(job, std::move(block), ended);
    }
  }

  std::mutex mu;  // guards what follows and the jobs
  std::condition_variable wake;
  std::list<Job*> jobs;
  bool stopping = false;
  std::vector<std::thread> workers;
};

BlockPool::BlockPool(unsigned threads) : impl_(std::make_unique<Impl>(threads)) {}
BlockPool::~BlockPool() = default;

Fault run(const Launch& launch, BlockPool& pool) {
  Job job;
  job.launch = &launch;
  job.code = &static_cast<const LoadedProgram&>(*launch.program).code(launch.kernel);
  job.total = uint64_t{launch.grid.x} * launch.grid.y * launch.grid.z;
  if (launch.quantum != 0) job.quantum = launch.quantum;
  BlockPool::Impl& impl = pool.impl();
  std::unique_lock lock(impl.mu);
  if (job.over()) return {};
  impl.jobs.push_back(&job);
  impl.wake.notify_all();
  job.ended.wait(lock, [&] { return job.over(); });
  impl.jobs.remove(&job);
  return job.fault;
}

}  // namespace softgpu
