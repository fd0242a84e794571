// The threads that run blocks, and run(): a grid as a job whose blocks start in index order. A block that runs long
// goes back to its job's queue, so that other blocks and other grids get their turn: kernels may wait for each other.
//
// The thread that calls run() takes part, so that a short kernel needs no change of threads. At most `threads` of
// callers and workers together run blocks at one time.

#include "softgpu/exec/pool.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <list>
#include <mutex>
#include <thread>
#include <unordered_set>

#include "softgpu/exec/block.h"
#include "softgpu/exec/check.h"
#include "softgpu/exec/load.h"

namespace softgpu {
namespace {

constexpr uint64_t kSlice = 100'000;  // instructions a block runs before others are considered
constexpr uint32_t kPatience = 20;    // slices before further blocks are started beside it
constexpr size_t kMostSuspended = 64;
constexpr unsigned kDefaultQuantum = 32;  // programs with races that pass on hardware fail when warps run 256 and more
// Instructions that a grid runs in its caller alone: shorter grids are not worth waking another thread.
constexpr uint64_t kAlone = 4'000;
constexpr uint64_t kShortBlock = 1'000;  // blocks below that are taken kBatch at a time
constexpr uint64_t kBatch = 8;
// With a seed: so many blocks are mixed, in slices of at most so many instructions.
constexpr size_t kMixedBlocks = 4;
constexpr uint64_t kMixedSlice = 2'000;
// How often a caller that waits looks whether its kernel was cancelled while it was paused.
constexpr std::chrono::milliseconds kCancelPeriod{50};

uint64_t next_random(uint64_t* state) {
  *state ^= *state << 13;
  *state ^= *state >> 7;
  *state ^= *state << 17;
  return *state;
}

struct Job final : BlockQueue {
  Job(const Launch& its_launch, const KernelCode& its_code, std::mutex* pool_mu)
      : mu(pool_mu), launch(its_launch), code(its_launch.checker == nullptr ? its_code : with_checks(its_code)) {
    if (launch.checker != nullptr) checks = launch.checker->begin();
    total = uint64_t{launch.grid.x} * launch.grid.y * launch.grid.z /
            (uint64_t{launch.cluster.x} * launch.cluster.y * launch.cluster.z);
    if (launch.quantum != 0) quantum = launch.quantum;
    // The same kernel always meets the same choices, whatever ran before.
    if (launch.seed != 0) random = launch.seed ^ std::hash<std::string>{}(code.name) ^ total << 40;
    if (launch.seed != 0 && random == 0) random = 1;
    paused = launch.hold;
  }

  // The next block that nobody has begun, as one that has ended; a running block does its work.
  bool take(uint64_t* index) override {
    const std::lock_guard lock(*mu);
    if (!may_start()) return false;
    *index = next++;
    ++ended_blocks;
    return true;
  }

  std::mutex* const mu;
  const Launch& launch;
  const KernelCode& code;
  uint64_t next = 0;  // the next block to start
  uint64_t total = 0;
  uint64_t running = 0;  // turns that threads have taken
  uint64_t ended_blocks = 0;
  uint64_t random = 0;  // 0: no seed
  unsigned quantum = kDefaultQuantum;
  bool paused = false;
  bool told = false;  // other threads know of it
  Counters counters;
  std::unique_ptr<LaunchChecks> checks;
  uint64_t last_block = ~uint64_t{0};  // instructions of the block that ended last
  std::deque<std::unique_ptr<Block>> suspended;
  std::vector<std::unique_ptr<Block>> spare;
  alignas(64) std::array<std::byte, kGridWorkspaceBytes> workspace{};
  Fault fault;
  std::condition_variable ended;

  bool over() const { return running == 0 && suspended.empty() && next == total; }
  bool may_start() const { return next < total; }
  bool may_resume() const { return !suspended.empty(); }
  bool can_run() const { return !paused && (may_start() || may_resume()); }
  bool cancelled() const { return launch.cancel != nullptr && launch.cancel->load(std::memory_order_relaxed); }

  // Whether the next turn goes to a new block rather than to one that waits.
  bool prefers_new() {
    if (!may_start()) return false;
    if (suspended.empty() || launch.cooperative) return true;
    if (random != 0 && suspended.size() < kMixedBlocks) return next_random(&random) % 2 == 0;
    return suspended.front()->slices >= kPatience && suspended.size() < kMostSuspended;
  }

  std::unique_ptr<Block> take_suspended() {
    const size_t index = random == 0 ? 0 : next_random(&random) % suspended.size();
    std::unique_ptr<Block> block = std::move(suspended[index]);
    suspended.erase(suspended.begin() + static_cast<ptrdiff_t>(index));
    return block;
  }

  uint64_t slice() {
    if (launch.cooperative) return 1;
    if (random != 0) return 1 + next_random(&random) % kMixedSlice;
    return told ? kSlice : kAlone;
  }

  void stop(const Fault& why) {
    if (fault.ok()) fault = why;
    next = total;
    suspended.clear();
  }
};

}  // namespace

struct BlockPool::Impl {
  explicit Impl(unsigned wanted) : threads(wanted != 0 ? wanted : std::max(1u, std::thread::hardware_concurrency())) {
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

  // The next job with something to do, taking turns, or null. Called with mu held.
  Job* next_job() {
    if (active >= threads || looking) return nullptr;
    for (size_t i = 0; i < jobs.size(); ++i) {
      Job* job = jobs.front();
      jobs.splice(jobs.end(), jobs, jobs.begin());
      if (job->can_run() && !paused_owners.contains(job->launch.owner)) return job;
    }
    return nullptr;
  }

  std::unique_ptr<Block> spare_block(Job* job) {
    if (job->spare.empty()) return nullptr;
    std::unique_ptr<Block> block = std::move(job->spare.back());
    job->spare.pop_back();
    return block;
  }

  // Gives one block of the job a turn, or some short ones to their ends. Called with mu held, which it leaves
  // meanwhile.
  void turn(Job* job, std::unique_lock<std::mutex>& lock) {
    ++active;
    ++job->running;
    if (!job->prefers_new()) {
      std::unique_ptr<Block> block = job->take_suspended();
      run_one(job, std::move(block), ~uint64_t{0}, lock);
    } else {
      const bool batch = job->random == 0 && !job->launch.cooperative && job->last_block < kShortBlock;
      const uint64_t first = job->next;
      const uint64_t count = batch ? std::min(kBatch, job->total - first) : 1;
      job->next += count;
      for (uint64_t i = 0; i < count && job->fault.ok(); ++i) run_one(job, spare_block(job), first + i, lock);
    }
    --active;
    --job->running;
    if (job->over()) job->ended.notify_all();
    if (looking && active == 0) quiet.notify_all();
  }

  // `index` ~0: the block goes on. Otherwise it begins as that one; made when null.
  void run_one(Job* job, std::unique_ptr<Block> block, uint64_t index, std::unique_lock<std::mutex>& lock) {
    const uint64_t slice = job->slice();
    lock.unlock();
    if (block == nullptr) {
      block = make_block(job->launch, job->code, job->workspace.data());
      block->leave = &leave;
      block->checks = job->checks.get();
      block->queue = job;
      for (const auto& peer : block->peers) peer->checks = block->checks;
    }
    if (index != ~uint64_t{0}) start_block(block.get(), index, job->random);
    const uint64_t before = clock_of(*block), bytes_before = block->bytes;
    const bool ended = run_block(block.get(), job->quantum, slice);
    lock.lock();
    job->counters.instructions += clock_of(*block) - before;
    job->counters.bytes += block->bytes - bytes_before;
    give_back(job, std::move(block), ended);
    if (!job->told && job->counters.instructions >= kAlone && (job->may_start() || job->may_resume())) {
      job->told = true;
      if (threads > 1) wake.notify_all();
    }
  }

  void give_back(Job* job, std::unique_ptr<Block> block, bool ended) {
    if (ended) {
      ++job->ended_blocks;
      job->last_block = block->clock - block->clock_at_start;
      if (block->fault != FaultKind::kNone) return job->stop(fault_of(*block));
    }
    if (!job->fault.ok()) return;
    if (ended) {
      job->spare.push_back(std::move(block));
    } else {
      ++block->slices;
      job->suspended.push_back(std::move(block));
    }
  }

  void work() {
    std::unique_lock lock(mu);
    while (!stopping) {
      Job* job = next_job();
      if (job == nullptr) {
        wake.wait(lock);
      } else {
        turn(job, lock);
      }
    }
  }

  // Runs blocks, of this and of other jobs, until this one is over.
  void serve(Job* mine, std::unique_lock<std::mutex>& lock) {
    while (!mine->over()) {
      if (mine->running == 0 && mine->cancelled()) {
        mine->stop({FaultKind::kCancelled, 0, {}});
        continue;
      }
      Job* job = next_job();
      if (job != nullptr) {
        turn(job, lock);
      } else {
        mine->told = true;
        mine->ended.wait_for(lock, kCancelPeriod);
      }
    }
  }

  // Waits until nobody runs a block; nobody begins until go_on(). Called with mu held, which it leaves meanwhile.
  void stand_still(std::unique_lock<std::mutex>& lock) {
    quiet.wait(lock, [&] { return !looking; });
    looking = true;
    leave = true;
    quiet.wait(lock, [&] { return active == 0; });
  }

  void go_on() {
    leave = false;
    looking = false;
    wake.notify_all();
    quiet.notify_all();
    for (Job* job : jobs) job->ended.notify_all();
  }

  const unsigned threads;
  std::mutex mu;  // guards what follows and the jobs
  std::condition_variable wake;
  std::condition_variable quiet;  // nobody runs a block while somebody looks
  std::list<Job*> jobs;
  std::unordered_set<uint32_t> paused_owners;
  unsigned active = 0;  // threads that run blocks
  bool looking = false;
  std::atomic<bool> leave{false};  // running blocks stop at their next turn
  bool stopping = false;
  std::vector<std::thread> workers;
};

BlockPool::BlockPool(unsigned threads) : impl_(std::make_unique<Impl>(threads)) {}
BlockPool::~BlockPool() = default;

Fault run(const Launch& launch, BlockPool& pool, Counters* counters) {
  Job job(launch, static_cast<const LoadedProgram&>(*launch.program).code(launch.kernel), &pool.impl().mu);
  BlockPool::Impl& impl = pool.impl();
  std::unique_lock lock(impl.mu);
  if (job.over()) return {};
  impl.jobs.push_back(&job);
  impl.serve(&job, lock);
  impl.jobs.remove(&job);
  // Somebody must go on with what this thread leaves.
  if (!impl.jobs.empty()) impl.wake.notify_one();
  if (counters != nullptr) *counters = job.counters;
  return job.fault;
}

void pause_grids(BlockPool& pool, uint32_t owner, bool paused) {
  BlockPool::Impl& impl = pool.impl();
  std::unique_lock lock(impl.mu);
  if (paused) {
    impl.stand_still(lock);
    impl.paused_owners.insert(owner);
    impl.go_on();
  } else {
    impl.paused_owners.erase(owner);
    impl.wake.notify_all();
  }
}

void release_held_grids(BlockPool& pool, uint32_t owner) {
  BlockPool::Impl& impl = pool.impl();
  const std::lock_guard lock(impl.mu);
  for (Job* job : impl.jobs) {
    if (job->launch.owner == owner) job->paused = false;
  }
  impl.wake.notify_all();
}

namespace {

BlockView view_of(const Block& block) {
  BlockView out;
  out.index = block.index;
  out.instructions = block.clock - block.clock_at_start;
  const KernelCode& code = *block.code;
  for (const Warp& w : block.warps) {
    for (uint32_t i = 0; i < w.count; ++i) {
      const Group& g = w.groups[i];
      const bool inside = g.pc < code.lines.size();
      out.groups.push_back({w.index, g.pc, inside ? code.lines[g.pc] : 0, g.mask,
                            g.state == Group::State::kReady     ? "ready"
                            : g.state == Group::State::kBarrier ? "barrier"
                                                                : "warp",
                            inside ? code.texts[code.text_of[g.pc]] : std::string()});
    }
  }
  return out;
}

}  // namespace

std::vector<GridView> running_grids(BlockPool& pool, size_t blocks_max) {
  BlockPool::Impl& impl = pool.impl();
  std::unique_lock lock(impl.mu);
  impl.stand_still(lock);
  std::vector<GridView> out;
  for (const Job* job : impl.jobs) {
    GridView grid;
    grid.kernel = job->code.name;
    grid.owner = job->launch.owner;
    grid.paused = job->paused || impl.paused_owners.contains(job->launch.owner);
    grid.blocks = job->total;
    grid.blocks_started = job->next;
    grid.blocks_ended = job->ended_blocks;
    grid.instructions = job->counters.instructions;
    for (const auto& block : job->suspended) {
      if (grid.running.size() < blocks_max) grid.running.push_back(view_of(*block));
    }
    out.push_back(std::move(grid));
  }
  impl.go_on();
  return out;
}

}  // namespace softgpu
