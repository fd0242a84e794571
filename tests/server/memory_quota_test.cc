// Several processes' parts of one quota, as their workers see them: each worker has the file open by itself.

#include "server/memory_quota.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include "base/limits.h"
#include "base/mix.h"

namespace tide {
namespace {

constexpr uint64_t kSlots = 100, kQuota = kSlots * kChunkBytes;

class QuotaTest : public testing::Test {
 protected:
  void SetUp() override {
    char path[] = "/tmp/tide-quota-XXXXXX";
    close(mkstemp(path));
    path_ = path;
  }
  void TearDown() override { unlink(path_.c_str()); }
  std::unique_ptr<MemoryQuota> worker() {
    auto made = std::make_unique<MemoryQuota>();
    const Outcome started = made->start(path_, kQuota);
    EXPECT_TRUE(started.ok()) << started.message();
    return made;
  }

  std::string path_;
};

TEST_F(QuotaTest, two_have_no_more_than_all_of_it) {
  const auto first = worker(), second = worker();
  EXPECT_TRUE(first->grow_to(60 * kChunkBytes));
  EXPECT_FALSE(second->grow_to(41 * kChunkBytes));
  EXPECT_TRUE(second->grow_to(40 * kChunkBytes));
  EXPECT_EQ(first->left(), 0u);
  first->shrink_to(59 * kChunkBytes + 1);  // a chunk that is begun counts
  EXPECT_FALSE(second->grow_to(41 * kChunkBytes));
  first->shrink_to(59 * kChunkBytes);
  EXPECT_EQ(second->left(), kChunkBytes);
  EXPECT_TRUE(second->grow_to(41 * kChunkBytes));
}

TEST_F(QuotaTest, who_is_refused_keeps_what_it_had_and_no_more) {
  const auto first = worker(), second = worker(), third = worker();
  EXPECT_TRUE(first->grow_to(50 * kChunkBytes));
  EXPECT_TRUE(second->grow_to(10 * kChunkBytes));
  EXPECT_FALSE(second->grow_to(51 * kChunkBytes));
  EXPECT_EQ(third->left(), 40 * kChunkBytes);
  EXPECT_TRUE(third->grow_to(40 * kChunkBytes));
}

TEST_F(QuotaTest, who_is_alone_holds_all_and_gives_back_what_it_does_not_need) {
  const auto alone = worker(), comes = worker();
  alone->hold_all();
  EXPECT_TRUE(alone->holds_all());
  EXPECT_FALSE(comes->grow_to(kChunkBytes));
  EXPECT_TRUE(comes->others_will_give());
  alone->shrink_to(0);
  EXPECT_FALSE(comes->grow_to(kChunkBytes)) << "it has not said yet how much it needs";
  alone->end_all();
  alone->shrink_to(30 * kChunkBytes);
  EXPECT_FALSE(comes->others_will_give());
  EXPECT_TRUE(comes->grow_to(70 * kChunkBytes));
  EXPECT_FALSE(comes->grow_to(71 * kChunkBytes));
}

TEST_F(QuotaTest, what_a_killed_worker_had_is_given_back) {
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t child = fork();
  if (child == 0) {
    MemoryQuota quota;
    const char there = quota.start(path_, kQuota).ok() && quota.grow_to(kQuota) ? 'y' : 'n';
    if (write(ready[1], &there, 1) != 1) _exit(1);
    pause();
  }
  char there = 0;
  ASSERT_EQ(read(ready[0], &there, 1), 1);
  ASSERT_EQ(there, 'y');
  const auto lives = worker();
  EXPECT_FALSE(lives->grow_to(kChunkBytes));
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  EXPECT_TRUE(lives->grow_to(kQuota));
  close(ready[0]);
  close(ready[1]);
}

TEST_F(QuotaTest, random_changes_of_several_agree_with_a_sum) {
  uint64_t drawn = 7;
  const auto draw = [&](uint64_t below) { return mix(drawn++) % below; };
  std::vector<std::unique_ptr<MemoryQuota>> workers;
  std::vector<uint64_t> has(4);
  for (size_t i = 0; i < has.size(); ++i) workers.push_back(worker());
  int refused = 0;
  for (int step = 0; step < 5000; ++step) {
    const size_t who = draw(has.size());
    const uint64_t wanted = draw(kSlots / 2);
    uint64_t others = 0;
    for (size_t i = 0; i < has.size(); ++i) others += i == who ? 0 : has[i];
    if (wanted <= has[who]) {
      workers[who]->shrink_to(wanted * kChunkBytes);
      has[who] = wanted;
      continue;
    }
    const bool fits = wanted + others <= kSlots;
    ASSERT_EQ(workers[who]->grow_to(wanted * kChunkBytes), fits) << step;
    refused += fits ? 0 : 1;
    if (fits) has[who] = wanted;
    others += has[who];
    ASSERT_EQ(workers[draw(has.size())]->left(), (kSlots - others) * kChunkBytes) << step;
  }
  EXPECT_GT(refused, 100);
}

TEST_F(QuotaTest, without_a_file_nobody_else_is_known_of) {
  MemoryQuota quota;
  EXPECT_TRUE(quota.grow_to(~uint64_t{0} >> 1));
  quota.hold_all();
  quota.end_all();
  quota.shrink_to(0);
  EXPECT_TRUE(quota.grow_to(kQuota));
  EXPECT_FALSE(quota.others_will_give());
}

}  // namespace
}  // namespace tide
