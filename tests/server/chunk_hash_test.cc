// What a ChunkHasher says of chunks of device memory: the kernel, run by the software GPU, and that GPU's own entry say
// what the CPU's XXH3 says.

#include "server/chunk_hash.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "base/mix.h"

namespace tide {
namespace {

enum class Way { kKernel, kEntry };

class ChunkHasherTest : public testing::TestWithParam<Way> {
 protected:
  static constexpr uint64_t kChunks = 6, kPlace = kWindowBase + 64 * kChunkBytes;

  void SetUp() override {
    const Outcome opened = open_driver(&library_);
    ASSERT_TRUE(opened.ok()) << opened.message();
    ASSERT_TRUE(library_.software);
    ASSERT_NE(library_.hash_chunks, nullptr);
    if (GetParam() == Way::kKernel) library_.hash_chunks = nullptr;
    ASSERT_TRUE(contexts_.start(library_.calls).ok());
    CUmemAllocationProp wanted = {};
    wanted.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    wanted.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    CUmemAccessDesc access = {};
    access.location = wanted.location;
    access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
    CUdeviceptr got = 0;
    constexpr uint64_t kBytes = kChunks * kChunkBytes;
    ASSERT_EQ(library_.calls.cuMemAddressReserve(&got, kBytes, 0, kPlace, 0), CUDA_SUCCESS);
    ASSERT_EQ(library_.calls.cuMemCreate(&physical_, kBytes, &wanted, 0), CUDA_SUCCESS);
    ASSERT_EQ(library_.calls.cuMemMap(kPlace, kBytes, 0, physical_, 0), CUDA_SUCCESS);
    ASSERT_EQ(library_.calls.cuMemSetAccess(kPlace, kBytes, &access, 1), CUDA_SUCCESS);
  }
  void TearDown() override {
    library_.calls.cuMemUnmap(kPlace, kChunks * kChunkBytes);
    library_.calls.cuMemRelease(physical_);
    library_.calls.cuMemAddressFree(kPlace, kChunks * kChunkBytes);
  }

  static uint64_t at(uint64_t chunk) { return kPlace + chunk * kChunkBytes; }
  static std::vector<uint64_t> random_chunk(uint64_t seed) {
    std::vector<uint64_t> made(kChunkBytes / 8);
    for (uint64_t i = 0; i < made.size(); ++i) made[i] = mix(seed * 1'000'003 + i);
    return made;
  }
  void put(uint64_t chunk, const std::vector<uint64_t>& data) {
    ASSERT_EQ(library_.calls.cuMemcpyHtoD_v2(at(chunk), data.data(), kChunkBytes), CUDA_SUCCESS);
  }

  DriverLibrary library_;
  Contexts contexts_;
  CUmemGenericAllocationHandle physical_ = 0;
};

TEST_P(ChunkHasherTest, says_what_the_cpu_says) {
  ChunkHasher hasher(library_, contexts_);
  ASSERT_TRUE(hasher.start().ok());
  std::vector<std::vector<uint64_t>> data;
  for (uint64_t i = 0; i < 2; ++i) data.push_back(random_chunk(i));
  data.emplace_back(kChunkBytes / 8);                         // zeros
  data.emplace_back(kChunkBytes / 8, ~uint64_t{0});           // ones
  data.push_back(data[0]), data.back()[0] ^= 1;               // the first bit differs
  data.push_back(data[0]), data.back().back() ^= 1ull << 63;  // the last
  std::vector<uint64_t> addresses;
  std::vector<ChunkHash> expected;
  for (uint64_t i = 0; i < kChunks; ++i) {
    ASSERT_NO_FATAL_FAILURE(put(i, data[i]));
    addresses.push_back(at(i));
    expected.push_back(hash_chunk(hasher.secret(), data[i].data()));
    for (uint64_t k = 0; k < i; ++k) EXPECT_NE(expected[k], expected[i]);
  }
  std::vector<ChunkHash> found(kChunks);
  const Outcome hashed = hasher.hash(addresses, found.data());
  ASSERT_TRUE(hashed.ok()) << hashed.message();
  for (uint64_t i = 0; i < kChunks; ++i) EXPECT_EQ(found[i], expected[i]) << "chunk " << i;
  EXPECT_EQ(found[2], hasher.zeros());

  data[1][131'000] ^= 1ull << 17;
  ASSERT_NO_FATAL_FAILURE(put(1, data[1]));
  const uint64_t some[] = {at(3), at(1)};
  ASSERT_TRUE(hasher.hash(some, found.data()).ok());
  EXPECT_EQ(found[0], expected[3]);
  EXPECT_EQ(found[1], hash_chunk(hasher.secret(), data[1].data())) << "of what is there now";
  EXPECT_TRUE(hasher.hash({}, nullptr).ok());
}

TEST_P(ChunkHasherTest, takes_any_number_of_chunks) {
  ChunkHasher hasher(library_, contexts_);
  ASSERT_TRUE(hasher.start().ok());
  ASSERT_NO_FATAL_FAILURE(put(5, random_chunk(5)));
  std::vector<uint64_t> addresses(515, at(4));
  addresses[511] = addresses[514] = at(5);
  std::vector<ChunkHash> found(addresses.size());
  ASSERT_TRUE(hasher.hash(addresses, found.data()).ok());
  const ChunkHash other = hash_chunk(hasher.secret(), random_chunk(5).data());
  for (uint64_t i = 0; i < found.size(); ++i) {
    EXPECT_EQ(found[i], i == 511 || i == 514 ? other : hasher.zeros()) << "number " << i;
  }
}

// A kernel that reads what is not there ends its context.
class EntryOnly : public ChunkHasherTest {};
class KernelOnly : public ChunkHasherTest {};

TEST_P(EntryOnly, memory_that_is_not_mapped_is_an_error) {
  ChunkHasher hasher(library_, contexts_);
  ASSERT_TRUE(hasher.start().ok());
  const uint64_t addresses[] = {at(0), at(kChunks)};
  ChunkHash found[2] = {{1, 2}, {3, 4}};
  EXPECT_FALSE(hasher.hash(addresses, found).ok());
  EXPECT_EQ(found[0], (ChunkHash{1, 2}));
}

TEST_P(KernelOnly, the_kernel_wants_its_context) {
  ChunkHasher hasher(library_, contexts_);
  EXPECT_FALSE(hasher.hash({}, nullptr).ok()) << "before start()";
  library_.calls.cuCtxSetCurrent(nullptr);
  EXPECT_FALSE(hasher.start().ok());
  library_.calls.cuCtxSetCurrent(contexts_.primary());
  EXPECT_TRUE(hasher.start().ok());
}

INSTANTIATE_TEST_SUITE_P(, ChunkHasherTest, testing::Values(Way::kKernel, Way::kEntry),
                         [](const auto& way) { return way.param == Way::kKernel ? "kernel" : "entry"; });
INSTANTIATE_TEST_SUITE_P(, EntryOnly, testing::Values(Way::kEntry));
INSTANTIATE_TEST_SUITE_P(, KernelOnly, testing::Values(Way::kKernel));

}  // namespace
}  // namespace tide
