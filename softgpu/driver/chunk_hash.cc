#include "softgpu/driver/chunk_hash.h"

#include <algorithm>
#include <atomic>
#include <bitset>
#include <thread>

#include "base/threads.h"

namespace softgpu {
namespace {

using tide::ChunkHash;
using tide::kChunkBytes;
using tide::kLeafBytes;
using tide::kLeavesOfChunk;

using Leaves = std::bitset<kLeavesOfChunk>;

constexpr uint64_t kBytesForThread = 8u << 20;  // what is worth one more
constexpr uint64_t kUnknown = ~uint64_t{0};

// work(i) for each i < count, by as many threads as `bytes` in all are worth.
template <class Work>
void in_parallel(uint64_t count, uint64_t bytes, const Work& work) {
  std::atomic<uint64_t> next{0};
  const auto run = [&] {
    for (uint64_t i = next.fetch_add(1); i < count; i = next.fetch_add(1)) work(i);
  };
  const uint64_t cores = std::max(1u, std::thread::hardware_concurrency());
  std::vector<tide::Thread> helpers(std::clamp<uint64_t>(bytes / kBytesForThread, 1, cores) - 1);
  {
    const tide::SignalsBlocked blocked;
    for (tide::Thread& helper : helpers) {
      if (!helper.start(run).ok()) break;  // the others do it all
    }
  }
  run();
  for (tide::Thread& helper : helpers) {
    if (helper.joinable()) helper.join();
  }
}

}  // namespace

void ChunkHashes::forget() {
  watch_.stop();
  leaves_.clear();
  chunks_.clear();
}

bool ChunkHashes::start(const Block& block, const tide::ChunkSecret& secret) {
  forget();
  if (!block.ours || !watch_.start(reinterpret_cast<uint64_t>(block.host), block.bytes)) return false;
  static constexpr std::byte kZeros[kLeafBytes] = {};
  secret_ = secret;
  // Of what nobody touched, the system need not say that it was written.
  leaves_.assign(block.bytes / kLeafBytes, hash_leaf(secret, kZeros));
  chunks_.assign(block.bytes / kChunkBytes, hash_leaves(secret, leaves_.data()));
  return true;
}

// Asks what was written before it reads, so that a write in between is found the next time. kUnknown: the system cannot
// say.
uint64_t ChunkHashes::take_written(const Block& block, uint64_t first, uint64_t count) {
  std::vector<Leaves> written(count);
  const uint64_t begin = first * kChunkBytes;
  const bool known = watch_.take_written(begin, begin + count * kChunkBytes, [&](uint64_t at, uint64_t bytes) {
    const uint64_t end = (at - begin + bytes) / kLeafBytes;
    for (uint64_t i = (at - begin) / kLeafBytes; i < end; ++i) written[i / kLeavesOfChunk].set(i % kLeavesOfChunk);
  });
  if (!known) return kUnknown;
  uint64_t computed = 0;
  std::vector<uint64_t> touched;
  for (uint64_t i = 0; i < count; ++i) {
    if (written[i].none()) continue;
    touched.push_back(i);
    computed += written[i].count();
  }
  in_parallel(touched.size(), computed * kLeafBytes, [&](uint64_t n) {
    const uint64_t chunk = first + touched[n];
    const Leaves& changed = written[touched[n]];
    ChunkHash* const leaves = &leaves_[chunk * kLeavesOfChunk];
    for (uint64_t i = 0; i < kLeavesOfChunk; ++i) {
      if (changed[i]) leaves[i] = hash_leaf(secret_, block.host + chunk * kChunkBytes + i * kLeafBytes);
    }
    chunks_[chunk] = hash_leaves(secret_, leaves);
  });
  return computed;
}

uint64_t ChunkHashes::hash(const Block& block, const tide::ChunkSecret& secret, uint64_t first, uint64_t count,
                           ChunkHash* hashes) {
  uint64_t computed = kUnknown;
  try {
    const bool remembers = block.ours && watch_.on() && secret == secret_;
    if (remembers || start(block, secret)) computed = take_written(block, first, count);
  } catch (...) {  // no memory: the system no longer knows what was written, and we do not
    forget();
    throw;
  }
  if (computed != kUnknown) {
    std::copy_n(&chunks_[first], count, hashes);
    return computed;
  }
  forget();
  in_parallel(count, count * kChunkBytes,
              [&](uint64_t i) { hashes[i] = hash_chunk(secret, block.host + (first + i) * kChunkBytes); });
  return count * kLeavesOfChunk;
}

}  // namespace softgpu
