#include "softgpu/driver/managed.h"

#include <algorithm>
#include <iterator>

namespace softgpu {

bool same_place(const CUmemLocation& a, const CUmemLocation& b) {
  if (a.type != b.type) return false;
  return a.type == CU_MEM_LOCATION_TYPE_INVALID || a.type == CU_MEM_LOCATION_TYPE_HOST || a.id == b.id;
}

bool PageAdvice::operator==(const PageAdvice& other) const {
  return read_mostly == other.read_mostly && same_place(preferred, other.preferred) &&
         same_place(prefetched, other.prefetched) && accessed_by == other.accessed_by &&
         accessed_by_host == other.accessed_by_host;
}

uint64_t Advice::split(uint64_t offset, uint64_t bytes) {
  const uint64_t start = offset / kPage * kPage;
  const uint64_t end = (offset + bytes + kPage - 1) / kPage * kPage;
  for (const uint64_t at : {start, end}) {
    if (at < bytes_) parts_.emplace(at, std::prev(parts_.upper_bound(at))->second);
  }
  return end;
}

std::vector<PageAdvice> Advice::within(uint64_t offset, uint64_t bytes) const {
  const std::lock_guard lock(mu_);
  std::vector<PageAdvice> found;
  for (auto part = std::prev(parts_.upper_bound(offset)); part != parts_.end() && part->first < offset + bytes;
       ++part) {
    if (std::find(found.begin(), found.end(), part->second) == found.end()) found.push_back(part->second);
  }
  return found;
}

}  // namespace softgpu
