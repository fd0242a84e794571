// Hashes of chunks (base/chunk_hash.h), a block for each. Four lanes compute a leaf: each owns two neighbouring ones of
// XXH3's eight accumulators and reads their sixteen bytes of every stripe, so that none needs what another one read.
// hash_chunks.ptx is made from this (tests/server/hash_chunks.py --write); the worker brings only that.

#include "base/chunk_hash.h"

namespace {

using namespace tide;

constexpr unsigned kThreads = 256;  // also server/chunk_hash.cc
constexpr unsigned kLanesOfLeaf = 4;
constexpr unsigned kStripesOfBlock = (ChunkSecret::kBytes - 64) / 8;  // then the accumulators are scrambled
constexpr unsigned kWholeWarp = 0xffffffff;

constexpr uint64_t kPrime32_1 = 0x9E3779B1, kPrime32_2 = 0x85EBCA77, kPrime32_3 = 0xC2B2AE3D;
constexpr uint64_t kPrime64_1 = 0x9E3779B185EBCA87, kPrime64_2 = 0xC2B2AE3D27D4EB4F, kPrime64_3 = 0x165667B19E3779F9;
constexpr uint64_t kPrime64_4 = 0x85EBCA77C2B2AE63, kPrime64_5 = 0x27D4EB2F165667C5, kAvalanche = 0x165667919E3779F9;

struct Pair {
  uint64_t even, odd;
};

// What a lane keeps of the keys in registers.
struct LaneKeys {
  uint64_t stripes[kStripesOfBlock + 2];
  Pair last;
};

__device__ Pair first_accumulators(unsigned lane) {
  if (lane == 0) return {kPrime32_3, kPrime64_1};
  if (lane == 1) return {kPrime64_2, kPrime64_3};
  if (lane == 2) return {kPrime64_4, kPrime32_2};
  return {kPrime64_5, kPrime32_1};
}

__device__ void take(Pair* sum, ulonglong2 data, uint64_t even_key, uint64_t odd_key) {
  const uint64_t even = data.x ^ even_key, odd = data.y ^ odd_key;
  sum->even += data.y + (even & 0xffffffff) * (even >> 32);
  sum->odd += data.x + (odd & 0xffffffff) * (odd >> 32);
}

__device__ uint64_t scrambled(uint64_t sum, uint64_t key) { return (sum ^ (sum >> 47) ^ key) * kPrime32_1; }

// One half of the hash, in each of the four lanes.
__device__ uint64_t joined(Pair sum, uint64_t even_key, uint64_t odd_key, uint64_t start) {
  const uint64_t even = sum.even ^ even_key, odd = sum.odd ^ odd_key;
  unsigned long long all = (even * odd) ^ __umul64hi(even, odd);
  all += __shfl_xor_sync(kWholeWarp, all, 1);
  all += __shfl_xor_sync(kWholeWarp, all, 2);
  all += start;
  all = (all ^ (all >> 37)) * kAvalanche;
  return all ^ (all >> 32);
}

struct FromGlobal {
  const ulonglong2* data;
  // Read once, and while others may write it.
  __device__ ulonglong2 operator()(unsigned at) const { return __ldcs(data + at); }
};

struct FromShared {
  const ulonglong2* data;
  __device__ ulonglong2 operator()(unsigned at) const { return data[at]; }
};

// XXH3's 128 bits of kBytes, more than 240 of them and whole blocks of stripes.
template <uint64_t kBytes, class From>
__device__ ulonglong2 hash_of(From from, unsigned lane, const LaneKeys& own, const ChunkKeys& keys) {
  constexpr unsigned kBlocks = kBytes / (kStripesOfBlock * 64);
  Pair sum = first_accumulators(lane);
#pragma unroll 1
  for (unsigned block = 0;; ++block) {
    ulonglong2 data[kStripesOfBlock];
#pragma unroll
    for (unsigned i = 0; i < kStripesOfBlock; ++i) {
      data[i] = from((block * kStripesOfBlock + i) * kLanesOfLeaf + lane);
    }
#pragma unroll
    for (unsigned i = 0; i + 1 < kStripesOfBlock; ++i) take(&sum, data[i], own.stripes[i], own.stripes[i + 1]);
    if (block + 1 == kBlocks) {
      take(&sum, data[kStripesOfBlock - 1], own.last.even, own.last.odd);
      break;
    }
    take(&sum, data[kStripesOfBlock - 1], own.stripes[kStripesOfBlock - 1], own.stripes[kStripesOfBlock]);
    sum.even = scrambled(sum.even, own.stripes[kStripesOfBlock]);
    sum.odd = scrambled(sum.odd, own.stripes[kStripesOfBlock + 1]);
  }
  const unsigned even = 2 * lane, odd = even + 1;
  return {joined(sum, keys.low[even], keys.low[odd], kBytes * kPrime64_1),
          joined(sum, keys.high[even], keys.high[odd], ~(kBytes * kPrime64_2))};
}

}  // namespace

extern "C" __global__ void __launch_bounds__(kThreads, 2)
    hash_chunks(const unsigned long long* addresses, ulonglong2* hashes, const ChunkKeys given) {
  __shared__ ChunkKeys keys;
  __shared__ ulonglong2 leaves[kLeavesOfChunk];
  if (threadIdx.x == 0) keys = given;
  __syncthreads();
  const unsigned lane = threadIdx.x % kLanesOfLeaf;
  LaneKeys own;
#pragma unroll
  for (unsigned i = 0; i < kStripesOfBlock + 2; ++i) own.stripes[i] = keys.stripes[2 * lane + i];
  own.last = {keys.last[2 * lane], keys.last[2 * lane + 1]};

  const auto* const chunk = reinterpret_cast<const ulonglong2*>(addresses[blockIdx.x]);
  for (unsigned leaf = threadIdx.x / kLanesOfLeaf; leaf < kLeavesOfChunk; leaf += kThreads / kLanesOfLeaf) {
    const FromGlobal from{chunk + leaf * (kLeafBytes / sizeof(ulonglong2))};
    const ulonglong2 hash = hash_of<kLeafBytes>(from, lane, own, keys);
    if (lane == 0) leaves[leaf] = hash;
  }
  __syncthreads();
  if (threadIdx.x >= warpSize) return;
  const ulonglong2 root = hash_of<kLeavesOfChunk * sizeof(ChunkHash)>(FromShared{leaves}, lane, own, keys);
  if (threadIdx.x == 0) hashes[blockIdx.x] = root;
}
