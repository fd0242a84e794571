// Hashes of chunks of device memory: always those of what is there now, though only what was written is read again.

#include "base/chunk_hash.h"

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <thread>

#include "base/mix.h"
#include "softgpu/driver/chunk_hash.h"
#include "tests/softgpu/driver/driver_test.h"

extern "C" CUresult softgpuHashChunks(const tide::ChunkSecret* secret, const CUdeviceptr* addresses, size_t count,
                                      tide::ChunkHash* hashes);
extern "C" CUresult softgpuForgetHashes();

namespace softgpu {
namespace {

using tide::ChunkHash;
using tide::kChunkBytes;
using tide::kLeavesOfChunk;

constexpr CUdeviceptr kPlace = 0x2000'4000'0000;

std::vector<uint32_t> numbers(uint64_t seed, size_t bytes = kChunkBytes) {
  std::vector<uint32_t> made(bytes / 4);
  for (size_t i = 0; i < made.size(); ++i) made[i] = static_cast<uint32_t>(tide::mix(seed * 1'000'003 + i));
  return made;
}

class ChunkHashing : public DriverTest {
 protected:
  static constexpr uint64_t kChunks = 4;

  void SetUp() override {
    ASSERT_NO_FATAL_FAILURE(DriverTest::SetUp());
    ASSERT_TRUE(make_secret(&secret_));
    CUdeviceptr got = 0;
    OK(cuMemAddressReserve(&got, 16 * kChunkBytes, 0, kPlace, 0));
    ASSERT_EQ(got, kPlace);
    ASSERT_NO_FATAL_FAILURE(create(&physical_));
    ASSERT_NO_FATAL_FAILURE(map(physical_, 0));
  }
  void TearDown() override {
    EXPECT_EQ(softgpuForgetHashes(), CUDA_SUCCESS);
    for (const uint64_t chunk : mapped_) EXPECT_EQ(cuMemUnmap(at(chunk), kChunks * kChunkBytes), CUDA_SUCCESS);
    EXPECT_EQ(cuMemRelease(physical_), CUDA_SUCCESS);
    EXPECT_EQ(cuMemAddressFree(kPlace, 16 * kChunkBytes), CUDA_SUCCESS);
    DriverTest::TearDown();
  }

  static CUdeviceptr at(uint64_t chunk) { return kPlace + chunk * kChunkBytes; }
  void create(CUmemGenericAllocationHandle* physical) {
    CUmemAllocationProp wanted{};
    wanted.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    wanted.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
    wanted.location = {CU_MEM_LOCATION_TYPE_DEVICE, {device_}};
    OK(cuMemCreate(physical, kChunks * kChunkBytes, &wanted, 0));
  }
  void map(CUmemGenericAllocationHandle physical, uint64_t chunk) {
    OK(cuMemMap(at(chunk), kChunks * kChunkBytes, 0, physical, 0));
    CUmemAccessDesc access{};
    access.location = {CU_MEM_LOCATION_TYPE_DEVICE, {device_}};
    access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
    OK(cuMemSetAccess(at(chunk), kChunks * kChunkBytes, &access, 1));
    mapped_.push_back(chunk);
  }
  void unmap(uint64_t chunk) {
    OK(cuMemUnmap(at(chunk), kChunks * kChunkBytes));
    std::erase(mapped_, chunk);
  }

  std::vector<ChunkHash> hashes(uint64_t first = 0, uint64_t count = kChunks) {
    std::vector<CUdeviceptr> addresses(count);
    for (uint64_t i = 0; i < count; ++i) addresses[i] = at(first + i);
    std::vector<ChunkHash> found(count);
    EXPECT_EQ(softgpuHashChunks(&secret_, addresses.data(), count, found.data()), CUDA_SUCCESS);
    return found;
  }
  // Of what a copy brings, with nothing remembered.
  std::vector<ChunkHash> true_hashes(uint64_t first = 0, uint64_t count = kChunks) {
    std::vector<ChunkHash> found(count);
    std::vector<uint32_t> data(kChunkBytes / 4);
    for (uint64_t i = 0; i < count; ++i) {
      EXPECT_EQ(cuMemcpyDtoH(data.data(), at(first + i), kChunkBytes), CUDA_SUCCESS);
      found[i] = hash_chunk(secret_, data.data());
    }
    return found;
  }
  void fill(uint64_t chunk, uint64_t seed) { OK(cuMemcpyHtoD(at(chunk), numbers(seed).data(), kChunkBytes)); }

  tide::ChunkSecret secret_;
  CUmemGenericAllocationHandle physical_ = 0;
  std::vector<uint64_t> mapped_;
};

TEST_F(ChunkHashing, are_those_of_what_is_there) {
  EXPECT_EQ(hashes(), true_hashes()) << "zeros";
  for (uint64_t i = 0; i < kChunks; ++i) fill(i, i);
  EXPECT_EQ(hashes(), true_hashes());
  EXPECT_EQ(hashes(), true_hashes()) << "from memory";
}

TEST_F(ChunkHashing, every_way_of_writing_shows) {
  for (uint64_t i = 0; i < kChunks; ++i) fill(i, 10 + i);
  std::vector<ChunkHash> before = hashes();
  const auto expect_changed = [&](std::vector<uint64_t> chunks, const char* what) {
    OK(cuCtxSynchronize());
    const std::vector<ChunkHash> now = hashes();
    for (uint64_t i = 0; i < kChunks; ++i) {
      const bool changed = std::find(chunks.begin(), chunks.end(), i) != chunks.end();
      EXPECT_EQ(now[i] != before[i], changed) << what << ": chunk " << i;
    }
    EXPECT_EQ(now, true_hashes()) << what;
    before = now;
  };
  expect_changed({}, "nothing");
  OK(cuMemcpyHtoD(at(1) + 12345, "x", 1));
  expect_changed({1}, "a byte from the host");
  OK(cuMemsetD8(at(1) - 1, 0x5a, 2));
  expect_changed({0, 1}, "a fill over a border");
  OK(cuMemcpyDtoD(at(2) + 4096, at(3), 3 * 4096));
  expect_changed({2}, "a copy on the device");
  CUdeviceptr data = at(3) + 77 * 4096;
  uint32_t count = 1, factor = 3;
  OK(cuMemsetD32(data, 5, 1));
  expect_changed({3}, "a word");
  OK(launch("scale", {&data, &count, &factor}));
  expect_changed({3}, "a kernel");
  void* pinned = nullptr;
  OK(cuMemHostAlloc(&pinned, 4096, 0));
  std::memset(pinned, 7, 4096);
  OK(cuMemcpyHtoDAsync(at(0) + 8192, pinned, 4096, nullptr));
  expect_changed({0}, "a copy from page-locked memory");
  OK(cuMemFreeHost(pinned));
  const std::vector<char> pageable(3 * 4096 + 100, 8);
  OK(cuMemcpyHtoD(at(2) + 999, pageable.data(), pageable.size()));
  expect_changed({2}, "a copy from pageable memory");
  OK(cuStreamWriteValue32(nullptr, at(1) + 64, 0x12345678, 0));
  expect_changed({1}, "a word of a stream's own");
}

TEST_F(ChunkHashing, memory_that_is_new_at_an_old_address_is_zero) {
  for (uint64_t i = 0; i < kChunks; ++i) fill(i, 20 + i);
  const std::vector<ChunkHash> before = hashes();
  ASSERT_NO_FATAL_FAILURE(unmap(0));
  CUmemGenericAllocationHandle other = 0;
  ASSERT_NO_FATAL_FAILURE(create(&other));
  ASSERT_NO_FATAL_FAILURE(map(other, 0));
  const std::vector<ChunkHash> now = hashes();
  const std::vector<std::byte> zeros(kChunkBytes);
  EXPECT_EQ(now, std::vector<ChunkHash>(kChunks, hash_chunk(secret_, zeros.data())));
  ASSERT_NO_FATAL_FAILURE(map(physical_, 8));
  EXPECT_EQ(hashes(8), before) << "what was mapped there is what it was, wherever it is";
  ASSERT_NO_FATAL_FAILURE(unmap(0));
  OK(cuMemRelease(other));
}

TEST_F(ChunkHashing, memory_with_two_addresses_shows_what_is_written_at_either) {
  ASSERT_NO_FATAL_FAILURE(map(physical_, 8));
  hashes();
  fill(10, 31);
  EXPECT_EQ(hashes(), true_hashes());
  EXPECT_EQ(hashes(8), hashes());
}

TEST_F(ChunkHashing, memory_that_was_given_away_is_always_read) {
  for (uint64_t i = 0; i < kChunks; ++i) fill(i, 40 + i);
  const std::vector<ChunkHash> before = hashes();
  int fd = -1;
  OK(cuMemExportToShareableHandle(&fd, physical_, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
  EXPECT_EQ(hashes(), before);
  // As another process would: by a mapping of its own.
  void* const there = mmap(nullptr, kChunks * kChunkBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  ASSERT_NE(there, MAP_FAILED);
  static_cast<char*>(there)[2 * kChunkBytes + 5] ^= 1;
  EXPECT_EQ(hashes(), true_hashes());
  EXPECT_NE(hashes()[2], before[2]);
  static_cast<char*>(there)[2 * kChunkBytes + 5] ^= 1;
  EXPECT_EQ(hashes(), before);
  munmap(there, kChunks * kChunkBytes);
  CUmemGenericAllocationHandle imported = 0;
  void* const number = reinterpret_cast<void*>(static_cast<intptr_t>(fd));
  OK(cuMemImportFromShareableHandle(&imported, number, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR));
  ASSERT_NO_FATAL_FAILURE(map(imported, 8));
  EXPECT_EQ(hashes(8), before);
  fill(0, 49);
  EXPECT_EQ(hashes(8), true_hashes());
  ASSERT_NO_FATAL_FAILURE(unmap(8));
  OK(cuMemRelease(imported));
  close(fd);
}

TEST_F(ChunkHashing, what_is_written_beside_a_forked_child_shows) {
  fill(0, 50);
  hashes();
  int line[2];
  ASSERT_EQ(pipe(line), 0);
  const pid_t child = fork();
  if (child == 0) {
    char byte = 0;
    close(line[1]);
    _exit(read(line[0], &byte, 1) < 0);
  }
  close(line[0]);
  OK(cuMemsetD8(at(0) + 5000, 1, 1));  // of a page that both have now
  OK(cuMemsetD8(at(3), 2, 1));         // of one that neither had
  OK(cuCtxSynchronize());
  EXPECT_EQ(hashes(), true_hashes());
  close(line[1]);
  int status = -1;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(hashes(), true_hashes());
}

TEST_F(ChunkHashing, what_kernels_write_meanwhile_is_found_at_the_next_look) {
  for (uint64_t i = 0; i < kChunks; ++i) fill(i, 60 + i);
  CUdeviceptr data = at(0);
  uint32_t count = kChunks * kChunkBytes / 4, factor = 3;
  for (int round = 0; round < 5; ++round) {
    std::atomic<bool> done{false};
    std::thread asks([&] {
      while (!done) hashes();
    });
    for (int i = 0; i < 3; ++i) EXPECT_EQ(launch("scale", {&data, &count, &factor}, nullptr, count / 256, 256), 0);
    EXPECT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
    done = true;
    asks.join();
    EXPECT_EQ(hashes(), true_hashes()) << "round " << round;
  }
}

TEST_F(ChunkHashing, another_secret_or_forgetting_begins_anew) {
  fill(1, 70);
  const std::vector<ChunkHash> before = hashes();
  const tide::ChunkSecret first = secret_;
  ASSERT_TRUE(make_secret(&secret_));
  EXPECT_EQ(hashes(), true_hashes());
  EXPECT_NE(hashes(), before);
  secret_ = first;
  OK(softgpuForgetHashes());
  OK(cuMemsetD8(at(2), 9, 1));
  OK(cuCtxSynchronize());
  EXPECT_EQ(hashes(), true_hashes());
  EXPECT_EQ(hashes()[1], before[1]);
}

TEST_F(ChunkHashing, addresses_in_any_order_and_not_of_chunks) {
  for (uint64_t i = 0; i < kChunks; ++i) fill(i, 80 + i);
  const std::vector<ChunkHash> all = hashes();
  const CUdeviceptr mixed[] = {at(2), at(0), at(1), at(1), at(3)};
  ChunkHash found[5];
  OK(softgpuHashChunks(&secret_, mixed, 5, found));
  EXPECT_EQ(std::vector<ChunkHash>(found, found + 5), (std::vector<ChunkHash>{all[2], all[0], all[1], all[1], all[3]}));
  OK(softgpuHashChunks(&secret_, nullptr, 0, nullptr));
  for (const CUdeviceptr wrong : {at(0) + 4096, at(4), CUdeviceptr(0), kPlace - kChunkBytes}) {
    const CUdeviceptr some[] = {at(0), wrong};
    found[0] = {1, 2};
    EXPECT_EQ(softgpuHashChunks(&secret_, some, 2, found), CUDA_ERROR_INVALID_VALUE);
    EXPECT_EQ(found[0], (ChunkHash{1, 2})) << "nothing is set";
  }
}

// How much is read, which the driver does not tell.
class Remembered : public testing::Test {
 protected:
  static constexpr uint64_t kChunks = 3, kBytes = kChunks * kChunkBytes, kAll = kChunks * kLeavesOfChunk;
  void SetUp() override {
    ASSERT_TRUE(make_secret(&secret_));
    void* const got = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(got, MAP_FAILED);
    memory_ = static_cast<std::byte*>(got);
    madvise(got, kBytes, MADV_NOHUGEPAGE);  // which would all count
    tide::PageWatch watch;
    if (!watch.start(reinterpret_cast<uint64_t>(memory_), kBytes)) {
      GTEST_SKIP() << "the system does not say which pages are written";
    }
  }
  void TearDown() override {
    hashes_.forget();
    munmap(memory_, kBytes);
  }
  uint64_t look(bool ours = true) {
    ChunkHash found[kChunks];
    const uint64_t computed = hashes_.hash({memory_, kBytes, ours}, secret_, 0, kChunks, found);
    for (uint64_t i = 0; i < kChunks; ++i) EXPECT_EQ(found[i], hash_chunk(secret_, memory_ + i * kChunkBytes));
    return computed;
  }

  tide::ChunkSecret secret_;
  std::byte* memory_ = nullptr;
  ChunkHashes hashes_;
};

TEST_F(Remembered, only_pages_that_were_written_are_read) {
  EXPECT_EQ(look(false), kAll);
  EXPECT_EQ(look(), kAll) << "for the first time";
  EXPECT_EQ(look(), 0u);
  memory_[5] = memory_[6] = memory_[kChunkBytes] = std::byte{1};
  EXPECT_EQ(look(), 2u);
  EXPECT_EQ(look(), 0u);
  std::memset(memory_ + kChunkBytes, 7, 10 * 4096);
  EXPECT_EQ(look(), 10u);
  EXPECT_EQ(look(false), kAll) << "others may write";
  EXPECT_EQ(look(), kAll) << "nothing is remembered from before";
  hashes_.forget();
  EXPECT_EQ(look(), kAll);
}

}  // namespace
}  // namespace softgpu
