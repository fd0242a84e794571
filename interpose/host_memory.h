#pragma once

// Host memory of CUDA: page-locked, registered and managed memory, and the __managed__ variables of modules. Kernels
// reach it at one address, mostly the program's own.
//
// Where the vGPU that it was made for is served on the program's machine, the worker maps the same pages: host and
// kernels see each other's writes at once, atomics included, and nothing is copied. Otherwise the worker has pages of
// its own at the same address, a mirror (mirror.h), and both are kept equal: before work is sent, what the program
// changed goes to the worker; after a synchronisation what the device changed comes back, or has come already: of small
// blocks the worker tells it unasked. So it is for memory that cannot be shared: registered memory and variables lie
// where the program, or the driver, has them.
//
// Threads: any. mu_ is taken with Vgpu::mu held or none, and held while workers answer.

#include <cuda.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <vector>

#include "interpose/host_zone.h"
#include "interpose/mirror.h"

namespace tide {

struct Context;
struct Process;
struct Vgpu;

// kStaging is ours (staging.h), and one vGPU's.
enum class HostKind : uint8_t { kPinned, kRegistered, kManaged, kVariable, kStaging };

struct HostBlock {
  uint64_t host = 0;    // where the program finds it
  uint64_t device = 0;  // where kernels find it; 0: nowhere yet
  uint64_t bytes = 0;
  uint32_t flags = 0;  // as given
  HostKind kind = HostKind::kPinned;
  Vgpu* home = nullptr;
  uint64_t context = 0;  // handle
  uint64_t id = 0;
  // Of an address of either side.
  uint64_t offset_of(uint64_t address) const { return address - (address - host < bytes ? host : device); }
  bool managed() const { return kind == HostKind::kManaged || kind == HostKind::kVariable; }
};

class HostMemory {
 public:
  explicit HostMemory(Process& process) : process_(process) {}

  CUresult allocate(Context& context, uint64_t bytes, uint32_t flags, HostKind kind, uint64_t* address);
  // False: nothing of that kind begins there. The caller has waited for its uses.
  bool release(uint64_t address, HostKind kind);
  // False, too, where somebody holds the lock; waits for nothing.
  bool try_release(uint64_t address, HostKind kind);
  // The program's own memory. False: overlaps what is known.
  bool add(Context& context, uint64_t address, uint64_t bytes, uint32_t flags);
  // A __managed__ variable, which lies where the worker's driver placed it. Its first vGPU is the one that the program
  // shares it with.
  CUresult add_variable(Context& context, uint32_t library, uint64_t address, uint64_t bytes);
  void release_variables(uint32_t library);
  // Kernels of the context's vGPU reach the block from now on.
  CUresult attach(Context& context, uint64_t address, uint64_t* device);
  void release_context(uint64_t context);
  // A worker has come: what is shared becomes known to it.
  void opened(Vgpu& vgpu);
  // Another worker serves the vGPU, and knows of nothing: what is reached again becomes known to it.
  void begin_again(Vgpu& vgpu);
  // Of the memory that workers of this machine map; -1: none.
  int descriptor();

  // What an address lies in: the program's, or the one at which kernels find it.
  bool find(uint64_t address, HostBlock* block) const;
  // Where kernels and copies of the vGPU find these bytes; 0: they do not.
  uint64_t on_device(const Vgpu& vgpu, uint64_t address, uint64_t bytes) const;
  // The program's own address of these bytes; what is not of here stays as it is.
  uint64_t on_host(uint64_t address) const;
  // Whether kernels may have changed what lies there without the program's side knowing yet.
  bool is_kept_twice(uint64_t address) const;
  bool keeps_some_twice() const { return mirrors_.load(std::memory_order_relaxed) != 0; }
  // Whether all of it is page-locked memory of the program that lies nowhere else: only the program writes it, and what
  // it asks for.
  bool is_kept_once(uint64_t address, uint64_t bytes) const;
  // Kernels may find addresses in these bytes: what they lie in becomes reachable.
  CUresult before_words(Context& context, const void* words, uint64_t bytes) {
    return unreached_.load(std::memory_order_relaxed) == 0 ? CUDA_SUCCESS : look_at_words(context, words, bytes);
  }

  // Before work that may touch mirrored memory is sent to the vGPU, and after.
  CUresult before_work(Vgpu& vgpu) { return mirrors_.load(std::memory_order_relaxed) == 0 ? CUDA_SUCCESS : push(vgpu); }
  // After waiting for work of the vGPU; passes `result` on.
  CUresult after_wait(Vgpu& vgpu, CUresult result) {
    return result != CUDA_SUCCESS || mirrors_.load(std::memory_order_relaxed) == 0 ? result : pull(vgpu);
  }
  // Makes both sides of mirrors equal while kernels run, of large ones less often; called every millisecond by a thread
  // of its own. False: there is nothing to do.
  bool exchange();

 private:
  struct Block {
    HostBlock about;
    uint64_t reached_by = 0;  // bits of vGPU numbers
    uint32_t library = 0;     // of a variable
    bool counted = false;     // in unreached_
    bool in_zone = false;     // the program's side lies in the zone
    std::unique_ptr<Mirror> mirror;
    uint64_t pulled_to = 0;  // of a mirror: the work that was over before the last pull; see work_on()
    bool is_here() const { return mirror != nullptr && mirror->is_here(); }
  };
  using Blocks = std::map<uint64_t, Block>;

  // All require mu_.
  Block* look_up(uint64_t address);
  CUresult reach(Block& block, Vgpu& vgpu);
  CUresult make_mirror(Block& block, Mirror::Far far);
  void end_mirror(Block& block);
  CUresult share(Block& block, Vgpu& vgpu, bool wait);
  CUresult give_own_pages(Block& block, Vgpu& vgpu);
  void drop(Block& block);
  void forget(Block& block, const Vgpu& vgpu);
  bool give_pages(uint64_t address, uint64_t bytes);
  void erase(Blocks::iterator block);
  struct Stale {
    Block* block;
    uint64_t work;
    bool idle;
  };
  void add_stale(Block& block, std::vector<Stale>* stale);
  static CUresult pull_all(const std::vector<Stale>& stale);
  static bool exchange_all(const std::vector<Stale>& stale);
  void take_in();
  // Grows with everything that is sent to the vGPUs that reach the block. *idle: all of it is over.
  uint64_t work_on(const Block& block, bool* idle);

  CUresult look_at_words(Context& context, const void* words, uint64_t bytes);
  CUresult push(Vgpu& vgpu);
  CUresult pull(Vgpu& vgpu);

  Process& process_;
  std::atomic<uint32_t> count_{0};
  std::atomic<uint32_t> mirrors_{0};
  std::atomic<uint32_t> unreached_{0};  // page-locked blocks that no kernel reaches yet
  mutable std::mutex mu_;
  HostZone& zone_ = HostZone::instance();
  std::map<uint64_t, uint64_t> aliases_;  // where kernels find registered blocks -> the program's address
  Blocks blocks_;                         // by host address
  std::set<uint64_t> pages_;              // of variables, which share some
  uint64_t large_due_ns_ = 0;             // when large mirrors may be exchanged again
  struct Kept {
    uint64_t bytes = 0, told = 0;
  };
  std::map<Vgpu*, Kept> kept_;  // pages of the worker's own; of these, those that it tells
};

}  // namespace tide
