#include "scheduler/store.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace tide::sched {
namespace {

class StoreTest : public testing::Test {
 protected:
  void SetUp() override {
    char path[] = "/tmp/tide-store-XXXXXX";
    ASSERT_NE(mkdtemp(path), nullptr);
    directory_ = path;
    open();
  }
  void TearDown() override {
    store_.reset();
    std::filesystem::remove_all(directory_);
  }
  void open() {
    store_.reset();
    const Outcome opened = Store::open(directory_, &store_);
    ASSERT_TRUE(opened.ok()) << opened.message();
  }
  static JobRecord job(const std::string& name) {
    JobRecord record;
    record.token = std::string("\0\1token", 7);
    record.gpus = 2;
    record.name = name;
    record.command = "./train 'a b'";
    record.submitted_ms = 1'700'000'000'123;
    record.vgpus = {{.at = {"node0", 1}, .epoch = 3, .device_info = std::string("\0x", 2)},
                    {.at = {}, .epoch = 0, .device_info = {}}};
    return record;
  }

  std::string directory_;
  std::unique_ptr<Store> store_;
};

TEST_F(StoreTest, a_job_is_there_after_a_restart) {
  JobRecord record = job("a");
  ASSERT_TRUE(store_->add(&record).ok());
  record.phase = Phase::kRunning;
  record.vgpus[1].at = {"node1", 7};
  record.vgpus[1].epoch = 9;
  record.exit_status = -1;
  ASSERT_TRUE(store_->update(record).ok());
  open();
  std::vector<JobRecord> jobs;
  ASSERT_TRUE(store_->load_live(&jobs).ok());
  ASSERT_EQ(jobs.size(), 1u);
  EXPECT_EQ(jobs[0].number, record.number);
  EXPECT_EQ(jobs[0].token, record.token);
  EXPECT_EQ(jobs[0].name, "a");
  EXPECT_EQ(jobs[0].command, record.command);
  EXPECT_EQ(jobs[0].submitted_ms, record.submitted_ms);
  EXPECT_EQ(jobs[0].exit_status, -1);
  EXPECT_EQ(jobs[0].phase, Phase::kRunning);
  ASSERT_EQ(jobs[0].vgpus.size(), 2u);
  EXPECT_EQ(jobs[0].vgpus[0].device_info, record.vgpus[0].device_info);
  EXPECT_EQ(jobs[0].vgpus[1].at, (GpuId{"node1", 7}));
  EXPECT_EQ(jobs[0].vgpus[1].epoch, 9u);
}

TEST_F(StoreTest, a_number_is_never_used_twice) {
  JobRecord first = job("a"), second = job("b");
  ASSERT_TRUE(store_->add(&first).ok());
  first.phase = Phase::kEnded;
  ASSERT_TRUE(store_->update(first).ok());
  open();
  ASSERT_TRUE(store_->add(&second).ok());
  EXPECT_GT(second.number, first.number);
}

TEST_F(StoreTest, ended_jobs_are_found_by_number_and_by_name) {
  JobRecord older = job("same"), newer = job("same");
  ASSERT_TRUE(store_->add(&older).ok());
  ASSERT_TRUE(store_->add(&newer).ok());
  for (JobRecord* each : {&older, &newer}) {
    each->phase = Phase::kEnded;
    ASSERT_TRUE(store_->update(*each).ok());
  }
  std::vector<JobRecord> live, ended;
  ASSERT_TRUE(store_->load_live(&live).ok());
  ASSERT_TRUE(store_->load_ended(10, &ended).ok());
  EXPECT_TRUE(live.empty());
  ASSERT_EQ(ended.size(), 2u);
  EXPECT_EQ(ended[0].number, newer.number);
  EXPECT_EQ(store_->find(older.number)->number, older.number);
  EXPECT_EQ(store_->find_named("same")->number, newer.number);
  EXPECT_FALSE(store_->find(99).has_value());
  EXPECT_FALSE(store_->find_named("'; DROP TABLE jobs; --").has_value());
}

// A limit on the size of files stands in for a full disk: both fail the write in the middle.
class FullDisk {
 public:
  explicit FullDisk(const std::string& file) {
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before_);
    rlimit limit = before_;
    limit.rlim_cur = std::filesystem::file_size(file);
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FullDisk() { setrlimit(RLIMIT_FSIZE, &before_); }
  FullDisk(const FullDisk&) = delete;
  FullDisk& operator=(const FullDisk&) = delete;

 private:
  rlimit before_{};
};

TEST_F(StoreTest, a_full_disk_refuses_with_the_file_s_name_and_loses_nothing) {
  JobRecord before = job("before"), during = job("during"), later = job("later");
  ASSERT_TRUE(store_->add(&before).ok());
  {
    const FullDisk full(store_->path() + "-wal");
    const Outcome refused = store_->add(&during);
    ASSERT_FALSE(refused.ok());
    EXPECT_NE(refused.message().find(store_->path()), std::string::npos) << refused.message();
    EXPECT_NE(refused.message().find("disk"), std::string::npos) << refused.message();
    EXPECT_EQ(during.number, 0u);
    std::vector<JobRecord> jobs;
    ASSERT_TRUE(store_->load_live(&jobs).ok());
    EXPECT_EQ(jobs.size(), 1u);
  }
  ASSERT_TRUE(store_->add(&later).ok());
  open();
  std::vector<JobRecord> jobs;
  ASSERT_TRUE(store_->load_live(&jobs).ok());
  ASSERT_EQ(jobs.size(), 2u);
  EXPECT_EQ(jobs[0].name, "before");
  EXPECT_EQ(jobs[1].name, "later");
}

TEST_F(StoreTest, a_second_scheduler_on_the_same_directory_is_refused) {
  std::unique_ptr<Store> second;
  const Outcome refused = Store::open(directory_, &second);
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(refused.message().find(directory_), std::string::npos) << refused.message();
}

TEST_F(StoreTest, a_damaged_file_is_named) {
  store_.reset();
  std::filesystem::remove(directory_ + "/jobs.sqlite-wal");
  std::ofstream(directory_ + "/jobs.sqlite") << std::string(5000, 'x');
  const Outcome refused = Store::open(directory_, &store_);
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(refused.message().find("damaged"), std::string::npos) << refused.message();
}

}  // namespace
}  // namespace tide::sched
