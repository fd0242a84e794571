#include "softgpu/driver/device_heap.h"

#include <cstdio>

#include "softgpu/driver/driver.h"

namespace softgpu {
namespace {

constexpr uint64_t kAlign = 16;

}  // namespace

uint64_t DeviceHeap::allocate(Context& context, uint64_t bytes, uint64_t limit) {
  const std::lock_guard lock(mu_);
  if (!tried_) {
    tried_ = true;
    uint64_t address = 0;
    if (driver().memory.allocate(context, limit, &address) == CUDA_SUCCESS) free_[address] = limit;
  }
  if (bytes > limit) return 0;
  bytes = std::max<uint64_t>((bytes + kAlign - 1) / kAlign * kAlign, kAlign);
  for (auto at = free_.begin(); at != free_.end(); ++at) {
    if (at->second < bytes) continue;
    const auto [address, have] = *at;
    free_.erase(at);
    if (have != bytes) free_[address + bytes] = have - bytes;
    used_[address] = bytes;
    return address;
  }
  return 0;
}

bool DeviceHeap::release(uint64_t address) {
  const std::lock_guard lock(mu_);
  const auto found = used_.find(address);
  if (found == used_.end()) return false;
  auto at = free_.emplace(address, found->second).first;
  used_.erase(found);
  if (const auto next = std::next(at); next != free_.end() && at->first + at->second == next->first) {
    at->second += next->second;
    free_.erase(next);
  }
  if (at != free_.begin()) {
    const auto before = std::prev(at);
    if (before->first + before->second == at->first) {
      before->second += at->second;
      free_.erase(at);
    }
  }
  return true;
}

bool DeviceHeap::in_use() const {
  const std::lock_guard lock(mu_);
  return tried_;
}

void DeviceHeap::forget() {
  const std::lock_guard lock(mu_);
  tried_ = false;
  free_.clear();
  used_.clear();
}

void PrintBuffer::add(std::string_view text, uint64_t limit) {
  const std::lock_guard lock(mu_);
  texts_.emplace_back(text);
  bytes_ += text.size();
  while (bytes_ > limit && !texts_.empty()) {
    bytes_ -= texts_.front().size();
    texts_.pop_front();
  }
}

void PrintBuffer::flush() {
  const std::lock_guard lock(mu_);
  if (texts_.empty()) return;
  for (const std::string& text : texts_) std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
  texts_.clear();
  bytes_ = 0;
}

}  // namespace softgpu
