#pragma once

// A map that knows which of its values may have changed since somebody asked: who gets at one to change it marks it.
// Whoever goes through all of them and could change each marks all; read() marks nothing.

#include <cstddef>
#include <map>
#include <set>
#include <utility>

namespace tide::sched {

template <typename Key, typename Value>
class Tracked {
 public:
  using Map = std::map<Key, Value>;
  struct Changes {
    bool all = false;
    std::set<Key> keys;  // also of values that are gone
  };

  const Map& read() const { return map_; }
  auto begin() const { return map_.begin(); }
  auto end() const { return map_.end(); }
  auto find(const Key& key) const { return map_.find(key); }
  const Value& at(const Key& key) const { return map_.at(key); }
  size_t count(const Key& key) const { return map_.count(key); }
  size_t size() const { return map_.size(); }
  bool empty() const { return map_.empty(); }

  auto begin() {
    changes_.all = true;
    return map_.begin();
  }
  auto end() { return map_.end(); }
  auto find(const Key& key) {
    mark(key);
    return map_.find(key);
  }
  Value& operator[](const Key& key) {
    mark(key);
    return map_[key];
  }
  Value& at(const Key& key) {
    mark(key);
    return map_.at(key);
  }
  size_t erase(const Key& key) {
    mark(key);
    return map_.erase(key);
  }
  void mark(const Key& key) { changes_.keys.insert(key); }
  void mark_all() { changes_.all = true; }
  // Null: there is none. What is done to it stays unknown until it is marked.
  Value* quietly(const Key& key) {
    const auto found = map_.find(key);
    return found == map_.end() ? nullptr : &found->second;
  }

  Changes take_changes() { return std::exchange(changes_, {}); }

 private:
  Map map_;
  Changes changes_;
};

}  // namespace tide::sched
