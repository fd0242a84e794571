// Workers that share a GPU, in a simulated time: what each got of it.

#include "server/time_slices.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

namespace tide {
namespace {

constexpr uint64_t kUs = 1'000, kMs = 1'000'000, kS = 1'000'000'000;
constexpr uint64_t kStart = 1'000 * kS;
constexpr uint64_t kTick = 50 * kUs;  // how often a worker looks
constexpr uint64_t kAhead = 1000;     // kernels that a program begins before it waits for the first

struct Job {
  uint32_t part = 500;
  uint64_t kernel_ns = 200 * kUs;
  uint64_t think_ns = 0;  // its program waits for each kernel, and so long before the next; 0: it never waits
  bool stopped = false;   // does not look any more
  bool has_work = true;
  bool stuck = false;  // what is on the GPU waits for something else
  uint64_t begun = 0, done = 0;
  uint64_t ran_ns = 0;      // of the oldest there
  uint64_t on_gpu = 0;      // kernels that wait there, or run
  uint64_t next_at = 0;     // when its program sends the next
  uint64_t longest_ns = 0;  // it had something to begin, and might not
  uint64_t waits_since = 0;
  bool executed = false;
  TimeSlices slices;
};

// One GPU, whose time goes to those that have kernels there in equal parts, and of each to the oldest.
class Gpu : public testing::Test {
 protected:
  void SetUp() override {
    char path[] = "/tmp/tide-slices-XXXXXX";
    const int fd = mkstemp(path);
    ASSERT_GE(fd, 0);
    close(fd);
    path_ = path;
  }
  void TearDown() override { unlink(path_.c_str()); }

  Job& add(uint32_t part, uint64_t kernel_ns, uint64_t think_ns = 0, bool latency = false, bool siblings = false) {
    jobs_.push_back(std::make_unique<Job>());
    Job& job = *jobs_.back();
    job.part = part;
    job.kernel_ns = kernel_ns;
    job.think_ns = think_ns;
    const Outcome started = job.slices.start(
        path_, {.vgpu = 100 + jobs_.size(), .share = part, .latency = latency, .siblings = siblings}, now_);
    EXPECT_TRUE(started.ok()) << started.message();
    return job;
  }
  void run(uint64_t ns) {
    for (const uint64_t end = now_ + ns; now_ < end; now_ += kTick) {
      finish_kernels();
      for (auto& job : jobs_) {
        if (!job->stopped) turn(*job);
      }
    }
  }
  // Of all that was done, in thousandths.
  std::vector<int> shares() const {
    double sum = 0;
    std::vector<int> result;
    for (const auto& job : jobs_) sum += double(job->done) * double(job->kernel_ns);
    for (const auto& job : jobs_) result.push_back(int(1000 * double(job->done) * double(job->kernel_ns) / sum + 0.5));
    return result;
  }
  double busy() const { return double(busy_ns_) / double(now_ - kStart); }

  uint64_t now_ = kStart;
  std::vector<std::unique_ptr<Job>> jobs_;
  std::string path_;

 private:
  void finish_kernels() {
    const auto there = std::count_if(jobs_.begin(), jobs_.end(), [](const auto& job) { return job->on_gpu != 0; });
    for (auto& job : jobs_) {
      uint64_t time = there == 0 ? 0 : kTick / uint64_t(there);
      while (job->on_gpu != 0 && time > 0 && !job->stuck) {
        const uint64_t step = std::min(time, job->kernel_ns - job->ran_ns);
        job->ran_ns += step;
        time -= step;
        busy_ns_ += step;
        if (job->ran_ns < job->kernel_ns) break;
        job->ran_ns = 0;
        --job->on_gpu;
        ++job->done;
        job->next_at = now_ + job->think_ns;
      }
    }
  }
  bool may_send(const Job& job) const {
    return job.has_work && job.on_gpu < kAhead && (job.think_ns == 0 || (job.on_gpu == 0 && now_ >= job.next_at));
  }
  // As Worker::run().
  void turn(Job& job) {
    job.slices.at(now_, {.working = job.executed || job.on_gpu != 0, .ready = may_send(job)});
    job.executed = false;
    bool waited = false;
    for (int i = 0; i < 256 && may_send(job); ++i) {
      if (job.slices.shared() && !job.slices.may_begin(now_)) {
        waited = true;
        break;
      }
      ++job.on_gpu;
      ++job.begun;
      job.executed = true;
    }
    if (!waited || job.executed) job.waits_since = 0;
    if (waited && job.waits_since == 0) job.waits_since = now_;
    if (waited) job.longest_ns = std::max(job.longest_ns, now_ - job.waits_since);
  }

  uint64_t busy_ns_ = 0;
};

TEST_F(Gpu, two_halves_get_half_each) {
  add(500, 200 * kUs);
  add(500, 200 * kUs);
  run(10 * kS);
  EXPECT_NEAR(shares()[0], 500, 20);
  EXPECT_GT(busy(), 0.85);
}

TEST_F(Gpu, whatever_the_length_of_their_kernels) {
  add(500, 50 * kUs);
  add(500, 3 * kMs);
  run(10 * kS);
  EXPECT_NEAR(shares()[0], 500, 30);
  EXPECT_GT(busy(), 0.85);
}

TEST_F(Gpu, a_quarter_and_three_quarters) {
  add(250, 300 * kUs);
  add(750, 300 * kUs);
  run(10 * kS);
  EXPECT_NEAR(shares()[0], 250, 20);
}

TEST_F(Gpu, four_jobs_of_different_parts) {
  add(100, 400 * kUs);
  add(200, 100 * kUs);
  add(300, 1 * kMs);
  add(400, 200 * kUs);
  run(20 * kS);
  for (int i = 0; i < 4; ++i) EXPECT_NEAR(shares()[size_t(i)], 100 * (i + 1), 30) << i;
}

TEST_F(Gpu, parts_that_make_less_than_one_share_all_of_it) {
  add(100, 200 * kUs);
  add(300, 200 * kUs);
  run(10 * kS);
  EXPECT_NEAR(shares()[0], 250, 25);
  EXPECT_GT(busy(), 0.85);
}

TEST_F(Gpu, who_waits_for_each_kernel_gets_its_half_beside_one_that_never_does) {
  add(500, 1 * kMs, 50 * kUs);
  add(500, 500 * kUs);
  run(10 * kS);
  EXPECT_GT(shares()[0], 400);
}

TEST_F(Gpu, what_one_does_not_use_is_the_others) {
  Job& idle = add(500, 200 * kUs);
  Job& busy_one = add(500, 200 * kUs);
  idle.has_work = false;
  run(5 * kS);
  EXPECT_EQ(idle.done, 0u);
  EXPECT_GT(double(busy_one.done) * 200 * kUs, 0.98 * double(now_ - kStart)) << "it was held back for nobody";
}

TEST_F(Gpu, who_was_idle_has_no_claim_to_that_time) {
  Job& idle = add(500, 200 * kUs);
  Job& other = add(500, 200 * kUs);
  idle.has_work = false;
  run(5 * kS);
  idle.has_work = true;
  const uint64_t before = other.done;
  run(1 * kS);
  EXPECT_NEAR(double(other.done - before) * 200 * kUs / double(kS), 0.5, 0.05);
  EXPECT_LT(idle.longest_ns, 60 * kMs);
}

TEST_F(Gpu, and_who_was_alone_owes_nothing) {
  Job& first = add(500, 200 * kUs);
  Job& second = add(500, 200 * kUs);
  second.has_work = false;
  run(5 * kS);
  first.has_work = false;
  run(1 * kS);
  second.has_work = true;
  run(100 * kMs);
  first.has_work = true;
  const uint64_t before = first.done;
  run(1 * kS);
  EXPECT_NEAR(double(first.done - before) * 200 * kUs / double(kS), 0.5, 0.05);
}

TEST_F(Gpu, nobody_waits_for_one_that_died_with_the_turn) {
  Job& dies = add(500, 200 * kUs);
  Job& lives = add(500, 200 * kUs);
  run(1 * kS);
  while (dies.on_gpu == 0) run(kTick);
  dies.stopped = true;
  lives.longest_ns = 0;
  const uint64_t before = lives.done;
  run(1 * kS);
  EXPECT_LT(lives.longest_ns, 50 * kMs);
  EXPECT_GT(double(lives.done - before) * 200 * kUs, 0.9 * double(kS));
}

TEST_F(Gpu, a_long_kernel_is_made_up_for) {
  add(500, 300 * kMs);
  add(500, 200 * kUs);
  run(20 * kS);
  EXPECT_NEAR(shares()[0], 500, 120);
}

TEST_F(Gpu, work_that_needs_a_later_command_gets_it) {
  Job& needs = add(500, 200 * kUs);
  add(500, 200 * kUs);
  run(100 * kMs);
  needs.stuck = true;
  needs.on_gpu = std::max<uint64_t>(needs.on_gpu, 1);
  const uint64_t before = needs.begun;
  run(2 * kS);
  EXPECT_GT(needs.begun, before + 40) << "in two seconds";
}

// A worker that dies with work under way: its job has one more that runs than there are, for a while.
TEST_F(Gpu, a_dead_worker_of_a_job_with_two_makes_it_no_cheaper) {
  Job& other = add(500, 200 * kUs);
  Job& lives = add(500, 200 * kUs);
  TimeSlices dies;
  ASSERT_TRUE(dies.start(path_, {.vgpu = 102, .share = 500}, now_).ok());  // of the second job
  while (!dies.may_begin(now_)) run(kTick);
  dies.at(now_, {.working = true, .ready = true});
  run(6 * kS);
  const uint64_t before[] = {other.done, lives.done};
  run(2 * kS);
  const double others = double(other.done - before[0]), mine = double(lives.done - before[1]);
  EXPECT_NEAR(mine / (mine + others), 0.5, 0.05);
}

TEST_F(Gpu, a_weight_counts_a_part_so_often) {
  add(250 * 3, 200 * kUs);
  add(500, 200 * kUs);
  add(250 * 40, 200 * kUs);
  run(20 * kS);
  const double all = 750 + 500 + 10'000;
  EXPECT_NEAR(shares()[0], 1000 * 750 / all, 12);
  EXPECT_NEAR(shares()[1], 1000 * 500 / all, 12);
}

// A program that wants a short answer every 7 ms, beside one that never rests.
TEST_F(Gpu, who_is_of_the_latency_class_begins_at_once) {
  Job& answers = add(500, 200 * kUs, 7 * kMs, true);
  Job& batch = add(500, 500 * kUs);
  run(5 * kS);
  EXPECT_LT(answers.longest_ns, 200 * kUs);
  EXPECT_GT(answers.done, 600u);
  EXPECT_GT(double(batch.done) * 500 * kUs / double(5 * kS), 0.8) << "what the other does not use is its";
}

TEST_F(Gpu, and_without_it_waits_for_its_turn) {
  Job& answers = add(500, 200 * kUs, 7 * kMs);
  add(500, 500 * kUs);
  run(5 * kS);
  EXPECT_GT(answers.longest_ns, 500 * kUs);
}

TEST_F(Gpu, also_beside_several_that_are_behind_it) {
  Job& answers = add(250, 200 * kUs, 2 * kMs, true);
  for (int i = 0; i < 3; ++i) add(250, 500 * kUs);
  run(5 * kS);
  EXPECT_LT(answers.longest_ns, 1 * kMs);
}

// It never rests either: the class says when, the parts say how much.
TEST_F(Gpu, over_a_second_batch_keeps_its_part) {
  Job& greedy = add(500, 200 * kUs, 0, true);
  Job& batch = add(500, 500 * kUs);
  run(2 * kS);
  for (int i = 0; i < 5; ++i) {
    const uint64_t before = batch.done;
    run(1 * kS);
    EXPECT_GT(double(batch.done - before) * 500 * kUs / double(kS), 0.4) << i;
  }
  EXPECT_NEAR(shares()[0], 500, 40);
  EXPECT_GT(greedy.done, 0u);
}

// Bursts with rests between them, so that its debt could be forgotten.
TEST_F(Gpu, also_where_the_other_comes_in_bursts) {
  Job& bursts = add(250, 200 * kUs, 0, true);
  Job& batch = add(750, 500 * kUs);
  for (int i = 0; i < 20; ++i) {
    bursts.has_work = i % 2 == 0;
    run(bursts.has_work ? 300 * kMs : 60 * kMs);
  }
  EXPECT_GT(double(batch.done) * 500 * kUs / double(now_ - kStart), 0.7);
}

TEST_F(Gpu, two_of_the_latency_class_share_what_they_get) {
  add(200, 200 * kUs, 0, true);
  add(400, 200 * kUs, 0, true);
  add(400, 500 * kUs);
  run(10 * kS);
  EXPECT_NEAR(shares()[0], 200, 40);
  EXPECT_NEAR(shares()[1], 400, 60);
}

TEST_F(Gpu, vgpus_of_one_job_share_it_with_little_lost) {
  for (int i = 0; i < 4; ++i) add(1000, 300 * kUs, 0, false, true);
  run(10 * kS);
  for (int i = 0; i < 4; ++i) EXPECT_NEAR(shares()[size_t(i)], 250, 20) << i;
  EXPECT_GT(busy(), 0.97);
}

// Each waits for what the one before it made.
TEST_F(Gpu, and_none_waits_for_one_that_has_come_to_rest) {
  for (int i = 0; i < 4; ++i) add(1000, 1 * kMs, 0, false, true).has_work = false;
  for (int i = 0; i < 1000; ++i) {
    Job& next = *jobs_[size_t(i % 4)];
    const uint64_t done = next.done;
    next.has_work = true;
    while (next.on_gpu == 0) run(kTick);
    next.has_work = false;
    while (next.done == done) run(kTick);
  }
  EXPECT_GT(busy(), 0.85);
}

TEST_F(Gpu, who_leaves_is_gone_at_once) {
  Job& stays = add(1000, 200 * kUs, 0, false, true);
  Job& leaves = add(1000, 200 * kUs, 0, false, true);
  run(100 * kMs);
  EXPECT_TRUE(stays.slices.shared());
  leaves.stopped = true;
  leaves.slices.leave(now_);
  EXPECT_FALSE(stays.slices.shared());
}

TEST_F(Gpu, alone_it_is_not_asked_and_workers_of_one_job_are_alone) {
  EXPECT_FALSE(add(500, 200 * kUs).slices.shared());
  char path[] = "/tmp/tide-slices-XXXXXX";
  close(mkstemp(path));
  TimeSlices first, second, other;
  ASSERT_TRUE(first.start(path, {.vgpu = 7, .share = 500}, now_).ok());
  ASSERT_TRUE(second.start(path, {.vgpu = 7, .share = 500}, now_).ok());
  EXPECT_FALSE(first.shared());
  ASSERT_TRUE(other.start(path, {.vgpu = 8, .share = 500}, now_).ok());
  EXPECT_TRUE(first.shared());
  EXPECT_TRUE(second.shared());
  // Its worker is gone: half a minute later its seat is free.
  first.at(now_ + 29 * kS, {});
  EXPECT_TRUE(first.shared());
  first.at(now_ + 31 * kS, {});
  EXPECT_FALSE(first.shared());
  EXPECT_FALSE(second.shared());
  unlink(path);
}

}  // namespace
}  // namespace tide
