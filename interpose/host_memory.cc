#include "interpose/host_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <iterator>
#include <utility>
#include <vector>

#include "api/payload.h"
#include "base/clock.h"
#include "base/log.h"
#include "commands.h"
#include "interpose/process.h"

namespace tide {
namespace {

constexpr uint64_t kEagerBytesMax = 64u << 10;  // up to this, page-locked memory is mirrored from the start,
                                                // and whether that failed comes out later
constexpr uint64_t kPage = 4096;
constexpr uint64_t kQuickRemoteMax = 64u << 10;  // up to this, a mirror follows every millisecond while kernels run
constexpr uint64_t kQuickHereMax = 1u << 20;     // the same where it costs no more than looking
constexpr uint64_t kLargeGapNs = 20'000'000;     // others follow at most so often,
constexpr uint64_t kLargeShare = 20;             // and take at most one part in so many of the time
constexpr uint64_t kBytesMax = uint64_t(1) << 41;

uint64_t bit(const Vgpu& vgpu) { return uint64_t(1) << vgpu.number; }

// These commands are of no context.
template <class Command>
CUresult ask(Vgpu& vgpu, Call call, const Command& command, uint64_t* sequence = nullptr) {
  Reply reply;
  return ask_command(vgpu.channel(), {.call = call, .reply = &reply}, command, sequence);
}

template <class Command>
CUresult tell(Vgpu& vgpu, Call call, const Command& command, uint64_t* sequence = nullptr) {
  return vgpu.channel().send(
      {.call = call, .payload_bytes = sizeof command},
      [&](std::byte* payload) { memcpy(payload, &command, sizeof command); }, sequence);
}

}  // namespace

int HostMemory::descriptor() {
  const std::lock_guard lock(mu_);
  return zone_.open() ? zone_.descriptor() : -1;
}

// --- what there is ---

HostMemory::Block* HostMemory::look_up(uint64_t address) {
  const auto after = blocks_.upper_bound(address);
  if (after != blocks_.begin()) {
    Block& block = std::prev(after)->second;
    if (address - block.about.host < block.about.bytes) return &block;
  }
  const auto alias = aliases_.upper_bound(address);
  if (alias == aliases_.begin()) return nullptr;
  Block& block = blocks_.at(std::prev(alias)->second);
  return address - block.about.device < block.about.bytes ? &block : nullptr;
}

uint64_t HostMemory::on_host(uint64_t address) const {
  HostBlock block;
  return find(address, &block) ? block.host + block.offset_of(address) : address;
}

bool HostMemory::find(uint64_t address, HostBlock* block) const {
  if (count_.load(std::memory_order_relaxed) == 0) return false;
  const std::lock_guard lock(mu_);
  const Block* found = const_cast<HostMemory*>(this)->look_up(address);
  if (found == nullptr) return false;
  *block = found->about;
  return true;
}

bool HostMemory::is_kept_twice(uint64_t address) const {
  if (mirrors_.load(std::memory_order_relaxed) == 0) return false;
  const std::lock_guard lock(mu_);
  const Block* found = const_cast<HostMemory*>(this)->look_up(address);
  return found != nullptr && found->mirror != nullptr;
}

bool HostMemory::is_kept_once(uint64_t address, uint64_t bytes) const {
  if (count_.load(std::memory_order_relaxed) == 0) return false;
  const std::lock_guard lock(mu_);
  const Block* found = const_cast<HostMemory*>(this)->look_up(address);
  if (found == nullptr || found->mirror != nullptr || address - found->about.host >= found->about.bytes) return false;
  const bool locked = found->about.kind == HostKind::kPinned || found->about.kind == HostKind::kRegistered;
  return locked && bytes <= found->about.bytes - (address - found->about.host);
}

uint64_t HostMemory::on_device(const Vgpu& vgpu, uint64_t address, uint64_t bytes) const {
  if (count_.load(std::memory_order_relaxed) == 0) return 0;
  const std::lock_guard lock(mu_);
  const Block* found = const_cast<HostMemory*>(this)->look_up(address);
  if (found == nullptr || (found->reached_by & bit(vgpu)) == 0) return 0;
  const uint64_t offset = found->about.offset_of(address);
  return bytes <= found->about.bytes - offset ? found->about.device + offset : 0;
}

CUresult HostMemory::allocate(Context& context, uint64_t bytes, uint32_t flags, HostKind kind, uint64_t* address) {
  if (bytes > kBytesMax) return CUDA_ERROR_OUT_OF_MEMORY;
  const std::lock_guard lock(mu_);
  const uint64_t at = zone_.allocate(bytes, true);
  if (at == 0) return CUDA_ERROR_OUT_OF_MEMORY;
  Block block;
  block.about = {at, at, bytes, flags, kind, context.vgpu, context.handle, process_.next_id++};
  block.in_zone = true;
  const Channel& channel = context.vgpu->channel();
  const bool asked_for = kind == HostKind::kManaged || (flags & CU_MEMHOSTALLOC_DEVICEMAP) != 0;
  // What kernels reach cannot be protected: then only what they are given.
  const bool eager =
      asked_for || (!channel.is_protected() && (bytes <= kEagerBytesMax || channel.shares_host_memory()));
  if (eager) {
    if (CUresult r = reach(block, *context.vgpu); r != CUDA_SUCCESS) {
      zone_.release(at, bytes);
      return r;
    }
  } else {
    block.counted = true;
    ++unreached_;
  }
  blocks_[at] = std::move(block);
  ++count_;
  *address = at;
  return CUDA_SUCCESS;
}

bool HostMemory::add(Context& context, uint64_t address, uint64_t bytes, uint32_t flags) {
  const std::lock_guard lock(mu_);
  const auto next = blocks_.lower_bound(address);
  if (next != blocks_.end() && next->first < address + bytes) return false;
  if (look_up(address) != nullptr) return false;
  Block block;
  block.about = {address, 0, bytes, flags, HostKind::kRegistered, context.vgpu, context.handle, process_.next_id++};
  blocks_[address] = std::move(block);
  ++count_;
  return true;
}

// Within the vGPU's range the addresses are reserved, elsewhere they must be free.
bool HostMemory::give_pages(uint64_t address, uint64_t bytes) {
  for (uint64_t page = address / kPage * kPage; page < address + bytes; page += kPage) {
    if (pages_.count(page) != 0) continue;
    void* const wanted = reinterpret_cast<void*>(page);
    const int how = process_.vgpu_of(page) != nullptr ? MAP_FIXED : MAP_FIXED_NOREPLACE;
    void* const got = mmap(wanted, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | how, -1, 0);
    if (got != wanted) {
      if (got != MAP_FAILED) munmap(got, kPage);
      return false;
    }
    pages_.insert(page);
  }
  return true;
}

CUresult HostMemory::add_variable(Context& context, uint32_t library, uint64_t address, uint64_t bytes) {
  const std::lock_guard lock(mu_);
  if (bytes == 0 || blocks_.count(address) != 0) return CUDA_SUCCESS;
  Block block;
  block.about = {address, address, bytes, 0, HostKind::kVariable, context.vgpu, context.handle, process_.next_id++};
  block.library = library;
  if (!give_pages(address, bytes)) {
    log(LogLevel::kWarning, "a managed variable lies at %#llx on the GPU's server, which is taken in this program",
        static_cast<unsigned long long>(address));
    return CUDA_ERROR_NOT_SUPPORTED;
  }
  // Pages may have been another variable's.
  memset(reinterpret_cast<void*>(address), 0, bytes);
  block.reached_by = bit(*context.vgpu);
  if (CUresult r = make_mirror(block, Mirror::Far::kVariable); r != CUDA_SUCCESS) return r;
  Mirror* const mirror = block.mirror.get();
  if (CUresult r = Mirror::pull({&mirror, 1}); r != CUDA_SUCCESS) {
    end_mirror(block);
    return r;
  }
  blocks_[address] = std::move(block);
  ++count_;
  return CUDA_SUCCESS;
}

// The program's pages stay as they are: it may look at them until it ends.
void HostMemory::release_variables(uint32_t library) {
  if (count_.load() == 0) return;
  const std::lock_guard lock(mu_);
  for (auto block = blocks_.begin(); block != blocks_.end();) {
    const auto next = std::next(block);
    if (block->second.library == library && block->second.about.kind == HostKind::kVariable) erase(block);
    block = next;
  }
}

CUresult HostMemory::attach(Context& context, uint64_t address, uint64_t* device) {
  const std::lock_guard lock(mu_);
  Block* block = look_up(address);
  if (block == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if ((block->reached_by & bit(*context.vgpu)) == 0) {
    if (CUresult r = reach(*block, *context.vgpu); r != CUDA_SUCCESS) return r;
  }
  *device = block->about.device + block->about.offset_of(address);
  return CUDA_SUCCESS;
}

void HostMemory::opened(Vgpu& vgpu) {
  if (count_.load() == 0 || !vgpu.channel().shares_host_memory()) return;
  const std::lock_guard lock(mu_);
  for (auto& [address, block] : blocks_) {
    if (block.about.kind == HostKind::kStaging) continue;
    const bool shared = block.is_here() || (block.in_zone && block.mirror == nullptr && block.reached_by != 0);
    if (shared && (block.reached_by & bit(vgpu)) == 0) share(block, vgpu, false);
  }
}

void HostMemory::begin_again(Vgpu& vgpu) {
  {
    const std::lock_guard lock(mu_);
    for (auto block = blocks_.begin(); block != blocks_.end();) {
      const auto next = std::next(block);
      const bool gone = block->second.about.kind == HostKind::kVariable && block->second.about.home == &vgpu;
      if (gone) {
        erase(block);
      } else if ((block->second.reached_by & bit(vgpu)) != 0) {
        forget(block->second, vgpu);
      }
      block = next;
    }
  }
  opened(vgpu);
}

// The program's side has what there is to have.
void HostMemory::forget(Block& block, const Vgpu& vgpu) {
  block.reached_by &= ~bit(vgpu);
  block.pulled_to = 0;  // it counts the work of those that reach it
  if (block.reached_by != 0) return;
  end_mirror(block);
  if (!block.counted) ++unreached_;
  block.counted = true;
}

// --- who reaches it ---

CUresult HostMemory::reach(Block& block, Vgpu& vgpu) {
  const bool zone_backed = block.in_zone || block.about.device != 0;
  if (!zone_backed) {
    block.about.device = zone_.allocate(block.about.bytes, vgpu.channel().shares_host_memory());
    if (block.about.device == 0) return CUDA_ERROR_OUT_OF_MEMORY;
    aliases_[block.about.device] = block.about.host;
  }
  const bool first = block.reached_by == 0;
  CUresult result = CUDA_ERROR_NOT_SUPPORTED;
  if (vgpu.channel().shares_host_memory() && (first || block.mirror == nullptr || block.is_here())) {
    result = share(block, vgpu, true);
    if (result == CUDA_SUCCESS && first) {
      block.about.home = &vgpu;
      for (Vgpu* other : process_.devices) {
        if (block.about.kind == HostKind::kStaging) break;
        if (other != &vgpu && other->is_open() && other->channel().shares_host_memory()) share(block, *other, false);
      }
    }
  } else if (first) {
    block.about.home = &vgpu;
    result = give_own_pages(block, vgpu);
  }
  if (result == CUDA_SUCCESS && first && block.counted) {
    block.counted = false;
    --unreached_;
  }
  const bool beside = first && !block.in_zone && block.mirror == nullptr;
  return result == CUDA_SUCCESS && beside ? make_mirror(block, Mirror::Far::kHere) : result;
}

CUresult HostMemory::make_mirror(Block& block, Mirror::Far far) {
  if (Outcome o = process_.service.start_exchange(); !o.ok()) {
    log(LogLevel::kError, "host memory cannot be kept equal: %s", o.message().c_str());
    return CUDA_ERROR_OPERATING_SYSTEM;
  }
  const HostBlock& about = block.about;
  block.mirror = Mirror::make(about.host, about.device, about.bytes, far, *about.home);
  if (block.mirror == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  ++mirrors_;
  return CUDA_SUCCESS;
}

void HostMemory::end_mirror(Block& block) {
  if (block.mirror == nullptr) return;
  --mirrors_;
  if (const auto kept = kept_.find(block.about.home); kept != kept_.end() && block.mirror->is_pages()) {
    const uint64_t bytes = whole_pages(block.about.bytes);
    kept->second.bytes -= bytes;
    if (block.mirror->is_told()) kept->second.told -= bytes;
  }
  block.mirror = nullptr;
}

CUresult HostMemory::share(Block& block, Vgpu& vgpu, bool wait) {
  const command::MapHost command{block.about.device, whole_pages(block.about.bytes), 1, 0};
  const CUresult r = wait ? ask(vgpu, Call::tideMapHost, command) : tell(vgpu, Call::tideMapHost, command);
  if (r == CUDA_SUCCESS) block.reached_by |= bit(vgpu);
  return r;
}

// Only what may fail for its size is waited for.
CUresult HostMemory::give_own_pages(Block& block, Vgpu& vgpu) {
  const uint64_t bytes = whole_pages(block.about.bytes);
  Kept& kept = kept_[&vgpu];
  const bool told = bytes <= kToldBlockBytes && bytes + kept.told <= kToldBytes;
  const bool waits = bytes > kEagerBytesMax || kept.bytes + bytes > vgpu.quota;
  const command::MapHost command{block.about.device, bytes, 0, told};
  uint64_t sequence = 0;
  const CUresult r =
      waits ? ask(vgpu, Call::tideMapHost, command, &sequence) : tell(vgpu, Call::tideMapHost, command, &sequence);
  if (r != CUDA_SUCCESS) return r;
  if (CUresult made = make_mirror(block, Mirror::Far::kPages); made != CUDA_SUCCESS) {
    tell(vgpu, Call::tideUnmapHost, command::UnmapHost{block.about.device, bytes});
    return made;
  }
  block.reached_by |= bit(vgpu);
  if (told) block.mirror->make_told(sequence);
  kept.bytes += bytes;
  if (told) kept.told += bytes;
  return CUDA_SUCCESS;
}

// Addresses in arguments are the only sign that a kernel reaches a large block on another machine.
CUresult HostMemory::look_at_words(Context& context, const void* words, uint64_t bytes) {
  const std::lock_guard lock(mu_);
  for (uint64_t at = 0; at + 8 <= bytes; at += 8) {
    uint64_t word = 0;
    memcpy(&word, static_cast<const std::byte*>(words) + at, sizeof word);
    if (word - kHostZoneBase >= kHostZoneBytes) continue;
    Block* block = look_up(word);
    if (block == nullptr || block->reached_by != 0) continue;
    // What is under way into it lands in the program's side, and belongs to what is sent first.
    if (context.vgpu->channel().copies_pending()) context.vgpu->sync_all();
    if (CUresult r = reach(*block, *context.vgpu); r != CUDA_SUCCESS) return r;
  }
  return CUDA_SUCCESS;
}

// --- the end ---

void HostMemory::drop(Block& block) {
  end_mirror(block);
  if (block.about.kind == HostKind::kVariable) return;
  const uint64_t pages = whole_pages(block.about.bytes);
  for (Vgpu* vgpu : process_.devices) {
    if ((block.reached_by & bit(*vgpu)) == 0 || !vgpu->is_open()) continue;
    tell(*vgpu, Call::tideUnmapHost, command::UnmapHost{block.about.device, pages});
  }
  if (block.counted) --unreached_;
  if (!block.in_zone) aliases_.erase(block.about.device);
  if (block.about.device != 0) zone_.release(block.about.device, block.about.bytes);
}

void HostMemory::erase(Blocks::iterator block) {
  for (Vgpu* vgpu : process_.devices) {
    if (block->second.about.kind == HostKind::kPinned && vgpu->is_open()) vgpu->channel().forget_memory(block->first);
  }
  drop(block->second);
  blocks_.erase(block);
  --count_;
}

bool HostMemory::release(uint64_t address, HostKind kind) {
  const std::lock_guard lock(mu_);
  const auto found = blocks_.find(address);
  if (found == blocks_.end() || found->second.about.kind != kind) return false;
  // The program keeps registered memory, with what kernels wrote there.
  std::vector<Stale> stale;
  if (kind == HostKind::kRegistered) {
    add_stale(found->second, &stale);
    take_in();
  }
  pull_all(stale);
  erase(found);
  return true;
}

bool HostMemory::try_release(uint64_t address, HostKind kind) {
  const std::unique_lock lock(mu_, std::try_to_lock);
  if (!lock.owns_lock()) return false;
  const auto found = blocks_.find(address);
  if (found == blocks_.end() || found->second.about.kind != kind) return false;
  erase(found);
  return true;
}

void HostMemory::release_context(uint64_t context) {
  if (count_.load() == 0) return;
  const std::lock_guard lock(mu_);
  for (auto block = blocks_.begin(); block != blocks_.end();) {
    const auto next = std::next(block);
    const HostBlock& about = block->second.about;
    if (about.context == context && about.kind == HostKind::kManaged) erase(block);
    block = next;
  }
}

// --- mirrors ---

CUresult HostMemory::push(Vgpu& vgpu) {
  const std::lock_guard lock(mu_);
  take_in();
  for (auto& [address, block] : blocks_) {
    if (block.mirror == nullptr || (block.reached_by & bit(vgpu)) == 0) continue;
    if (CUresult r = block.mirror->push(); r != CUDA_SUCCESS) return r;
  }
  return CUDA_SUCCESS;
}

// Of other vGPUs, too: work of this one may have waited for theirs.
void HostMemory::take_in() {
  for (const auto& [vgpu, kept] : kept_) {
    if (kept.told == 0 || !vgpu->is_open()) continue;
    for (const auto& [address, page] : vgpu->channel().take_told()) {
      const Block* const block = look_up(address);
      if (block == nullptr || block->about.home != vgpu || block->mirror == nullptr || !block->mirror->is_told())
        continue;
      block->mirror->take_told(address - block->about.device, page.bytes.data(), page.executed);
    }
  }
}

CUresult HostMemory::pull(Vgpu& vgpu) {
  const std::lock_guard lock(mu_);
  std::vector<Stale> stale;
  for (auto& [address, block] : blocks_) {
    if ((block.reached_by & bit(vgpu)) != 0) add_stale(block, &stale);
  }
  take_in();
  return pull_all(stale);
}

// If it is a mirror, and work was done since its last pull.
void HostMemory::add_stale(Block& block, std::vector<Stale>* stale) {
  if (block.mirror == nullptr) return;
  bool idle = false;
  const uint64_t work = work_on(block, &idle);
  if (work != block.pulled_to) stale->push_back({&block, work, idle});
}

CUresult HostMemory::pull_all(const std::vector<Stale>& stale) {
  std::vector<Mirror*> mirrors;
  for (const Stale& s : stale) {
    if (!s.block->mirror->is_told()) mirrors.push_back(s.block->mirror.get());
  }
  if (CUresult r = Mirror::pull(mirrors); r != CUDA_SUCCESS) return r;
  for (const Stale& s : stale) {
    if (s.idle) s.block->pulled_to = s.work;  // else it may be changed again
  }
  return CUDA_SUCCESS;
}

bool HostMemory::exchange_all(const std::vector<Stale>& stale) {
  if (stale.empty() || pull_all(stale) != CUDA_SUCCESS) return false;
  for (const Stale& s : stale) s.block->mirror->push();
  return true;
}

// While kernels run, and once more when they have ended: who looks without a synchronisation finds what they wrote.
bool HostMemory::exchange() {
  if (mirrors_.load(std::memory_order_relaxed) == 0) return false;
  const std::lock_guard lock(mu_);
  std::vector<Stale> quick, large;
  for (auto& [address, block] : blocks_) {
    const bool is_quick = block.about.bytes <= (block.is_here() ? kQuickHereMax : kQuickRemoteMax);
    add_stale(block, is_quick ? &quick : &large);
  }
  take_in();  // after that: of work that was found to be over everything has come
  const uint64_t begin = now_ns();
  if (begin >= large_due_ns_ && exchange_all(large))
    large_due_ns_ = now_ns() + std::max(kLargeGapNs, (now_ns() - begin) * kLargeShare);
  return exchange_all(quick);
}

uint64_t HostMemory::work_on(const Block& block, bool* idle) {
  uint64_t work = 0;
  *idle = true;
  for (Vgpu* vgpu : process_.devices) {
    if ((block.reached_by & bit(*vgpu)) == 0) continue;
    work += vgpu->last_work();  // first: what is sent meanwhile counts as new
    *idle = vgpu->idle() && *idle;
  }
  return work;
}

}  // namespace tide
