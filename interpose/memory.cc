#include "interpose/memory.h"

#include <algorithm>
#include <iterator>

#include "api/payload.h"
#include "base/limits.h"
#include "base/log.h"
#include "commands.h"
#include "interpose/process.h"

namespace tide {
namespace {

constexpr int kAsksMax = 4;
constexpr uint64_t kKeptSharedBytes = 2 * kChunkBytes;  // free memory that others could have

}  // namespace

Memory::Memory(Vgpu& vgpu) : vgpu_(vgpu), allocator_(vgpu.range(), kVgpuRangeBytes - kImageZoneBytes, vgpu.quota) {}

// Under the lock: the worker must see unmappings and mappings in the order in which they were decided.
CUresult Memory::carry_out(const std::vector<Mapping>& todo, uint32_t context) {
  CUresult result = CUDA_SUCCESS;
  bool gave = false;
  for (const Mapping& m : todo) {
    const command::MapMemory range{m.address, m.bytes};
    const CUresult r =
        vgpu_.channel().send({.call = m.map ? Call::tideMapMemory : Call::tideUnmapMemory,
                              .context = context,
                              .payload_bytes = sizeof range},
                             [&](std::byte* payload) { __builtin_memcpy(payload, &range, sizeof range); });
    if (r != CUDA_SUCCESS) result = r;
    gave |= !m.map;
  }
  if (gave) tell();
  return result;
}

void Memory::release_finished(std::vector<Mapping>* todo) {
  std::erase_if(later_, [&](const Later& l) {
    if (!vgpu_.channel().done(l.slot, l.sequence)) return false;
    if (l.opened) {
      end_opened(l.address, todo);
    } else {
      unshare(l.address);
      allocator_.release(l.address, todo);
    }
    return true;
  });
}

// Requires: mu_. From the first time on the worker is told how much it is.
void Memory::follow_sharing() {
  const uint64_t shared = vgpu_.channel().memory_shared();
  if (shared <= heard_.load()) return;
  heard_.store(shared);
  asks_ = true;
  std::vector<Mapping> todo;
  allocator_.keep_at_most(kKeptSharedBytes, &todo);
  carry_out(todo, 0);
  tell();
}

// Requires: mu_. What somebody asks for at this moment is not taken back.
void Memory::tell() {
  if (!asks_) return;
  if (wanted_ == 0) allocator_.set_quota(allocator_.mapped());
  send_command(*vgpu_.primary, Call::tideAskMemory, command::AskMemory{std::max(allocator_.mapped(), wanted_)});
}

void Memory::look_after() {
  // The service thread does not wait for room in the ring.
  if (vgpu_.channel().memory_shared() <= heard_.load() || !vgpu_.channel().has_room()) return;
  const std::unique_lock lock(mu_, std::try_to_lock);
  if (lock.owns_lock()) follow_sharing();
}

CUresult Memory::ask(uint64_t bytes, uint64_t* left) {
  Reply reply;
  const CUresult r = ask_command(*vgpu_.primary, Call::tideAskMemory, command::AskMemory{bytes}, &reply);
  if (r != CUDA_SUCCESS) return r;
  MemoryAnswer answer;
  if (reply.payload.size() < sizeof answer) return CUDA_ERROR_UNKNOWN;
  __builtin_memcpy(&answer, reply.payload.data(), sizeof answer);
  *left = answer.left;
  return CUDA_SUCCESS;
}

template <class Attempt>
CUresult Memory::ask_and_try(std::unique_lock<std::mutex>* lock, uint64_t bytes, uint32_t context, Attempt attempt) {
  lock->unlock();
  const std::lock_guard turn(asking_mu_);
  lock->lock();
  for (int i = 0; i < kAsksMax; ++i) {  // what was given to us another thread may take
    std::vector<Mapping> todo;
    const bool got = attempt(&todo);
    const CUresult sent = carry_out(todo, context);
    if (sent != CUDA_SUCCESS || got) return sent;
    const uint64_t wanted = allocator_.needed(bytes);
    if (wanted > vgpu_.quota) break;
    wanted_ = wanted;
    lock->unlock();
    uint64_t left = 0;
    const CUresult asked = ask(wanted, &left);
    lock->lock();
    wanted_ = 0;
    allocator_.set_quota(std::max(asked == CUDA_SUCCESS ? wanted : 0, allocator_.mapped()));
    if (asked == CUDA_SUCCESS) continue;
    tell();
    return asked;
  }
  tell();
  return CUDA_ERROR_OUT_OF_MEMORY;
}

template <class Attempt>
CUresult Memory::obtain(uint64_t bytes, uint32_t context, Attempt attempt) {
  std::unique_lock lock(mu_);
  follow_sharing();
  std::vector<Mapping> todo;
  if (!later_.empty()) release_finished(&todo);
  bool got = attempt(&todo);
  if (!got && asks_) {  // there may be more without waiting for what is freed in stream order
    if (CUresult r = carry_out(todo, context); r != CUDA_SUCCESS) return r;
    todo.clear();
    const CUresult asked = ask_and_try(&lock, bytes, context, attempt);
    if (asked != CUDA_ERROR_OUT_OF_MEMORY || later_.empty()) return asked;
  }
  if (!got && !later_.empty()) {
    // What was freed in stream order comes back when the streams get there.
    lock.unlock();
    if (CUresult r = vgpu_.sync_all(); r != CUDA_SUCCESS) return r;
    lock.lock();
    release_finished(&todo);
    got = attempt(&todo);
  }
  if (CUresult r = carry_out(todo, context); r != CUDA_SUCCESS) return r;
  if (!got && asks_) return ask_and_try(&lock, bytes, context, attempt);
  return got ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult Memory::allocate(Context& context, uint64_t bytes, uint64_t* address) {
  if (bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  const uint32_t number = context.number.load();
  const uint64_t id = process()->next_id++;
  return obtain(Allocator::chunks_of(bytes), number,
                [&](std::vector<Mapping>* todo) { return allocator_.allocate(bytes, number, id, address, todo); });
}

CUresult Memory::charge(Context& context, uint64_t bytes) {
  return obtain(bytes, context.number.load(),
                [&](std::vector<Mapping>* todo) { return allocator_.charge(bytes, todo); });
}

void Memory::discharge(uint64_t bytes) {
  const std::lock_guard lock(mu_);
  allocator_.discharge(bytes);
  tell();
}

CUresult Memory::release(uint64_t address) {
  {
    const std::lock_guard lock(mu_);
    const Allocation* found = allocator_.find(address);
    if (found == nullptr || found->base != address) return CUDA_ERROR_INVALID_VALUE;
  }
  const CUresult result = vgpu_.sync_all();
  const std::lock_guard lock(mu_);
  std::vector<Mapping> todo;
  release_finished(&todo);
  unshare(address);
  if (!allocator_.release(address, &todo)) return CUDA_ERROR_INVALID_VALUE;
  const CUresult sent = carry_out(todo, 0);
  return result != CUDA_SUCCESS ? result : sent;
}

CUresult Memory::release_after(uint64_t address, uint32_t slot, uint64_t sequence) {
  const std::lock_guard lock(mu_);
  const Allocation* found = allocator_.find(address);
  if (found == nullptr || found->base != address || found->mapped) return CUDA_ERROR_INVALID_VALUE;
  for (const Later& l : later_) {
    if (l.address == address) return CUDA_ERROR_INVALID_VALUE;
  }
  later_.push_back({address, slot, sequence});
  return CUDA_SUCCESS;
}

CUresult Memory::reserve(uint64_t bytes, uint64_t alignment, uint64_t* address) {
  const std::lock_guard lock(mu_);
  if (!allocator_.reserve(bytes, std::max(alignment, kChunkBytes), address)) return CUDA_ERROR_OUT_OF_MEMORY;
  reserved_[*address] = bytes;
  return CUDA_SUCCESS;
}

CUresult Memory::unreserve(uint64_t address, uint64_t bytes) {
  const std::lock_guard lock(mu_);
  const auto found = reserved_.find(address);
  if (found == reserved_.end() || found->second != bytes) return CUDA_ERROR_INVALID_VALUE;
  const auto mapped = mapped_.lower_bound(address);
  if (mapped != mapped_.end() && mapped->first < address + bytes) return CUDA_ERROR_INVALID_VALUE;
  reserved_.erase(found);
  allocator_.unreserve(address, bytes);
  return CUDA_SUCCESS;
}

CUresult Memory::create(uint64_t bytes) {
  return obtain(bytes, 0, [&](std::vector<Mapping>* todo) { return allocator_.charge(bytes, todo); });
}

void Memory::destroy(uint64_t bytes) { discharge(bytes); }

CUresult Memory::map(uint64_t address, uint64_t bytes) { return map_at(address, bytes, 0); }
CUresult Memory::map_named(uint64_t address, uint64_t bytes, uint64_t name) { return map_at(address, bytes, name); }

CUresult Memory::map_at(uint64_t address, uint64_t bytes, uint64_t name) {
  const std::lock_guard lock(mu_);
  const auto after = reserved_.upper_bound(address);
  if (after == reserved_.begin()) return CUDA_ERROR_INVALID_VALUE;
  const auto& [start, length] = *std::prev(after);
  if (address - start >= length || bytes > length - (address - start)) return CUDA_ERROR_INVALID_VALUE;
  auto next = mapped_.lower_bound(address);
  if (next != mapped_.end() && next->first < address + bytes) return CUDA_ERROR_INVALID_VALUE;
  if (next != mapped_.begin() && (--next)->first + next->second > address) return CUDA_ERROR_INVALID_VALUE;
  mapped_[address] = bytes;
  allocator_.note_mapped({address, bytes, vgpu_.primary->number.load(), process()->next_id++, true});
  if (name != 0) return send_command(*vgpu_.primary, Call::tideMapPhysical, command::MapPhysical{name, address});
  return carry_out({{address, bytes, true}}, 0);
}

CUresult Memory::unmap(uint64_t address, uint64_t bytes) {
  {
    const std::lock_guard lock(mu_);
    const auto found = mapped_.find(address);
    if (found == mapped_.end() || found->second != bytes) return CUDA_ERROR_INVALID_VALUE;
  }
  const CUresult result = vgpu_.sync_all();
  const std::lock_guard lock(mu_);
  if (mapped_.erase(address) == 0) return CUDA_ERROR_INVALID_VALUE;
  allocator_.forget_mapped(address);
  const CUresult sent = carry_out({{address, bytes, false}}, 0);
  return result != CUDA_SUCCESS ? result : sent;
}

void Memory::release_context(uint32_t context) {
  const std::lock_guard lock(mu_);
  std::vector<Mapping> todo;
  std::erase_if(later_, [&](const Later& l) {
    const Allocation* found = allocator_.find(l.address);
    return found == nullptr || (found->context == context && !found->mapped);
  });
  std::erase_if(shared_, [&](const auto& item) {
    const Allocation* found = allocator_.find(item.first);
    const bool ends = found == nullptr || found->context == context;
    if (ends) send_command(*vgpu_.primary, Call::tideUnshare, command::Unshare{item.second.name});
    return ends;
  });
  allocator_.release_context(context, &todo);
  std::erase_if(globals_, [&](const auto& item) { return item.second.context == context; });
  carry_out(todo, 0);
}

bool Memory::find(uint64_t address, Allocation* allocation) const {
  const std::lock_guard lock(mu_);
  const Allocation* found = allocator_.find(address);
  if (found == nullptr && !globals_.empty()) {
    auto it = globals_.upper_bound(address);
    if (it != globals_.begin() && address - (it = std::prev(it))->first < it->second.bytes) found = &it->second;
  }
  if (found == nullptr) return false;
  *allocation = *found;
  return true;
}

bool Memory::begin_again() {
  const std::scoped_lock lock(sharing_mu_, mu_);
  const bool nothing_left =
      allocator_.empty() && reserved_.empty() && mapped_.empty() && shared_.empty() && opened_.empty();
  if (!nothing_left) return false;
  allocator_ = Allocator(vgpu_.range(), kVgpuRangeBytes - kImageZoneBytes, vgpu_.quota);
  asks_ = false;
  heard_.store(0);
  later_.clear();
  globals_.clear();
  return true;
}

CUresult Memory::set_synchronous(uint64_t address, bool on) {
  const std::lock_guard lock(mu_);
  const Allocation* found = allocator_.find(address);
  if (found == nullptr) return CUDA_ERROR_INVALID_VALUE;
  allocator_.set_synchronous(found->base, on);
  if (on) has_synchronous_.store(true, std::memory_order_relaxed);
  return CUDA_SUCCESS;
}

bool Memory::covers(uint64_t address, uint64_t bytes) const {
  Allocation a;
  return find(address, &a) && bytes <= a.bytes - (address - a.base);
}

void Memory::add_global(uint64_t address, uint64_t bytes, uint32_t context) {
  const std::lock_guard lock(mu_);
  globals_[address] = {address, bytes, context, process()->next_id++};
}

uint64_t Memory::available() {
  const std::lock_guard asking(asking_mu_);  // so that nobody else's wish is taken back by this
  std::unique_lock lock(mu_);
  follow_sharing();
  if (!asks_) return allocator_.available();
  const uint64_t promised = allocator_.quota(), own = allocator_.available();
  lock.unlock();
  uint64_t left = 0;
  return ask(promised, &left) == CUDA_SUCCESS ? own + left : own;
}

uint64_t Memory::total() const { return vgpu_.quota; }

}  // namespace tide
