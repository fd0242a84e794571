#pragma once

// The simulated GPU of one session: memory, and work that is done a while after it was given. What a piece of work does
// is a function of the memory alone, so a client can know what a run without faults gives.

#include <cstddef>
#include <cstdint>
#include <deque>
#include <vector>

namespace tide::simulation {

enum class WorkKind : uint32_t { kWrite, kMix, kRead };

struct Work {
  WorkKind kind = WorkKind::kWrite;
  uint32_t offset = 0, length = 0;
  uint32_t reserved = 0;
  uint64_t seed = 0;
};

inline constexpr uint32_t kMemoryBytes = 64 << 10;
inline constexpr uint32_t kChunkBytes = 4 << 10;  // what a move carries at once
inline constexpr uint32_t kChunks = kMemoryBytes / kChunkBytes;

class GpuMemory {
 public:
  // What a kRead answers; of the others nothing. Order matters: a kMix of mixed bytes is not the same the other way.
  std::vector<std::byte> run(const Work& work, const std::byte* bytes);
  uint64_t hash() const { return hash_of(memory_.data(), memory_.size()); }
  std::vector<unsigned char> chunk(uint32_t n) const;
  void set_chunk(uint32_t n, const std::vector<unsigned char>& bytes);
  static uint64_t hash_of(const unsigned char* bytes, size_t n);

 private:
  std::vector<unsigned char> memory_ = std::vector<unsigned char>(kMemoryBytes);
};

}  // namespace tide::simulation
