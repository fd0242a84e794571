// One test for all stores: what scheduler/kv.h says, and that what each of several clients sees fits one order of all
// changes, while the store's processes are killed, stopped and cut off.

#include <gtest/gtest.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <functional>
#include <map>
#include <mutex>
#include <thread>

#include "base/clock.h"
#include "scheduler/kv_etcd.h"
#include "scheduler/kv_memory.h"
#include "scheduler/kv_sqlite.h"
#include "scheduler/old_record.h"
#include "scheduler/outbox.h"
#include "tests/scheduler/etcd_cluster.h"

namespace tide::sched {
namespace {

bool may_cut = false;  // etcd's members have namespaces

// A store of its own for each test, and as many clients of it as it can have.
class Ground {
 public:
  virtual ~Ground() = default;
  virtual Kv& kv() = 0;
  virtual void reopen() {}  // as after a restart
  virtual std::unique_ptr<Kv> client() { return nullptr; }
  virtual bool persists() const { return true; }
};

class MemoryGround final : public Ground {
 public:
  Kv& kv() override { return kv_; }
  bool persists() const override { return false; }

 private:
  MemoryKv kv_;
};

class SqliteGround final : public Ground {
 public:
  SqliteGround() {
    char path[] = "/tmp/tide-kv-XXXXXX";
    directory_ = mkdtemp(path);
    SqliteGround::reopen();
  }
  ~SqliteGround() override {
    kv_.reset();
    std::filesystem::remove_all(directory_);
  }
  Kv& kv() override { return *kv_; }
  void reopen() override {
    kv_.reset();
    const Outcome opened = SqliteKv::open(directory_ + "/kv.sqlite", upgrade_record, &kv_);
    if (!opened.ok()) abort();
  }

 private:
  std::string directory_;
  std::unique_ptr<Kv> kv_;
};

EtcdCluster* cluster = nullptr;  // for all tests of the process

// Every test has its own keys.
class EtcdGround final : public Ground {
 public:
  EtcdGround() {
    if (cluster == nullptr) cluster = new EtcdCluster();
    EtcdGround::reopen();
    std::vector<Entry> none;
    const uint64_t until = now_ns() + 30'000'000'000;
    while (!kv_->range(range_of("/"), &none).ok() && now_ns() < until) sleep_us(200'000);
    for (const Entry& entry : none) EXPECT_TRUE(commit(*kv_, {}, {{.key = entry.key, .value = {}}}));
  }
  Kv& kv() override { return *kv_; }
  void reopen() override { kv_ = client(); }
  std::unique_ptr<Kv> client() override { return std::make_unique<EtcdKv>(cluster->place()); }

  static bool commit(Kv& kv, std::vector<Compare> compares, std::vector<Change> changes) {
    Committed committed;
    return kv.commit({std::move(compares), std::move(changes)}, &committed).ok() && committed.done;
  }

 private:
  std::unique_ptr<Kv> kv_;
};

struct Kind {
  const char* name;
  std::function<std::unique_ptr<Ground>()> make;
};

class Conformance : public testing::TestWithParam<Kind> {
 protected:
  void SetUp() override { ground_ = GetParam().make(); }
  Kv& kv() { return ground_->kv(); }

  Committed commit(std::vector<Compare> compares, std::vector<Change> changes) {
    Committed committed;
    const Outcome outcome = kv().commit({std::move(compares), std::move(changes)}, &committed);
    EXPECT_TRUE(outcome.ok()) << outcome.message();
    return committed;
  }
  std::vector<Entry> range(const Range& range) {
    std::vector<Entry> entries;
    const Outcome outcome = kv().range(range, &entries);
    EXPECT_TRUE(outcome.ok()) << outcome.message();
    return entries;
  }
  std::string keys(const Range& of) {
    std::string text;
    for (const Entry& entry : range(of)) text += (text.empty() ? "" : " ") + entry.key;
    return text;
  }

  std::unique_ptr<Ground> ground_;
};

Compare absent(const std::string& key) { return {key, Compare::What::kCreated, 0}; }
Compare modified(const std::string& key, uint64_t at) { return {key, Compare::What::kModified, at}; }

TEST_P(Conformance, a_key_has_the_revisions_at_which_it_was_made_and_changed) {
  const Committed first = commit({}, {{.key = "/a", .value = "1"}});
  const Committed second = commit({}, {{.key = "/a", .value = std::string("\0\xff", 2)}});
  EXPECT_GT(second.revision, first.revision);
  const auto found = range(one_key("/a"));
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].value, std::string("\0\xff", 2));
  EXPECT_EQ(found[0].created, first.revision);
  EXPECT_EQ(found[0].modified, second.revision);
  commit({}, {{.key = "/a", .value = {}}});
  EXPECT_TRUE(range(one_key("/a")).empty());
  const Committed anew = commit({}, {{.key = "/a", .value = ""}});
  ASSERT_EQ(range(one_key("/a")).size(), 1u);
  EXPECT_EQ(range(one_key("/a"))[0].created, anew.revision);
}

TEST_P(Conformance, a_transaction_whose_comparison_fails_changes_nothing) {
  const Committed made = commit({absent("/a")}, {{.key = "/a", .value = "1"}});
  EXPECT_TRUE(made.done);
  EXPECT_FALSE(commit({absent("/a")}, {{.key = "/a", .value = "2"}, {.key = "/b", .value = "2"}}).done);
  EXPECT_FALSE(commit({modified("/a", made.revision), modified("/b", 7)}, {{.key = "/a", .value = "3"}}).done);
  EXPECT_EQ(keys(range_of("/")), "/a");
  EXPECT_EQ(range(one_key("/a"))[0].value, "1");
  EXPECT_TRUE(commit({modified("/a", made.revision)}, {{.key = "/a", .value = {}}, {.key = "/b", .value = "4"}}).done);
  EXPECT_EQ(keys(range_of("/")), "/b");
}

TEST_P(Conformance, a_range_is_in_the_order_of_bytes_and_limited_from_either_end) {
  for (const char* key : {"/j/2", "/j/10", "/j/1", "/k", "/i"}) commit({}, {{.key = key, .value = "x"}});
  EXPECT_EQ(keys(range_of("/j/")), "/j/1 /j/10 /j/2");
  Range two = range_of("/j/");
  two.limit = 2;
  EXPECT_EQ(keys(two), "/j/1 /j/10");
  two.last_first = true;
  EXPECT_EQ(keys(two), "/j/2 /j/10");
  EXPECT_EQ(keys(one_key("/j/1")), "/j/1");
  EXPECT_EQ(keys({"/j/10", "/k", 0, false}), "/j/10 /j/2");
}

TEST_P(Conformance, a_full_transaction_is_carried_out_at_one_revision) {
  std::vector<Change> changes;
  std::vector<Compare> compares;
  const std::string value(kChangeBytesMax / kChangesMax - 64, 'v');
  for (uint32_t i = 0; i < kChangesMax; ++i) {
    changes.push_back({.key = "/" + std::to_string(1000 + i), .value = value});
    compares.push_back(absent(changes.back().key));
  }
  const Committed committed = commit(compares, changes);
  ASSERT_TRUE(committed.done);
  const auto all = range(range_of("/"));
  ASSERT_EQ(all.size(), kChangesMax);
  for (const Entry& entry : all) EXPECT_EQ(entry.modified, committed.revision);
}

TEST_P(Conformance, a_lease_takes_its_keys_along) {
  uint64_t lease = 0, kept = 0;
  ASSERT_TRUE(kv().grant(2000, &lease).ok());
  ASSERT_TRUE(kv().grant(2000, &kept).ok());
  commit({}, {{.key = "/gone", .value = "1", .lease = lease}, {.key = "/kept", .value = "1", .lease = kept}});
  commit({}, {{.key = "/freed", .value = "1", .lease = lease}});
  commit({}, {{.key = "/freed", .value = "2"}});
  const uint64_t begin = now_ns();
  EXPECT_EQ(range(one_key("/gone"))[0].lease, lease);
  bool alive = false;
  while (now_ns() - begin < 6'500'000'000 && !range(one_key("/gone")).empty()) {
    EXPECT_TRUE(kv().renew(kept, &alive).ok());
    EXPECT_TRUE(alive);
    sleep_us(100'000);
  }
  EXPECT_GT(now_ns() - begin, 1'900'000'000u);
  EXPECT_EQ(keys(range_of("/")), "/freed /kept");
  EXPECT_TRUE(kv().renew(lease, &alive).ok());
  EXPECT_FALSE(alive);
  Committed committed;
  EXPECT_FALSE(kv().commit({{}, {{.key = "/late", .value = "1", .lease = lease}}}, &committed).ok());
  EXPECT_TRUE(kv().revoke(kept).ok());
  EXPECT_TRUE(kv().revoke(lease).ok());
  EXPECT_EQ(keys(range_of("/")), "/freed");
}

TEST_P(Conformance, a_watch_says_that_something_changed) {
  const auto watch = kv().watch(range_of("/w/"));
  EXPECT_TRUE(watch->changed());
  sleep_us(500'000);  // a stream begins
  (void)watch->changed();
  commit({}, {{.key = "/w/1", .value = "1"}});
  const uint64_t until = now_ns() + 3'000'000'000;
  bool told = false;
  while (!(told = watch->changed()) && now_ns() < until) sleep_us(10'000);
  EXPECT_TRUE(told);
}

TEST_P(Conformance, what_was_done_is_there_after_a_restart) {
  if (!ground_->persists()) GTEST_SKIP() << "memory forgets";
  uint64_t lease = 0;
  ASSERT_TRUE(kv().grant(30'000, &lease).ok());
  const Committed made = commit({}, {{.key = "/a", .value = "1"}, {.key = "/b", .value = "2", .lease = lease}});
  ground_->reopen();
  EXPECT_EQ(keys(range_of("/")), "/a /b");
  EXPECT_EQ(range(one_key("/b"))[0].lease, lease);
  EXPECT_TRUE(commit({modified("/a", made.revision)}, {{.key = "/a", .value = "3"}}).done);
  bool alive = false;
  EXPECT_TRUE(kv().renew(lease, &alive).ok());
  EXPECT_TRUE(alive);
  uint64_t other = 0;
  ASSERT_TRUE(kv().grant(30'000, &other).ok());
  EXPECT_NE(other, lease);
}

TEST_P(Conformance, compacting_takes_nothing_that_is_there) {
  commit({}, {{.key = "/a", .value = "1"}});
  const Committed second = commit({}, {{.key = "/b", .value = "1"}});
  EXPECT_TRUE(kv().compact(second.revision).ok());
  EXPECT_EQ(keys(range_of("/")), "/a /b");
}

// What one client did, and when; revisions order all changes of the one key.
struct Seen {
  bool write = false, known = false;  // known: it was answered
  uint64_t begin = 0, end = 0;
  uint64_t revision = 0;  // that it made or read
  std::string value;
};

// Each reads the key and changes it if nobody else has, until told to stop.
void work(Kv& kv, std::mutex& one_at_a_time, const std::string& who, const std::atomic<bool>& done,
          std::vector<Seen>* history) {
  for (uint32_t i = 0; !done; ++i) {
    std::vector<Entry> entries;
    Seen read;
    read.begin = now_ns();
    {
      const std::lock_guard lock(one_at_a_time);
      read.known = kv.range(one_key("/register"), &entries).ok();
    }
    read.end = now_ns();
    if (!read.known) {
      sleep_us(20'000);
      continue;
    }
    if (!entries.empty()) read.revision = entries[0].modified;
    if (!entries.empty()) read.value = entries[0].value;
    history->push_back(read);
    Seen wrote;
    wrote.write = true;
    wrote.value = who + std::to_string(i);
    wrote.begin = now_ns();
    Committed committed;
    {
      const std::lock_guard lock(one_at_a_time);
      const Transaction change = {{modified("/register", read.revision)}, {{.key = "/register", .value = wrote.value}}};
      wrote.known = kv.commit(change, &committed).ok();
    }
    wrote.end = now_ns();
    wrote.revision = committed.revision;
    if (!wrote.known || committed.done) history->push_back(wrote);
  }
}

// Writes that were answered have a revision each; of the others those took place whose value somebody has seen.
void check_linear(const std::vector<Seen>& history) {
  std::map<uint64_t, const Seen*> changes;
  std::map<std::string, const Seen*> unknown;
  uint32_t answered = 0, reads = 0;
  for (const Seen& seen : history) {
    if (seen.write && !seen.known) unknown[seen.value] = &seen;
    if (!seen.write || !seen.known) continue;
    ++answered;
    EXPECT_TRUE(changes.emplace(seen.revision, &seen).second) << "two changes at revision " << seen.revision;
  }
  for (const Seen& seen : history) {
    if (seen.write || seen.revision == 0) continue;
    ++reads;
    const auto change = changes.find(seen.revision);
    const auto doubtful = unknown.find(seen.value);
    if (change != changes.end()) {
      EXPECT_EQ(change->second->value, seen.value) << "at revision " << seen.revision;
      EXPECT_LE(change->second->begin, seen.end) << "read before it was written";
    } else {
      ASSERT_TRUE(doubtful != unknown.end()) << "nobody wrote " << seen.value;
      EXPECT_LE(doubtful->second->begin, seen.end) << "read before it was written";
    }
  }
  // In real time: who began after another had ended saw it, or made a later one.
  std::vector<const Seen*> by_end, by_begin;
  for (const Seen& seen : history) {
    if (seen.known) by_end.push_back(&seen);
  }
  by_begin = by_end;
  std::sort(by_end.begin(), by_end.end(), [](const Seen* a, const Seen* b) { return a->end < b->end; });
  std::sort(by_begin.begin(), by_begin.end(), [](const Seen* a, const Seen* b) { return a->begin < b->begin; });
  uint64_t least = 0;
  size_t ended = 0;
  for (const Seen* seen : by_begin) {
    for (; ended < by_end.size() && by_end[ended]->end < seen->begin; ++ended) {
      least = std::max(least, by_end[ended]->revision);
    }
    EXPECT_GE(seen->revision, least) << (seen->write ? "a change" : "a read") << " came before what it followed";
    EXPECT_FALSE(seen->write && seen->revision == least) << "two changes at once";
  }
  EXPECT_GT(answered, 10u);
  EXPECT_GT(reads, 10u);
  printf("  %u changes, %u reads, %zu without an answer\n", answered, reads, unknown.size());
}

class Linear : public Conformance {
 protected:
  // Three clients at work while `meanwhile` runs.
  void run(const std::function<void()>& meanwhile) {
    std::atomic<bool> done{false};
    std::vector<std::vector<Seen>> histories(3);
    std::vector<std::unique_ptr<Kv>> clients;
    std::vector<std::mutex> own(3);
    std::mutex shared;  // where the store has one client
    std::vector<std::thread> threads;
    for (size_t c = 0; c < histories.size(); ++c) clients.push_back(ground_->client());
    for (size_t c = 0; c < histories.size(); ++c) {
      Kv& client = clients[c] == nullptr ? kv() : *clients[c];
      std::mutex& lock = clients[c] == nullptr ? shared : own[c];
      threads.emplace_back([&, c] { work(client, lock, std::string(1, char('a' + c)), done, &histories[c]); });
    }
    meanwhile();
    done = true;
    for (std::thread& thread : threads) thread.join();
    std::vector<Seen> all;
    for (const auto& each : histories) all.insert(all.end(), each.begin(), each.end());
    check_linear(all);
  }
};

TEST_P(Linear, clients_see_one_order_of_all_changes) {
  run([] { sleep_us(300'000); });
}

// One transaction with what waits for the job.
bool write_events(Kv& kv, Outbox* outbox, uint64_t job) {
  outbox->note({.kind = EventKind::kStarted, .job = job, .at_ms = job});
  Transaction transaction{.compares = {}, .changes = {{.key = "/o/job" + std::to_string(job), .value = "x"}}};
  Committed committed;
  const bool joined = outbox->join({job}, &transaction).ok();
  const Outcome outcome = kv.commit(transaction, &committed);
  outbox->done(outcome.ok(), committed.done);
  return joined && outcome.ok() && committed.done;
}

TEST_P(Conformance, an_outbox_keeps_what_happened_in_order_and_once) {
  Outbox outbox(kv(), "/o/");
  ASSERT_TRUE(outbox.load({}).ok());
  ASSERT_NE(outbox.name(), 0u);
  for (uint64_t job = 1; job <= 5; ++job) EXPECT_TRUE(write_events(kv(), &outbox, job));
  // One that believes to be the leader still: its number is taken, so nothing of its transaction is done.
  Outbox late(kv(), "/o/");
  ASSERT_TRUE(late.load({}).ok());
  EXPECT_EQ(late.name(), outbox.name());
  EXPECT_TRUE(write_events(kv(), &outbox, 6));
  EXPECT_FALSE(write_events(kv(), &late, 66));
  std::vector<Entry> entries;
  ASSERT_TRUE(kv().range(one_key("/o/job66"), &entries).ok());
  EXPECT_TRUE(entries.empty());
  std::vector<Batch> batches;
  ASSERT_TRUE(outbox.read(&batches).ok());
  ASSERT_EQ(batches.size(), 6u);
  for (uint64_t i = 0; i < 6; ++i) {
    EXPECT_EQ(batches[i].number, i + 1);
    ASSERT_EQ(batches[i].events.size(), 1u);
    EXPECT_EQ(batches[i].events[0].job, i + 1);
  }
  Transaction forget;
  outbox.forget(4, &forget);
  Committed committed;
  ASSERT_TRUE(kv().commit(forget, &committed).ok());
  outbox.forgotten(4);
  EXPECT_EQ(outbox.waiting(), 2u);
  Outbox next(kv(), "/o/");
  ASSERT_TRUE(next.load({}).ok());
  EXPECT_EQ(next.waiting(), 2u);
  EXPECT_TRUE(write_events(kv(), &next, 7));
  ASSERT_TRUE(next.read(&batches).ok());
  ASSERT_EQ(batches.size(), 3u);
  EXPECT_EQ(batches.back().number, 7u);
}

std::string name_of(const testing::TestParamInfo<Kind>& info) { return info.param.name; }

const Kind kLocal[] = {{"Memory", [] { return std::make_unique<MemoryGround>(); }},
                       {"Sqlite", [] { return std::make_unique<SqliteGround>(); }}};
const Kind kEtcd[] = {{"Etcd", [] { return std::make_unique<EtcdGround>(); }}};
INSTANTIATE_TEST_SUITE_P(Stores, Conformance, testing::ValuesIn(kLocal), name_of);
INSTANTIATE_TEST_SUITE_P(Stores, Linear, testing::ValuesIn(kLocal), name_of);
INSTANTIATE_TEST_SUITE_P(Etcd, Conformance, testing::ValuesIn(kEtcd), name_of);
INSTANTIATE_TEST_SUITE_P(Etcd, Linear, testing::ValuesIn(kEtcd), name_of);

class EtcdFaults : public Linear {};
INSTANTIATE_TEST_SUITE_P(Etcd, EtcdFaults, testing::ValuesIn(kEtcd), name_of);

TEST_P(EtcdFaults, one_order_while_members_are_killed) {
  run([] {
    for (size_t member = 0; member < cluster->size(); ++member) {
      cluster->kill(member);
      sleep_us(1'200'000);
      cluster->start(member);
      sleep_us(1'500'000);
    }
  });
}

TEST_P(EtcdFaults, one_order_while_members_are_stopped) {
  run([] {
    for (size_t member = 0; member < cluster->size(); ++member) {
      cluster->stop(member);
      sleep_us(2'500'000);
      cluster->go_on(member);
      sleep_us(700'000);
    }
  });
}

TEST_P(EtcdFaults, one_order_while_members_are_cut_off) {
  if (!may_cut) GTEST_SKIP() << "needs root, for network namespaces";
  run([] {
    for (size_t member = 0; member < cluster->size(); ++member) {
      cluster->cut(member, true);
      sleep_us(2'500'000);
      cluster->cut(member, false);
      sleep_us(700'000);
    }
  });
}

TEST_P(EtcdFaults, without_a_majority_calls_end_in_time_and_say_why) {
  cluster->stop(0);
  cluster->stop(1);
  Committed committed;
  const uint64_t begin = now_ns();
  const Outcome refused = kv().commit({{}, {{.key = "/a", .value = "1"}}}, &committed);
  EXPECT_FALSE(refused.ok());
  EXPECT_LT(now_ns() - begin, 3'500'000'000u);
  EXPECT_NE(refused.message().find("majority"), std::string::npos) << refused.message();
  std::vector<Entry> entries;
  EXPECT_FALSE(kv().range(one_key("/a"), &entries).ok());
  const uint64_t again = now_ns();
  EXPECT_FALSE(kv().range(one_key("/a"), &entries).ok());  // nobody is asked for a while
  EXPECT_LT(now_ns() - again, 100'000'000u);
  cluster->go_on(0);
  cluster->go_on(1);
  const uint64_t until = now_ns() + 15'000'000'000;
  bool works = false;
  while (!works && now_ns() < until) {
    works = kv().range(one_key("/a"), &entries).ok();
    sleep_us(100'000);
  }
  EXPECT_TRUE(works);
}

// A process that counts up a key, says each number when it is in, and is killed at any moment.
TEST(SqliteFaults, nothing_acknowledged_is_lost_when_the_process_is_killed) {
  char path[] = "/tmp/tide-kv-XXXXXX";
  const std::string directory = mkdtemp(path), file = directory + "/kv.sqlite";
  uint64_t said = 0;
  for (uint32_t round = 0; round < 5; ++round) {
    int answers[2];
    ASSERT_EQ(pipe(answers), 0);
    const pid_t pid = fork();
    if (pid == 0) {
      std::unique_ptr<Kv> kv;
      if (!SqliteKv::open(file, upgrade_record, &kv).ok()) _exit(1);
      for (uint64_t i = said + 1;; ++i) {
        Committed committed;
        if (!kv->commit({{}, {{.key = "/n", .value = std::to_string(i)}}}, &committed).ok()) _exit(2);
        if (write(answers[1], &i, sizeof i) != sizeof i) _exit(3);
      }
    }
    close(answers[1]);
    sleep_us(60'000 + round * 17'000);
    kill(pid, SIGKILL);
    for (uint64_t i = 0; read(answers[0], &i, sizeof i) == sizeof i;) said = i;
    close(answers[0]);
    waitpid(pid, nullptr, 0);
    std::unique_ptr<Kv> kv;
    const Outcome opened = SqliteKv::open(file, upgrade_record, &kv);
    ASSERT_TRUE(opened.ok()) << opened.message();
    std::vector<Entry> entries;
    ASSERT_TRUE(kv->range(one_key("/n"), &entries).ok());
    if (said == 0) continue;
    ASSERT_EQ(entries.size(), 1u);
    EXPECT_GE(std::stoull(entries[0].value), said);
    said = std::max<uint64_t>(said, std::stoull(entries[0].value));
  }
  EXPECT_GT(said, 0u);
  std::filesystem::remove_all(directory);
}

}  // namespace
}  // namespace tide::sched

int main(int argc, char** argv) {
  using tide::sched::EtcdCluster;
  testing::InitGoogleTest(&argc, argv);
  const bool etcd = getenv("TIDE_TEST_ETCD") != nullptr;
  if (etcd && !EtcdCluster::installed()) {
    puts("skipped: etcd is not installed (tools/setup installs Debian's etcd-server)");
    return 77;
  }
  // Threads of the test come later.
  if (etcd) tide::sched::may_cut = EtcdCluster::take_namespace();
  testing::GTEST_FLAG(filter) = testing::GTEST_FLAG(filter) + (etcd ? "" : ":-Etcd/*");
  const int status = RUN_ALL_TESTS();
  delete tide::sched::cluster;
  return status;
}
