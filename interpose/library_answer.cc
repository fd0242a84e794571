#include "interpose/library_answer.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace tide {
namespace {

constexpr uint32_t kParamBytesMax = 32768;  // CUDA's own limit

}  // namespace

bool parse_kernels(const std::vector<std::byte>& payload, uint32_t count, std::vector<FoundKernel>* kernels) {
  if (payload.size() < sizeof(LibraryHeader)) return false;
  size_t at = sizeof(LibraryHeader);
  for (uint32_t i = 0; i < count; ++i) {
    FoundKernel k;
    if (payload.size() - at < sizeof k.header) return false;
    memcpy(&k.header, payload.data() + at, sizeof k.header);
    at += sizeof k.header;
    const uint64_t name_bytes = (uint64_t(k.header.name_bytes) + 7) / 8 * 8;
    const uint64_t param_bytes = uint64_t(k.header.param_count) * sizeof(ParamEntry);
    if (payload.size() - at < name_bytes || payload.size() - at - name_bytes < param_bytes) return false;
    if (k.header.param_bytes > kParamBytesMax) return false;
    k.name = {reinterpret_cast<const char*>(payload.data() + at), k.header.name_bytes};
    at += name_bytes;
    k.params.resize(k.header.param_count);
    if (param_bytes != 0) memcpy(k.params.data(), payload.data() + at, param_bytes);
    at += param_bytes;
    const bool fit = std::all_of(k.params.begin(), k.params.end(), [&](const ParamEntry& p) {
      return uint64_t(p.offset) + p.bytes <= k.header.param_bytes;
    });
    if (!fit) return false;
    kernels->push_back(std::move(k));
  }
  return true;
}

}  // namespace tide
