#include "interpose/allocator.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "base/limits.h"

namespace tide {
namespace {

constexpr uint64_t kBase = kWindowBase;
constexpr uint64_t kMiB = 1u << 20;

struct Fixture : testing::Test {
  Allocator allocator{kBase, 1u << 30, 64 * kMiB};
  std::vector<Mapping> todo;
  uint64_t get(uint64_t bytes, uint32_t context = 1) {
    uint64_t address = 0;
    return allocator.allocate(bytes, context, 7, &address, &todo) ? address : 0;
  }
};
using AllocatorTest = Fixture;

TEST_F(AllocatorTest, small_allocations_share_a_chunk_and_are_aligned) {
  const uint64_t a = get(1), b = get(1000), c = get(512);
  EXPECT_EQ(a % kAllocationAlign, 0u);
  EXPECT_EQ(b, a + 512);
  EXPECT_EQ(c, b + 1024);
  ASSERT_EQ(todo.size(), 1u);
  EXPECT_TRUE(todo[0].map);
  EXPECT_EQ(todo[0].bytes, kChunkBytes);
}

TEST_F(AllocatorTest, large_allocations_own_whole_chunks) {
  const uint64_t a = get(3 * kMiB);
  EXPECT_EQ(a % kChunkBytes, 0u);
  ASSERT_EQ(todo.size(), 1u);
  EXPECT_EQ(todo[0].bytes, 4 * kMiB);
}

TEST_F(AllocatorTest, out_of_memory_is_exact) {
  EXPECT_EQ(allocator.available(), 64 * kMiB);
  EXPECT_EQ(get(64 * kMiB + 1), 0u);
  const uint64_t all = get(64 * kMiB);
  EXPECT_NE(all, 0u);
  EXPECT_EQ(allocator.available(), 0u);
  EXPECT_EQ(get(1), 0u);
  EXPECT_TRUE(allocator.release(all, &todo));
  EXPECT_EQ(allocator.available(), 64 * kMiB);
  EXPECT_NE(get(64 * kMiB), 0u);
}

TEST_F(AllocatorTest, kept_chunks_are_used_again_without_mapping_and_given_up_for_others) {
  const uint64_t a = get(8 * kMiB);
  EXPECT_TRUE(allocator.release(a, &todo));
  todo.clear();
  EXPECT_EQ(get(8 * kMiB), a);
  EXPECT_TRUE(todo.empty());
  EXPECT_TRUE(allocator.release(a, &todo));
  todo.clear();
  EXPECT_NE(get(60 * kMiB), 0u);
  ASSERT_EQ(todo.size(), 2u);
  EXPECT_FALSE(todo[0].map);
  EXPECT_TRUE(todo[1].map);
}

TEST_F(AllocatorTest, finds_what_an_address_lies_in) {
  const uint64_t a = get(1000);
  ASSERT_NE(allocator.find(a + 999), nullptr);
  EXPECT_EQ(allocator.find(a + 999)->base, a);
  EXPECT_EQ(allocator.find(a + 1000), nullptr);
  EXPECT_EQ(allocator.find(a - 1), nullptr);
  EXPECT_FALSE(allocator.release(a + 512, &todo));
  EXPECT_TRUE(allocator.release(a, &todo));
  EXPECT_FALSE(allocator.release(a, &todo));
}

TEST_F(AllocatorTest, a_context_takes_its_memory_with_it) {
  get(1000, 1);
  const uint64_t b = get(1000, 2);
  get(5 * kMiB, 1);
  allocator.release_context(1, &todo);
  EXPECT_NE(allocator.find(b), nullptr);
  EXPECT_EQ(allocator.available(), 62 * kMiB);
}

// The worker's view: what is mapped by the orders that were given.
TEST_F(AllocatorTest, live_memory_is_always_mapped_and_never_overlaps) {
  std::map<uint64_t, uint64_t> live;
  std::set<uint64_t> mapped;
  uint64_t state = 88172645463325252u;
  const auto next = [&state] {
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
  };
  for (int i = 0; i < 20'000; ++i) {
    todo.clear();
    if (next() % 2 == 0 || live.empty()) {
      const uint64_t bytes = next() % 8 == 0 ? next() % (6 * kMiB) + 1 : next() % 300'000 + 1;
      if (const uint64_t a = get(bytes); a != 0) live[a] = bytes;
    } else {
      auto it = live.lower_bound(kBase + next() % (64 * kMiB));
      if (it == live.end()) it = live.begin();
      ASSERT_TRUE(allocator.release(it->first, &todo));
      live.erase(it);
    }
    for (const Mapping& m : todo) {
      for (uint64_t c = m.address; c < m.address + m.bytes; c += kChunkBytes) {
        if (m.map)
          ASSERT_TRUE(mapped.insert(c).second);
        else
          ASSERT_EQ(mapped.erase(c), 1u);
      }
    }
    ASSERT_LE(mapped.size() * kChunkBytes, allocator.quota());
    if (i % 500 != 0) continue;
    uint64_t end = 0;
    for (const auto& [a, bytes] : live) {
      ASSERT_GE(a, end);
      end = a + bytes;
      for (uint64_t c = a / kChunkBytes * kChunkBytes; c < end; c += kChunkBytes) ASSERT_EQ(mapped.count(c), 1u);
    }
  }
}

}  // namespace
}  // namespace tide
