// The client's index of kept contents and the worker's slots, which must never be of two minds: what the one names, the
// other has.

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstring>
#include <deque>
#include <thread>
#include <vector>

#include "base/mix.h"
#include "interpose/content_index.h"
#include "server/contents.h"

namespace tide {
namespace {

using Bytes = std::vector<std::byte>;

// Content number n: the same bytes each time.
Bytes content(uint64_t n) {
  Bytes bytes(64 + n % 200);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = std::byte(mix(n * 1000 + i));
  return bytes;
}
ContentKey key_of(const Bytes& bytes) {
  static const ContentHash hash;
  return hash.key(bytes.data(), bytes.size());
}

struct Command {
  PackForm form;
  Contents::Kept kept;
  Bytes data, expected;
};

bool execute(Contents& contents, const Command& c) {
  Bytes to(c.expected.size());
  return contents.unpack(c.form, c.kept, c.data, to.data(), to.size()) && to == c.expected;
}

TEST(Contents, the_pair_agrees_under_random_uses) {
  constexpr uint32_t kSlots = 16;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    ContentIndex index(kSlots);
    Contents contents;
    contents.allow(kSlots);
    std::deque<Command> ring;  // sent and not executed yet
    uint64_t random = seed, named = 0;
    for (int i = 0; i < 3000; ++i) {
      random = mix(random);
      const Bytes bytes = content(random % 40);
      const ContentKey key = key_of(bytes);
      if (const uint32_t slot = index.use(key); slot != kNoContent) {
        ring.push_back({PackForm::kKept, {slot, key}, {}, bytes});
        index.give_back(slot);
        ++named;
      } else {
        const uint32_t taken = index.claim();
        ASSERT_NE(taken, kNoContent);
        if (random % 7 == 0) {
          index.drop(taken);  // it could not be sent
          continue;
        }
        ring.push_back({PackForm::kPlain, {taken, key}, bytes, bytes});
        index.keep(taken, key);
      }
      while (ring.size() > random % 50) {
        ASSERT_TRUE(execute(contents, ring.front())) << "seed " << seed << ", step " << i;
        ring.pop_front();
      }
    }
    EXPECT_GT(named, 300u);
  }
}

TEST(Contents, what_is_taken_is_nobody_elses) {
  ContentIndex index(2);
  const ContentKey a{1, 1}, b{2, 2};
  const uint32_t first = index.claim(), second = index.claim();
  EXPECT_NE(first, second);
  EXPECT_EQ(index.claim(), kNoContent);
  EXPECT_EQ(index.use(a), kNoContent) << "not before its command is in the ring";
  index.keep(first, a);
  index.keep(second, b);
  EXPECT_EQ(index.use(a), first);
  EXPECT_EQ(index.claim(), second) << "the other is older, but taken";
  EXPECT_EQ(index.use(b), kNoContent) << "its slot is about to keep something else";
  EXPECT_EQ(index.claim(), kNoContent);
  index.give_back(first);
  EXPECT_EQ(index.claim(), first);
}

TEST(Contents, the_longest_unused_goes_first) {
  ContentIndex index(3);
  for (uint64_t n = 1; n <= 3; ++n) index.keep(index.claim(), {n, n});
  index.give_back(index.use({1, 1}));
  index.keep(index.claim(), {4, 4});
  EXPECT_EQ(index.use({2, 2}), kNoContent);
  EXPECT_NE(index.use({1, 1}), kNoContent);
  EXPECT_NE(index.use({3, 3}), kNoContent);
}

TEST(Contents, two_threads_that_send_the_same_keep_it_once) {
  ContentIndex index(4);
  const uint32_t a = index.claim(), b = index.claim();
  index.keep(a, {9, 9});
  index.keep(b, {9, 9});
  EXPECT_EQ(index.use({9, 9}), a);
  EXPECT_EQ(index.claim(), b) << "the one that keeps nothing";
}

TEST(Contents, threads_share_an_index) {
  constexpr int kThreads = 4;
  ContentIndex index(8);
  std::atomic<int> owners[8] = {};
  std::atomic<bool> shared{false};
  const auto work = [&](uint64_t random) {
    for (int i = 0; i < 20'000; ++i) {
      random = mix(random);
      const ContentKey key{random % 12, 0};
      if (const uint32_t slot = index.use(key); slot != kNoContent) {
        index.give_back(slot);
      } else if (const uint32_t taken = index.claim(); taken != kNoContent) {
        if (owners[taken].fetch_add(1) != 0) shared = true;
        owners[taken].fetch_sub(1);
        index.keep(taken, key);
      }
    }
  };
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < kThreads; ++t) threads.emplace_back(work, t);
  for (std::thread& thread : threads) thread.join();
  EXPECT_FALSE(shared);
}

// What is announced must be there later on, whatever the system has left then.
TEST(Contents, without_memory_nothing_may_be_kept) {
  const auto offered = [] {
    const rlimit limit{64 << 20, 64 << 20};
    setrlimit(RLIMIT_AS, &limit);
    Contents contents;
    contents.allow(kContentSlots);
    _exit(contents.slots() == 0 ? 0 : 1);
  };
  EXPECT_EXIT(offered(), testing::ExitedWithCode(0), "no memory to keep contents in");
}

TEST(Contents, whatever_comes_stays_in_its_bounds) {
  Contents contents;
  contents.allow(4);
  Packer packer;
  const Bytes zeros(5000);
  uint64_t random = 3;
  const auto below = [&](uint64_t limit) { return (random = mix(random)) % limit; };
  int taken = 0;
  for (int round = 0; round < 50'000; ++round) {
    const uint64_t bytes = below(50) == 0 ? kPackedPieceMax + 1 : below(5000);
    const auto packed = packer.pack(zeros.data(), uint32_t(1 + below(5000)));
    Bytes data = below(2) == 0 ? Bytes(packed.begin(), packed.end()) : Bytes(below(2) == 0 ? bytes : below(5000));
    if (!data.empty() && below(4) == 0) data[below(data.size())] ^= std::byte(1 << below(8));
    const Contents::Kept kept{below(3) == 0 ? kNoContent : uint32_t(below(6)), {below(2), 0}};
    Bytes to(bytes);  // no byte more, so that a sanitizer sees the first one beyond
    taken += contents.unpack(PackForm(below(4)), kept, data, below(8) == 0 ? nullptr : to.data(), bytes);
    ContentKey key;
    for (uint32_t slot = 0; slot < 6; ++slot) ASSERT_LE(contents.kept(slot, &key).size(), kPackedPieceMax);
  }
  EXPECT_GT(taken, 1000);
}

TEST(Contents, what_is_damaged_or_not_kept_is_refused) {
  Contents contents;
  contents.allow(2);
  const Bytes bytes = content(1);
  const ContentKey key = key_of(bytes);
  EXPECT_FALSE(execute(contents, {PackForm::kKept, {0, key}, {}, bytes})) << "nothing is kept yet";
  EXPECT_FALSE(execute(contents, {PackForm::kPlain, {2, key}, bytes, bytes})) << "there is no such slot";
  EXPECT_FALSE(execute(contents, {PackForm::kPacked, {0, key}, bytes, bytes})) << "it is not packed";
  EXPECT_FALSE(execute(contents, {PackForm::kKept, {0, key}, {}, bytes})) << "what was damaged is not kept";
  EXPECT_FALSE(execute(contents, {PackForm(7), {0, key}, bytes, bytes}));
  EXPECT_TRUE(execute(contents, {PackForm::kPlain, {0, key}, bytes, bytes}));
  EXPECT_TRUE(execute(contents, {PackForm::kKept, {0, key}, {}, bytes}));
  EXPECT_FALSE(execute(contents, {PackForm::kKept, {0, {key.low, 0}}, {}, bytes})) << "another key";
  EXPECT_FALSE(execute(contents, {PackForm::kKept, {1, key}, {}, bytes}));
  EXPECT_FALSE(execute(contents, {PackForm::kKept, {0, key}, {}, Bytes(bytes.size() + 1)})) << "another size";
  EXPECT_FALSE(execute(contents, {PackForm::kPlain, {0, key}, Bytes(3), bytes})) << "too few bytes";
  EXPECT_FALSE(execute(contents, {PackForm::kKept, {0, key}, {}, bytes}));
}

}  // namespace
}  // namespace tide
