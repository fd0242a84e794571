#include "scheduler/store.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sqlite3.h>
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

TEST_F(StoreTest, a_suspended_job_is_so_after_a_restart) {
  JobRecord record = job("a");
  ASSERT_TRUE(store_->add(&record).ok());
  record.suspended = record.held = true;
  record.vgpus[0].home = {"node0", 1};
  record.vgpus[0].at = {"node1", kParked};
  ASSERT_TRUE(store_->update(record).ok());
  open();
  const auto found = store_->find(record.number);
  ASSERT_TRUE(found.has_value());
  EXPECT_TRUE(found->suspended);
  EXPECT_TRUE(found->held);
  EXPECT_EQ(found->vgpus[0].at, (GpuId{"node1", kParked}));
  EXPECT_EQ(found->vgpus[0].home, (GpuId{"node0", 1}));
  EXPECT_TRUE(found->vgpus[1].home.none());
}

TEST_F(StoreTest, whose_turn_it_is_outlives_a_restart) {
  JobRecord record = job("a");
  ASSERT_TRUE(store_->add(&record).ok());
  EXPECT_EQ(store_->find(record.number)->turn.ticket, 0u);
  record.turn = {.excluded = true,
                 .yielding = true,
                 .ticket = 7,
                 .began_ms = 1'700'000'000'000,
                 .suspend_ms = 12,
                 .resume_ms = 34,
                 .strain = 3};
  ASSERT_TRUE(store_->update(record).ok());
  open();
  std::vector<JobRecord> jobs;
  ASSERT_TRUE(store_->load_live(&jobs).ok());
  ASSERT_EQ(jobs.size(), 1u);
  const TurnRecord& turn = jobs[0].turn;
  EXPECT_TRUE(turn.excluded);
  EXPECT_TRUE(turn.yielding);
  EXPECT_EQ(turn.ticket, 7u);
  EXPECT_EQ(turn.began_ms, 1'700'000'000'000u);
  EXPECT_EQ(turn.suspend_ms, 12u);
  EXPECT_EQ(turn.resume_ms, 34u);
  EXPECT_EQ(turn.strain, 3u);
}

TEST_F(StoreTest, a_guard_and_its_token_outlive_a_restart) {
  JobRecord record = job("safe");
  record.vgpus.resize(1);
  record.vgpus[0].guard = {.server = "node1", .epoch = 7, .made_ms = 8, .token = std::string("a\0b", 3)};
  ASSERT_TRUE(store_->add(&record).ok());
  open();
  const auto found = store_->find(record.number);
  ASSERT_TRUE(found.has_value());
  ASSERT_EQ(found->vgpus.size(), 1u);
  EXPECT_EQ(found->vgpus[0].guard.server, "node1");
  EXPECT_EQ(found->vgpus[0].guard.token, std::string("a\0b", 3));
}

// As an earlier release wrote it.
TEST_F(StoreTest, a_record_of_version_2_is_read_and_kept) {
  JobRecord record = job("old");
  record.suspended = true;
  ASSERT_TRUE(store_->add(&record).ok());
  store_.reset();
  sqlite3* db = nullptr;
  ASSERT_EQ(sqlite3_open((directory_ + "/jobs.sqlite").c_str(), &db), SQLITE_OK);
  const char* const back =
      "DROP TABLE turns; ALTER TABLE jobs DROP COLUMN part; ALTER TABLE jobs DROP COLUMN protect_ms;"
      "ALTER TABLE vgpus DROP COLUMN guard_server; ALTER TABLE vgpus DROP COLUMN guard_epoch;"
      "ALTER TABLE vgpus DROP COLUMN guard_made_ms; ALTER TABLE vgpus DROP COLUMN guard_token; PRAGMA user_version=2;";
  ASSERT_EQ(sqlite3_exec(db, back, nullptr, nullptr, nullptr), SQLITE_OK) << sqlite3_errmsg(db);
  sqlite3_close(db);
  open();
  auto found = store_->find(record.number);
  ASSERT_TRUE(found.has_value());
  EXPECT_TRUE(found->suspended);
  EXPECT_EQ(found->turn.ticket, 0u);
  EXPECT_EQ(found->part, kWholeGpu);
  EXPECT_EQ(found->protect_ms, 0u);
  found->turn.yielding = true;
  ASSERT_TRUE(store_->update(*found).ok());
  open();
  EXPECT_TRUE(store_->find(record.number)->turn.yielding);
}

// As the one before that wrote it.
TEST_F(StoreTest, a_record_of_version_1_is_read_and_kept) {
  store_.reset();
  std::filesystem::remove_all(directory_);
  std::filesystem::create_directory(directory_);
  sqlite3* db = nullptr;
  ASSERT_EQ(sqlite3_open((directory_ + "/jobs.sqlite").c_str(), &db), SQLITE_OK);
  const char* before =
      "CREATE TABLE jobs(number INTEGER PRIMARY KEY AUTOINCREMENT, token BLOB NOT NULL, gpus INTEGER NOT NULL, "
      "min_gpus "
      "INTEGER NOT NULL, min_given INTEGER NOT NULL, memory_given INTEGER NOT NULL, memory_bytes INTEGER NOT NULL, "
      "queue "
      "TEXT NOT NULL, name TEXT NOT NULL, user TEXT NOT NULL, command TEXT NOT NULL, pid INTEGER NOT NULL, target "
      "INTEGER NOT NULL, pinned INTEGER NOT NULL, phase INTEGER NOT NULL, reason TEXT NOT NULL, submitted_ms INTEGER "
      "NOT NULL, started_ms INTEGER NOT NULL, ended_ms INTEGER NOT NULL, exit_status INTEGER NOT NULL, moves INTEGER "
      "NOT NULL); CREATE INDEX jobs_by_phase ON jobs(phase);"
      "CREATE TABLE vgpus(job INTEGER NOT NULL, vgpu INTEGER NOT NULL, server TEXT NOT NULL, gpu INTEGER NOT NULL, "
      "epoch "
      "INTEGER NOT NULL, device_info BLOB NOT NULL, PRIMARY KEY(job, vgpu));"
      "INSERT INTO jobs VALUES(7, x'00', 1, 1, 0, 0, 16, '', 'old', 'me', 'sleep', 5, 0, 0, 1, '', 10, 20, 0, 0, 3);"
      "INSERT INTO vgpus VALUES(7, 0, 'node0', 2, 9, x'01'); PRAGMA user_version=1;";
  ASSERT_EQ(sqlite3_exec(db, before, nullptr, nullptr, nullptr), SQLITE_OK) << sqlite3_errmsg(db);
  sqlite3_close(db);
  open();
  auto found = store_->find(7);
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->name, "old");
  EXPECT_EQ(found->moves, 3u);
  EXPECT_FALSE(found->suspended);
  EXPECT_EQ(found->part, kWholeGpu);
  ASSERT_EQ(found->vgpus.size(), 1u);
  EXPECT_EQ(found->vgpus[0].at, (GpuId{"node0", 2}));
  EXPECT_EQ(found->vgpus[0].epoch, 9u);
  found->suspended = true;
  ASSERT_TRUE(store_->update(*found).ok());
  found->part = 250;
  ASSERT_TRUE(store_->update(*found).ok());
  open();
  EXPECT_TRUE(store_->find(7)->suspended);
  EXPECT_EQ(store_->find(7)->part, 250u);
  JobRecord next = job("next");
  ASSERT_TRUE(store_->add(&next).ok());
  EXPECT_EQ(next.number, 8u);
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
