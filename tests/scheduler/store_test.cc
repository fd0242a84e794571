#include "scheduler/store.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/resource.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "scheduler/kv_memory.h"

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

TEST_F(StoreTest, what_queues_had_is_there_after_a_restart) {
  Usage usage;
  uint64_t at_ms = 1;
  ASSERT_TRUE(store_->load_usage(&usage, &at_ms).ok());
  EXPECT_TRUE(usage.empty());
  EXPECT_EQ(at_ms, 0u);
  ASSERT_TRUE(store_->save_usage({{"a", 1.5}, {"gone", 7}}, 41).ok());
  ASSERT_TRUE(store_->save_usage({{"a", 2.25}, {"b", 1e9}}, 42).ok());
  store_.reset();
  open();
  ASSERT_TRUE(store_->load_usage(&usage, &at_ms).ok());
  EXPECT_EQ(usage, (Usage{{"a", 2.25}, {"b", 1e9}}));
  EXPECT_EQ(at_ms, 42u);
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

TEST_F(StoreTest, what_a_job_requires_and_which_servers_drain_is_there_after_a_restart) {
  JobRecord record = job("picky");
  record.require = {.model = "NVIDIA H200", .labels = {"rack=a", "zone=b"}, .together = Together::kSwitch};
  ASSERT_TRUE(store_->add(&record).ok());
  ASSERT_TRUE(store_->set_drain("gpu1", 1'700'000'000'123).ok());
  ASSERT_TRUE(store_->set_drain("gpu2", 7).ok());
  ASSERT_TRUE(store_->set_drain("gpu2", 0).ok());
  open();
  EXPECT_EQ(store_->find(record.number)->require, record.require);
  std::map<std::string, uint64_t> drains;
  ASSERT_TRUE(store_->load_drains(&drains).ok());
  EXPECT_EQ(drains, (std::map<std::string, uint64_t>{{"gpu1", 1'700'000'000'123}}));
}

// What the releases before this one wrote, with two jobs in it.
constexpr const char* kVersion1 =
    "CREATE TABLE jobs(number INTEGER PRIMARY KEY AUTOINCREMENT, token BLOB NOT NULL, gpus INTEGER NOT NULL, min_gpus "
    "INTEGER NOT NULL, min_given INTEGER NOT NULL, memory_given INTEGER NOT NULL, memory_bytes INTEGER NOT NULL, queue "
    "TEXT NOT NULL, name TEXT NOT NULL, user TEXT NOT NULL, command TEXT NOT NULL, pid INTEGER NOT NULL, target "
    "INTEGER NOT NULL, pinned INTEGER NOT NULL, phase INTEGER NOT NULL, reason TEXT NOT NULL, submitted_ms INTEGER "
    "NOT NULL, started_ms INTEGER NOT NULL, ended_ms INTEGER NOT NULL, exit_status INTEGER NOT NULL, moves INTEGER "
    "NOT NULL); CREATE INDEX jobs_by_phase ON jobs(phase);"
    "CREATE TABLE vgpus(job INTEGER NOT NULL, vgpu INTEGER NOT NULL, server TEXT NOT NULL, gpu INTEGER NOT NULL, epoch "
    "INTEGER NOT NULL, device_info BLOB NOT NULL, PRIMARY KEY(job, vgpu));"
    "INSERT INTO jobs VALUES(6, x'01', 1, 1, 0, 0, 16, '', 'old', 'me', 'ls', 4, 0, 0, 2, 'finished', 1, 2, 3, -1, 0);"
    "INSERT INTO jobs VALUES(7, x'00', 1, 1, 0, 0, 16, '', 'old', 'me', 'sleep', 5, 0, 0, 1, '', 10, 20, 0, 0, 3);"
    "INSERT INTO vgpus VALUES(7, 0, 'node0', 2, 9, x'01'); PRAGMA user_version=1;";
constexpr const char* kVersion2 =
    "ALTER TABLE jobs ADD COLUMN suspended INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE jobs ADD COLUMN held INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE jobs ADD COLUMN idled INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE jobs ADD COLUMN idle_ms INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE vgpus ADD COLUMN home_server TEXT NOT NULL DEFAULT '';"
    "ALTER TABLE vgpus ADD COLUMN home_gpu INTEGER NOT NULL DEFAULT 0;"
    "UPDATE jobs SET suspended=1, idle_ms=5000 WHERE number=7; UPDATE vgpus SET home_server='node1', home_gpu=1;"
    "PRAGMA user_version=2;";
constexpr const char* kVersion3 =
    "CREATE TABLE turns(job INTEGER PRIMARY KEY, excluded INTEGER NOT NULL, yielding INTEGER NOT NULL, ticket INTEGER "
    "NOT NULL, began_ms INTEGER NOT NULL, suspend_ms INTEGER NOT NULL, resume_ms INTEGER NOT NULL, strain INTEGER NOT "
    "NULL);"
    "ALTER TABLE jobs ADD COLUMN protect_ms INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE vgpus ADD COLUMN guard_server TEXT NOT NULL DEFAULT '';"
    "ALTER TABLE vgpus ADD COLUMN guard_epoch INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE vgpus ADD COLUMN guard_made_ms INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE jobs ADD COLUMN part INTEGER NOT NULL DEFAULT 1000;"
    "INSERT INTO turns VALUES(7, 0, 1, 12, 13, 14, 15, 2); UPDATE jobs SET part=250, protect_ms=60000 WHERE number=7;"
    "UPDATE vgpus SET guard_server='node2', guard_epoch=77, guard_made_ms=88; PRAGMA user_version=3;";

class OldRecord : public StoreTest {
 protected:
  // The record as that release had it, opened by this one.
  void open_old(const std::string& sql) {
    store_.reset();
    std::filesystem::remove_all(directory_);
    std::filesystem::create_directory(directory_);
    sqlite3* db = nullptr;
    ASSERT_EQ(sqlite3_open((directory_ + "/jobs.sqlite").c_str(), &db), SQLITE_OK);
    ASSERT_EQ(sqlite3_exec(db, sql.c_str(), nullptr, nullptr, nullptr), SQLITE_OK) << sqlite3_errmsg(db);
    sqlite3_close(db);
    open();
  }
  // And that what there was is there, and goes on.
  JobRecord look() {
    const auto found = store_->find(7), ended = store_->find(6);
    EXPECT_TRUE(found.has_value() && ended.has_value());
    if (!found || !ended) return {};
    EXPECT_EQ(ended->exit_status, -1);
    EXPECT_EQ(ended->phase, Phase::kEnded);
    EXPECT_EQ(store_->find_named("old")->number, 7u);
    EXPECT_EQ(found->name, "old");
    EXPECT_EQ(found->token, std::string("\0", 1));
    EXPECT_EQ(found->moves, 3u);
    EXPECT_EQ(found->vgpus.size(), 1u);
    EXPECT_EQ(found->vgpus[0].at, (GpuId{"node0", 2}));
    EXPECT_EQ(found->vgpus[0].epoch, 9u);
    std::vector<JobRecord> live, old;
    EXPECT_TRUE(store_->load_live(&live).ok() && store_->load_ended(9, &old).ok());
    EXPECT_EQ(live.size(), 1u);
    EXPECT_EQ(old.size(), 1u);
    JobRecord changed = *found, next = job("next");
    changed.suspended = !changed.suspended;
    EXPECT_TRUE(store_->update(changed).ok());
    open();
    EXPECT_EQ(store_->find(7)->suspended, changed.suspended);
    EXPECT_TRUE(store_->add(&next).ok());
    EXPECT_EQ(next.number, 8u);
    return *found;
  }
};

TEST_F(OldRecord, version_1_is_read_and_kept) {
  open_old(kVersion1);
  const JobRecord found = look();
  EXPECT_FALSE(found.suspended);
  EXPECT_EQ(found.part, kWholeGpu);
}

TEST_F(OldRecord, version_2_is_read_and_kept) {
  open_old(std::string(kVersion1) + kVersion2);
  const JobRecord found = look();
  EXPECT_TRUE(found.suspended);
  EXPECT_EQ(found.idle_ms, 5000u);
  EXPECT_EQ(found.vgpus[0].home, (GpuId{"node1", 1}));
  EXPECT_EQ(found.turn.ticket, 0u);
  EXPECT_EQ(found.part, kWholeGpu);
  EXPECT_EQ(found.protect_ms, 0u);
}

TEST_F(OldRecord, version_3_is_read_and_kept) {
  open_old(std::string(kVersion1) + kVersion2 + kVersion3);
  const JobRecord found = look();
  EXPECT_TRUE(found.turn.yielding);
  EXPECT_EQ(found.turn.ticket, 12u);
  EXPECT_EQ(found.turn.strain, 2u);
  EXPECT_EQ(found.part, 250u);
  EXPECT_EQ(found.protect_ms, 60'000u);
  EXPECT_EQ(found.vgpus[0].guard.server, "node2");
  EXPECT_EQ(found.vgpus[0].guard.epoch, 77u);
  EXPECT_EQ(found.vgpus[0].guard.made_ms, 88u);
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

// Two schedulers that share a store, as two of them share etcd.
class Shared : public testing::Test {
 protected:
  // Passes on to a store that others have, too.
  class Line final : public Kv {
   public:
    explicit Line(MemoryKv& kv) : kv_(kv) {}
    const std::string& name() const override { return kv_.name(); }
    Outcome commit(const Transaction& t, Committed* c) override { return kv_.commit(t, c); }
    Outcome range(const Range& range, std::vector<Entry>* entries) override { return kv_.range(range, entries); }
    Outcome grant(uint32_t ttl_ms, uint64_t* lease) override { return kv_.grant(ttl_ms, lease); }
    Outcome renew(uint64_t lease, bool* alive) override { return kv_.renew(lease, alive); }
    Outcome revoke(uint64_t lease) override { return kv_.revoke(lease); }
    std::unique_ptr<Watch> watch(const Range& range) override { return kv_.watch(range); }
    Outcome compact(uint64_t revision) override { return kv_.compact(revision); }

   private:
    MemoryKv& kv_;
  };
  uint64_t take_the_lead() {
    Committed erased, made;
    EXPECT_TRUE(kv_.commit({{}, {{.key = "/tide/leader", .value = {}}}}, &erased).ok());
    EXPECT_TRUE(kv_.commit({{}, {{.key = "/tide/leader", .value = "me"}}}, &made).ok());
    return made.revision;
  }
  static JobRecord job(const std::string& token) {
    JobRecord record;
    record.token = token;
    return record;
  }

  MemoryKv kv_;
  Store first_{std::make_unique<Line>(kv_)}, second_{std::make_unique<Line>(kv_)};
};

TEST_F(Shared, a_deposed_leader_writes_nothing) {
  first_.write_only_in("/tide/leader", take_the_lead());
  JobRecord old = job("a"), late = job("b");
  ASSERT_TRUE(first_.add(&old).ok());
  second_.write_only_in("/tide/leader", take_the_lead());
  old.reason = "from the old leader";
  EXPECT_FALSE(first_.deposed());
  const Outcome refused = first_.update(old);
  EXPECT_NE(refused.message().find("not the leader"), std::string::npos) << refused.message();
  EXPECT_TRUE(first_.deposed());
  EXPECT_FALSE(first_.add(&late).ok());
  std::vector<JobRecord> live;
  ASSERT_TRUE(second_.load_live(&live).ok());
  ASSERT_EQ(live.size(), 1u);
  EXPECT_EQ(live[0].reason, "");
  live[0].reason = "from the new one";
  EXPECT_TRUE(second_.update(live[0]).ok());
  EXPECT_TRUE(second_.add(&late).ok());
  EXPECT_EQ(late.number, 2u);
}

TEST_F(Shared, who_does_not_lead_yet_writes_nothing) {
  first_.write_only_in("/tide/leader", Store::kNoTerm);
  JobRecord early = job("a");
  EXPECT_FALSE(first_.add(&early).ok());
  EXPECT_FALSE(second_.find(1).has_value());
  first_.write_only_in("/tide/leader", take_the_lead());
  EXPECT_FALSE(first_.deposed());
  EXPECT_TRUE(first_.add(&early).ok());
}

TEST_F(Shared, what_was_done_unheard_is_not_done_twice) {
  JobRecord a = job("a"), b = job("b");
  kv_.fail(true, true);
  EXPECT_FALSE(first_.add(&a).ok());
  kv_.fail(false);
  ASSERT_TRUE(first_.add(&a).ok());  // the same once more
  EXPECT_EQ(a.number, 1u);
  a.reason = "changed";
  kv_.fail(true, true);
  EXPECT_FALSE(first_.update(a).ok());
  a.reason = "changed again";
  EXPECT_FALSE(first_.update(a).ok());
  kv_.fail(false);
  EXPECT_TRUE(first_.update(a).ok());
  EXPECT_EQ(second_.find(1)->reason, "changed again");
  kv_.fail(true, true);
  EXPECT_FALSE(first_.add(&b).ok());  // nobody was told of it
  kv_.fail(false);
  JobRecord c = job("c");
  ASSERT_TRUE(first_.add(&c).ok());
  EXPECT_EQ(c.number, 3u);
  std::vector<JobRecord> live;
  ASSERT_TRUE(second_.load_live(&live).ok());
  ASSERT_EQ(live.size(), 2u);
  EXPECT_EQ(live[1].token, "c");
}

TEST_F(Shared, many_that_are_added_at_once_are_all_there_or_none) {
  std::vector<JobRecord> jobs(20), unheard(30);
  std::vector<JobRecord*> all, others;
  for (JobRecord& each : jobs) {
    each = job(std::to_string(all.size()));
    each.name = "one name";
    all.push_back(&each);
  }
  for (JobRecord& each : unheard) {
    each = job("u" + std::to_string(others.size()));
    others.push_back(&each);
  }
  kv_.fail(true, true);
  EXPECT_FALSE(first_.add(all).ok());
  kv_.fail(false);
  ASSERT_TRUE(first_.add(all).ok());  // the same once more
  for (size_t i = 0; i < jobs.size(); ++i) EXPECT_EQ(jobs[i].number, i + 1);
  EXPECT_EQ(second_.find_named("one name")->number, 20u);
  for (int round = 0; round < 2; ++round) {
    kv_.fail(true, true);
    EXPECT_FALSE(first_.add(others).ok());  // nobody is told of them,
    kv_.fail(false);
    std::vector<JobRecord> live;
    ASSERT_TRUE(second_.load_live(&live).ok());
    EXPECT_GT(live.size(), 20u);
    others.pop_back();  // and it is not these that come next
    others.front()->token += "x";
  }
  JobRecord next = job("next");
  ASSERT_TRUE(first_.add(&next).ok());
  std::vector<JobRecord> live;
  ASSERT_TRUE(second_.load_live(&live).ok());
  ASSERT_EQ(live.size(), 21u);
  EXPECT_EQ(live[20].token, "next");
  EXPECT_EQ(live[20].number, next.number);
}

TEST_F(Shared, who_ended_stays_ended_and_many_are_written_at_once) {
  std::vector<JobRecord> jobs(120);
  std::vector<const JobRecord*> all;
  for (JobRecord& each : jobs) {
    each.token = "t";
    ASSERT_TRUE(first_.add(&each).ok());
    each.reason = "at once";
    if (each.number % 2 == 0) each.phase = Phase::kEnded;
    all.push_back(&each);
  }
  ASSERT_TRUE(first_.update(all).ok());
  ASSERT_TRUE(first_.update(all).ok());
  std::vector<JobRecord> live, ended;
  ASSERT_TRUE(second_.load_live(&live).ok() && second_.load_ended(7, &ended).ok());
  EXPECT_EQ(live.size(), 60u);
  ASSERT_EQ(ended.size(), 7u);
  EXPECT_EQ(ended[0].number, 120u);
  EXPECT_EQ(second_.find(119)->reason, "at once");
  EXPECT_EQ(second_.find(2)->phase, Phase::kEnded);
}

}  // namespace
}  // namespace tide::sched
