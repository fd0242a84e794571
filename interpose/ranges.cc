#include "interpose/ranges.h"

#include <iterator>

namespace tide {

void Ranges::insert(uint64_t begin, uint64_t bytes) {
  by_begin_.emplace(begin, bytes);
  by_size_.emplace(bytes, begin);
  total_ += bytes;
}

void Ranges::erase(std::map<uint64_t, uint64_t>::iterator it) {
  by_size_.erase({it->second, it->first});
  total_ -= it->second;
  by_begin_.erase(it);
}

std::pair<uint64_t, uint64_t> Ranges::add(uint64_t begin, uint64_t bytes) {
  auto next = by_begin_.lower_bound(begin);
  if (next != by_begin_.begin()) {
    const auto before = std::prev(next);
    if (before->first + before->second == begin) {
      begin = before->first;
      bytes += before->second;
      erase(before);
    }
  }
  if (next != by_begin_.end() && begin + bytes == next->first) {
    bytes += next->second;
    erase(next);
  }
  insert(begin, bytes);
  return {begin, bytes};
}

bool Ranges::take(uint64_t bytes, uint64_t align, uint64_t* begin) {
  for (auto it = by_size_.lower_bound({bytes, 0}); it != by_size_.end(); ++it) {
    const uint64_t at = (it->second + align - 1) / align * align;
    if (at + bytes > it->second + it->first) continue;
    remove(at, bytes);
    *begin = at;
    return true;
  }
  return false;
}

void Ranges::remove(uint64_t begin, uint64_t bytes) {
  const auto it = std::prev(by_begin_.upper_bound(begin));
  const uint64_t first = it->first, end = it->first + it->second;
  erase(it);
  if (begin > first) insert(first, begin - first);
  if (begin + bytes < end) insert(begin + bytes, end - begin - bytes);
}

std::pair<uint64_t, uint64_t> Ranges::largest() const {
  if (by_size_.empty()) return {0, 0};
  return {by_size_.rbegin()->second, by_size_.rbegin()->first};
}

}  // namespace tide
