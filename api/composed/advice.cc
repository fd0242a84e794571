// Advice about managed memory, by page.

#include "api/composed/advice.h"

#include <algorithm>
#include <cstring>
#include <iterator>

namespace tide::composed {
namespace {

uint64_t only(int device) { return uint64_t{1} << device; }

// As the old attributes answer a place.
int device_of(const CUmemLocation& place) {
  switch (place.type) {
    case CU_MEM_LOCATION_TYPE_DEVICE:
      return place.id;
    case CU_MEM_LOCATION_TYPE_HOST:
    case CU_MEM_LOCATION_TYPE_HOST_NUMA:
    case CU_MEM_LOCATION_TYPE_HOST_NUMA_CURRENT:
      return CU_DEVICE_CPU;
    default:
      return CU_DEVICE_INVALID;
  }
}

void set_accessed_by(PageAdvice* page, const CUmemLocation& place, bool on) {
  if (place.type != CU_MEM_LOCATION_TYPE_DEVICE) {
    page->accessed_by_host = on;
  } else if (on) {
    page->accessed_by |= only(place.id);
  } else {
    page->accessed_by &= ~only(place.id);
  }
}

// Places that all pages agree on.
CUmemLocation common(const std::vector<PageAdvice>& pages, CUmemLocation PageAdvice::*which) {
  const CUmemLocation first = pages.front().*which;
  for (const PageAdvice& page : pages) {
    if (!same_place(page.*which, first)) return kNowhere;
  }
  return first;
}

// Devices that every page has, in order, then CU_DEVICE_INVALID.
CUresult give_accessed_by(const std::vector<PageAdvice>& pages, void* data, size_t data_bytes) {
  if (data_bytes == 0 || data_bytes % sizeof(int) != 0) return CUDA_ERROR_INVALID_VALUE;
  uint64_t everywhere = ~uint64_t{0};
  bool host = true;
  for (const PageAdvice& page : pages) {
    everywhere &= page.accessed_by;
    host = host && page.accessed_by_host;
  }
  std::vector<int> devices;
  if (host) devices.push_back(CU_DEVICE_CPU);
  for (int device = 0; device < kAdvisedDevices; ++device) {
    if ((everywhere & only(device)) != 0) devices.push_back(device);
  }
  devices.resize(data_bytes / sizeof(int), CU_DEVICE_INVALID);
  std::memcpy(data, devices.data(), data_bytes);
  return CUDA_SUCCESS;
}

CUresult give_number(void* data, size_t data_bytes, int value) {
  if (data_bytes != sizeof(value)) return CUDA_ERROR_INVALID_VALUE;
  std::memcpy(data, &value, sizeof(value));
  return CUDA_SUCCESS;
}

}  // namespace

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

CUresult advise(Advice* allocation, uint64_t offset, uint64_t bytes, CUmem_advise advice, const CUmemLocation& place) {
  if (advice < CU_MEM_ADVISE_SET_READ_MOSTLY || advice > CU_MEM_ADVISE_UNSET_ACCESSED_BY) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  allocation->change(offset, bytes, [&](PageAdvice& page) {
    switch (advice) {
      case CU_MEM_ADVISE_SET_READ_MOSTLY:
      case CU_MEM_ADVISE_UNSET_READ_MOSTLY:
        page.read_mostly = advice == CU_MEM_ADVISE_SET_READ_MOSTLY;
        break;
      case CU_MEM_ADVISE_SET_PREFERRED_LOCATION:
        page.preferred = place;
        break;
      case CU_MEM_ADVISE_UNSET_PREFERRED_LOCATION:
        page.preferred = kNowhere;
        break;
      default:
        set_accessed_by(&page, place, advice == CU_MEM_ADVISE_SET_ACCESSED_BY);
    }
  });
  return CUDA_SUCCESS;
}

CUresult read_attribute(const std::vector<PageAdvice>& pages, CUmem_range_attribute attribute, void* data,
                        size_t data_bytes) {
  if (data == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const CUmemLocation preferred = common(pages, &PageAdvice::preferred);
  const CUmemLocation prefetched = common(pages, &PageAdvice::prefetched);
  switch (attribute) {
    case CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY:
      return give_number(data, data_bytes,
                         std::all_of(pages.begin(), pages.end(), [](const PageAdvice& p) { return p.read_mostly; }));
    case CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION:
      return give_number(data, data_bytes, device_of(preferred));
    case CU_MEM_RANGE_ATTRIBUTE_ACCESSED_BY:
      return give_accessed_by(pages, data, data_bytes);
    case CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION:
      return give_number(data, data_bytes, device_of(prefetched));
    case CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION_TYPE:
      return give_number(data, data_bytes, preferred.type);
    case CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION_ID:
      return give_number(data, data_bytes, preferred.id);
    case CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION_TYPE:
      return give_number(data, data_bytes, prefetched.type);
    case CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION_ID:
      return give_number(data, data_bytes, prefetched.id);
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
}

CUresult read_attributes(const std::vector<PageAdvice>& pages, const CUmem_range_attribute* attributes, size_t count,
                         void* const* data, const size_t* data_bytes) {
  if (data == nullptr || data_bytes == nullptr || attributes == nullptr || count == 0) return CUDA_ERROR_INVALID_VALUE;
  CUresult result = CUDA_SUCCESS;
  for (size_t i = 0; i < count && result == CUDA_SUCCESS; ++i) {
    result = read_attribute(pages, attributes[i], data[i], data_bytes[i]);
  }
  return result;
}

}  // namespace tide::composed
