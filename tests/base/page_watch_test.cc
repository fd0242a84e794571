// Which pages were written: what the system says of the program's own memory, and of memory that is shared.

#include "base/page_watch.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <utility>
#include <vector>

namespace tide {
namespace {

using Pages = std::vector<std::pair<uint64_t, uint64_t>>;  // first, how many

// 64 pages that are watched: of a file as the zone's, or the program's own.
class Watched : public ::testing::TestWithParam<int> {
 protected:
  static constexpr uint64_t kPage = 4096, kBytes = 64 * kPage;
  void SetUp() override {
    memory_ = static_cast<char*>(mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, GetParam() | MAP_ANONYMOUS, -1, 0));
    ASSERT_NE(memory_, MAP_FAILED);
    memory_[kPage] = 1;
    EXPECT_EQ(is_private_memory(uint64_t(memory_), kBytes), GetParam() == MAP_PRIVATE);
    if (!watch_.start(uint64_t(memory_), kBytes)) GTEST_SKIP() << "the system does not say which pages are written";
  }
  void TearDown() override {
    watch_.stop();
    munmap(memory_, kBytes);
  }
  Pages written(uint64_t from = 0, uint64_t to = kBytes) {
    Pages pages;
    const auto take = [&](uint64_t at, uint64_t n) { pages.emplace_back(at / kPage, n / kPage); };
    EXPECT_TRUE(watch_.take_written(from, to, take));
    return pages;
  }

  char* memory_ = nullptr;
  PageWatch watch_;
};

TEST_P(Watched, pages_count_from_one_look_to_the_next) {
  const Pages first = written();
  EXPECT_TRUE(std::any_of(first.begin(), first.end(), [](auto run) {
    return run.first <= 1 && 1 < run.first + run.second;
  })) << "what was touched before counts";
  EXPECT_EQ(written(), Pages{});
  memory_[0] = memory_[3 * kPage + 5] = memory_[4 * kPage] = memory_[kBytes - 1] = 7;
  EXPECT_EQ(written(), (Pages{{0, 1}, {3, 2}, {63, 1}}));
  EXPECT_EQ(written(), Pages{});
  EXPECT_EQ(memory_[kPage] + memory_[20 * kPage], 1) << "reading is no change";
  EXPECT_EQ(written(), Pages{});
  memory_[3 * kPage] = memory_[9 * kPage] = 8;
  EXPECT_EQ(written(0, 5 * kPage), (Pages{{3, 1}}));
  EXPECT_EQ(written(), (Pages{{9, 1}})) << "it is still to be looked at";
}

TEST_P(Watched, pages_that_the_system_writes_for_the_program_count) {
  written();
  const int zeros = open("/dev/zero", O_RDONLY);
  EXPECT_EQ(read(zeros, memory_ + 9 * kPage + 1, kPage), ssize_t(kPage));
  close(zeros);
  EXPECT_EQ(written(), (Pages{{9, 2}}));
}

TEST_P(Watched, many_separate_pages_are_all_found) {
  written();
  for (uint64_t page = 0; page < 64; page += 2) memory_[page * kPage] = 1;
  EXPECT_EQ(written().size(), 32u);
}

TEST_P(Watched, memory_that_is_gone_is_not_known) {
  munmap(memory_, kBytes);
  mmap(memory_, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  EXPECT_FALSE(watch_.take_written(0, kBytes, [](uint64_t, uint64_t) {}));
  EXPECT_FALSE(watch_.on());
}

INSTANTIATE_TEST_SUITE_P(, Watched, ::testing::Values(MAP_SHARED, MAP_PRIVATE),
                         [](const auto& kind) { return kind.param == MAP_SHARED ? "shared" : "private"; });

TEST(PageWatch, only_whole_pages) {
  alignas(4096) static char memory[8192];
  PageWatch watch;
  EXPECT_FALSE(watch.start(uint64_t(memory) + 8, 4096));
  EXPECT_FALSE(watch.start(uint64_t(memory), 4097));
  EXPECT_FALSE(watch.start(uint64_t(memory), 0));
}

}  // namespace
}  // namespace tide
