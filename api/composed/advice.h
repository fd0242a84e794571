#pragma once

// What a program said about parts of one managed allocation. Advice moves nothing: it is remembered by page and
// answered.
//
// Threads: any.

#include <cstdint>
#include <map>
#include <mutex>
#include <vector>

#include "api/composed/composed.h"

namespace tide::composed {

inline constexpr int kAdvisedDevices = 64;

// Where CU_MEM_LOCATION_TYPE_INVALID means nowhere in particular.
inline constexpr CUmemLocation kNowhere = {CU_MEM_LOCATION_TYPE_INVALID, {CU_DEVICE_INVALID}};

struct PageAdvice {
  bool read_mostly = false;
  CUmemLocation preferred = kNowhere;
  CUmemLocation prefetched = kNowhere;
  uint64_t accessed_by = 0;  // a bit a device
  bool accessed_by_host = false;

  bool operator==(const PageAdvice& other) const;
};

bool same_place(const CUmemLocation& a, const CUmemLocation& b);

class Advice {
 public:
  explicit Advice(uint64_t bytes) : bytes_(bytes) { parts_[0] = {}; }

  // Changes whole pages of [offset, offset + bytes).
  template <typename Change>
  void change(uint64_t offset, uint64_t bytes, Change change) {
    const std::lock_guard lock(mu_);
    const uint64_t end = split(offset, bytes);
    for (auto part = parts_.lower_bound(offset / kPage * kPage); part != parts_.end() && part->first < end; ++part) {
      change(part->second);
    }
  }
  // The different answers within the range.
  std::vector<PageAdvice> within(uint64_t offset, uint64_t bytes) const;

 private:
  static constexpr uint64_t kPage = 4096;
  uint64_t split(uint64_t offset, uint64_t bytes);  // returns the end; requires mu_

  const uint64_t bytes_;
  mutable std::mutex mu_;
  std::map<uint64_t, PageAdvice> parts_;  // from this offset on; guarded by mu_
};

// cuMemAdvise for whole pages of [offset, offset + bytes). Requires: a place where the advice wants one was checked.
CUresult advise(Advice* allocation, uint64_t offset, uint64_t bytes, CUmem_advise advice, const CUmemLocation& place);

// cuMemRangeGetAttribute, of what Advice::within() found.
CUresult read_attribute(const std::vector<PageAdvice>& pages, CUmem_range_attribute attribute, void* data,
                        size_t data_bytes);

// The same for several; ends at the first that is wrong.
CUresult read_attributes(const std::vector<PageAdvice>& pages, const CUmem_range_attribute* attributes, size_t count,
                         void* const* data, const size_t* data_bytes);

}  // namespace tide::composed
