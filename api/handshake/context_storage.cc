// Values that libraries attach to a context under a key of theirs. Read on nearly every runtime call, written a few
// times in a process's life: readers walk chains whose nodes are never freed and check each node's sequence number;
// writers hold a mutex.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <new>

#include "api/handshake/tables.h"

namespace tide::handshake {
namespace {

constexpr size_t kBuckets = 64;  // a process has a handful of contexts and one key per copy of the runtime

struct Node {
  std::atomic<uint32_t> sequence{0};  // odd while a writer changes the node
  std::atomic<bool> live{false};
  std::atomic<CUcontext> context{nullptr};
  std::atomic<void*> key{nullptr};
  std::atomic<void*> value{nullptr};
  StorageDestructor destructor = nullptr;  // guarded by g_mu
  Node* next = nullptr;                    // fixed once the node is in its chain
};

std::mutex g_mu;  // of all writers
std::atomic<Node*> g_buckets[kBuckets];

std::atomic<Node*>& bucket_of(CUcontext context, void* key) {
  const auto mixed =
      (reinterpret_cast<uintptr_t>(context) * 31 + reinterpret_cast<uintptr_t>(key)) * 0x9E3779B97F4A7C15u;
  return g_buckets[mixed >> 58];
}

// Requires: g_mu is held.
void write(Node& node, bool live, CUcontext context, void* key, void* value, StorageDestructor destructor) {
  node.sequence.fetch_add(1, std::memory_order_acq_rel);
  std::atomic_thread_fence(std::memory_order_release);
  node.live.store(live, std::memory_order_relaxed);
  node.context.store(context, std::memory_order_relaxed);
  node.key.store(key, std::memory_order_relaxed);
  node.value.store(value, std::memory_order_relaxed);
  node.destructor = destructor;
  node.sequence.fetch_add(1, std::memory_order_release);
}

// Requires: g_mu is held.
Node* find(CUcontext context, void* key) {
  for (Node* node = bucket_of(context, key).load(); node != nullptr; node = node->next) {
    if (node->live.load() && node->context.load() == context && node->key.load() == key) return node;
  }
  return nullptr;
}

// Requires: g_mu is held.
Node* free_node(std::atomic<Node*>& bucket) {
  for (Node* node = bucket.load(); node != nullptr; node = node->next) {
    if (!node->live.load()) return node;
  }
  Node* node = new (std::nothrow) Node;
  if (node == nullptr) return nullptr;
  node->next = bucket.load();
  bucket.store(node, std::memory_order_release);
  return node;
}

CUcontext or_current(CUcontext context) {
  if (context == nullptr && hooks().current_context(&context) != CUDA_SUCCESS) return nullptr;
  return context;
}

enum class Read { kOther, kMatch, kAgain };

Read read(const Node& node, CUcontext context, void* key, void** value) {
  const uint32_t before = node.sequence.load(std::memory_order_acquire);
  if (before & 1) return Read::kAgain;
  const bool match = node.live.load(std::memory_order_relaxed) &&
                     node.context.load(std::memory_order_relaxed) == context &&
                     node.key.load(std::memory_order_relaxed) == key;
  void* const found = node.value.load(std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_acquire);
  if (node.sequence.load(std::memory_order_relaxed) != before) return Read::kAgain;
  if (!match) return Read::kOther;
  *value = found;
  return Read::kMatch;
}

}  // namespace

CUresult put_context_storage(CUcontext context, void* key, void* value, StorageDestructor destructor) {
  context = or_current(context);
  if (context == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  const std::lock_guard lock(g_mu);
  Node* node = find(context, key);
  if (node == nullptr) node = free_node(bucket_of(context, key));
  if (node == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  write(*node, true, context, key, value, destructor);
  return CUDA_SUCCESS;
}

CUresult delete_context_storage(CUcontext context, void* key) {
  context = or_current(context);
  if (context == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  const std::lock_guard lock(g_mu);
  Node* node = find(context, key);
  if (node == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  write(*node, false, nullptr, nullptr, nullptr, nullptr);
  return CUDA_SUCCESS;
}

CUresult get_context_storage(void** value, CUcontext context, void* key) {
  if (value == nullptr) return CUDA_ERROR_INVALID_VALUE;
  context = or_current(context);
  if (context == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  for (const Node* node = bucket_of(context, key).load(std::memory_order_acquire); node != nullptr; node = node->next) {
    Read result = Read::kAgain;
    while (result == Read::kAgain) result = read(*node, context, key, value);
    if (result == Read::kMatch) return CUDA_SUCCESS;
  }
  return CUDA_ERROR_INVALID_HANDLE;
}

void destroy_context_storage(CUcontext context) {
  // A destructor may call back into the storage, so each runs without the lock.
  for (auto& bucket : g_buckets) {
    for (Node* node = bucket.load(std::memory_order_acquire); node != nullptr; node = node->next) {
      StorageDestructor destructor = nullptr;
      void* key = nullptr;
      void* value = nullptr;
      {
        const std::lock_guard lock(g_mu);
        if (!node->live.load() || node->context.load() != context) continue;
        destructor = node->destructor;
        key = node->key.load();
        value = node->value.load();
        write(*node, false, nullptr, nullptr, nullptr, nullptr);
      }
      if (destructor != nullptr) destructor(context, key, value);
    }
  }
}

}  // namespace tide::handshake
