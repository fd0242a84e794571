#include "tests/simulation/gpu.h"

#include <cstring>

namespace tide::simulation {

std::vector<std::byte> GpuMemory::run(const Work& work, const std::byte* bytes) {
  if (work.offset > kMemoryBytes || work.length > kMemoryBytes - work.offset) return {};
  unsigned char* at = memory_.data() + work.offset;
  switch (work.kind) {
    case WorkKind::kWrite:
      memcpy(at, bytes, work.length);
      return {};
    case WorkKind::kMix:
      for (uint32_t i = 0; i < work.length; ++i) {
        at[i] = static_cast<unsigned char>(at[i] * 31 + (work.seed >> (i % 57)) + (i == 0 ? 0 : at[i - 1]));
      }
      return {};
    case WorkKind::kRead:
      const auto* begin = reinterpret_cast<const std::byte*>(at);
      return {begin, begin + work.length};
  }
  return {};
}

std::vector<unsigned char> GpuMemory::chunk(uint32_t n) const {
  const auto begin = memory_.begin() + ptrdiff_t(n) * kChunkBytes;
  return {begin, begin + kChunkBytes};
}

void GpuMemory::set_chunk(uint32_t n, const std::vector<unsigned char>& bytes) {
  memcpy(memory_.data() + size_t(n) * kChunkBytes, bytes.data(), kChunkBytes);
}

uint64_t GpuMemory::hash_of(const unsigned char* bytes, size_t n) {
  uint64_t hash = 0xcbf29ce484222325;
  for (size_t at = 0; at < n; at += 8) {
    uint64_t word;
    memcpy(&word, bytes + at, 8);
    hash = (hash ^ word) * 0x100000001b3 + (hash >> 31);
  }
  return hash;
}

}  // namespace tide::simulation
