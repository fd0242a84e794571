#pragma once

// Handles that programs hold: integers that are never addresses (their top byte makes them non-canonical), and positive
// because programs may take them for signed numbers (the Python bindings of CUDA do). They name a kind, a slot and the
// slot's generation. A lookup is two loads and a compare; a stale or foreign value finds nothing.
//
// Slots are recycled and their objects never freed, so a program that destroys an object while another thread uses it
// gets a wrong answer, not a crash of ours.

#include <atomic>
#include <cstdint>
#include <mutex>
#include <vector>

namespace tide {

enum class HandleKind : uint8_t {
  kContext = 1,
  kStream,
  kEvent,
  kLibrary,
  kModule,
  kKernel,
  kMemoryPool,
  kPhysical,
  kArray = 0x20,
  kMipmap
};

inline constexpr uint64_t kHandleTag = 0x47;
inline constexpr uint32_t kHandleIndexBits = 20;
inline constexpr uint32_t kHandlePageSlots = 256;
inline constexpr uint32_t kHandlePages = (1u << kHandleIndexBits) / kHandlePageSlots;
inline constexpr uint64_t kHandleGenerationMask = (1u << 28) - 1;

// tag 8 | kind 8 | generation 28 | index 20
constexpr uint64_t make_handle(HandleKind kind, uint64_t generation, uint32_t index) {
  return kHandleTag << 56 | uint64_t(kind) << 48 | (generation & kHandleGenerationMask) << kHandleIndexBits | index;
}
constexpr uint32_t handle_index(uint64_t handle) { return uint32_t(handle & ((1u << kHandleIndexBits) - 1)); }
constexpr uint64_t handle_generation(uint64_t handle) { return handle >> kHandleIndexBits & kHandleGenerationMask; }

// Base of everything that has a handle.
struct Handled {
  uint64_t handle = 0;
};

// Any thread may call anything. T derives from Handled.
template <class T>
class HandleTable {
 public:
  explicit HandleTable(HandleKind kind) : kind_(kind) {}
  HandleTable(const HandleTable&) = delete;
  HandleTable& operator=(const HandleTable&) = delete;

  // The live object, or null.
  T* find(uint64_t handle) const {
    const uint32_t index = handle_index(handle);
    Slot* page = pages_[index / kHandlePageSlots].load(std::memory_order_acquire);
    if (page == nullptr) return nullptr;
    Slot& slot = page[index % kHandlePageSlots];
    return slot.live.load(std::memory_order_acquire) == handle && handle != 0 ? &slot.object : nullptr;
  }
  T* find(const void* handle) const { return find(reinterpret_cast<uint64_t>(handle)); }

  // A slot's object with its new `handle` set; other fields are as the last user left them. Not found until publish().
  // Null when all slots are taken.
  T* create() {
    const std::lock_guard lock(mu_);
    uint32_t index;
    if (!free_.empty()) {
      index = free_.back();
      free_.pop_back();
    } else {
      if (used_ == kHandlePages * kHandlePageSlots) return nullptr;
      index = used_++;
      if (index % kHandlePageSlots == 0) {
        pages_[index / kHandlePageSlots].store(new Slot[kHandlePageSlots], std::memory_order_release);
      }
    }
    Slot& slot = pages_[index / kHandlePageSlots].load(std::memory_order_relaxed)[index % kHandlePageSlots];
    slot.object.handle = make_handle(kind_, handle_generation(slot.object.handle) + 1, index);
    return &slot.object;
  }
  void publish(T* object) { slot_of(object).live.store(object->handle, std::memory_order_release); }

  // While it lives, what was destroyed is still itself: its slot is given to a new object only afterwards.
  class [[nodiscard]] Ending {
   public:
    Ending(HandleTable* table, T* object) : table_(table), object_(object) {}
    ~Ending() {
      if (object_ != nullptr) table_->recycle(object_);
    }
    Ending(const Ending&) = delete;
    Ending& operator=(const Ending&) = delete;
    explicit operator bool() const { return object_ != nullptr; }

   private:
    HandleTable* const table_;
    T* const object_;
  };

  // From now on the handle finds nothing. Null when it was not live (another thread destroyed it first).
  Ending end(T* object) {
    uint64_t expected = object->handle;
    const bool was_live = slot_of(object).live.compare_exchange_strong(expected, 0);
    return Ending(this, was_live ? object : nullptr);
  }
  // end() where nobody looks at the object afterwards.
  bool destroy(T* object) { return bool(end(object)); }

  // Calls function(T*) for every live object.
  template <class Function>
  void each(Function function) {
    uint32_t used;
    {
      const std::lock_guard lock(mu_);
      used = used_;
    }
    for (uint32_t i = 0; i < used; ++i) {
      Slot& slot = pages_[i / kHandlePageSlots].load(std::memory_order_acquire)[i % kHandlePageSlots];
      if (slot.live.load(std::memory_order_acquire) != 0) function(&slot.object);
    }
  }

 private:
  void recycle(T* object) {
    const std::lock_guard lock(mu_);
    free_.push_back(handle_index(object->handle));
  }

  struct Slot {
    std::atomic<uint64_t> live{0};
    T object;
  };
  Slot& slot_of(const T* object) const {
    const uint32_t index = handle_index(object->handle);
    return pages_[index / kHandlePageSlots].load(std::memory_order_acquire)[index % kHandlePageSlots];
  }

  const HandleKind kind_;
  std::atomic<Slot*> pages_[kHandlePages] = {};
  std::mutex mu_;
  std::vector<uint32_t> free_;
  uint32_t used_ = 0;
};

}  // namespace tide
