#pragma once

// From handles to objects. A handle is a number that is never used twice, so one that outlives its object is found out.
//
// Threads: any.

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <unordered_map>
#include <vector>

namespace softgpu {

template <typename Handle, typename Object>
class HandleTable {
 public:
  // `kind` distinguishes the handles of different tables.
  explicit HandleTable(uint64_t kind) : next_((kind << 40) + 0x1000) {}

  // A number for an object that is added later.
  Handle next() { return reinterpret_cast<Handle>(next_.fetch_add(16)); }

  void add(Handle handle, std::shared_ptr<Object> object) {
    const std::unique_lock lock(mu_);
    objects_[handle] = std::move(object);
  }

  std::shared_ptr<Object> find(Handle handle) const {
    const std::shared_lock lock(mu_);
    const auto found = objects_.find(handle);
    return found == objects_.end() ? nullptr : found->second;
  }

  // Null when there is no such object.
  std::shared_ptr<Object> remove(Handle handle) {
    const std::unique_lock lock(mu_);
    const auto found = objects_.find(handle);
    if (found == objects_.end()) return nullptr;
    auto object = std::move(found->second);
    objects_.erase(found);
    return object;
  }

  template <typename Predicate>
  void remove_if(Predicate predicate) {
    std::vector<std::shared_ptr<Object>> removed;  // destroyed after the lock
    const std::unique_lock lock(mu_);
    for (auto i = objects_.begin(); i != objects_.end();) {
      if (predicate(*i->second)) {
        removed.push_back(std::move(i->second));
        i = objects_.erase(i);
      } else {
        ++i;
      }
    }
  }

  template <typename Visit>
  void for_each(Visit visit) {
    const std::shared_lock lock(mu_);
    for (auto& [handle, object] : objects_) visit(*object);
  }

  template <typename Visit>
  void for_each_handle(Visit visit) const {
    const std::shared_lock lock(mu_);
    for (auto& [handle, object] : objects_) visit(handle, *object);
  }

 private:
  std::atomic<uint64_t> next_;
  mutable std::shared_mutex mu_;
  std::unordered_map<Handle, std::shared_ptr<Object>> objects_;  // guarded by mu_
};

}  // namespace softgpu
